//! Every operation of the store, on both databases: the answers are the same, and they are the right ones.

use super::Home;
use packhorse::{
    batch::{SealedBy, Size},
    code::Code,
    event::Key,
    order::{Strand, Subject},
    store::{
        After, Answer, Asked, Away, BatchFileState, Claim, Compared, Decision, FileEnd, FileState, Finish,
        Intake, Joining, Kept, NewFile, NewItem, Opener, Parking, Place, Progress, Record, Said, SameAs,
        Says, Settled, State, Store, Taken, Took, Walk, Why,
    },
};
use std::fmt::Debug;

/// What a story of operations was answered.
#[derive(Default)]
struct Answers(Vec<String>);

impl Answers {
    /// Writes an answer down, and hands it on.
    fn note<T: Debug, E: Debug>(&mut self, answer: Result<T, E>) -> T {
        self.0.push(without_numbers(&format!("{answer:?}")));
        answer.unwrap_or_else(|error| panic!("after {:#?}: {error:?}", self.0))
    }
}

/// A number that a row once had is given again by SQLite, and never by PostgreSQL: it means nothing.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split("{ n: ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "{ n: " + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// Has a story told on both, and compares every answer.
async fn on_both(story: impl AsyncFn(&Store, &mut Answers)) {
    let mut told = Vec::new();
    for home in [Home::on_sqlite(), Home::on_postgres().await] {
        let store = home.open(Opener::Bridge);
        let mut answers = Answers::default();
        story(&store, &mut answers).await;
        let account = store.account(Asked::default()).await.unwrap();
        assert!(account.routes.iter().all(|line| line.difference() == 0), "{account:#?}");
        answers.note(Ok::<_, ()>(account));
        told.push(answers.0);
    }
    let (postgres, sqlite) = (told.pop().unwrap(), told.pop().unwrap());
    for (ours, theirs) in sqlite.iter().zip(&postgres) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(sqlite.len(), postgres.len());
    assert!(sqlite.len() > 5, "a story of a few answers tells nothing");
}

/// Forgets all that is older, step by step.
async fn forget(store: &Store, answers: &mut Answers, before: i64) {
    let mut walk = Some(Walk::default());
    while let Some(from) = walk {
        (_, walk) = answers.note(store.prune(before, from).await);
    }
}

fn key(id: &str) -> Key {
    Key::of("urn:test", id)
}

fn claim(id: &str, part: u32, attempt: u32, replay: u32) -> Claim {
    Claim { key: key(id), part, source: "urn:test".into(), id: id.into(), attempt, replay, settled: false }
}

fn intake(id: &str, replay: u32) -> Intake {
    let content_type = (id != "b").then(|| "application/json".to_owned());
    Intake { key: key(id), id: format!("id {id}"), replay, content_type, body: vec![0, 255, b'x'] }
}

#[tokio::test]
async fn tables_and_columns_are_the_same_on_both() {
    let (file, server) = (Home::on_sqlite(), Home::on_postgres().await);
    drop((file.open(Opener::Command), server.open(Opener::Command)));
    let sqlite = rusqlite::Connection::open(file.config().path).unwrap();
    let sql = "SELECT t.name || '.' || c.name || ' ' || CASE c.type WHEN 'INTEGER' THEN 'bigint' WHEN 'BLOB' THEN 'bytea' ELSE 'text' END
                 || CASE WHEN c.\"notnull\" OR c.pk THEN '!' ELSE '' END
               FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' ORDER BY 1";
    let mut statement = sqlite.prepare(sql).unwrap();
    let ours: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let theirs = server
        .database
        .as_ref()
        .unwrap()
        .texts(
            "SELECT (table_name || '.' || column_name || ' ' || data_type || CASE is_nullable WHEN 'NO' THEN '!' ELSE '' END) COLLATE \"C\"
             FROM information_schema.columns WHERE table_schema = 'packhorse_example' ORDER BY 1",
        )
        .await;
    assert!(ours.len() > 80, "{ours:?}");
    assert_eq!(ours, theirs);
    let indexes = "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL";
    let indexes: i64 = sqlite.query_row(indexes, [], |row| row.get(0)).unwrap();
    let there = "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = 'packhorse_example' AND NOT i.indisprimary
                   AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid)";
    assert_eq!(server.database.as_ref().unwrap().texts(there).await, [indexes.to_string()]);
}

