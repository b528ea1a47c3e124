//! The files exactly as written. Doc comments here are the reference and the editors' help: one home per key.

pub mod adapter;
pub mod batch;
pub mod bridge;
pub mod files;
pub mod hours;
pub mod pickup;
pub mod sql;

pub use crate::{format::layout::raw as layout, mapping::raw as mapping};
