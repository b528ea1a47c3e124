//! The same promises through ODBC, with two drivers of unixODBC: psqlODBC on the real PostgreSQL, and SQLite's.

use super::{Database, QUERY, WRITE, dump::dump};
use crate::support::{Site, until};
use serde_json::json;

/// The beginning of an adapter that goes through a driver.
const HEAD: &str = r#"
version = 1
title = "Records"
about = "A table of records, for the tests."
[settings.connection]
about = "The connection string"
[settings.password]
about = "The password"
secret = true
optional = true
[sql]
database = "odbc"
connection = "{{ settings.connection }}"
timeout = "10s"
"#;

/// A database behind a driver.
enum Behind {
    Postgres(Database),
    Sqlite(crate::support::Folder),
}

impl Behind {
    async fn postgres() -> Behind {
        Behind::Postgres(Database::new().await)
    }

    fn sqlite() -> Behind {
        crate::support::crypto();
        Behind::Sqlite(crate::support::Folder::new())
    }

    /// Runs statements, past the driver.
    async fn sql(&self, sql: &str) {
        match self {
            Behind::Postgres(database) => {
                database.sql(sql).await;
                let role = database.role("writer");
                database.sql(&format!("GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")).await;
            }
            Behind::Sqlite(folder) => {
                let connection = rusqlite::Connection::open(folder.0.join("db")).unwrap();
                connection.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
                connection.execute_batch(sql).unwrap();
            }
        }
    }

    async fn texts(&self, sql: &str) -> Vec<String> {
        match self {
            Behind::Postgres(database) => database.texts(sql).await,
            Behind::Sqlite(folder) => {
                let connection = rusqlite::Connection::open(folder.0.join("db")).unwrap();
                let mut statement = connection.prepare(sql).unwrap();
                let text = |row: &rusqlite::Row<'_>| {
                    Ok(match row.get_ref(0)? {
                        rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                        rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                        rusqlite::types::ValueRef::Real(number) => number.to_string(),
                        _ => "NULL".to_owned(),
                    })
                };
                statement.query_map([], text).unwrap().map(Result::unwrap).collect()
            }
        }
    }

    async fn site(&self, more: &str, statements: &[(&str, &str)]) -> Site {
        let connection = match self {
            Behind::Postgres(database) => {
                let (host, port) = database.address.rsplit_once(':').unwrap();
                // The password through the reference, as a council would give it.
                format!(
                    "Driver={{PostgreSQL Unicode}};Server={host};Port={port};Database={};UID={};BoolsAsChar=0",
                    database.name,
                    database.role("writer")
                )
            }
            Behind::Sqlite(folder) => {
                format!("Driver={{SQLite3}};Database={};Timeout=2000", folder.0.join("db").display())
            }
        };
        let password = match self {
            Behind::Postgres(database) => database.password.clone(),
            Behind::Sqlite(_) => String::new(),
        };
        let uses = if password.is_empty() { "" } else { "password = \"password\"\n" };
        let database = Database::nowhere(password.clone());
        let site = database.site(&format!("{HEAD}{uses}{more}"), statements).await;
        let secret = if password.is_empty() { "" } else { ", password = \"file:$FOLDER/secrets/database\"" };
        let settings =
            format!("[adapters.records]\nsettings = {{ connection = \"{connection}\"{secret} }}\n");
        site.settings(&site.vhost.address(), &settings);
        site
    }
}

const READ: &str = r#"
[collect.changes]
about = "Tells of each record that is new or has changed."
format = "json"
events = [{ mapping = "records/seen" }]
[collect.changes.query]
statement = "changes.sql"
every = "200ms"
cursor = { column = "changed", first = "2026-01-01 00:00:00", overlap = "10m", kind = "time" }
"#;

fn table() -> &'static str {
    "CREATE TABLE record (id integer PRIMARY KEY, name varchar(40) NOT NULL, amount numeric(20,4), changed timestamp)"
}

