//! Asking a database from time to time what is new: rows in the order of a column, from where the last look came to.
//!
//! The cursor moves in the same commit as the rows that moved it, so a crash goes on at the batch. Each look reaches back by the
//! overlap, since what was committed late has an early moment; what is known is passed over by its key. What the columns were is
//! remembered beside the cursor: a table that was changed behind our back stops the route, and nothing is lost.

use super::Collector;
use crate::{
    code::Code,
    config::{
        plan::{Back, Emit, EmitAction, Query, QueryCursor, Source},
        raw::sql::CursorKind,
    },
    format,
    retry::Delays,
    system::{
        System,
        sql::{self, Batch, Column, SqlSystem, Values},
    },
    tree::{Name, Record, Tree},
    verdict::Failure,
};
use jiff::{SignedDuration, Timestamp, civil::DateTime};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tracing::warn;

/// How far ahead of our clock a row's moment may be. A cursor that followed one of the year 2099 would see nothing more.
const AHEAD: SignedDuration = SignedDuration::from_hours(24);

/// What is to be done after a look.
enum Next {
    /// There may be more: look again at once.
    More,
    /// Everything was seen.
    Rest,
}

impl Collector {
    /// The values of a query's parameters, by the settings.
    pub(super) fn parameters(&self, query: &Query) -> Result<Values, Failure> {
        let value = |(name, template): &(String, _)| {
            let text = self.route.instance.render(template);
            let text = text.map_err(|failed| Failure::not_done(Code::TemplateFailed, failed.0))?;
            Ok((name.clone(), Tree::text(text)))
        };
        query.parameters.iter().map(value).collect()
    }

    /// Asks from time to time what is new.
    pub(super) async fn querying(self: Arc<Self>) {
        let (Source::Query(query), System::Sql(system)) = (&self.route.plan.source, &*self.system) else {
            return;
        };
        let every = self.route.pace.first().copied().unwrap_or(query.every);
        let mut delays = Delays::new(Duration::from_secs(1), every.max(Duration::from_secs(60)));
        while let Some(_ticket) = self.keeper.pass(&self.stop).await {
            let look = tokio::select! {
                () = self.stop.cancelled() => return,
                look = self.look_up(system, query) => look,
            };
            let pause = match look {
                Ok(Next::More) => Duration::ZERO,
                Ok(Next::Rest) => {
                    delays.reset();
                    every
                }
                Err(failure) => {
                    warn!(route = self.route.id, code = %failure.code, field = failure.field, "nothing could be looked up: {}", failure.what);
                    delays.delay()
                }
            };
            self.pause(pause).await;
        }
    }

