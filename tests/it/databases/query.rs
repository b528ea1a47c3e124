//! Rows become events: each once, none passed over, whatever the table, the database and the bridge go through.

use super::{CHANGES, Database, HEAD, QUERY, READ};
use crate::support::{Site, until};
use serde_json::json;

/// The platform was told of so many; the names in the order of their record's numbers.
async fn told(site: &Site, count: usize) -> Vec<String> {
    let seen = site.vhost.until("platform", count).await;
    let mut names: Vec<(i64, String)> = seen
        .iter()
        .map(|event| {
            let data = &event.json()["data"];
            let id = data["record_id"].as_str().unwrap().parse().unwrap();
            (id, data["name"].as_str().unwrap_or("nothing").to_owned())
        })
        .collect();
    names.sort();
    names.into_iter().map(|(_, name)| name).collect()
}

/// Lets the route look a few times more: what it should not do would show.
async fn some_looks() {
    tokio::time::sleep(std::time::Duration::from_millis(900)).await;
}

/// Waits until the log of the program holds a text.
async fn logged(site: &Site, text: &str) -> String {
    until(&format!("{text:?} in the log"), async || {
        let log = std::fs::read_to_string(site.folder.0.join("log")).unwrap_or_default();
        log.contains(text).then_some(log)
    })
    .await
}

#[tokio::test]
async fn what_is_committed_late_and_rows_of_the_same_moment_are_not_passed_over() {
    let database = Database::new().await;
    database.table().await;
    let site = database.reading().await;
    let bridge = site.start().await;
    // A transaction that takes its moment first and commits last.
    let slow = database.client(&database.name).await;
    slow.batch_execute("BEGIN; INSERT INTO record VALUES (1, 'late', 1, '2026-11-24 09:00:00+00')")
        .await
        .unwrap();
    let same = "'2026-11-24 09:05:00.123456+00'";
    database.sql(&format!("INSERT INTO record VALUES (2, 'b', NULL, {same}), (3, 'c', 3, {same})")).await;
    told(&site, 2).await;
    slow.batch_execute("COMMIT").await.unwrap();
    database.sql(&format!("INSERT INTO record VALUES (4, 'd', 4, {same})")).await;
    assert_eq!(told(&site, 4).await, ["late", "b", "c", "d"]);
    // A row that changes again is another event; the others are known.
    database.sql("UPDATE record SET name = 'B', changed = '2026-11-24 09:06:00+00' WHERE id = 2").await;
    assert_eq!(told(&site, 5).await, ["late", "B", "b", "c", "d"]);
    some_looks().await;
    assert_eq!(site.vhost.peek("platform").await.len(), 5);
    assert!(bridge.stop().await);
    let account = site.account(QUERY).await;
    assert_eq!(account["delivered"], json!(5));
}

#[tokio::test]
async fn a_database_that_is_killed_in_the_middle_is_asked_on_and_nothing_is_missing() {
    let database = Database::alone().await;
    database.table().await;
    let fill = |from: u32| {
        format!(
            "INSERT INTO record SELECT n, 'r' || n, n, '2026-11-24 09:00:00+00'::timestamptz + n * interval '1 second' FROM generate_series({from}, {}) n",
            from + 1499
        )
    };
    database.sql(&fill(1)).await;
    let site = database.reading().await;
    let bridge = site.start().await;
    site.vhost.until("platform", 100).await;
    database.kill().await;
    database.again().await;
    database.sql(&fill(1501)).await;
    until("3000 events", async || (site.vhost.depth("platform").await >= 3000).then_some(())).await;
    some_looks().await;
    assert_eq!(site.vhost.depth("platform").await, 3000);
    assert!(bridge.stop().await);
    assert_eq!(site.account(QUERY).await["delivered"], json!(3000));
}

