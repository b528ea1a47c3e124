//! One attempt at a database: a document written by a statement in a transaction of its own, and the query that finds out
//! whether an earlier attempt did so.

use super::{Attempt, Done, ScopeParts, Step};
use crate::{
    code::Code,
    config::{
        plan::Write,
        raw::{adapter::Meaning, sql::DuplicateIs},
        statement::Statement,
    },
    format,
    store::Answer,
    system::{
        Said, SqlSystem, sign,
        sql::{Values, Written},
    },
    template::Texts,
    tree::Tree,
    verdict::Failure,
};
use jiff::Timestamp;

impl Attempt<'_> {
    /// Makes the document and writes it, once.
    pub(super) async fn write(&mut self, system: &SqlSystem, write: &Write) -> Result<Done, Step> {
        let values = self.parameters()?;
        self.is_still_ours().await?;
        let began = std::time::Instant::now();
        let written = system.write(&write.statement, &values, write.expect_rows).await;
        crate::kill::point("deliver.sent");
        self.deliverer.metrics.request(&self.deliverer.route.id, began.elapsed());
        let written = match written {
            Ok(written) => written,
            Err(failure) if is_there(write, &failure) => Written::default(),
            Err(failure) => return Err(Step::Failed(failure)),
        };
        self.course.doubt = false;
        let document = written.document();
        let body = format::write_json(&document).into_bytes();
        let said = Said { meaning: Meaning::Delivered, ruled: true, document: Some(document) };
        let content_type = Some(format::Format::Json.media_type().to_owned());
        self.done(&said, Answer { content_type, body }).map_err(Step::End)
    }

    /// Asks whether a document was written.
    pub(super) async fn find(&self, system: &SqlSystem, statement: &Statement) -> Result<Said, Failure> {
        let values = self.parameters().map_err(|step| match step {
            Step::Failed(failure) => failure,
            Step::End(_) => Failure::not_done(Code::ProbeUnclear, "the values to ask with could not be made"),
        })?;
        let row = system.finds(statement, &values).await?;
        let meaning = if row.is_some() { Meaning::Delivered } else { Meaning::Absent };
        let found = Written { count: u64::from(row.is_some()), rows: row.into_iter().collect() };
        Ok(Said { meaning, ruled: true, document: Some(found.document()) })
    }

    /// The fields of the document, as the values of parameters.
    fn parameters(&self) -> Result<Values, Step> {
        let Some(mapping) = &self.deliverer.route.plan.mapping else { return Ok(Values::new()) };
        let mut parts =
            ScopeParts { values: Texts::new(), nonce: crate::telemetry::nonce(), now: Timestamp::now() };
        parts.values =
            sign::values(&self.deliverer.route.instance, &parts.scope(self)).map_err(Step::Failed)?;
        let document = match self.tree(mapping, &parts)? {
            Tree::Record(record) => record,
            Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::Text(_) | Tree::List(_) => {
                return Ok(Values::new());
            }
        };
        Ok(document.into_entries().into_iter().map(|(name, value)| (name.local.to_string(), value)).collect())
    }
}

/// Whether a refusal says that the row is there already, and that counts as delivered.
fn is_there(write: &Write, failure: &Failure) -> bool {
    write.duplicate == DuplicateIs::Delivered
        && failure.code == Code::DuplicateRow
        && (write.constraints.is_empty() || write.constraints.contains(&failure.field))
}
