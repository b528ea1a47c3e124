//! Packhorse joins councils' existing systems to a national platform over AMQP queues.
#![forbid(unsafe_code)]
pub mod asyncapi;
pub mod bridge;
pub mod broker;
pub mod cli;
pub mod code;
pub mod collect;
pub mod config;
pub mod console;
pub mod deliver;
pub mod draft;
pub mod emit;
pub mod event;
pub mod format;
pub mod letter;
pub mod listen;
pub mod mapping;
pub mod ops;
pub mod problem;
pub mod retry;
pub mod store;
pub mod system;
pub mod telemetry;
pub mod template;
pub mod tls;
pub mod tree;
pub mod verdict;
