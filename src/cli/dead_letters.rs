//! x
use clap::Subcommand;
use std::path::Path;
/// x
#[derive(Debug, Subcommand)]
pub enum DeadLetters { /// x
 Print }
impl DeadLetters { pub fn run(&self, _: &Path) -> u8 { 0 } }