#[tokio::test]
async fn a_bridge_that_is_killed_while_it_takes_in_goes_on_where_it_was() {
    let database = Database::new().await;
    database.table().await;
    database.sql("INSERT INTO record SELECT n, 'r' || n, n, '2026-11-24 09:00:00+00'::timestamptz + n * interval '1 second' FROM generate_series(1, 6000) n").await;
    let site = database.reading().await;
    for _ in 0..3 {
        let running = site.run().await;
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        running.kill().await;
    }
    let running = site.run().await;
    until("6000 events", async || (site.vhost.depth("platform").await >= 6000).then_some(())).await;
    some_looks().await;
    assert_eq!(running.terminate().await, 0);
    let mut ids = site.vhost.everything("platform").await;
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6000);
    assert_eq!(site.account(QUERY).await["delivered"], json!(6000));
}

#[tokio::test]
async fn a_renamed_column_stops_the_route_by_name_and_nothing_is_lost() {
    let database = Database::new().await;
    database.table().await;
    let site = database.reading().await;
    database.sql("INSERT INTO record VALUES (1, 'a', 1, '2026-11-24 09:00:00+00')").await;
    let running = site.run().await;
    told(&site, 1).await;
    database.sql("ALTER TABLE record RENAME name TO full_name").await;
    database.sql("INSERT INTO record VALUES (2, 'b', 2, '2026-11-24 09:01:00+00')").await;
    let log = logged(&site, "PH2403").await;
    assert!(log.contains("column \"name\" does not exist"), "{log}");
    let (code, out, _) = site.command(&["doctor"]).await;
    assert!(code == 1 && out.contains("column \"name\" does not exist"), "{out}");
    database.sql("ALTER TABLE record RENAME full_name TO name").await;
    assert_eq!(told(&site, 2).await, ["a", "b"]);
    assert_eq!(running.terminate().await, 0);
}

#[tokio::test]
async fn a_column_that_a_star_no_longer_gives_or_gives_as_another_type_stops_the_route_by_name() {
    let database = Database::new().await;
    database.table().await;
    let statement = "SELECT * FROM record WHERE changed >= :cursor ORDER BY changed";
    let site = database.site(&format!("{HEAD}{READ}"), &[("changes.sql", statement)]).await;
    site.settings(&site.vhost.address(), &database.settings("reader"));
    database.sql("INSERT INTO record VALUES (1, 'a', 1, '2026-11-24 09:00:00+00')").await;
    let running = site.run().await;
    told(&site, 1).await;
    database.sql("ALTER TABLE record RENAME amount TO total").await;
    database.sql("INSERT INTO record VALUES (2, 'b', 2, '2026-11-24 09:01:00+00')").await;
    let log = logged(&site, "PH2406").await;
    assert!(log.contains("no longer gives the column `amount`"), "{log}");
    database.sql("ALTER TABLE record RENAME total TO amount").await;
    told(&site, 2).await;
    database.sql("ALTER TABLE record ALTER amount TYPE text").await;
    database.sql("INSERT INTO record VALUES (3, 'c', 'three', '2026-11-24 09:02:00+00')").await;
    let log = logged(&site, "was number and is text now").await;
    assert!(log.contains("`amount`"), "{log}");
    some_looks().await;
    assert_eq!(site.vhost.peek("platform").await.len(), 2, "nothing is taken meanwhile");
    // A person looks, and says by a change of the statement that it is as it should be.
    assert_eq!(running.terminate().await, 0);
    site.folder.write("adapters/records/changes.sql", format!("-- amount is a text\n{statement}"));
    let running = site.run().await;
    assert_eq!(told(&site, 3).await, ["a", "b", "c"]);
    assert_eq!(running.terminate().await, 0);
}

