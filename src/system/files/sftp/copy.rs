//! Copying bytes over a session, with several requests under way at once: one after the other, each would wait for the way
//! there and back.

use super::{Error, Session, Trouble, failure};
use crate::{system::files::Fetched, verdict::Failure};
use futures_util::stream::{FuturesOrdered, FuturesUnordered, StreamExt as _};
use ring::digest::{Context, SHA256};
use russh_sftp::protocol::StatusCode;
use std::{fs::File, io::Read as _, path::Path};

/// Requests of one copy under way at once.
const UNDER_WAY: usize = 32;

/// Reads a file of this size to its end; another length than that is an error that says so.
pub async fn read(
    session: &Session,
    handle: &str,
    size: u64,
    what: &str,
    mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Trouble> {
    let (mut asked, mut have, mut under_way) = (0, 0, FuturesOrdered::new());
    loop {
        while asked < size && under_way.len() < UNDER_WAY {
            let length = u64::from(session.read).min(size - asked) as u32;
            under_way.push_back(whole(session, handle, asked, length));
            asked += u64::from(length);
        }
        let Some(bytes) = under_way.next().await else { break };
        let bytes = bytes.map_err(|trouble| trouble.on(what))?;
        have += bytes.len() as u64;
        take(&bytes)?;
        if have < asked && bytes.is_empty() {
            return Err(failure::changed(what, size, have).into());
        }
    }
    // One more: a file that has grown has something there.
    let more = whole(session, handle, size, session.read).await.map_err(|trouble| trouble.on(what))?;
    match have == size && more.is_empty() {
        true => Ok(()),
        false => Err(failure::changed(what, size, have + more.len() as u64).into()),
    }
}

/// Bytes at a place: all of them, unless the file ends before. A server may give fewer than it was asked for.
async fn whole(session: &Session, handle: &str, at: u64, length: u32) -> Result<Vec<u8>, Trouble> {
    let mut bytes: Vec<u8> = Vec::new();
    while (bytes.len() as u64) < u64::from(length) {
        let have = bytes.len() as u64;
        let wanted = length - u32::try_from(have).unwrap_or(length);
        match session.raw.read(handle, at + have, wanted).await {
            Ok(data) if data.data.is_empty() => break,
            Ok(data) if data.data.len() > wanted as usize => {
                return Err(Trouble::Lost("it sends more than it was asked for".to_owned()));
            }
            Ok(data) if bytes.is_empty() => bytes = data.data,
            Ok(data) => bytes.extend_from_slice(&data.data),
            Err(Error::Status(status)) if status.status_code == StatusCode::Eof => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

/// Writes a file of ours from its beginning to its end; what was sent.
pub async fn write(
    session: &Session,
    handle: &str,
    local: &mut File,
    from: &Path,
) -> Result<Fetched, Trouble> {
    let (mut at, mut context, mut under_way) = (0_u64, Context::new(&SHA256), FuturesUnordered::new());
    let mut ended = false;
    loop {
        while !ended && under_way.len() < UNDER_WAY {
            let mut bytes = vec![0; session.write];
            let count = local.read(&mut bytes).map_err(|error| failure::local(from, &error))?;
            bytes.truncate(count);
            if count == 0 {
                ended = true;
                break;
            }
            context.update(&bytes);
            under_way.push(session.raw.write(handle, at, bytes));
            at += count as u64;
        }
        match under_way.next().await {
            None => break,
            Some(written) => written.map(drop)?,
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    Ok(Fetched { size: at, digest })
}
