//! The store: every operation on SQLite and on PostgreSQL, with the same answers; what holds of both when something breaks.

mod conformance;
mod faults;
mod moves;
mod several;
pub mod versions;

use crate::{databases::Database, support::Folder};
use packhorse::{
    config::{self, StoreServer, secrets::SecretRef},
    store::{Opener, Store},
};
use std::{sync::Arc, time::Duration};

/// A store's home, on one of the two.
pub struct Home {
    pub folder: Folder,
    pub database: Option<Database>,
    /// What stands between the two, if anything.
    pub through: Option<std::net::SocketAddr>,
}

impl Home {
    pub fn on_sqlite() -> Home {
        Home { folder: Folder::new(), database: None, through: None }
    }

    pub async fn on_postgres() -> Home {
        Home { folder: Folder::new(), database: Some(Database::new().await), through: None }
    }

    /// Where it is, as a configuration says it.
    pub fn config(&self) -> config::Store {
        let server = self.database.as_ref().map(|database| {
            let address = self.through.map_or(database.address.clone(), |through| through.to_string());
            let (host, port) = address.rsplit_once(':').unwrap();
            Arc::new(StoreServer {
                hosts: vec![(host.to_owned(), port.parse().unwrap())],
                database: database.name.clone(),
                schema: "packhorse_example".to_owned(),
                username: Some(database.user.clone()),
                password: Some(SecretRef::File(self.folder.write("password", &database.password))),
                tls: None,
            })
        });
        config::Store {
            path: self.folder.0.join("packhorse.db"),
            server,
            spool_limit: 1 << 20,
            keep: Duration::from_secs(1),
            dead_letters: Duration::from_secs(1),
        }
    }

    pub fn open(&self, opener: Opener) -> Store {
        Store::of(&self.config(), opener).unwrap_or_else(|error| panic!("{error}"))
    }
}
