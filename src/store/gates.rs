//! What persons have stopped, and how the gates of the routes stand, for commands beside the bridge.

use super::{
    RouteNumber, Store, StoreError,
    sql::{self, Row, Tx, params},
};
use crate::gate::Pause;
use jiff::Timestamp;

/// A route whose system was found to be away, as the bridge last said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// The route.
    pub route: String,
    /// Whether one message is being tried.
    pub probing: bool,
    /// Since when.
    pub since: i64,
    /// When it is tried next.
    pub until: i64,
    /// How often it has been found so, in a row.
    pub times: u32,
    /// The code of the last failure.
    pub code: String,
    /// What happened.
    pub why: String,
}

/// Everything that is known of gates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gates {
    /// What persons have stopped, by route.
    pub pauses: Vec<(String, Pause)>,
    /// Whose systems are away.
    pub away: Vec<Away>,
    /// Since when what waits longest has waited, by route.
    pub oldest: Vec<(String, i64)>,
}

fn read_pause(row: &Row<'_>) -> sql::Result<(String, Pause)> {
    let since = Timestamp::from_millisecond(row.get(3)?).unwrap_or(Timestamp::UNIX_EPOCH);
    Ok((row.get(0)?, Pause { who: row.get(1)?, why: row.get(2)?, since }))
}

fn audit(tx: &Tx<'_>, now: i64, who: &str, what: &str, why: &str, route: &str) -> sql::Result<()> {
    tx.run(
        "INSERT INTO audit (at, who, what, reason, about) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![now, who, what, why, route],
    )?;
    Ok(())
}

impl Store {
    /// Stops a route, and writes down who does and why. One that is stopped already stays as it is: who stopped it is given.
    ///
    /// # Errors
    /// The store failed.
    pub async fn pause(
        &self,
        route: &str,
        now: i64,
        who: &str,
        why: &str,
    ) -> Result<Option<Pause>, StoreError> {
        let [route, who, why] = [route, who, why].map(str::to_owned);
        self.write("pausing a route", move |tx| {
            let before = tx.one(
                "SELECT route, who, why, since FROM pause WHERE route = ?1",
                params![route],
                read_pause,
            )?;
            if before.is_none() {
                tx.run(
                    "INSERT INTO pause (route, who, why, since) VALUES (?1, ?2, ?3, ?4)",
                    params![route, who, why, now],
                )?;
                audit(tx, now, &who, "pause route", &why, &route)?;
            }
            Ok(before.map(|(_, pause)| pause))
        })
        .await
    }

    /// Lets a route go on, and writes down who does and why; whether it was stopped.
    ///
    /// # Errors
    /// The store failed.
    pub async fn resume(&self, route: &str, now: i64, who: &str, why: &str) -> Result<bool, StoreError> {
        let [route, who, why] = [route, who, why].map(str::to_owned);
        self.write("resuming a route", move |tx| {
            let was = tx.run("DELETE FROM pause WHERE route = ?1", params![route])? == 1;
            if was {
                audit(tx, now, &who, "resume route", &why, &route)?;
            }
            Ok(was)
        })
        .await
    }

    /// What persons have stopped, by route.
    ///
    /// # Errors
    /// The store failed.
    pub async fn pauses(&self) -> Result<Vec<(String, Pause)>, StoreError> {
        self.write("reading pauses", |tx| {
            tx.all("SELECT route, who, why, since FROM pause ORDER BY route", params![], read_pause)
        })
        .await
    }

    /// Everything that is known of gates.
    ///
    /// # Errors
    /// The store failed.
    pub async fn gates(&self) -> Result<Gates, StoreError> {
        let pauses = self.pauses().await?;
        self.write("reading gates", |tx| {
            let away = tx.all(
                "SELECT route, state, since, until, times, code, why FROM gate ORDER BY route",
                params![],
                |row| {
                    Ok(Away {
                        route: row.get(0)?,
                        probing: row.get::<String>(1)? == "probing",
                        since: row.get(2)?,
                        until: row.get(3)?,
                        times: row.get(4)?,
                        code: row.get(5)?,
                        why: row.get(6)?,
                    })
                },
            )?;
            let oldest = tx.all("SELECT route, since FROM oldest ORDER BY route", params![], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
            Ok(Gates { pauses, away, oldest })
        })
        .await
    }

    /// Writes down whose systems are away, and what waits longest, in place of what was known.
    ///
    /// # Errors
    /// The store failed.
    pub async fn write_gates(&self, away: Vec<Away>, oldest: Vec<(String, i64)>) -> Result<(), StoreError> {
        self.write("writing gates", move |tx| {
            tx.run("DELETE FROM gate", params![])?;
            tx.run("DELETE FROM oldest", params![])?;
            for row in &away {
                let state = if row.probing { "probing" } else { "tripped" };
                tx.run(
                    "INSERT INTO gate (route, state, since, until, times, code, why) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                     ON CONFLICT (route) DO UPDATE SET state = ?2, since = ?3, until = ?4, times = ?5, code = ?6, why = ?7",
                    params![row.route, state, row.since, row.until, row.times, row.code, row.why],
                )?;
            }
            for (route, since) in &oldest {
                tx.run(
                    "INSERT INTO oldest (route, since) VALUES (?1, ?2) ON CONFLICT (route) DO UPDATE SET since = ?2",
                    params![route, since],
                )?;
            }
            Ok(())
        })
        .await
    }

    /// When the message was taken in that waits longest for a further attempt, or in the spool.
    ///
    /// # Errors
    /// The store failed.
    pub async fn oldest_waiting(&self, route: RouteNumber) -> Result<Option<i64>, StoreError> {
        self.write("looking for what waits longest", move |tx| {
            tx.value("SELECT min(taken_at) FROM journal WHERE route = ?1 AND state = 2", params![route.0])
        })
        .await
    }
}
