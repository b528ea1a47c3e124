//! Events become rows: each once, whatever fails, and what the database refuses goes before a person without a value in sight.

use super::{Database, WRITE};
use crate::support::{Site, until};
use serde_json::{Value, json};

const QUEUE: &str = "packhorse.records.write";

/// An insert, with what is said of it.
fn route(more: &str) -> String {
    format!(
        "[deliver.write]\nabout = \"Writes a record.\"\nevent = \"record.wanted.v1\"\nmapping = \"records/row\"\nmakes = \"record\"\n{more}\n"
    )
}

const INSERT: &str = "INSERT INTO record (id, name, amount) VALUES (:id, :name, :amount)";
const UPSERT: &str = "INSERT INTO record (id, name, amount) VALUES (:id, :name, :amount)\nON CONFLICT (id) DO UPDATE SET name = excluded.name, amount = excluded.amount";

fn wanted(id: &str, name: &str, amount: &str) -> Value {
    json!({ "record_id": id, "name": name, "amount": amount })
}

impl Site {
    async fn want(&self, event: &str, data: &Value) {
        self.vhost.say("record.wanted.v1", event, data).await;
    }

    /// The one dead letter's code, field and sentence.
    async fn why_dead(&self) -> (String, String, String) {
        let dead = self.dead(1).await;
        (
            dead[0].header("packhorse_code"),
            dead[0].header("packhorse_field"),
            dead[0].header("packhorse_what"),
        )
    }
}

#[tokio::test]
async fn an_upsert_writes_exact_values_and_the_same_again_changes_nothing() {
    let database = Database::new().await;
    database.table().await;
    let more = "repeat = \"key\"\nstatement = { file = \"write.sql\", expect_rows = 1 }";
    let site = database.writing(&route(more), &[("write.sql", UPSERT)]).await;
    let bridge = site.start().await;
    site.want("event-1", &wanted("1", "Robert'); DROP TABLE record;-- \"é\"", "1234567890123456.7800")).await;
    site.want("event-2", &json!({ "record_id": "2" })).await;
    site.want("event-3", &wanted("1", "again", "0.1")).await;
    site.want("event-1", &wanted("1", "again", "0.1")).await;
    until("the rows", async || {
        let rows = database.texts("SELECT id || ' ' || coalesce(name, 'NULL') || ' ' || coalesce(amount::text, 'NULL') FROM record ORDER BY id").await;
        (rows == ["1 again 0.1000", "2 NULL NULL"]).then_some(())
    })
    .await;
    site.vhost.drained(QUEUE).await;
    assert!(bridge.stop().await);
    let account = site.account(WRITE).await;
    assert_eq!((&account["delivered"], &account["duplicate"]), (&json!(3), &json!(1)));
}