#[tokio::test]
async fn claims_and_what_becomes_of_them() {
    on_both(async |store, answers| {
        let route = answers.note(store.route("pay.post").await);
        assert_eq!(answers.note(store.route("pay.post").await), route);
        let one = |id| vec![claim(id, 0, 1, 0)];
        let all = vec![claim("a", 0, 1, 0), claim("b", 0, 1, 0), claim("b", 0, 1, 0), claim("c", 0, 1, 0), claim("c", 1, 1, 0)];
        let places = answers.note(store.claim(route, 10, all.clone()).await);
        assert!(matches!(places[..], [Place::Go(_), Place::Go(_), Place::Busy, Place::Go(_), Place::Go(_)]));
        answers.note(store.look(route, all).await);
        answers.note(store.look(route, one("unknown")).await);
        answers.note(store.keep(route, key("a"), 0, "{\"kept\":\"é\u{1f980}\"}".into()).await);
        answers.note(store.sending(route, key("a"), 0, 11).await);
        let waits = Record::Waiting { attempt: 2, due_at: 500, failed_at: 12, doubt: true };
        answers.note(store.record(route, 12, Some("digest".into()), vec![(key("a"), 0, waits)]).await);
        assert_eq!(answers.note(store.state(route, key("a")).await), Some((State::Waiting, true)));
        assert_eq!(answers.note(store.oldest_waiting(route).await), Some(10));
        // An older copy is stale; the one that is due goes on, with all that is known.
        assert_eq!(answers.note(store.claim(route, 13, one("a")).await), [Place::Stale]);
        let went = answers.note(store.claim(route, 600, vec![claim("a", 0, 2, 0)]).await);
        assert!(matches!(&went[..], [Place::Go(went)] if went.doubt && went.sent_at == Some(11) && went.kept.is_some()));
        let answer = Answer { content_type: Some("text/plain".into()), body: vec![0, 1, 2, 255] };
        let opens = NewItem { route, key: "item".into(), one_per: Some("one".into()), cause: "{}".into(), due_at: 700 };
        let answered = Record::Answered { answer, opens: Some(opens) };
        answers.note(store.record(route, 601, None, vec![(key("a"), 0, answered)]).await);
        let reply = answers.note(store.claim(route, 602, vec![claim("a", 0, 2, 0)]).await);
        assert!(matches!(&reply[..], [Place::Reply { answer, .. }] if answer.body == [0, 1, 2, 255]));
        answers.note(store.record(route, 603, None, vec![(key("a"), 0, Record::Delivered { opens: None })]).await);
        assert_eq!(answers.note(store.claim(route, 604, vec![claim("a", 0, 2, 0)]).await), [Place::Done]);
        // Given up, with a reason that has NUL, line ends and quotes; replayed; discarded.
        let why = Why { stage: "send".into(), field: "a\nb".into(), what: "it said '\\' and\n\"no\"".into() };
        let dead = Record::Dead { code: Code::OutcomeUnknown.as_str(), doubt: true, why: Some(why), holds: None };
        let given_up = vec![(key("b"), 0, dead.clone()), (key("c"), 1, dead)];
        answers.note(store.record(route, 20, Some("digest".into()), given_up).await);
        let buried = answers.note(store.claim(route, 21, vec![claim("b", 0, 1, 0), claim("c", 1, 1, 0)]).await);
        assert!(matches!(&buried[..], [Place::Buried(_), Place::Buried(_)]));
        let settled = Claim { settled: true, ..claim("b", 0, 1, 1) };
        let again = answers.note(store.claim(route, 22, vec![settled]).await);
        assert!(matches!(&again[..], [Place::Go(went)] if !went.doubt && went.failed_at.is_none()));
        answers.note(store.record(route, 23, None, vec![(key("b"), 0, Record::GivenBack)]).await);
        assert_eq!(answers.note(store.state(route, key("b")).await), Some((State::Waiting, false)));
        let dead = Record::Dead { code: "PH2001", doubt: false, why: None, holds: None };
        answers.note(store.record(route, 24, None, vec![(key("b"), 0, dead)]).await);
        answers.note(store.record(route, 25, None, vec![(key("b"), 0, Record::Discarded), (key("c"), 0, Record::Discarded)]).await);
        assert_eq!(answers.note(store.state(route, key("b")).await), Some((State::Discarded, false)));
        assert_eq!(answers.note(store.state(route, key("c")).await), Some((State::Claimed, false)), "only what was given up");
        assert_eq!(answers.note(store.state(route, key("unknown")).await), None);
        // In one commit: new and done, known and done, new and waiting.
        let waits = Record::Waiting { attempt: 2, due_at: 900, failed_at: 30, doubt: false };
        let records = vec![
            (claim("d", 0, 1, 0), Record::Delivered { opens: None }),
            (claim("a", 0, 1, 0), Record::Delivered { opens: None }),
            (claim("d", 0, 1, 0), Record::Delivered { opens: None }),
            (claim("e", 0, 1, 0), waits),
        ];
        answers.note(store.claim_and_record(route, 30, Some("digest".into()), records).await);
        answers.note(store.look(route, vec![claim("d", 0, 1, 0), claim("e", 0, 1, 0)]).await);
        answers.note(store.audit(31, "A. Person", "discard", "because", "b").await);
        let account = answers.note(store.account(Asked::default()).await);
        let line = &account.routes[0];
        assert_eq!((line.taken, line.delivered, line.discarded, line.waiting), (10, 2, 1, 2), "{line:?}");
        forget(store, answers, 1_000).await;
        assert_eq!(answers.note(store.state(route, key("d")).await), None, "forgotten, and still accounted for");
        assert_eq!(answers.note(store.account(Asked::default()).await).routes[0].delivered, 2);
        // A text that PostgreSQL cannot hold does not stop the message that has it.
        let places = answers.note(store.claim(route, 40, vec![claim("nu\0l", 0, 1, 0)]).await);
        assert!(matches!(places[..], [Place::Go(_)]));
    })
    .await;
}