    /// One look: every row that is new, up to the limit.
    async fn look_up(&self, system: &SqlSystem, query: &Query) -> Result<Next, Failure> {
        let stored = self
            .store
            .cursor(self.number)
            .await
            .map_err(|error| Failure::not_done(error.code, error.what))?;
        let mut look = Look::begin(query, &self.route.plan.events, stored.as_deref(), Timestamp::now())?;
        let mut values = self.parameters(query)?;
        if let Some(from) = look.from() {
            values.push(("cursor".to_owned(), Tree::text(from?)));
        }
        let (to, rows) = mpsc::channel::<Batch>(1);
        let began = std::time::Instant::now();
        let taking = async {
            // When this ends, so does the channel: whoever still reads need not go on.
            let (mut rows, mut taken) = (rows, 0);
            while let Some(batch) = rows.recv().await {
                taken += batch.rows.len() as u64;
                self.take_rows(&mut look, batch).await?;
                if taken >= query.limit {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        let (read, taken) = tokio::join!(system.read(&query.statement, &values, to), taking);
        self.metrics.request(&self.route.id, began.elapsed());
        let full: bool = taken?;
        if !full {
            return read.map(|()| Next::Rest);
        }
        match look.has_moved() {
            true => Ok(Next::More),
            false => {
                let what = format!(
                    "`{}` gives more than {} rows, and the cursor has not moved: what is beyond them would never be seen; \
                     raise `limit`, or reach back less",
                    query.statement.file, query.limit
                );
                Err(Failure::not_done(Code::LookTooLarge, what))
            }
        }
    }

    /// Puts a batch on disk, and the cursor with it.
    async fn take_rows(&self, look: &mut Look<'_>, batch: Batch) -> Result<(), Failure> {
        sql::missing(&batch.columns, &self.route.plan)?;
        look.columns(&batch.columns)?;
        let mut intakes = Vec::with_capacity(batch.rows.len());
        for document in batch.documents() {
            look.saw(&document)?;
            let body = format::write_json(&document).into_bytes();
            intakes.push(self.intake(body, Some(self.route.plan.format.media_type().to_owned())));
        }
        let cursor = look.keep();
        match intakes.is_empty() && cursor.is_none() {
            true => Ok(()),
            false => self.take_in(intakes, cursor).await,
        }
    }
}

/// Where a cursor stands and what the columns were, as it is kept.
#[derive(Debug, Default, Clone, PartialEq)]
struct Kept {
    /// The cursor's value.
    value: Option<String>,
    /// The columns and what their values become.
    columns: Vec<(String, String)>,
    /// What they were the columns of: the statement and the mappings. Whoever changes these has seen the columns.
    of: String,
}

impl Kept {
    fn read(text: &str) -> Kept {
        let tree = format::parse_json(text, &format::Limits::default()).unwrap_or_default();
        let text = |name: &str| tree.at(&[name]).and_then(Tree::to_plain_text);
        let columns = tree.at(&["columns"]).and_then(Tree::as_record).map(|columns| {
            let pair = |(name, kind): &(Name, Tree)| {
                (name.local.to_string(), kind.to_plain_text().unwrap_or_default())
            };
            columns.entries().iter().map(pair).collect()
        });
        Kept {
            value: text("value"),
            columns: columns.unwrap_or_default(),
            of: text("of").unwrap_or_default(),
        }
    }

    /// The columns are those that are kept, as far as there are any of the same statement and mappings.
    fn columns(&mut self, of: &str, file: &str, columns: &[Column]) -> Result<(), Failure> {
        if self.of == of {
            for (name, kind) in &self.columns {
                let what = match columns.iter().find(|column| column.name == *name) {
                    Some(column) if column.kind.as_str() == kind => continue,
                    Some(column) => format!(
                        "the column `{name}` of `{file}` was {kind} and is {} now ({})",
                        column.kind.as_str(),
                        column.type_name
                    ),
                    None => format!("`{file}` no longer gives the column `{name}`"),
                };
                let what = format!(
                    "{what}; nothing is taken until the table is as it was, or the statement or the mapping is changed to fit"
                );
                return Err(Failure { field: name.clone(), ..Failure::not_done(Code::ColumnsChanged, what) });
            }
        }
        of.clone_into(&mut self.of);
        self.columns =
            columns.iter().map(|column| (column.name.clone(), column.kind.as_str().to_owned())).collect();
        Ok(())
    }

    fn write(&self) -> String {
        let text = |text: &str| Tree::text(text);
        let columns = self.columns.iter().map(|(name, kind)| (Name::plain(name.as_str()), text(kind)));
        format::write_json(&Tree::Record(Record::from_iter([
            (Name::plain("value"), self.value.as_deref().map_or(Tree::Null, text)),
            (Name::plain("columns"), Tree::Record(columns.collect())),
            (Name::plain("of"), text(&self.of)),
        ])))
    }
}

/// What the columns of a query belong to: its statement and its mappings.
fn made_of(query: &Query, events: &[Emit]) -> String {
    let mut of = query.statement.digest.chars().take(16).collect::<String>();
    for emit in events {
        if let EmitAction::Event(mapping) = &emit.action {
            of.push('-');
            of.extend(mapping.digest.chars().take(16));
        }
    }
    of
}

/// Whether the columns of a query that is looked at as a whole are those of the look before: what is to be kept of them, if
/// it is not kept already.
///
/// # Errors
/// A column is gone, or another type: every row would say something else.
pub(super) fn same_columns(
    query: &Query,
    events: &[Emit],
    stored: Option<&str>,
    columns: &[Column],
) -> Result<Option<String>, Failure> {
    let mut kept = stored.map(Kept::read).unwrap_or_default();
    kept.columns(&made_of(query, events), &query.statement.file, columns)?;
    let text = kept.write();
    Ok((stored != Some(text.as_str())).then_some(text))
}

/// How far one look reaches, and what it has seen.
struct Look<'q> {
    cursor: Option<&'q QueryCursor>,
    file: &'q str,
    stored: Option<String>,
    kept: Kept,
    /// Where it began.
    began: Option<String>,
    /// The last row's place, to see whether they come in order.
    last: Option<Place>,
    /// What lies behind this moves no cursor.
    horizon: String,
    of: String,
}

/// The place of a row in the order of a cursor's column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Number(i128),
    Moment(String),
}

impl<'q> Look<'q> {
    fn begin(
        query: &'q Query,
        events: &[Emit],
        stored: Option<&str>,
        now: Timestamp,
    ) -> Result<Look<'q>, Failure> {
        let kept = stored.map(Kept::read).unwrap_or_default();
        let began =
            query.cursor.as_ref().map(|cursor| kept.value.clone().unwrap_or_else(|| cursor.first.clone()));
        let horizon = now.checked_add(AHEAD).unwrap_or(now);
        Ok(Look {
            cursor: query.cursor.as_ref(),
            file: &query.statement.file,
            stored: stored.map(str::to_owned),
            kept,
            began,
            last: None,
            horizon: jiff::fmt::strtime::format(
                "%Y-%m-%dT%H:%M:%S",
                &horizon.to_zoned(jiff::tz::TimeZone::UTC),
            )
            .unwrap_or_default(),
            of: made_of(query, events),
        })
    }