#[tokio::test]
async fn what_the_database_refuses_is_a_dead_letter_that_names_constraint_and_column_and_no_value() {
    let cases = [
        ("", wanted("1", "QQ123456C", "1"), "PH2402", "record_pkey", "SQLSTATE 23505"),
        (
            "ALTER TABLE record ADD CONSTRAINT short CHECK (length(name) < 5)",
            wanted("2", "QQ123456C", "1"),
            "PH2401",
            "short",
            "SQLSTATE 23514",
        ),
        (
            "ALTER TABLE record ALTER name SET NOT NULL",
            json!({ "record_id": "2" }),
            "PH2401",
            "name",
            "column `name`",
        ),
        (
            "ALTER TABLE record ALTER name TYPE varchar(5)",
            wanted("2", "QQ123456C", "1"),
            "PH2401",
            "null",
            "SQLSTATE 22001",
        ),
        ("", wanted("x-QQ123456C", "a", "1"), "PH2401", ":id", "SQLSTATE 22P02"),
        ("", wanted("2", "a", "123456789012345678901.5"), "PH2401", "null", "SQLSTATE 22003"),
    ];
    let more = "repeat = \"never\"\nstatement = { file = \"write.sql\", expect_rows = 1 }";
    let database = Database::new().await;
    let site = database.writing(&route(more), &[("write.sql", INSERT)]).await;
    let bridge = site.start().await;
    for (number, (change, data, code, field, part)) in cases.into_iter().enumerate() {
        database.sql("DROP TABLE IF EXISTS record").await;
        database.table().await;
        database.sql("INSERT INTO record VALUES (1, 'a', 1, NULL)").await;
        database.sql(change).await;
        site.want(&format!("event-{number}"), &data).await;
        let (found, at, what) = site.why_dead().await;
        assert_eq!((found.as_str(), at.as_str()), (code, field), "{what}");
        assert!(what.contains(part) && !what.contains("QQ123456C"), "{what}");
        let letter = &site.dead(1).await[0];
        assert!(!letter.properties.to_string().contains("QQ123456C"));
        site.good(&["dead-letters", "discard", "--code", code, "--by", "tester", "--reason", "seen"]).await;
        assert_eq!(database.texts("SELECT count(*) FROM record").await, ["1"]);
    }
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_row_that_is_there_already_counts_as_delivered_where_that_is_said_and_only_by_that_constraint() {
    let database = Database::new().await;
    database.table().await;
    database.sql("ALTER TABLE record ADD CONSTRAINT one_name UNIQUE (name); INSERT INTO record VALUES (1, 'a', 1, NULL)").await;
    let more = "repeat = \"key\"\nstatement = { file = \"write.sql\", expect_rows = 1, duplicate = \"delivered\", constraints = [\"record_pkey\"] }";
    let site = database.writing(&route(more), &[("write.sql", INSERT)]).await;
    let bridge = site.start().await;
    site.want("event-1", &wanted("1", "b", "1")).await;
    site.vhost.drained(QUEUE).await;
    site.want("event-2", &wanted("2", "a", "1")).await;
    let (code, field, _) = site.why_dead().await;
    assert_eq!((code.as_str(), field.as_str()), ("PH2402", "one_name"));
    assert!(bridge.stop().await);
    assert_eq!(site.account(WRITE).await["delivered"], json!(1));
}

#[tokio::test]
async fn a_statement_that_changes_another_number_of_rows_is_undone_and_goes_before_a_person() {
    let database = Database::new().await;
    database.table().await;
    database.sql("INSERT INTO record VALUES (1, 'a', 1, NULL), (2, 'a', 2, NULL)").await;
    let update = "UPDATE record SET amount = :amount WHERE name = :name AND id >= :id";
    let more = "repeat = \"key\"\nstatement = { file = \"write.sql\", expect_rows = 1 }";
    let site = database.writing(&route(more), &[("write.sql", update)]).await;
    let bridge = site.start().await;
    site.want("event-1", &wanted("1", "a", "9")).await;
    let (code, _, what) = site.why_dead().await;
    assert!(code == "PH2405" && what.contains("changed 2 rows and must change 1"), "{what}");
    assert_eq!(database.texts("SELECT amount::int FROM record ORDER BY id").await, ["1", "2"]);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_lock_of_somebody_else_and_a_missing_right_are_waited_for() {
    let database = Database::new().await;
    database.table().await;
    database.sql("INSERT INTO record VALUES (1, 'a', 1, NULL)").await;
    let more =
        "repeat = \"key\"\nstatement = { file = \"write.sql\", expect_rows = 1 }\nretry = { at_once = 0 }";
    let site = database.writing(&route(more), &[("write.sql", UPSERT)]).await;
    let other = database.client(&database.name).await;
    other.batch_execute("BEGIN; SELECT * FROM record WHERE id = 1 FOR UPDATE").await.unwrap();
    let running = site.run().await;
    site.want("event-1", &wanted("1", "b", "1")).await;
    let logged = async |text: &str| {
        until(text, async || {
            let log = std::fs::read_to_string(site.folder.0.join("log")).unwrap();
            log.contains(text).then_some(log)
        })
        .await
    };
    let log = logged("SQLSTATE 55P03").await;
    assert!(log.contains("tried again later"), "{log}");
    other.batch_execute("COMMIT").await.unwrap();
    until("the row", async || (database.texts("SELECT name FROM record").await == ["b"]).then_some(())).await;
    database.sql(&format!("REVOKE INSERT ON record FROM {}", database.role("writer"))).await;
    site.want("event-2", &wanted("2", "c", "1")).await;
    logged("PH2404").await;
    database.sql(&format!("GRANT INSERT ON record TO {}", database.role("writer"))).await;
    until("the row", async || {
        (database.texts("SELECT name FROM record ORDER BY id").await == ["b", "c"]).then_some(())
    })
    .await;
    assert_eq!(running.terminate().await, 0);
}

/// A trigger holds the commit up until it may go on: the moment at which nobody knows.
const SLOW_COMMIT: &str = "CREATE TABLE gate (open boolean); CREATE FUNCTION wait() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS \
    $$ BEGIN IF NOT EXISTS (SELECT 1 FROM gate) THEN PERFORM pg_sleep(4); END IF; RETURN NULL; END $$; \
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON record DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()";

#[tokio::test]
async fn a_crash_between_claim_and_record_is_settled_by_asking_and_writes_no_second_row() {
    let database = Database::new().await;
    database.table().await;
    database.sql("ALTER TABLE record DROP CONSTRAINT record_pkey").await;
    database.sql(SLOW_COMMIT).await;
    let more = "repeat = \"probe\"\nstatement = { file = \"write.sql\", expect_rows = 1 }\n[deliver.write.probe]\nstatement = \"probe.sql\"";
    let probe = "SELECT 1 FROM record WHERE id = :id AND name IS NOT DISTINCT FROM :name";
    let site = database.writing(&route(more), &[("write.sql", INSERT), ("probe.sql", probe)]).await;
    let running = site.run().await;
    site.want("event-1", &wanted("1", "a", "1")).await;
    // The commit is under way: the server goes on with it though we are gone.
    until("the commit", async || {
        let under_way = "SELECT pid FROM pg_stat_activity WHERE query = 'COMMIT' AND state = 'active' AND datname = current_database()";
        (!database.texts(under_way).await.is_empty()).then_some(())
    })
    .await;
    running.kill().await;
    until("the row", async || (database.texts("SELECT id FROM record").await == ["1"]).then_some(())).await;
    database.sql("INSERT INTO gate VALUES (true)").await;
    let running = site.run().await;
    site.vhost.drained(QUEUE).await;
    assert_eq!(running.terminate().await, 0);
    assert_eq!(database.texts("SELECT id FROM record").await, ["1"]);
    assert_eq!(site.account(WRITE).await["delivered"], json!(1));
}

#[tokio::test]
async fn a_connection_cut_before_the_commit_is_not_done_and_one_cut_during_it_is_in_doubt() {
    let database = Database::new().await;
    database.table().await;
    database.sql("ALTER TABLE record DROP CONSTRAINT record_pkey").await;
    database.sql(SLOW_COMMIT).await;
    let more = "repeat = \"never\"\nstatement = { file = \"write.sql\", expect_rows = 1 }";
    let slow = "INSERT INTO record (id, name, amount) SELECT :id::int, :name, :amount::numeric FROM pg_sleep(CASE WHEN :name = 'slow' AND NOT EXISTS (SELECT 1 FROM gate) THEN 4 ELSE 0 END)";
    let site = database.writing(&route(more), &[("write.sql", slow)]).await;
    database.sql(&format!("GRANT SELECT ON gate TO {}", database.role("writer"))).await;
    let cut = async |query: &str| {
        until(query, async || {
            let sql = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '{query}%' AND state = 'active' AND datname = current_database() AND pid <> pg_backend_pid()");
            (!database.texts(&sql).await.is_empty()).then_some(())
        })
        .await;
    };
    let running = site.run().await;
    site.want("event-1", &wanted("1", "slow", "1")).await;
    cut("INSERT INTO record").await;
    database.sql("INSERT INTO gate VALUES (true)").await;
    until("the row", async || (database.texts("SELECT id FROM record").await == ["1"]).then_some(())).await;
    site.vhost.drained(QUEUE).await;
    assert!(site.vhost.peek("packhorse.dead").await.is_empty(), "it was not done, so it was done again");
    database.sql("DELETE FROM gate").await;
    site.want("event-2", &wanted("2", "b", "1")).await;
    cut("COMMIT").await;
    let (code, _, what) = site.why_dead().await;
    assert_eq!(code, "PH2006", "{what}");
    assert_eq!(site.dead(1).await[0].header("packhorse_in_doubt"), "yes");
    assert_eq!(running.terminate().await, 0);
}

#[tokio::test]
async fn a_procedure_is_called_and_what_a_statement_gives_back_is_told_to_the_platform() {
    let database = Database::new().await;
    database.table().await;
    database
        .sql(&format!(
            "CREATE PROCEDURE put(id integer, name text, amount numeric) LANGUAGE sql AS $$ INSERT INTO record VALUES (id, name, amount) $$; \
             GRANT EXECUTE ON PROCEDURE put TO {}",
            database.role("writer")
        ))
        .await;
    let more = "repeat = \"key\"\nstatement = { file = \"call.sql\" }";
    let call = "CALL put(:id, :name, :amount)";
    let site = database.writing(&route(more), &[("call.sql", call)]).await;
    let bridge = site.start().await;
    site.want("event-1", &wanted("1", "a", "1")).await;
    until("the row", async || (database.texts("SELECT name FROM record").await == ["a"]).then_some(())).await;
    site.vhost.drained(QUEUE).await;
    assert!(bridge.stop().await);
    let more = "repeat = \"key\"\nstatement = { file = \"call.sql\", expect_rows = 1 }\nreply = [{ mapping = \"records/written\" }]";
    let site = database
        .writing(&route(more), &[("call.sql", &format!("{INSERT} RETURNING id, name, amount::text"))])
        .await;
    let mapping = "version = 1\nabout = \"What the database has written.\"\nevent = \"record.seen.v1\"\nonly = \"to-event\"\nfields = [\n  \
        { event = \"record_id\", document = \"rows[1]/id\" },\n  { event = \"amount\", document = \"rows[1]/amount\" },\n]\n\
        ignore = [\"count\", \"rows[]/name\"]\n[document]\nformat = \"json\"\n";
    site.folder.write("mappings/records/written.toml", mapping);
    let bridge = site.start().await;
    site.want("event-2", &wanted("2", "b", "2")).await;
    let told = site.vhost.until("platform", 1).await;
    assert_eq!(
        (&told[0].json()["data"]["record_id"], &told[0].json()["data"]["amount"]),
        (&json!("2"), &json!("2.0000"))
    );
    assert!(bridge.stop().await);
}
