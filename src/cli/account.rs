//! `packhorse account`.
use clap::Args;
use std::path::Path;
/// x
#[derive(Debug, Args)]
pub struct Account {}
impl Account { /// x
 pub fn run(&self, _: &Path) -> u8 { 0 } }
