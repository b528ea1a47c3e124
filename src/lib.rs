//! Packhorse joins councils' existing systems to a national platform over AMQP queues.
#![forbid(unsafe_code)]
pub mod code;
pub mod format;
pub mod tree;
