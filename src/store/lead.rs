//! Who leads, of several bridges on a store: the store in the hands of one that does writes only as long as it leads.
//!
//! On PostgreSQL a duty is a lock of the connection that writes. What is written with it goes over that very connection, so
//! that nothing can be written for a duty that was lost with it. Each term counts as a run of its own: what an earlier one
//! has claimed is cut, whether its bridge lives or not.

use super::{
    RouteNumber, Store, StoreError,
    database::Location,
    schema,
    sql::{Led, Tx, params},
};
use crate::{code::Code, event::Key};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether the lead is still there.
const LOOK: Duration = Duration::from_secs(1);
/// For how many milliseconds it counts what the store has said to be ours: less than it takes until others take over what a
/// bridge had that stands still.
const OURS: i64 = 3_000;
/// After how long a look that is not answered says that it is not: the server has given us up before.
const UNANSWERED: Duration = Duration::from_secs(20);

/// The lead in a duty, from the moment it was taken.
pub(super) struct Lead {
    name: String,
    led: Led,
    /// The number of this term, in place of the run of the bridge.
    pub run: i64,
    lost: CancellationToken,
}

impl Lead {
    /// Whether it is still there; if not, whoever waits for that hears it.
    pub fn holds(&self, tx: &Tx<'_>) -> bool {
        let holds = !self.lost.is_cancelled() && tx.leads(&self.name, self.led);
        if !holds {
            self.lost.cancel();
        }
        holds
    }

    /// What a piece of work comes to, unless the lead is lost before that. Then it may have been done or not, as in a crash: the next
    /// one who leads finds out. A bridge whose server says nothing must not keep what it took from the broker.
    pub async fn unless_lost<T>(
        &self,
        doing: &str,
        work: impl Future<Output = Result<Option<T>, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::select! {
            biased;
            done = work => done?.ok_or_else(|| self.refusal(doing)),
            () = self.lost.cancelled() => Err(self.refusal(doing)),
        }
    }

    /// What is said to somebody who writes without it.
    pub fn refusal(&self, doing: &str) -> StoreError {
        let what =
            format!("{doing}: this bridge does not lead any more ({}), another one goes on", self.name);
        StoreError { code: Code::StoreUnavailable, what }
    }
}

impl Store {
    /// Takes the lead in a duty of which one bridge at a time takes care: the store to do it with. Nothing while another bridge
    /// has it. A store in a file has one bridge, which always leads.
    ///
    /// # Errors
    /// The store failed: then nobody knows who leads.
    pub async fn lead(&self, duty: &str) -> Result<Option<Store>, StoreError> {
        let name = duty.to_owned();
        let led = self
            .write("taking the lead", move |tx| match tx.lead(&name)? {
                Some(Led::Alone) => Ok(Some((Led::Alone, 0))),
                Some(led) => Ok(Some((led, schema::next_run(tx)?))),
                None => Ok(None),
            })
            .await?;
        Ok(led.map(|(led, run)| match led {
            Led::Alone => self.clone(),
            Led::Connection(_) => {
                let lead = Lead { name: duty.to_owned(), led, run, lost: CancellationToken::new() };
                Store { lead: Some(Arc::new(lead)), ..self.clone() }
            }
        }))
    }

    /// Waits until the lead that this store was given with is lost.
    pub async fn led_no_more(&self) {
        let Some(lead) = &self.lead else { return std::future::pending().await };
        while !lead.lost.is_cancelled() {
            tokio::select! {
                () = lead.lost.cancelled() => {}
                () = tokio::time::sleep(LOOK) => {
                    // While the store is away nobody leads here: another bridge may see it. The server is not asked by each duty once
                    // a second: whether it hears us is the business of the connection's beat.
                    let look = timeout(UNANSWERED, self.write("looking who leads", |_| Ok(()))).await;
                    if !matches!(look, Ok(Ok(()))) {
                        lead.lost.cancel();
                    }
                }
            }
        }
    }

    /// Gives up the lead that this store was given with, for another bridge to take.
    pub async fn follow(&self) {
        if let Some(lead) = &self.lead {
            let name = lead.name.clone();
            // With a connection that is lost it is gone as well.
            let _ = self.write("giving up the lead", move |tx| tx.follow(&name)).await;
        }
    }

    /// Whether other bridges may share it.
    pub fn is_shared(&self) -> bool {
        matches!(self.inner.location, Location::Server(_))
    }

    /// Whether it is too long ago that the store said what is ours, to do something by it that cannot be undone: a bridge that stood
    /// still may have lost it to another one.
    pub fn must_look_again(&self, said_at: Option<i64>, now: i64) -> bool {
        self.is_shared() && !said_at.is_some_and(|at| (0..OURS).contains(&(now - at)))
    }

    /// Whether we still lead in what this store was given for. The server is asked, over the connection to which the lead belongs:
    /// a bridge that stood still has not yet seen that the server has closed it.
    ///
    /// # Errors
    /// The store failed, or the lead is lost.
    pub async fn still_leads(&self) -> Result<(), StoreError> {
        self.write("looking who leads", |tx| tx.exists("SELECT 1", params![]).map(|_| ())).await
    }

    /// Whether messages (or parts) that we have claimed are ours still, and no other bridge has taken them over.
    ///
    /// # Errors
    /// The store failed, or the lead is lost.
    pub async fn are_ours(
        &self,
        route: RouteNumber,
        claimed: Vec<(Key, u32)>,
    ) -> Result<Vec<bool>, StoreError> {
        let run = self.run();
        self.write("looking whose messages are", move |tx| {
            let is_ours = |(key, part): &(Key, u32)| {
                tx.exists(
                    "SELECT 1 FROM journal WHERE route = ?1 AND key = ?2 AND part = ?3 AND run = ?4",
                    params![route.0, key.0, *part, run],
                )
            };
            claimed.iter().map(is_ours).collect()
        })
        .await
    }

    /// Says what this bridge reads, name and digest of each; in what a bridge that runs beside it differs. Then nothing is said.
    ///
    /// # Errors
    /// The store failed.
    pub async fn reads(&self, digests: BTreeMap<String, String>) -> Result<Vec<String>, StoreError> {
        let own = self.run();
        self.write("comparing with other bridges", move |tx| {
            let mut differ = BTreeSet::new();
            if !tx.is_shared() {
                return Ok(Vec::new());
            }
            let said: Vec<(String, String)> =
                tx.all("SELECT name, value FROM meta WHERE name LIKE 'reads %'", params![], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
            for (name, read) in said {
                let run = name.trim_start_matches("reads ").parse().unwrap_or(0);
                let read: BTreeMap<String, String> = match tx.lives(run)? {
                    true => serde_json::from_str(&read).unwrap_or_default(),
                    false => {
                        tx.run("DELETE FROM meta WHERE name = ?1", params![name])?;
                        continue;
                    }
                };
                let names = read.keys().chain(digests.keys());
                differ.extend(names.filter(|name| read.get(*name) != digests.get(*name)).cloned());
            }
            if differ.is_empty() {
                let read = serde_json::to_string(&digests).unwrap_or_default();
                tx.run(
                    "INSERT INTO meta (name, value) VALUES (?1, ?2)",
                    params![format!("reads {own}"), read],
                )?;
            }
            Ok(differ.into_iter().collect())
        })
        .await
    }
}
