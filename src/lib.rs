//! Packhorse joins councils' existing systems to a national platform over AMQP queues.
#![forbid(unsafe_code)]
pub mod broker;
pub mod code;
pub mod config;
pub mod event;
pub mod format;
pub mod mapping;
pub mod problem;
pub mod retry;
pub mod template;
pub mod tls;
pub mod tree;
pub mod verdict;