#[tokio::test]
async fn documents_in_the_spool() {
    on_both(async |store, answers| {
        let route = answers.note(store.route("cases.changes").await);
        let none = answers.note(store.cursor(route).await);
        assert_eq!(none, None);
        let all = vec![intake("a", 0), intake("b", 0), intake("a", 0), intake("c", 0)];
        let taken = answers.note(store.take_in(route, 5, all, Some("2026-11-24".into())).await);
        assert_eq!(taken, Taken::Stored(vec![true, true, false, true]));
        answers.note(store.take_in(route, 6, Vec::new(), Some("2026-11-25".into())).await);
        assert_eq!(answers.note(store.cursor(route).await).as_deref(), Some("2026-11-25"));
        assert_eq!(store.spool_bytes(), 9);
        let huge = Intake { body: vec![0; 2 << 20], ..intake("d", 0) };
        assert_eq!(answers.note(store.take_in(route, 6, vec![huge], None).await), Taken::Full);
        assert_eq!(answers.note(store.next_due(route).await), Some(5));
        let due = answers.note(store.due(route, 5, 10).await);
        assert_eq!((due.len(), &due[0].body[..]), (3, &[0, 255, b'x'][..]));
        assert_eq!(answers.note(store.due(route, 5, 1).await).len(), 1);
        assert!(answers.note(store.due(route, 4, 10).await).is_empty());
        let opens = NewItem { route, key: "i".into(), one_per: None, cause: "{}".into(), due_at: 9 };
        let finished = vec![
            (
                due[0].n,
                due[0].key,
                Finish::Through {
                    state: State::Delivered,
                    published: vec![key("x"), key("x")],
                    opens: vec![opens],
                },
            ),
            (due[1].n, due[1].key, Finish::Later { due_at: 50, failed_at: 7 }),
            (due[2].n, due[2].key, Finish::Dead { code: "PH2001" }),
        ];
        answers.note(store.finish(route, 7, finished).await);
        assert_eq!(store.spool_bytes(), 3);
        assert_eq!(answers.note(store.published_before(vec![key("x"), key("y")]).await), [true, false]);
        let later = answers.note(store.due(route, 50, 10).await);
        assert!(matches!(&later[..], [one] if one.attempt == 2 && one.failed_at == Some(7)));
        // Only a replay brings back what was given up.
        assert_eq!(
            answers.note(store.take_in(route, 60, vec![intake("c", 0)], None).await),
            Taken::Stored(vec![false])
        );
        assert_eq!(
            answers.note(store.take_in(route, 61, vec![intake("c", 1)], None).await),
            Taken::Stored(vec![true])
        );
        assert_eq!(answers.note(store.due(route, 61, 10).await).len(), 2);
        forget(store, answers, 10).await;
        assert_eq!(answers.note(store.published_before(vec![key("x")]).await), [false]);
    })
    .await;
}

