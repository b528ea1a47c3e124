//! Databases, both ways, on a real PostgreSQL that `scripts/test` started: each test has a database of its own there, with users
//! who may do as much as a council's would.

mod checks;
mod deliver;
mod dump;
#[cfg(feature = "odbc")]
mod odbc;
mod query;
mod tls;
mod view;

#[cfg(feature = "kill-points")]
pub use view::COMPARED;

use crate::support::{Folder, Site, root, until};
use std::{
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
};

/// The route that reads.
pub const QUERY: &str = "records.changes";
/// The route that writes.
const WRITE: &str = "records.write";

/// A database of a test's own, with a user who reads and one who writes.
pub struct Database {
    pub address: String,
    pub name: String,
    pub user: String,
    pub password: String,
    /// A server of the test's own, gone with it.
    _server: Option<Server>,
}

/// A PostgreSQL of a test's own, to be killed.
pub struct Server(Folder);

impl Server {
    fn path(&self) -> PathBuf {
        self.0.0.join("postgres")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ =
            std::process::Command::new(root().join("scripts/postgres")).arg("stop").arg(self.path()).status();
    }
}

fn setting(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: these tests need a PostgreSQL; run scripts/test"))
}

async fn script(arguments: &[&str], configuration: Option<&std::path::Path>) -> String {
    let mut command = tokio::process::Command::new(root().join("scripts/postgres"));
    if let Some(path) = configuration {
        command.env("POSTGRES_CONF", path);
    }
    let output = command.args(arguments).stdin(Stdio::null()).output().await.unwrap();
    assert!(
        output.status.success(),
        "scripts/postgres {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Database {
    /// One on the server that all tests share.
    pub async fn new() -> Database {
        let (address, user, password) =
            (setting("POSTGRES_ADDRESS"), setting("POSTGRES_USER"), setting("POSTGRES_PASSWORD"));
        Database::on(address, user, password, None).await
    }

    /// One on a server of the test's own.
    pub async fn alone() -> Database {
        Database::configured(|_| String::new()).await
    }

    /// The same with more of its configuration, which may name files in a folder.
    pub async fn configured(configuration: impl Fn(&Folder) -> String) -> Database {
        let folder = Folder::new();
        let more = configuration(&folder);
        let more = folder.write("more.conf", more);
        let server = Server(folder);
        let out = script(&["start", server.path().to_str().unwrap()], Some(&more)).await;
        let of = |name: &str| {
            let line = out.lines().find_map(|line| line.strip_prefix(&format!("{name}='")));
            line.unwrap_or_else(|| panic!("no {name} in {out}")).trim_end_matches('\'').to_owned()
        };
        Database::on(of("POSTGRES_ADDRESS"), of("POSTGRES_USER"), of("POSTGRES_PASSWORD"), Some(server)).await
    }

    async fn on(address: String, user: String, password: String, server: Option<Server>) -> Database {
        crate::support::crypto();
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let database = Database { address, name, user, password, _server: server };
        database.run_in("postgres", &format!("CREATE DATABASE {}", database.name)).await;
        for role in ["reader", "writer"] {
            let role = database.role(role);
            database.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD '{}'", database.password)).await;
        }
        database
    }

    /// None at all: for a project whose database is elsewhere.
    #[cfg(feature = "odbc")]
    pub fn nowhere(password: String) -> Database {
        Database { address: String::new(), name: String::new(), user: String::new(), password, _server: None }
    }

    /// A user of this database's own.
    pub fn role(&self, role: &str) -> String {
        format!("{}_{role}", self.name)
    }

    pub async fn client(&self, database: &str) -> tokio_postgres::Client {
        let (host, port) = self.address.rsplit_once(':').unwrap();
        let mut config = tokio_postgres::Config::new();
        config
            .host(host)
            .port(port.parse().unwrap())
            .user(&self.user)
            .password(&self.password)
            .dbname(database);
        let (client, connection) =
            until("the database", async || config.connect(tokio_postgres::NoTls).await.ok()).await;
        tokio::spawn(connection);
        client
    }

    async fn run_in(&self, database: &str, sql: &str) {
        let client = self.client(database).await;
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Runs statements as the superuser.
    pub async fn sql(&self, sql: &str) {
        self.run_in(&self.name, sql).await;
    }

    /// The first column of every row, as text.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let client = self.client(&self.name).await;
        let answer = client.simple_query(sql).await.unwrap();
        let text = |message: &tokio_postgres::SimpleQueryMessage| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
            _ => None,
        };
        answer.iter().filter_map(text).collect()
    }

    async fn script(&self, command: &str) {
        let server = self._server.as_ref().expect("a server of the test's own");
        script(&[command, server.path().to_str().unwrap()], None).await;
    }

    /// `kill -9`.
    pub async fn kill(&self) {
        self.script("kill").await;
    }

    pub async fn again(&self) {
        self.script("again").await;
    }

    /// A table that a council's system could have, and what the two users may do with it.
    pub async fn table(&self) {
        self.sql(&format!(
            "CREATE TABLE record (id integer PRIMARY KEY, name text, amount numeric(20,4), changed timestamptz); \
             GRANT SELECT ON record TO {}; GRANT SELECT, INSERT, UPDATE ON record TO {}",
            self.role("reader"),
            self.role("writer")
        ))
        .await;
    }

    /// A bridge's project for it, with this adapter and these statements (name and text).
    pub async fn site(&self, adapter: &str, statements: &[(&str, &str)]) -> Site {
        let site = Site::new("").await;
        // Nothing but what the tests are about.
        for folder in ["adapters", "mappings"] {
            std::fs::remove_dir_all(site.folder.0.join(folder)).unwrap();
        }
        self.put(&site, adapter, statements);
        site
    }

    /// Adds to a project what it takes to reach this database with this adapter and these statements.
    pub fn put(&self, site: &Site, adapter: &str, statements: &[(&str, &str)]) {
        for (name, text) in FILES {
            site.folder.write(&format!("mappings/{name}"), text);
        }
        site.folder.write("adapters/records.toml", adapter);
        for (name, text) in statements {
            site.folder.write(&format!("adapters/records/{name}"), text);
        }
        let path = site.folder.write("secrets/database", &self.password);
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The settings of the adapter, as a user.
    pub fn settings(&self, role: &str) -> String {
        format!(
            "[adapters.records]\nsettings = {{ address = \"{}\", database = \"{}\", user = \"{}\", password = \"file:$FOLDER/secrets/database\" }}\n",
            self.address,
            self.name,
            self.role(role)
        )
    }

    /// A project that reads the table by its moment.
    pub async fn reading(&self) -> Site {
        let site = self.site(&format!("{HEAD}{READ}"), &[("changes.sql", CHANGES)]).await;
        site.settings(&site.vhost.address(), &self.settings("reader"));
        site
    }

    /// A project that writes to the table.
    pub async fn writing(&self, route: &str, statements: &[(&str, &str)]) -> Site {
        let site = self.site(&format!("{HEAD}write = true\n{route}"), statements).await;
        site.settings(&site.vhost.address(), &self.settings("writer"));
        site
    }
}

/// The beginning of every adapter here.
pub const HEAD: &str = r#"
version = 1
title = "Records"
about = "A table of records, for the tests."
[settings.address]
about = "Host and port"
[settings.database]
about = "The database"
[settings.user]
about = "The user"
[settings.password]
about = "The password"
secret = true
[sql]
database = "postgres"
address = "{{ settings.address }}"
name = "{{ settings.database }}"
username = "{{ settings.user }}"
password = "password"
timeout = "10s"
lock_timeout = "500ms"
"#;

/// A route that reads by the moment of the last change.
pub const READ: &str = r#"
[collect.changes]
about = "Tells of each record that is new or has changed."
format = "json"
events = [{ mapping = "records/seen" }]
[collect.changes.query]
statement = "changes.sql"
every = "200ms"
cursor = { column = "changed", first = "2026-01-01T00:00:00Z", overlap = "10m", kind = "time" }
"#;

pub const CHANGES: &str = "SELECT id, name, amount, changed FROM record\nWHERE changed >= :cursor -- from here on\nORDER BY changed;\n";

/// The events and mappings of the tests.
const FILES: [(&str, &str); 6] = [
    (
        "events/record.seen.v1.schema.json",
        r#"{ "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://packhorse.example/events/record.seen.v1.schema.json",
            "title": "Record seen", "description": "A record is new or has changed.", "x-event-type": "record.seen.v1", "x-subject": ["record_id"],
            "type": "object", "required": ["record_id"],
            "properties": {
              "record_id": { "type": "string", "description": "Its number.", "minLength": 1, "maxLength": 20, "examples": ["1"] },
              "name": { "type": "string", "description": "Its name.", "maxLength": 2000, "examples": ["one"] },
              "amount": { "type": "string", "description": "Its amount.", "maxLength": 60, "examples": ["1.5"] } } }"#,
    ),
    (
        "events/record.seen.v1.example.json",
        r#"{ "data": { "record_id": "1", "name": "one", "amount": "1.5" } }"#,
    ),
    (
        "events/record.wanted.v1.schema.json",
        r#"{ "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://packhorse.example/events/record.wanted.v1.schema.json",
            "title": "Record wanted", "description": "A record is to be written.", "x-event-type": "record.wanted.v1", "x-subject": ["record_id"],
            "type": "object", "required": ["record_id"],
            "properties": {
              "record_id": { "type": "string", "description": "Its number.", "minLength": 1, "maxLength": 20, "examples": ["1"] },
              "name": { "type": "string", "description": "Its name.", "maxLength": 2000, "examples": ["one"] },
              "amount": { "type": "string", "description": "Its amount.", "maxLength": 60, "examples": ["1.5"] } } }"#,
    ),
    (
        "events/record.wanted.v1.example.json",
        r#"{ "data": { "record_id": "1", "name": "one", "amount": "1.5" } }"#,
    ),
    (
        "records/seen.toml",
        r#"
version = 1
about = "A row of the table of records."
event = "record.seen.v1"
only = "to-event"
fields = [
  { event = "$id", template = "{{ document.id }}:{{ document.changed }}" },
  { event = "record_id", document = "id" },
  { event = "name", document = "name" },
  { event = "amount", document = "amount" },
]
ignore = ["changed"]
[document]
format = "json"
"#,
    ),
    (
        "records/row.toml",
        r#"
version = 1
about = "A row of the table of records."
event = "record.wanted.v1"
only = "to-document"
fields = [
  { event = "record_id", document = "id" },
  { event = "name", document = "name" },
  { event = "amount", document = "amount" },
]
[document]
format = "json"
"#,
    ),
];
