//! Replays, and the latest moment of which the store knows.

use super::{RouteNumber, Store, StoreError, sql::params};
use crate::event::Key;

impl Store {
    /// A dead letter lies in its route's queue again: from here on its message waits, and is no dead letter any more. One
    /// that the route has already begun stays as it is, and what the system has answered before is not asked of it again.
    ///
    /// # Errors
    /// The store failed.
    pub async fn replayed(
        &self,
        route: RouteNumber,
        key: Key,
        replay: u32,
        now: i64,
    ) -> Result<(), StoreError> {
        self.write("noting a replay", move |tx| {
            tx.run(
                "UPDATE journal SET state = CASE WHEN answer IS NULL THEN 2 ELSE 3 END, due_at = ?4, done_at = NULL
                 WHERE route = ?1 AND key = ?2 AND part = 0 AND state = 5 AND replay < ?3",
                params![route.0, key.0, replay, now],
            )?;
            Ok(())
        })
        .await
    }

    /// When the last message was taken in, by the clock of that time.
    ///
    /// # Errors
    /// The store failed.
    pub async fn latest(&self) -> Result<Option<i64>, StoreError> {
        self.write("looking for the latest message", |tx| {
            tx.value(
                "SELECT max((SELECT max(taken_at) FROM journal WHERE route = r.n)) FROM route r",
                params![],
            )
        })
        .await
    }
}
