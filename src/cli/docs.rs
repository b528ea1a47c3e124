//! x
use clap::Args;
use std::path::Path;
/// x
#[derive(Debug, Args)]
pub struct Docs {}
impl Docs { pub fn run(&self) -> u8 { 0 } }
/// x
#[derive(Debug, Args)]
pub struct Explain {}
impl Explain { pub fn run(&self) -> u8 { 0 } }
pub fn asyncapi(_: &Path) -> u8 { 0 }