#[tokio::test]
async fn every_type_becomes_what_json_can_hold_with_every_digit() {
    let database = Database::new().await;
    database
        .sql("CREATE TABLE wide (id int, n numeric(20,4), big numeric, f float8, nan numeric, m money, c char(5), t text, b boolean, \
              d date, d1 date, dinf date, ts timestamp, tz timestamptz, inf timestamptz, raw bytea, u uuid, j jsonb, a int[], i interval, missing text)")
        .await;
    database
        .sql("INSERT INTO wide VALUES (1, 1234567890123456.7800, 123456789012345678901234567890.10, 0.1, 'NaN', 12.5, 'ab', E'it''s \"x\"\\n', true, \
              '2026-02-28', '0001-01-01', 'infinity', '2026-10-25 01:30:00.5', '2026-10-25 01:30:00+01', '-infinity', '\\x00ff', \
              '6f1c2b1a-0000-4000-8000-000000000001', '{\"a\": 1.50}', '{1,2}', '90 minutes', NULL)")
        .await;
    let adapter = format!(
        "{HEAD}{}",
        READ.replace(
            "\"changed\", first = \"2026-01-01T00:00:00Z\", overlap = \"10m\", kind = \"time\"",
            "\"id\", first = \"0\", overlap = 5, kind = \"number\""
        )
    );
    let statement = "SELECT * FROM wide WHERE id > :cursor ORDER BY id";
    let site = database.site(&adapter, &[("changes.sql", statement)]).await;
    site.settings(&site.vhost.address(), &database.settings("reader"));
    database.sql(&format!("GRANT SELECT ON wide TO {}", database.role("reader"))).await;
    let file = super::dump::dump(&site, "changes", &[("cursor", "0")]).await.unwrap().1;
    let row: serde_json::Value = serde_json::from_str(&file).unwrap();
    assert!(file.contains("\"n\":1234567890123456.7800"), "{file}");
    assert!(file.contains("\"big\":123456789012345678901234567890.10"), "{file}");
    let expected = json!({ "f": 0.1, "nan": "NaN", "m": "$12.50", "c": "ab   ", "t": "it's \"x\"\n", "b": true, "d": "2026-02-28",
        "d1": "0001-01-01", "dinf": "infinity", "ts": "2026-10-25T01:30:00.5", "tz": "2026-10-25T00:30:00Z", "inf": "-infinity",
        "raw": "AP8=", "u": "6f1c2b1a-0000-4000-8000-000000000001", "j": "{\"a\": 1.50}", "a": "{1,2}", "i": "PT1H30M", "missing": null });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&row[name], value, "{name}");
    }
}

