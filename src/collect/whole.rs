//! Queries that give everything there is, each time: their rows are written to a file of ours as JSON lines, and that file is
//! compared with the last one like an extract that was picked up ([`super::extract`]). A query that breaks off counts for nothing.

use super::{Collector, now};
use crate::{
    code::Code,
    config::plan::Query,
    format,
    store::{NewFile, Took},
    system::sql::{self, Batch, SqlSystem, Values},
    verdict::Failure,
};
use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use std::path::Path;
use tokio::{fs::File, io::AsyncWriteExt as _, sync::mpsc};

impl Collector {
    /// One look: all rows, compared with those of the last look.
    pub(super) async fn look_at_all(
        &self,
        system: &SqlSystem,
        query: &Query,
        values: &Values,
    ) -> Result<(), Failure> {
        // What an earlier look began, or a person has accepted since, comes first.
        self.carry_files(None).await?;
        let arriving = self.arriving().await?;
        let (to, rows) = mpsc::channel::<Batch>(1);
        let began = std::time::Instant::now();
        let (read, written) =
            tokio::join!(system.read(&query.statement, values, to), self.write_rows(query, rows, &arriving));
        self.metrics.request(&self.route.id, began.elapsed());
        let (digest, size) = written?;
        // Half of the rows would make the other half look removed.
        read?;
        let at = Timestamp::from_millisecond(now()).unwrap_or_default();
        let name = format!("{}@{at}", query.statement.file);
        match self.write_down(&arriving, NewFile { name, digest, size, modified: None }).await? {
            Took::New(_) => self.carry_files(None).await,
            // Nothing has changed since.
            Took::Known(_) => Ok(()),
        }
    }

    /// Writes the rows down, one JSON object a line, and makes sure that the disk has them.
    async fn write_rows(
        &self,
        query: &Query,
        mut rows: mpsc::Receiver<Batch>,
        to: &Path,
    ) -> Result<([u8; 32], u64), Failure> {
        let unwritable = |error: std::io::Error| {
            let what = format!("{} cannot be written: {error}", to.display());
            Failure::not_done(Code::StoreUnavailable, what)
        };
        let mut file = File::create(to).await.map_err(unwritable)?;
        let (mut context, mut size, mut count) = (Context::new(&SHA256), 0, 0);
        while let Some(batch) = rows.recv().await {
            sql::missing(&batch.columns, &self.route.plan)?;
            count += batch.rows.len() as u64;
            if count > query.limit {
                let what = format!(
                    "`{}` gives more than {} rows, and without all of them nothing can be compared: raise `limit`",
                    query.statement.file, query.limit
                );
                return Err(Failure::not_done(Code::LookTooLarge, what));
            }
            let mut lines = String::new();
            for document in batch.documents() {
                lines.push_str(&format::write_json(&document));
                lines.push('\n');
            }
            context.update(lines.as_bytes());
            size += lines.len() as u64;
            file.write_all(lines.as_bytes()).await.map_err(unwritable)?;
        }
        file.sync_all().await.map_err(unwritable)?;
        let digest = context.finish();
        let digest = digest.as_ref().try_into().unwrap_or_default();
        Ok((digest, size))
    }
}
