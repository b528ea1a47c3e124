//! What an operator can do with batches.

use super::{Actor, Refused, refused};
use crate::{
    code::Code,
    store::{BatchFileState, BatchState, Store},
};
use jiff::Timestamp;

/// A batch with its files.
///
/// # Errors
/// There is none of this number; the store failed.
pub async fn show(store: &Store, number: i64) -> Result<(BatchState, Vec<BatchFileState>), Refused> {
    match store.batch(number).await? {
        Some(found) => Ok(found),
        None => refused(Code::NoSuchBatch, format!("there is no batch {number}")),
    }
}

/// Has an open batch sealed before its cut-off: the wish and who has it are on record together. The bridge seals it when it
/// looks next, also if it is started only later.
///
/// # Errors
/// It is not open, or there is none of this number; the store failed.
pub async fn seal(store: &Store, number: i64, actor: &Actor) -> Result<(), Refused> {
    let now = Timestamp::now().as_millisecond();
    match store.ask_to_seal(number, now, actor.who.clone(), actor.reason.clone()).await? {
        true => Ok(()),
        false => {
            let (batch, _) = show(store, number).await?;
            refused(Code::NoSuchBatch, format!("batch {number} is {} already", batch.life.stage.as_str()))
        }
    }
}

/// What a person has seen of a file in a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The system has had it.
    Received,
    /// It has not.
    NotReceived,
}

/// Takes a person's word on a batch of which nobody knows whether the system has had its file.
///
/// # Errors
/// Nothing of it is in doubt, or there is none of this number; the store failed.
pub async fn settle(store: &Store, number: i64, seen: Seen, actor: &Actor) -> Result<(), Refused> {
    let now = Timestamp::now().as_millisecond();
    let received = seen == Seen::Received;
    match store.settle_batch(number, now, received, actor.who.clone(), actor.reason.clone()).await? {
        true => Ok(()),
        false => {
            let (batch, _) = show(store, number).await?;
            refused(Code::NoSuchBatch, format!("batch {number} is {}, and nothing of it is in doubt", batch.life.stage.as_str()))
        }
    }
}