#[tokio::test]
async fn open_items() {
    on_both(async |store, answers| {
        let route = answers.note(store.route("pay.refunds").await);
        let item = |key: &str, due_at| NewItem {
            route,
            key: key.into(),
            one_per: Some("p1".into()),
            cause: "{\"c\":1}".into(),
            due_at,
        };
        answers.note(store.claim(route, 1, vec![claim("a", 0, 1, 0), claim("b", 0, 1, 0)]).await);
        let opened = |id, item| (key(id), 0, Record::Delivered { opens: Some(item) });
        answers.note(
            store
                .record(route, 2, None, vec![opened("a", item("one", 10)), opened("b", item("two", 20))])
                .await,
        );
        answers.note(store.record(route, 3, None, vec![opened("a", item("one", 99))]).await);
        assert_eq!(answers.note(store.open_items(route).await), 2);
        let due = answers.note(store.due_items(route, 20, 10).await);
        assert_eq!(due.len(), 2);
        answers.note(store.asked(due[0].n, 30, 2, true).await);
        answers.note(store.asked(due[0].n, 31, 0, false).await);
        let due = answers.note(store.due_items(route, 31, 10).await);
        assert!(matches!(&due[..], [two, one] if !two.told && one.told && one.asked == 2 && one.failed == 0));
        answers.note(store.one_per(route, "p1".into()).await);
        assert!(answers.note(store.is_open(route, "one".into()).await));
        assert!(!answers.note(store.is_open(route, "none".into()).await));
        let settled = |n, id: &str, outcome: &str| Settled {
            n,
            key: key(id),
            id: id.into(),
            state: State::Delivered,
            outcome: outcome.into(),
            published: vec![key("event")],
            opens: vec![item("three", 40)],
            code: None,
        };
        answers.note(store.settle_item(route, 32, settled(due[0].n, "settled", "refund.succeeded")).await);
        answers.note(
            store
                .settle_item(route, 33, settled(due[1].n, "settled", packhorse::store::BEFORE_A_PERSON))
                .await,
        );
        answers.note(store.one_per(route, "p1".into()).await);
        answers.note(store.one_per(route, "none".into()).await);
        assert!(answers.note(store.ask_now(route, "one".into(), None, 34).await));
        assert!(
            !answers.note(store.ask_now(route, "two".into(), None, 34).await),
            "it was settled by an event"
        );
        answers.note(store.let_go(route, "one".into()).await);
        answers.note(store.about(route, "two".into()).await);
        answers.note(store.about(route, "none".into()).await);
        answers.note(store.due_items(route, 100, 10).await);
        forget(store, answers, 100).await;
    })
    .await;
}

