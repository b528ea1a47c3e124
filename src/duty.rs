//! What only one of several bridges on a store may do at a time: a source that is looked at, an order that is kept, a
//! batch that is sealed. One bridge leads, the others stand by; when it ends or loses the store, another one goes on.
//!
//! A bridge works with the store that [`Store::lead`] has given it: its writes are carried out only as long as it leads,
//! so that one that has lost the lead without knowing it yet can change nothing any more.

use crate::store::Store;
use std::time::Duration;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

/// How often it is looked whether the lead is still ours, or free.
const LOOK: Duration = Duration::from_secs(1);

/// Begins the work of a duty: with the store to do it with, what ends it, and where its tasks belong.
pub type Begin = Box<dyn Fn(Store, CancellationToken, &TaskTracker) + Send + Sync>;

/// A duty of which one bridge at a time takes care.
pub struct Duty {
    /// What it is called, the same for all bridges on the store.
    pub name: String,
    /// The store that they share.
    pub store: Store,
    /// Ends it.
    pub stop: CancellationToken,
    /// What belongs to it.
    pub work: Vec<Begin>,
}

impl Duty {
    /// Begins the work whenever this bridge leads, and ends it when it leads no more; until it is stopped.
    pub async fn serve(self) {
        let (mut standing_by, mut unseen) = (false, false);
        while !self.stop.is_cancelled() {
            let led = self.store.lead(&self.name).await;
            // That the store is away is told once, not every second.
            let told = std::mem::replace(&mut unseen, led.is_err());
            match led {
                Ok(Some(store)) => {
                    if standing_by {
                        info!(duty = self.name, "this bridge leads from now on");
                    }
                    standing_by = false;
                    self.term(&store).await;
                    store.follow().await;
                }
                Ok(None) => {
                    if !standing_by {
                        info!(duty = self.name, "another bridge leads, this one stands by");
                    }
                    standing_by = true;
                }
                Err(error) if !told => {
                    warn!(duty = self.name, code = %error.code, "it cannot be seen who leads: {}", error.what);
                }
                Err(_) => {}
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// One term: from taking the lead to its loss, or our own end.
    async fn term(&self, store: &Store) {
        let (end, tasks) = (self.stop.child_token(), TaskTracker::new());
        for begin in &self.work {
            begin(store.clone(), end.clone(), &tasks);
        }
        tasks.close();
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = store.led_no_more() => {
                warn!(duty = self.name, "this bridge leads no more: what it has begun is left to the one that leads next");
            }
        }
        end.cancel();
        tasks.wait().await;
    }
}
