//! Packhorse joins councils' existing systems to a national platform over AMQP queues.
#![forbid(unsafe_code)]
pub mod code;
pub mod event;
pub mod format;
pub mod mapping;
pub mod problem;
pub mod template;
pub mod tree;
