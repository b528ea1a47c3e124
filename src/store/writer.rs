//! The one thread that writes: it takes all work that waits, does it in one transaction, and answers everybody after
//! the commit. Sixty-four callers cost one fsync, not sixty-four.

use super::{
    Opener, StoreError,
    database::{Database, Location},
    schema::Opened,
    sql::{self, Tx},
};
use crate::code::Code;
use std::{sync::mpsc::sync_channel, thread};
use tokio::sync::{mpsc, oneshot};

/// How much work waits at most; callers beyond that wait to hand theirs in.
const QUEUE: usize = 4_096;
/// How many pieces of work one transaction holds at most.
const GROUP: usize = 512;

/// What a piece of work does inside the transaction, and what it answers when that is committed or lost.
type Work = Box<dyn FnOnce(&Tx<'_>) -> Reply + Send>;
type Reply = Box<dyn FnOnce(Result<(), &StoreError>) + Send>;

/// The handle to the thread. When the last one is dropped, the thread finishes its work and ends.
pub struct Writer {
    queue: mpsc::Sender<Work>,
}

impl Writer {
    /// Starts the thread, which opens the database.
    pub fn start(location: Location, opener: Opener, noted: i64) -> Result<(Writer, Opened), StoreError> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (sender, opened) = sync_channel(1);
        let ended = |what: String| StoreError { code: Code::StoreUnavailable, what };
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || match location.open(opener, noted) {
                Err(error) => drop(sender.send(Err(error))),
                Ok((database, opened)) => {
                    drop(sender.send(Ok(opened)));
                    work(database, waiting);
                }
            })
            .map_err(|error| ended(format!("the store's thread cannot be started: {error}")))?;
        let opened = opened.recv().map_err(|_| ended("the store's thread has ended".to_owned()))??;
        Ok((Writer { queue }, opened))
    }

    /// Does a piece of work in the next transaction; returns after its commit.
    pub async fn run<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Tx<'_>) -> sql::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let job: Work = Box::new(move |tx| {
            // A piece that fails half-way must not leave its first half in the group's transaction.
            let result = tx.whole(work).map_err(|error| StoreError::of(doing, &error));
            Box::new(move |committed| {
                let _ = sender.send(match committed {
                    Ok(()) => result,
                    Err(error) => Err(error.clone()),
                });
            })
        });
        let gone = || StoreError {
            code: Code::StoreUnavailable,
            what: format!("{doing}: the store's thread has ended"),
        };
        self.queue.send(job).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }
}

fn work(mut database: Database, mut waiting: mpsc::Receiver<Work>) {
    let mut group = Vec::with_capacity(GROUP);
    while database.wait(&mut waiting, &mut group, GROUP) > 0 {
        let mut replies: Vec<Reply> = Vec::with_capacity(group.len());
        let committed = database.transaction(|tx| replies.extend(group.drain(..).map(|work| work(tx))));
        // Work that was never begun, because the transaction could not be: its callers hear it by their dropped channel.
        group.clear();
        let result = committed.map_err(|error| StoreError::of("committing", &error));
        for reply in replies {
            reply(result.as_ref().copied());
        }
    }
}
