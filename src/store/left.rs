//! Claims that were left: what became of their messages could not be written down, and they were given back. They are claims of a
//! run that lives, and would be taken for messages under way for as long as it does; whether their requests went out nobody knows.

use super::{
    RouteNumber,
    journal::Claim,
    sql::{self, Tx, params},
};
use crate::event::Key;
use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

type One = (RouteNumber, Key, u32);

/// Claims that were left, in this run.
#[derive(Default)]
pub struct Left(Mutex<HashSet<One>>);

impl Left {
    fn all(&self) -> MutexGuard<'_, HashSet<One>> {
        // Whoever panicked with it left it as it was: every change is one statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These were left.
    pub fn add(&self, route: RouteNumber, claims: impl Iterator<Item = (Key, u32)>) {
        self.all().extend(claims.map(|(key, part)| (route, key, part)));
    }

    /// Those of these that were left.
    pub fn of(&self, route: RouteNumber, claims: &[Claim]) -> Vec<(Key, u32)> {
        let all = self.all();
        let was_left = |claim: &&Claim| all.contains(&(route, claim.key, claim.part));
        match all.is_empty() {
            true => Vec::new(),
            false => claims.iter().filter(was_left).map(|claim| (claim.key, claim.part)).collect(),
        }
    }

    /// These are claimed again, or have come to an end.
    pub fn forget(&self, route: RouteNumber, claims: &[(Key, u32)]) {
        let mut all = self.all();
        for (key, part) in claims {
            all.remove(&(route, *key, *part));
        }
    }
}

/// Takes claims from the run that left them, for whoever claims them next: they are cut, as if it had ended.
pub fn cut(tx: &Tx<'_>, route: RouteNumber, run: i64, claims: &[(Key, u32)]) -> sql::Result<()> {
    for (key, part) in claims {
        tx.run(
            "UPDATE journal SET run = 0 WHERE route = ?1 AND key = ?2 AND part = ?3 AND run = ?4 AND state = 1",
            params![route.0, key.0, part, run],
        )?;
    }
    Ok(())
}