    /// From where on is asked: the cursor, and as far back as it overlaps.
    fn from(&self) -> Option<Result<String, Failure>> {
        let (cursor, began) = (self.cursor?, self.began.as_deref()?);
        let back = match cursor.overlap {
            Back::None => Some(began.to_owned()),
            Back::Number(by) => {
                began.parse::<i128>().ok().map(|number| (number - i128::from(by)).to_string())
            }
            Back::Time(by) => earlier(began, by),
        };
        Some(back.ok_or_else(|| {
            let what =
                format!("the cursor's value cannot be counted back from: see `first` of `{}`", self.file);
            Failure { field: cursor.column.clone(), ..Failure::not_done(Code::CursorUnsafe, what) }
        }))
    }

    /// The columns are those of the look before, as far as there were any.
    fn columns(&mut self, columns: &[Column]) -> Result<(), Failure> {
        self.kept.columns(&self.of, self.file, columns)
    }

    /// Notes a row; the cursor follows it.
    fn saw(&mut self, row: &Tree) -> Result<(), Failure> {
        let Some(cursor) = self.cursor else { return Ok(()) };
        let value = row.at(&[cursor.column.as_str()]).and_then(Tree::to_plain_text);
        // NULL has no place; the row is taken in all the same.
        let Some(value) = value else { return Ok(()) };
        let unsafe_cursor = |what: String| Failure {
            field: cursor.column.clone(),
            ..Failure::not_done(Code::CursorUnsafe, what)
        };
        let place = match cursor.kind {
            CursorKind::Text => {
                self.kept.value = Some(value);
                return Ok(());
            }
            CursorKind::Number => match value.parse() {
                Ok(number) => Place::Number(number),
                Err(_) => {
                    let what =
                        format!("the column `{}` of `{}` holds no whole number", cursor.column, self.file);
                    return Err(unsafe_cursor(what));
                }
            },
            CursorKind::Time => match moment(&value) {
                Some(moment) => Place::Moment(moment),
                // `infinity`, years before Christ.
                None => return Ok(()),
            },
        };
        if self.last.as_ref().is_some_and(|last| *last > place) {
            let what = format!(
                "the rows of `{}` do not come in the order of `{}`: a look that is cut short would pass rows over",
                self.file, cursor.column
            );
            return Err(unsafe_cursor(what));
        }
        let here = self.kept.value.as_deref().and_then(|value| match cursor.kind {
            CursorKind::Number => value.parse().ok().map(Place::Number),
            CursorKind::Time | CursorKind::Text => moment(value).map(Place::Moment),
        });
        let ahead = matches!(&place, Place::Moment(moment) if *moment > self.horizon);
        if !ahead && here.is_none_or(|here| here < place) {
            self.kept.value = Some(value);
        }
        self.last = Some(place);
        Ok(())
    }