#[tokio::test]
async fn files_and_extracts() {
    on_both(async |store, answers| {
        let route = answers.note(store.route("benefits.claims").await);
        let new = |name: &str, digest| NewFile {
            name: name.into(),
            digest: [digest; 32],
            size: 1 << 33,
            modified: Some(7),
        };
        let Took::New(first) = answers.note(store.take_file(route, 1, SameAs::Any, new("a.csv", 1)).await)
        else {
            panic!()
        };
        assert!(matches!(
            answers.note(store.take_file(route, 2, SameAs::Any, new("b.csv", 1)).await),
            Took::Known(_)
        ));
        let Took::New(second) = answers.note(store.take_file(route, 3, SameAs::Last, new("c.csv", 2)).await)
        else {
            panic!()
        };
        answers.note(store.take_file(route, 3, SameAs::Last, new("c.csv", 2)).await);
        answers.note(store.place_file(second, "0002".into()).await);
        answers.note(store.begin_file(first, Some("0".into())).await);
        let said = |n: u8| Said { key: [n; 16], hash: [n + 1; 16], name: format!("[\"{n}\"]") };
        let compared = Compared { said: vec![said(1), said(3), said(2)], gone: Vec::new() };
        let progress = Progress { file: first, point: "120".into(), bad: 1, compared };
        answers.note(store.take_records(route, 4, vec![intake("r1", 0), intake("r2", 0)], progress).await);
        answers.note(store.said(route, None, 2).await);
        assert_eq!(answers.note(store.said(route, Some([2; 16]), 9).await), [([3; 16], [4; 16])]);
        assert_eq!(answers.note(store.said_names(route, vec![[3; 16], [9; 16]]).await), ["[\"3\"]", "[]"]);
        let news = Compared { said: vec![Said { hash: [9; 16], ..said(1) }], gone: vec![[2; 16]] };
        answers.note(store.say(route, news).await);
        assert_eq!(answers.note(store.said(route, None, 9).await), [([1; 16], [9; 16]), ([3; 16], [4; 16])]);
        let file = answers.note(store.file(first).await).unwrap();
        assert_eq!((file.size, file.records, file.bad, file.duplicates), (1 << 33, 2, 1, 1));
        assert_eq!(answers.note(store.open_files(route).await).len(), 2);
        answers.note(store.end_file(first, 5, FileEnd::Done { why: None }).await);
        answers.note(
            store.end_file(second, 6, FileEnd::Held { code: "PH2001".into(), why: "lost rows".into() }).await,
        );
        answers.note(store.file_told(first).await);
        assert!(answers.note(store.may_forget([1; 32]).await));
        assert!(!answers.note(store.may_forget([2; 32]).await));
        assert_eq!(answers.note(store.last_done(route).await).map(|file| file.n), Some(first));
        answers.note(store.file_named(route, "c.csv".into()).await);
        assert_eq!(answers.note(store.file_named(route, "z.csv".into()).await), None);
        let Took::New(third) = answers.note(store.take_file(route, 7, SameAs::Any, new("d.csv", 3)).await)
        else {
            panic!()
        };
        answers.note(store.supersede(route, third, 8, "PH2002".into()).await);
        let superseded = answers.note(store.file(second).await).unwrap();
        assert_eq!(superseded.why.as_deref(), Some("extract 3, which is newer, counts in its place"));
        answers.note(
            store.end_file(third, 9, FileEnd::Held { code: "PH2001".into(), why: "lost rows".into() }).await,
        );
        assert_eq!(answers.note(store.files(None, None, 10).await).len(), 3);
        assert_eq!(
            answers.note(store.files(Some("benefits.claims".into()), Some(FileState::Held), 10).await).len(),
            1
        );
        assert!(answers.note(store.files(Some("other".into()), None, 10).await).is_empty());
        assert!(answers.note(
            store.decide_file(third, 10, Decision::Baseline, "A. Person".into(), "right".into()).await
        ));
        assert!(
            !answers.note(
                store.decide_file(third, 11, Decision::Reject, "A. Person".into(), "wrong".into()).await
            )
        );
        answers.note(store.begin_file(third, None).await);
        answers.note(store.open_files(route).await);
        answers.note(
            store.end_file(third, 12, FileEnd::Refused { code: "PH2003".into(), why: "no".into() }).await,
        );
    })
    .await;
}

fn joining(feed: &str, says: Says, sort: &str, amount: i64) -> Joining {
    Joining {
        feed: feed.into(),
        per: String::new(),
        cut_off: Some(1_000),
        size: Size { least: 1, most: 3, most_sum: Some(1_000) },
        file: "main".into(),
        group: "[\"g\"]".into(),
        sort: sort.into(),
        amount,
        says,
        kept: Some("{\"k\":1}".into()),
    }
}

