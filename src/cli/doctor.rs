//! `packhorse doctor`.
use clap::Args;
use std::path::Path;
/// x
#[derive(Debug, Args)]
pub struct Doctor {}
impl Doctor { /// x
 pub fn run(&self, _: &Path) -> u8 { 0 } }
pub fn examine(_: &crate::config::Config, _: bool) -> u8 { 0 }
