//! A whole query compared with the last look: its rows are written to a file on our disk, from one snapshot of the
//! database, and from there on it is an extract like any other.

use super::{
    Collector, now,
    pickup::{LOOK, of_store},
    query::same_columns,
};
use crate::{
    config::plan::{Query, Source},
    retry::Delays,
    store::{NewFile, Took},
    system::{
        System,
        sql::{self, DumpLimits, SqlSystem},
    },
    verdict::Failure,
};
use jiff::Timestamp;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::warn;

/// Bytes of one look.
const MOST_BYTES: u64 = 8 << 30;

impl Collector {
    /// Looks from time to time at the whole of a query, until it is stopped.
    pub(super) async fn viewing(self: Arc<Self>) {
        let (Source::Query(query), System::Sql(system)) = (&self.route.plan.source, &*self.system) else {
            return;
        };
        let every = self.route.pace.first().copied().unwrap_or(query.every);
        let mut delays = Delays::new(Duration::from_secs(1), every.max(Duration::from_secs(60)));
        let mut next_look = Instant::now();
        while let Some(_ticket) = self.keeper.pass(&self.stop).await {
            let looked = tokio::select! {
                () = self.stop.cancelled() => return,
                looked = self.view(system, query, &mut next_look, every) => looked,
            };
            match looked {
                Ok(()) => {
                    delays.reset();
                    self.pause(next_look.saturating_duration_since(Instant::now()).min(LOOK)).await;
                }
                Err(failure) => {
                    warn!(route = self.route.id, code = %failure.code, field = failure.field, "the query waits: {}", failure.what);
                    self.pause(delays.delay()).await;
                }
            }
        }
    }

    /// Goes on with what was seen, and looks again when it is time.
    async fn view(
        &self,
        system: &SqlSystem,
        query: &Query,
        next_look: &mut Instant,
        every: Duration,
    ) -> Result<(), Failure> {
        self.carry_files(None).await?;
        if Instant::now() < *next_look {
            return Ok(());
        }
        let values = self.parameters(query)?;
        let arriving = self.arriving().await?;
        let began = Instant::now();
        let limits = DumpLimits { rows: query.limit, bytes: MOST_BYTES };
        let dumped = system.dump(&query.statement, &values, &arriving, limits).await?;
        crate::kill::point("view.dumped");
        self.metrics.request(&self.route.id, began.elapsed());
        sql::missing(&dumped.columns, &self.route.plan)?;
        let stored = self.store.cursor(self.number).await.map_err(of_store)?;
        let kept = same_columns(query, &self.route.plan.events, stored.as_deref(), &dumped.columns)?;
        if kept.is_some() {
            self.take_in(Vec::new(), kept).await?;
        }
        *next_look = Instant::now() + every;
        let at = Timestamp::now();
        let new = NewFile {
            name: format!("{} {}", query.statement.file, at.strftime("%Y-%m-%dT%H:%M:%SZ")),
            digest: dumped.digest,
            size: dumped.size,
            modified: Some(now()),
        };
        if let Took::Known(_) = self.write_down(&arriving, new).await?
            && self.store.may_forget(dumped.digest).await.map_err(of_store)?
        {
            self.forget(&dumped.digest).await;
        }
        self.carry_files(None).await
    }
}
