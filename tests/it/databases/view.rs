//! Whole looks at a query, compared: what befalls the table's columns between two of them.

use super::{Database, HEAD};
use crate::support::{Site, until};
use serde_json::Value;

pub const COMPARED: &str = r#"
[collect.changes]
about = "Tells what has changed of the records."
format = "json"
compare = { key = ["id"], first_is_news = true }
events = [{ mapping = "records/seen" }]
[collect.changes.query]
statement = "changes.sql"
every = "200ms"
"#;

const EVERYTHING: &str = "SELECT * FROM record";

async fn logged(site: &Site, text: &str) {
    until(&format!("{text:?} in the log"), async || {
        let log = std::fs::read_to_string(site.folder.0.join("log")).unwrap_or_default();
        log.contains(text).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_column_that_is_gone_or_of_another_type_is_told_and_no_row_counts_as_changed_for_it() {
    let database = Database::new().await;
    database.table().await;
    database.sql("ALTER TABLE record ADD code text, ADD seen timestamp").await;
    let site = database.site(&format!("{HEAD}{COMPARED}"), &[("changes.sql", EVERYTHING)]).await;
    // What is not mapped is said so, as an officer would.
    site.edit(
        "mappings/records/seen.toml",
        "ignore = [\"changed\"]",
        "ignore = [\"changed\", \"code\", \"seen\"]",
    );
    site.settings(&site.vhost.address(), &database.settings("reader"));
    let moment = "'2026-11-24 09:00:00+00'";
    let rows: Vec<String> =
        (1..=4).map(|n| format!("({n}, 'n{n}', {n}, {moment}, '{n}', '2026-11-24 00:00:00')")).collect();
    database.sql(&format!("INSERT INTO record VALUES {}", rows.join(", "))).await;
    let running = site.run().await;
    let mut count = 4;
    site.vhost.until("platform", count).await;
    for (change, told, back) in [
        (
            "ALTER code TYPE integer USING code::integer",
            "the column `code` of `changes.sql` was text and is number now",
            "ALTER code TYPE text",
        ),
        (
            "ALTER seen TYPE date",
            "the column `seen` of `changes.sql` was date and time and is date now",
            "ALTER seen TYPE timestamp",
        ),
        ("RENAME code TO category", "no longer gives the column `code`", "RENAME category TO code"),
        ("RENAME id TO number", "the query has no column `id`", "RENAME number TO id"),
    ] {
        database.sql(&format!("ALTER TABLE record {change}")).await;
        logged(&site, told).await;
        // Put right, it goes on by itself, and only what has changed is told.
        database.sql(&format!("ALTER TABLE record {back}")).await;
        count += 1;
        database
            .sql(&format!("UPDATE record SET name = 'changed {count}', changed = now() WHERE id = 2"))
            .await;
        let events = site.vhost.until("platform", count).await;
        assert_eq!(events.len(), count, "{change}");
    }
    let log = std::fs::read_to_string(site.folder.0.join("log")).unwrap();
    assert!(log.contains("PH2406") && log.contains("PH2407"), "{log}");
    // Meant: the statement is changed to fit. Every row says something else now, and a person has the last word.
    assert_eq!(running.terminate().await, 0);
    database.sql("ALTER TABLE record ALTER code TYPE integer USING code::integer").await;
    site.folder.write("adapters/records/changes.sql", format!("-- code is a number now\n{EVERYTHING}"));
    let running = site.run().await;
    let held: Value = until("the look waits", async || {
        let out = site.good(&["extracts", "list", "--json"]).await;
        out.lines().next().map(|line| serde_json::from_str(line).unwrap())
    })
    .await;
    assert_eq!(held["code"], "PH2304", "{held}");
    let number = held["number"].to_string();
    site.good(&[
        "extracts",
        "accept",
        &number,
        "--as-baseline",
        "--by",
        "Olu",
        "--reason",
        "code is a number",
    ])
    .await;
    until("it is the baseline", async || {
        let out = site.good(&["extracts", "list", "--json"]).await;
        out.is_empty().then_some(())
    })
    .await;
    database.sql("UPDATE record SET name = 'last', changed = now() WHERE id = 4").await;
    assert_eq!(site.vhost.until("platform", count + 1).await.len(), count + 1);
    assert_eq!(running.terminate().await, 0);
}