#[tokio::test]
async fn batches_from_the_first_item_to_the_last_word() {
    on_both(async |store, answers| {
        let route = answers.note(store.route("bacs.collect").await);
        let ids = ["a", "b", "c", "d"];
        answers.note(store.claim(route, 1, ids.iter().map(|id| claim(id, 0, 1, 0)).collect()).await);
        // Capital letters before small ones, whatever the language of the database.
        for (id, sort) in ids.iter().zip(["b", "B", "a", "x"]) {
            let joins = joining("bacs.daily", Says::Record(id.as_bytes().to_vec()), sort, 100);
            answers.note(store.record(route, 2, None, vec![(key(id), 0, Record::Batched(Box::new(joins)))]).await);
        }
        let under_way = answers.note(store.batches_under_way("bacs.daily".into()).await);
        assert!(matches!(&under_way[..], [full, open] if full.life.items == 3 && full.sealed_by.is_some() && open.life.items == 1));
        let n = under_way[0].n;
        let open = under_way[1].n;
        answers.note(store.postpone_batch(open, Some(2_000)).await);
        assert!(answers.note(store.ask_to_seal(open, 3, "A. Person".into(), "now".into()).await));
        assert!(!answers.note(store.ask_to_seal(n, 3, "A. Person".into(), "now".into()).await));
        assert!(answers.note(store.seal_batch(open, 4, SealedBy::CutOff).await));
        assert!(!answers.note(store.seal_batch(open, 4, SealedBy::CutOff).await));
        answers.note(store.about(route, "none".into()).await);
        answers.note(store.number_batch(n, (1, 999_999), "2026-11-25".into()).await);
        answers.note(store.number_batch(n, (1, 999_999), "2026-11-26".into()).await);
        let totals = answers.note(store.batch_totals(n).await);
        assert_eq!((totals[0].count, totals[0].sum), (3, 300));
        let records = answers.note(store.batch_records(n, "main".into(), After::default(), 2).await);
        let order: Vec<&[u8]> = records.iter().map(|record| &record.record[..]).collect();
        assert_eq!(order, [b"b", b"c"]);
        let last = records.last().unwrap().after.clone();
        assert_eq!(answers.note(store.batch_records(n, "main".into(), last, 2).await).len(), 1);
        let file = BatchFileState { file: "main".into(), name: "BACS1.txt".into(), digest: [7; 32], size: 9, claimed_at: None, put_at: None };
        answers.note(store.batch_rendered(n, vec![file.clone()]).await);
        answers.note(store.render_again(n).await);
        answers.note(store.batch_rendered(n, vec![file]).await);
        answers.note(store.claim_batch_file(n, "main".into(), Some(5)).await);
        answers.note(store.batch_failed(n, 50, Code::OutcomeUnknown.as_str(), "nobody knows".into()).await);
        answers.note(store.batch(n).await);
        assert!(answers.note(store.settle_batch(n, 6, false, "A. Person".into(), "not there".into()).await));
        assert!(!answers.note(store.settle_batch(n, 6, true, "A. Person".into(), "again".into()).await));
        answers.note(store.batch_file_put(n, Some("main".into()), 7).await);
        let to_mark = answers.note(store.batch_to_mark(n, 2).await);
        let remembered = NewItem { route, key: "ref".into(), one_per: None, cause: "{}".into(), due_at: 0 };
        answers.note(store.mark_batch(n, 8, to_mark.into_iter().map(|item| (item, Some(remembered.clone()))).collect()).await);
        let to_mark = answers.note(store.batch_to_mark(n, 2).await);
        answers.note(store.mark_batch(n, 9, to_mark.into_iter().map(|item| (item, None)).collect()).await);
        let batches = answers.note(store.batches(10).await);
        assert_eq!(batches.iter().map(|batch| batch.sent_at).collect::<Vec<_>>(), [None, Some(9)]);
        answers.note(store.about(route, "ref".into()).await);
        assert_eq!(answers.note(store.batch(99).await), None);
        forget(store, answers, 100).await;
        assert_eq!(answers.note(store.batches(10).await).len(), 1);
    })
    .await;
}