#[tokio::test]
async fn a_row_of_the_year_2099_or_of_no_moment_is_taken_and_moves_no_cursor() {
    let database = Database::new().await;
    database.table().await;
    let statement = "SELECT id, name, amount, changed FROM record WHERE changed >= :cursor OR changed IS NULL ORDER BY changed";
    let site = database.site(&format!("{HEAD}{READ}"), &[("changes.sql", statement)]).await;
    site.settings(&site.vhost.address(), &database.settings("reader"));
    database.sql("INSERT INTO record VALUES (1, 'future', 1, '2099-12-31 00:00:00+00'), (2, 'never', 1, 'infinity'), (3, 'none', 1, NULL)").await;
    let bridge = site.start().await;
    told(&site, 3).await;
    database.sql("INSERT INTO record VALUES (4, 'now', 4, '2026-11-24 09:00:00+00')").await;
    assert_eq!(told(&site, 4).await, ["future", "never", "none", "now"]);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn more_rows_than_a_look_may_bring_come_with_the_next_and_a_limit_within_the_overlap_is_told() {
    let database = Database::new().await;
    database.table().await;
    let site = database.reading().await;
    site.edit("adapters/records.toml", "every = \"200ms\"", "every = \"200ms\"\nlimit = 500");
    database.sql("INSERT INTO record SELECT n, 'r' || n, n, '2026-11-24 09:00:00+00'::timestamptz + n * interval '2 seconds' FROM generate_series(1, 2000) n").await;
    let running = site.run().await;
    until("2000 events", async || (site.vhost.depth("platform").await >= 2000).then_some(())).await;
    // A mass change gives a thousand rows one moment: the look after it cannot get beyond them.
    database.sql("INSERT INTO record SELECT n, 'r' || n, n, '2026-11-24 11:00:00+00' FROM generate_series(3001, 4000) n").await;
    let log = logged(&site, "PH2408").await;
    assert!(log.contains("raise `limit`"), "{log}");
    assert_eq!(running.terminate().await, 0);
    site.edit("adapters/records.toml", "limit = 500", "limit = 5000");
    let running = site.run().await;
    until("3000 events", async || (site.vhost.depth("platform").await >= 3000).then_some(())).await;
    assert_eq!(running.terminate().await, 0);
    assert_eq!(site.account(QUERY).await["delivered"], json!(3000));
}

#[tokio::test]
async fn rows_that_do_not_come_in_the_cursors_order_are_refused() {
    let database = Database::new().await;
    database.table().await;
    let statement = CHANGES.replace("ORDER BY changed", "ORDER BY id");
    let site = database.site(&format!("{HEAD}{READ}"), &[("changes.sql", &statement)]).await;
    site.settings(&site.vhost.address(), &database.settings("reader"));
    database.sql("INSERT INTO record VALUES (1, 'a', 1, '2026-11-24 10:00:00+00'), (2, 'b', 1, '2026-11-24 09:00:00+00')").await;
    let running = site.run().await;
    let log = logged(&site, "PH0234").await;
    assert!(log.contains("in the order of `changed`"), "{log}");
    assert_eq!(running.terminate().await, 0);
}

#[tokio::test]
async fn a_query_writes_nothing_whatever_its_user_may_do() {
    let database = Database::new().await;
    database.table().await;
    let statement = "WITH gone AS (DELETE FROM record RETURNING *) SELECT * FROM gone WHERE changed >= :cursor ORDER BY changed";
    let site = database.site(&format!("{HEAD}{READ}"), &[("changes.sql", statement)]).await;
    site.settings(&site.vhost.address(), &database.settings("writer"));
    database.sql(&format!("GRANT DELETE ON record TO {}", database.role("writer"))).await;
    database.sql("INSERT INTO record VALUES (1, 'a', 1, '2026-11-24 10:00:00+00')").await;
    let running = site.run().await;
    logged(&site, "nothing could be looked up").await;
    assert_eq!(database.texts("SELECT id FROM record").await, ["1"]);
    assert_eq!(running.terminate().await, 0);
    let (_, out, _) = site.command(&["doctor"]).await;
    assert!(out.contains("may write to 1 tables"), "{out}");
}

#[tokio::test]
async fn a_user_who_may_not_read_and_a_login_that_is_refused_are_told_and_waited_for() {
    let database = Database::new().await;
    database.table().await;
    let site = database.reading().await;
    database.sql(&format!("REVOKE SELECT ON record FROM {}", database.role("reader"))).await;
    database.sql("INSERT INTO record VALUES (1, 'a', 1, '2026-11-24 10:00:00+00')").await;
    let running = site.run().await;
    let log = logged(&site, "PH2404").await;
    assert!(log.contains("permission denied for table record"), "{log}");
    let (code, out, _) = site.command(&["doctor"]).await;
    assert!(code == 1 && out.contains("PH2404"), "{out}");
    database.sql(&format!("GRANT SELECT ON record TO {}", database.role("reader"))).await;
    told(&site, 1).await;
    assert_eq!(running.terminate().await, 0);
    let (_, out, _) = site.command(&["doctor"]).await;
    assert!(out.contains("PostgreSQL 1") && out.contains(&database.role("reader")), "{out}");
    site.folder.write("secrets/database", "wrong");
    let (code, out, _) = site.command(&["check", "--live"]).await;
    assert!(code == 1 && out.contains("PH2005"), "{out}");
}