    /// What is to be kept, if it is not what is kept already.
    fn keep(&mut self) -> Option<String> {
        let text = self.kept.write();
        if self.stored.as_ref() == Some(&text) {
            return None;
        }
        self.stored = Some(text.clone());
        Some(text)
    }

    /// Whether the cursor stands elsewhere than at the beginning.
    fn has_moved(&self) -> bool {
        self.cursor.is_some() && self.kept.value.is_some() && self.kept.value != self.began
    }
}

/// A moment in a form in which texts compare as moments do: no zone (it is UTC), and the fraction behind a point.
fn moment(text: &str) -> Option<String> {
    let plain = text.strip_suffix('Z').unwrap_or(text).replacen(' ', "T", 1);
    let dated = plain.bytes().take(10).enumerate().all(|(at, b)| matches!(at, 4 | 7) || b.is_ascii_digit());
    (dated && plain.len() >= 10 && !plain.ends_with("BC")).then_some(plain)
}

/// A moment or date, so much earlier, in its own form.
fn earlier(text: &str, by: Duration) -> Option<String> {
    let by = SignedDuration::try_from(by).ok()?;
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment.checked_sub(by).unwrap_or(Timestamp::MIN).to_string());
    }
    let moment = text.parse::<DateTime>().ok()?;
    Some(moment.checked_sub(by).unwrap_or(DateTime::MIN).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_reaches_back_in_the_cursors_own_form() {
        let back = |text| earlier(text, Duration::from_secs(600)).unwrap();
        assert_eq!(back("2026-11-24T09:41:06.884Z"), "2026-11-24T09:31:06.884Z");
        assert_eq!(back("2026-11-24T00:05:00"), "2026-11-23T23:55:00");
        assert_eq!(back("2026-11-24"), "2026-11-23T23:50:00");
        assert_eq!(back("0001-01-01T00:00:00"), "0000-12-31T23:50:00");
        assert_eq!(earlier("infinity", Duration::ZERO), None);
    }

    #[test]
    fn moments_compare_as_texts_whatever_their_fractions() {
        let order = |a, b| assert!(moment(a).unwrap() < moment(b).unwrap(), "{a} {b}");
        order("2026-11-24T09:41:06Z", "2026-11-24T09:41:06.5Z");
        order("2026-11-24T09:41:06.49", "2026-11-24T09:41:06.5");
        order("2026-11-24", "2026-11-24 00:00:01");
        assert_eq!(moment("infinity"), None);
        assert_eq!(moment("0044-03-15 00:00:00 BC"), None);
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let kept = Kept {
            value: Some("2026-11-24".to_owned()),
            columns: vec![("id".to_owned(), "number".to_owned())],
            of: "ab".to_owned(),
        };
        assert_eq!(Kept::read(&kept.write()), kept);
    }
}