#[tokio::test]
async fn complete_returns() {
    on_both(async |store, answers| {
        let route = answers.note(store.route("returns.census").await);
        answers.note(
            store.claim(route, 1, ["a", "b", "c", "d"].iter().map(|id| claim(id, 0, 1, 0)).collect()).await,
        );
        let row = |key: &str, record: &[u8]| Says::Row { key: key.into(), record: record.to_vec() };
        let says = [
            ("a", row("k1", b"1"), "Z"),
            ("b", row("k2", b"2"), "a"),
            ("c", row("k1", b"3"), "z"),
            ("d", Says::NoRow { key: "none".into() }, ""),
        ];
        for (id, says, sort) in says {
            let joins = joining("returns.census", says, sort, 5);
            answers.note(
                store.record(route, 2, None, vec![(key(id), 0, Record::Batched(Box::new(joins)))]).await,
            );
        }
        let totals = answers.note(store.return_totals("returns.census".into()).await);
        assert_eq!((totals[0].count, totals[0].sum), (2, 10));
        let rows = answers
            .note(store.return_rows("returns.census".into(), "main".into(), After::default(), 1).await);
        assert_eq!(rows[0].record, b"2");
        let after = rows[0].after.clone();
        assert_eq!(
            answers.note(store.return_rows("returns.census".into(), "main".into(), after, 9).await)[0].record,
            b"3"
        );
    })
    .await;
}

#[tokio::test]
async fn the_parking_lot() {
    on_both(async |store, answers| {
        let route = answers.note(store.route("cases.ordered").await);
        let subject = |name: &str| Subject::of(name).unwrap();
        let kept = |id: &str| Kept {
            exchange: "e".into(),
            routing_key: "k".into(),
            properties: "{}".into(),
            body: id.as_bytes().to_vec().into(),
        };
        let parks = |of: &str, id: &str, first, due_at| {
            let parking = Parking {
                subject: subject(of),
                first,
                attempt: 2,
                due_at,
                failed_at: Some(3),
                doubt: None,
                kept: kept(id),
            };
            (claim(id, 0, 1, 0), Record::Parked(Box::new(parking)))
        };
        let records = vec![
            parks("A", "a1", true, Some(50)),
            parks("A", "a2", false, None),
            parks("B", "b1", true, Some(40)),
        ];
        answers.note(store.claim_and_record(route, 5, None, records).await);
        let messages = vec![
            (subject("A").digest, key("a1")),
            (subject("A").digest, key("a9")),
            (subject("C").digest, key("c1")),
        ];
        let (stands, bytes) = answers.note(store.stands(route, messages.clone()).await);
        assert_eq!(
            (stands[0].sequence.parked, stands[0].is_parked, stands[1].is_parked, bytes),
            (2, true, false, 6)
        );
        let all = Strand::all(1)[0];
        assert_eq!(answers.note(store.lot(route, all, 5, 9, true).await).next, Some(40));
        let due = answers.note(store.lot(route, all, 50, 9, true).await).due;
        assert_eq!(due.iter().map(|due| due.key).collect::<Vec<_>>(), [key("b1"), key("a1")]);
        answers.note(store.put_off(route, vec![key("b1"), key("a2")], 60).await);
        answers.note(store.lot(route, all, 55, 9, true).await);
        // Each subject is in the lot of one strand.
        for strand in Strand::all(3) {
            answers.note(store.lot(route, strand, 50, 9, true).await);
        }
        // The first of A is given up, and holds the other.
        let dead = Record::Dead { code: "PH2001", doubt: false, why: None, holds: Some(subject("A")) };
        answers.note(store.record(route, 56, None, vec![(key("a1"), 0, dead)]).await);
        let held = answers.note(store.held(None, 9).await);
        assert!(matches!(&held[..], [a, b] if a.held_by.is_some() && a.messages == 1 && b.held_by.is_none()));
        answers.note(store.held(Some("cases.ordered".into()), 1).await);
        assert!(answers.note(store.held(Some("other".into()), 9).await).is_empty());
        answers.note(store.parked_of("cases.ordered".into(), subject("A").digest, 9).await);
        answers.note(store.stands(route, messages).await);
        assert!(
            answers
                .note(store.release(route, subject("A").digest, 57, "A. Person".into(), "go".into()).await)
        );
        assert!(
            !answers
                .note(store.release(route, subject("A").digest, 57, "A. Person".into(), "go".into()).await)
        );
        assert_eq!(answers.note(store.lot(route, all, 57, 9, true).await).due.len(), 1);
        answers.note(
            store.record(route, 58, None, vec![(key("a2"), 0, Record::Delivered { opens: None })]).await,
        );
        answers.note(store.past(route, vec![key("b1")], 59).await);
        answers.note(store.parked_first(route, 9).await);
        answers.note(
            store.record(route, 60, None, vec![(key("b1"), 0, Record::Delivered { opens: None })]).await,
        );
    })
    .await;
}

