//! Kill points: the gaps between two durable effects, by name. In builds with the feature `kill-points`, which are for
//! tests, the process aborts where `PACKHORSE_KILL` says, as if the machine had lost its power there, or stands still where
//! `PACKHORSE_STILL` says, as if it had been suspended; in every other build a point is nothing at all. It knows nothing of
//! what is done around it.
//!
//! `PACKHORSE_KILL=deliver.sent` aborts at the first passing, `PACKHORSE_KILL=deliver.sent:3` at the third.

/// A gap, and what is durable when it is reached.
pub struct Point {
    /// Its name: the way of a message, and what has just happened.
    pub name: &'static str,
    /// What a crash there leaves behind.
    pub leaves: &'static str,
}

const fn at(name: &'static str, leaves: &'static str) -> Point {
    Point { name, leaves }
}

/// Every gap there is, in the order in which a message passes them.
pub const POINTS: [Point; 40] = [
    at("deliver.claimed", "the claim is committed, nothing is sent"),
    at("deliver.kept", "what all attempts need has been read and is committed, nothing is sent"),
    at("deliver.sent", "the system has done it, nobody has written that down"),
    at("deliver.asked", "the system has said that it has not done it, and that it is sent anew is committed"),
    at("deliver.answered", "the answer is committed, its reply is not published"),
    at("deliver.replied", "the reply is confirmed, the message is not recorded as delivered"),
    at("deliver.part", "a part is recorded as delivered, the next has not begun"),
    at("deliver.window", "a window is confirmed by the system's broker, nothing is recorded"),
    at("deliver.moved", "retry or dead letter is confirmed, nothing is recorded"),
    at("deliver.recorded", "the outcomes of a window are committed, nothing is acknowledged"),
    at("deliver.acknowledged", "a window is acknowledged"),
    at("order.parked", "messages are committed behind another of their subject, nothing is acknowledged"),
    at("order.tried", "what was due in the parking lot is recorded, what follows it has not begun"),
    at(
        "order.emptied",
        "what waited on a route without order is confirmed in its queue, and is still in the lot",
    ),
    at("batch.sealed", "the batch is sealed and has no number"),
    at("batch.numbered", "the batch has its number and no file"),
    at("batch.written", "the files are on our disk, their digests are not committed"),
    at("batch.rendered", "the digests are committed, no file is in the system"),
    at("batch.claimed", "that a file is put now is committed, and it has not begun"),
    at("batch.put", "a file is in the system, nobody has written that down"),
    at("batch.noted", "that the file is there is committed, its items are not delivered"),
    at("batch.marked", "the items are delivered, our own copies are still there"),
    at("collect.spooled", "what the source brought is committed, the source is not told"),
    at("collect.acknowledged", "the source is told, nothing is published"),
    at("collect.published", "the events are confirmed, the spool still holds the document"),
    at("collect.finished", "the document is finished"),
    at("ask.published", "the event of an item's end is confirmed, the item is still open"),
    at("view.dumped", "a look at a whole query is on our disk, nobody has written that down"),
    at("files.fetched", "a file is copied, nobody has written that down"),
    at("files.renamed", "the copy has its name, nobody has written down that it is ours"),
    at("files.taken", "the file is ours and committed, nothing of it is read"),
    at("files.records", "some records are committed, with the point up to which it was read"),
    at("files.ended", "the end of the file is committed, the source is not told"),
    at("files.told", "the file is put away in the system, nobody has written that down"),
    at("extract.said", "some rows of a baseline are committed as said, the rest is not"),
    at(
        "extract.compared",
        "an extract counts, and those that waited before it do not; nothing of it is taken in",
    ),
    at("extract.news", "some news is committed with its new hashes, the rest is not"),
    at(
        "operator.replayed",
        "a dead letter is given back to its route, nobody has written that down, and it is still a dead letter",
    ),
    at("operator.discarded", "that a dead letter is discarded is committed, by whom is not"),
    at("operator.noted", "who acts on a dead letter is committed, and it is still in its queue"),
];

/// Passes a point.
#[cfg(not(feature = "kill-points"))]
#[inline(always)]
pub fn point(_: &'static str) {}

/// Where something is to happen, and how often it has been passed.
#[cfg(feature = "kill-points")]
struct Wanted {
    name: String,
    passing: u32,
    passed: std::sync::atomic::AtomicU32,
}

#[cfg(feature = "kill-points")]
impl Wanted {
    fn by(variable: &str) -> Option<Wanted> {
        let text = std::env::var(variable).ok()?;
        let (name, passing) = text.split_once(':').unwrap_or((&text, "1"));
        Some(Wanted {
            name: name.to_owned(),
            passing: passing.parse().unwrap_or(1),
            passed: Default::default(),
        })
    }

    fn is_here(&self, name: &str) -> bool {
        use std::sync::atomic::Ordering;
        self.name == name && self.passed.fetch_add(1, Ordering::SeqCst) + 1 == self.passing
    }
}

/// Passes a point; dies there if it is the one that `PACKHORSE_KILL` names, stands still until it is told to go on if it is the
/// one that `PACKHORSE_STILL` names.
#[cfg(feature = "kill-points")]
pub fn point(name: &'static str) {
    static WANTED: std::sync::OnceLock<[Option<Wanted>; 2]> = std::sync::OnceLock::new();
    let [kill, still] = WANTED.get_or_init(|| [Wanted::by("PACKHORSE_KILL"), Wanted::by("PACKHORSE_STILL")]);
    if kill.as_ref().is_some_and(|wanted| wanted.is_here(name)) {
        eprintln!("killed at {name}");
        std::process::abort();
    }
    if still.as_ref().is_some_and(|wanted| wanted.is_here(name)) {
        use rustix::process::{Signal, getpid, kill_process};
        eprintln!("stands still at {name}");
        if let Err(error) = kill_process(getpid(), Signal::STOP) {
            eprintln!("it cannot: {error}");
        }
        // Another thread may be the one that the signal reaches first; this one must not go on until it stands as well.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
