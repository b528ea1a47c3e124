//! The one integration-test binary. Each module is one promise or one part; see its first lines.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../standins/mod.rs"]
mod standins;

mod bacs;
mod batches;
mod benefits;
mod broker;
mod cards;
mod care;
mod connections;
mod databases;
mod docs;
mod events;
mod extracts;
mod files;
mod formats;
mod gates;
mod judges;
mod lettings;
mod new;
mod nightly;
mod payments;
mod records;
mod refusals;
mod replays;
mod safeguarding;
mod statements;
mod support;
mod tidy;