async fn reads(behind: Behind) {
    // SQLite keeps moments as texts, with a blank in the middle.
    let from = match &behind {
        Behind::Postgres(_) => "CAST(:cursor AS timestamp)",
        Behind::Sqlite(_) => "replace(:cursor, 'T', ' ')",
    };
    let query =
        format!("SELECT id, name, amount, changed FROM record WHERE changed >= {from} ORDER BY changed");
    behind.sql(table()).await;
    behind.sql("INSERT INTO record VALUES (1, 'one', 1.5, '2026-11-24 09:00:00'), (2, 'two £', NULL, '2026-11-24 09:00:00')").await;
    let site = behind.site(READ, &[("changes.sql", &query)]).await;
    let bridge = site.start().await;
    site.vhost.until("platform", 2).await;
    // Committed late: an earlier moment, within the overlap.
    behind.sql("INSERT INTO record VALUES (3, 'three', 3, '2026-11-24 08:55:00'), (4, 'four', 4, '2026-11-24 09:00:00')").await;
    let seen = site.vhost.until("platform", 4).await;
    let mut names: Vec<String> =
        seen.iter().map(|event| event.json()["data"]["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["four", "one", "three", "two £"]);
    tokio::time::sleep(std::time::Duration::from_millis(900)).await;
    assert_eq!(site.vhost.peek("platform").await.len(), 4);
    assert!(bridge.stop().await);
    assert_eq!(site.account(QUERY).await["delivered"], json!(4));
    let (code, out, err) = site.command(&["doctor"]).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("by ODBC"), "{out}");
    behind.sql("ALTER TABLE record RENAME COLUMN name TO full_name").await;
    let (code, out, _) = site.command(&["doctor"]).await;
    assert!(code == 1 && out.contains("PH2403") && out.contains("name"), "{out}");
}

async fn writes(behind: Behind) {
    behind.sql(table()).await;
    behind.sql("ALTER TABLE record ADD COLUMN note varchar(10) CHECK (length(note) < 5)").await;
    let route = "write = true\n[deliver.write]\nabout = \"Writes a record.\"\nevent = \"record.wanted.v1\"\nmapping = \"records/row\"\nmakes = \"record\"\nrepeat = \"probe\"\n\
                 statement = { file = \"write.sql\", expect_rows = 1 }\n[deliver.write.probe]\nstatement = \"probe.sql\"\n";
    let route = route.replacen("write = true\n", "", 1);
    let insert = "INSERT INTO record (id, name, amount) VALUES (CAST(:id AS integer), :name, CAST(:amount AS numeric))";
    let probe = "SELECT id FROM record WHERE id = CAST(:id AS integer)";
    let site =
        behind.site(&format!("write = true\n{route}"), &[("write.sql", insert), ("probe.sql", probe)]).await;
    let bridge = site.start().await;
    let want =
        async |event: &str, data: serde_json::Value| site.vhost.say("record.wanted.v1", event, &data).await;
    want(
        "event-1",
        json!({ "record_id": "1", "name": "Zoë '); DROP TABLE record; -- 😀", "amount": "12.5" }),
    )
    .await;
    until("the row", async || {
        (behind.texts("SELECT name FROM record").await == ["Zoë '); DROP TABLE record; -- 😀"]).then_some(())
    })
    .await;
    assert!(behind.texts("SELECT amount FROM record").await[0].starts_with("12.5"));
    // The same key: refused, with its name and without a value.
    want("event-2", json!({ "record_id": "1", "name": "QQ123456C", "amount": "1" })).await;
    let dead = site.dead(1).await;
    let (code, what) = (dead[0].header("packhorse_code"), dead[0].header("packhorse_what"));
    assert_eq!(code, "PH2402", "{what}");
    assert!(!what.contains("QQ123456C"));
    want("event-3", json!({ "record_id": "3" })).await;
    let dead = site.dead(2).await;
    let letter = dead.iter().find(|letter| letter.header("packhorse_code") == "PH2401").expect("a refusal");
    assert!(letter.header("packhorse_field").contains("name"), "{}", letter.header("packhorse_what"));
    assert!(bridge.stop().await);
    assert_eq!(behind.texts("SELECT id FROM record").await, ["1"]);
    assert_eq!(site.account(WRITE).await["delivered"], json!(1));
}

async fn dumps(behind: Behind) {
    behind
        .sql("CREATE TABLE wide (id integer, amount numeric(20,4), missing text, raw_name text, day date)")
        .await;
    behind.sql("INSERT INTO wide VALUES (1, 12.5, NULL, 'it''s \"x\" £', '2026-02-28')").await;
    let site = behind
        .site(&READ.replace("cursor = {", "#"), &[("changes.sql", "SELECT * FROM wide ORDER BY id")])
        .await;
    let (dumped, text) = dump(&site, "changes", &[]).await.unwrap();
    assert_eq!(dumped.rows, 1);
    let row: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(row["id"], json!(1));
    assert!(row["amount"].as_f64() == Some(12.5), "{text}");
    assert_eq!(
        (&row["missing"], &row["raw_name"], &row["day"]),
        (&json!(null), &json!("it's \"x\" £"), &json!("2026-02-28"))
    );
}

#[tokio::test]
async fn rows_are_read_through_psqlodbc() {
    reads(Behind::postgres().await).await;
}

#[tokio::test]
async fn rows_are_read_through_the_driver_of_sqlite() {
    reads(Behind::sqlite()).await;
}

#[tokio::test]
async fn documents_are_written_through_psqlodbc() {
    writes(Behind::postgres().await).await;
}

#[tokio::test]
async fn documents_are_written_through_the_driver_of_sqlite() {
    writes(Behind::sqlite()).await;
}

#[tokio::test]
async fn a_view_is_dumped_through_psqlodbc() {
    dumps(Behind::postgres().await).await;
}

#[tokio::test]
async fn a_view_is_dumped_through_the_driver_of_sqlite() {
    dumps(Behind::sqlite()).await;
}

#[tokio::test]
async fn a_driver_that_is_not_installed_is_told_by_name() {
    let site = Behind::sqlite()
        .site(READ, &[("changes.sql", "SELECT 1 AS id, 1 AS changed WHERE 1 > :cursor ORDER BY 2")])
        .await;
    site.edit("packhorse.toml", "SQLite3", "No Such Driver");
    let (code, out, _) = site.command(&["doctor"]).await;
    assert!(code == 1 && out.contains("PH2001"), "{out}");
}
