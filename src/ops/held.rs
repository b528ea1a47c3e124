//! What an operator can do with messages that wait for the one before them.

use super::{Actor, Refused, refused};
use crate::{
    code::Code,
    store::{HeldSubject, Store},
};
use jiff::Timestamp;

/// How many subjects are looked through at most.
const MOST: u32 = 1_000_000;

/// The subject of a route that a person names: by itself, or by the beginning of its digest.
///
/// # Errors
/// Nothing of it waits, or the name fits several; the store failed.
pub async fn find(store: &Store, route: &str, name: &str) -> Result<HeldSubject, Refused> {
    let all = store.held(Some(route.to_owned()), MOST).await?;
    let fits = |held: &&HeldSubject| held.subject.shown == name || held.subject.short() == name;
    let mut found = all.iter().filter(fits);
    match (found.next(), found.next()) {
        (Some(held), None) => Ok(held.clone()),
        (Some(_), Some(_)) => {
            refused(Code::NothingHeld, format!("several subjects of {route} begin with `{name}`"))
        }
        (None, _) => refused(Code::NothingHeld, format!("no message about `{name}` waits on {route}")),
    }
}

/// Lets the messages go on that wait for one that was given up. That one stays a dead letter: if it is replayed later, it
/// comes after them.
///
/// # Errors
/// Nothing of the subject is held by a dead letter; the store failed.
pub async fn release(store: &Store, route: &str, name: &str, actor: &Actor) -> Result<HeldSubject, Refused> {
    let held = find(store, route, name).await?;
    let number = store.route(route).await?;
    let now = Timestamp::now().as_millisecond();
    match store.release(number, held.subject.digest, now, actor.who.clone(), actor.reason.clone()).await? {
        true => Ok(held),
        false => refused(
            Code::NothingHeld,
            format!(
                "no dead letter holds the messages about `{name}`: they wait for the next attempt of their first"
            ),
        ),
    }
}
