//! Systems: the closed set of ways to reach one. Sending, asking and receiving, with every failure classified by what it
//! means for the request. The only user of reqwest; knows no event and no store.

pub mod amqp;
pub mod answer;
pub mod files;
pub mod http;
pub mod management;
mod pace;
pub mod receiver;
pub mod sign;
pub mod sql;

pub use amqp::AmqpSystem;
pub use answer::{Heard, Said, classify};
pub use files::FileSystem;
pub use http::{Body, HttpSystem};
pub use sql::SqlSystem;

use crate::{
    broker::{Link, Publisher},
    config::{Config, Instance, plan::SystemPlan},
    verdict::Failure,
};
use std::sync::Arc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A system that can be reached.
pub enum System {
    /// Over HTTP.
    Http(HttpSystem),
    /// It is a broker.
    Amqp(AmqpSystem),
    /// By files.
    Files(FileSystem),
    /// It is a database.
    Sql(SqlSystem),
}

impl System {
    /// Makes ready to reach a system. Nothing is sent yet.
    ///
    /// # Errors
    /// Settings that cannot work: an address, a certificate, a secret.
    pub fn open(
        instance: &Arc<Instance>,
        config: &Config,
        platform: (&Link, &Publisher),
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<System, Failure> {
        Ok(match &instance.adapter.system {
            SystemPlan::Http(plan) => System::Http(HttpSystem::open(instance.clone(), plan)?),
            SystemPlan::Amqp(plan) => {
                System::Amqp(AmqpSystem::open(instance, plan, config, platform, stop, tasks)?)
            }
            SystemPlan::Files(plan) => System::Files(FileSystem::open(instance, instance.files(plan))?),
            SystemPlan::Sql(plan) => System::Sql(SqlSystem::open(instance.clone(), plan)?),
        })
    }

    /// Why nothing is tried any more until a person has looked, if that is so: see [`FileSystem::stopped`].
    pub fn stopped(&self) -> Option<Failure> {
        match self {
            System::Files(files) => files.stopped(),
            System::Http(_) | System::Amqp(_) | System::Sql(_) => None,
        }
    }
}
