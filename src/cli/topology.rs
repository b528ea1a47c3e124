//! x
use clap::Subcommand;
use std::path::Path;
/// x
#[derive(Debug, Subcommand)]
pub enum Topology { /// x
 Print }
impl Topology { pub fn run(&self, _: &Path) -> u8 { 0 } }