#[tokio::test]
async fn pauses_and_gates() {
    on_both(async |store, answers| {
        assert_eq!(answers.note(store.pause("b.route", 5, "A. Person", "work").await), None);
        assert!(answers.note(store.pause("b.route", 6, "B. Person", "more work").await).is_some());
        answers.note(store.pause("A.route", 7, "A. Person", "work").await);
        let pauses = answers.note(store.pauses().await);
        assert_eq!(
            pauses.iter().map(|(route, _)| route.as_str()).collect::<Vec<_>>(),
            ["A.route", "b.route"]
        );
        let away = Away {
            route: "b.route".into(),
            probing: true,
            since: 1,
            until: 2,
            times: 3,
            code: "PH2001".into(),
            why: "away".into(),
        };
        let tripped = Away { route: "c.route".into(), probing: false, ..away.clone() };
        answers.note(
            store
                .write_gates(
                    vec![away.clone(), tripped, away],
                    vec![("b.route".into(), 4), ("b.route".into(), 5)],
                )
                .await,
        );
        let gates = answers.note(store.gates().await);
        assert_eq!((gates.away.len(), gates.oldest.len()), (2, 1));
        assert!(answers.note(store.resume("b.route", 8, "A. Person", "done").await));
        assert!(!answers.note(store.resume("b.route", 9, "A. Person", "done").await));
    })
    .await;
}

#[tokio::test]
async fn a_claim_of_a_run_that_is_over_is_in_doubt_on_both() {
    for home in [Home::on_sqlite(), Home::on_postgres().await] {
        let store = home.open(Opener::Bridge);
        let route = store.route("pay.post").await.unwrap();
        assert_eq!(store.run(), 1);
        store.claim(route, 1, vec![claim("a", 0, 1, 0)]).await.unwrap();
        drop(store);
        let store =
            crate::support::until("the next run", async || Store::of(&home.config(), Opener::Bridge).ok())
                .await;
        assert_eq!(store.run(), 2);
        let went = crate::support::until("the first run is over", async || {
            match &store.claim(route, 2, vec![claim("a", 0, 1, 0)]).await.unwrap()[..] {
                [Place::Go(went)] => Some(went.clone()),
                _ => None,
            }
        })
        .await;
        assert!(went.doubt);
        let led = store.lead("collect.route").await.unwrap().expect("there is no other bridge");
        assert_eq!(led.route("route").await.unwrap(), store.route("route").await.unwrap());
        led.follow().await;
    }
}

#[tokio::test]
async fn work_that_fails_leaves_the_work_beside_it_whole() {
    for home in [Home::on_sqlite(), Home::on_postgres().await] {
        let store = home.open(Opener::Bridge);
        let route = store.route("pay.post").await.unwrap();
        // An item that says it is of a batch of which there is none cannot be remembered for a route that is not there.
        let nowhere = Home::on_sqlite().open(Opener::Bridge);
        for _ in 0..3 {
            nowhere.route(&format!("route {}", Key::of("a", "b"))).await.unwrap();
        }
        let foreign = {
            nowhere.route("another").await.unwrap();
            nowhere.route("and another").await.unwrap()
        };
        let (good, bad, after) = tokio::join!(
            store.claim(route, 1, vec![claim("a", 0, 1, 0)]),
            store.claim(foreign, 1, vec![claim("x", 0, 1, 0)]),
            store.claim(route, 1, vec![claim("b", 0, 1, 0)]),
        );
        assert!(good.is_ok() && after.is_ok());
        let error = bad.unwrap_err();
        assert!(error.to_string().to_lowercase().contains("foreign key"), "{error}");
        assert_eq!(store.state(route, key("a")).await.unwrap(), Some((State::Claimed, false)));
        assert_eq!(store.state(route, key("b")).await.unwrap(), Some((State::Claimed, false)));
        assert_eq!(store.account(Asked::default()).await.unwrap().routes.len(), 1);
    }
}
