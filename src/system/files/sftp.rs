//! Files over SFTP.

use super::{Fetched, Listed, Listing, Need, Put};
use crate::{
    code::Code,
    config::{Instance, plan},
    verdict::Failure,
};
use std::{path::Path, sync::Arc};

/// A folder on a server.
pub struct Sftp;

fn not_yet<T>() -> Result<T, Failure> {
    Err(Failure::not_done(Code::SystemUnreachable, "SFTP is not there yet"))
}

impl Sftp {
    pub fn open(_: &Arc<Instance>, _: &plan::Sftp) -> Result<Sftp, Failure> {
        not_yet()
    }
    pub fn stopped(&self) -> Option<Failure> {
        None
    }
    pub async fn list(&self, _: &str, _: usize) -> Result<Listing, Failure> {
        not_yet()
    }
    pub async fn fetch(&self, _: &str, _: &str, _: &Path, _: u64) -> Result<Fetched, Failure> {
        not_yet()
    }
    pub async fn look(&self, _: &str, _: &str) -> Result<Option<Listed>, Failure> {
        not_yet()
    }
    pub async fn put(&self, _: &str, _: &str, _: &Path, _: [u8; 32]) -> Result<Put, Failure> {
        not_yet()
    }
    pub async fn write(&self, _: &str, _: &str, _: &[u8]) -> Result<(), Failure> {
        not_yet()
    }
    pub async fn rename(&self, _: (&str, &str), _: (&str, &str)) -> Result<(), Failure> {
        not_yet()
    }
    pub async fn delete(&self, _: &str, _: &str) -> Result<(), Failure> {
        not_yet()
    }
    pub async fn check(&self, _: Need) -> Result<String, Failure> {
        not_yet()
    }
}
