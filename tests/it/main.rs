//! The one integration-test binary. Each module is one promise or one part; see its first lines.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../standins/mod.rs"]
mod standins;

mod account;
mod bacs;
mod batches;
mod benefits;
mod bridges;
mod broker;
#[cfg(feature = "kill-points")]
mod campaign;
mod cards;
mod care;
mod clock;
mod cluster;
mod connections;
mod custody;
mod databases;
mod docs;
mod events;
mod extracts;
mod files;
mod formats;
#[cfg(feature = "kill-points")]
mod gaps;
mod gates;
mod judges;
mod kills;
mod lettings;
mod life;
mod network;
mod new;
mod nightly;
mod nodes;
mod ordered;
mod payments;
mod peer;
mod proxy;
mod records;
mod refusals;
mod replays;
mod retention;
mod safeguarding;
mod scripted;
mod statements;
mod store;
mod support;
mod tidy;
