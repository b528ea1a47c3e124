//! Batches in our custody: what seals them, and what befalls their files on the way into the system, through the real adapter.

use crate::{
    bacs::{bacs_day, read},
    batches::{COLLECTIONS, Council, QUEUE, ROUTE, collection, schema},
    files::sftp::{Between, Server},
    support::{Site, until},
};
use serde_json::{Value, json};
use std::{path::PathBuf, process::Stdio, time::Duration};

#[tokio::test]
async fn a_batch_is_sealed_before_its_sum_grows_too_large_and_what_did_not_fit_is_in_the_next() {
    let council = Council::new().await;
    council.without_cut_off();
    council.site.edit("adapters/bacs-standard-18.toml", "most_sum = 99999999999", "most_sum = 1000");
    let bridge = council.site.start().await;
    // 300 + 400 fit; with 500 it would be too much. 500 + 500 are exactly as much as may be.
    for (number, amount) in [300, 400, 500, 500, 50].into_iter().enumerate() {
        let mut data = collection(0, &format!("CT{number:010}"));
        data["amount"] = json!(amount);
        council.site.vhost.say(COLLECTIONS, &format!("event-{number}"), &data).await;
        // One after the other: which of them meet in a batch is what this is about.
        council.site.vhost.drained(QUEUE).await;
    }
    until("two submissions", async || (council.files().len() == 2).then_some(())).await;
    council.holds(1).await;
    let files = council.files();
    let (first, second) = (read(&files["BACS000001.txt"]), read(&files["BACS000002.txt"]));
    assert_eq!(first.references, ["CT0000000000", "CT0000000001"]);
    assert_eq!(second.references, ["CT0000000002", "CT0000000003"]);
    let batches = council.batches().await;
    for serial in [1, 2] {
        let batch = batches.iter().find(|batch| batch["serial"] == serial).unwrap();
        assert_eq!(batch["sealed_by"], "sum", "{batch}");
    }
    assert!(bridge.stop().await);
    let line = council.site.account(ROUTE).await;
    assert_eq!((&line["delivered"], &line["batched"]), (&json!(4), &json!(1)));
}

#[tokio::test]
async fn the_clock_seals_a_batch_at_its_cut_off_in_local_time_and_one_that_holds_nothing_is_none() {
    let council = Council::new().await;
    let zone = jiff::tz::TimeZone::get("Europe/London").unwrap();
    let now = || jiff::Timestamp::now().to_zoned(zone.clone());
    // The day of input is the day of the cut-off: that day must not end meanwhile.
    while now().hour() == 23 && now().minute() >= 57 {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let local = now();
    // Every day has a cut-off: an hour ago, and an hour from now, or at the end of this day.
    let hour = |hours: i64| local.checked_add(jiff::SignedDuration::from_hours(hours)).unwrap();
    let next = match local.hour() {
        23 => local.with().minute(59).build().unwrap(),
        _ => hour(1),
    };
    let before = hour(-1);
    let cut_off = format!(
        "cut_off = [\"{}\", \"{}\"]\ndays = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"]",
        before.strftime("%H:%M"),
        next.strftime("%H:%M")
    );
    council.site.edit("adapters/bacs-standard-18.toml", "cut_off = [\"16:00\"]", &cut_off);
    council.site.edit("adapters/bacs-standard-18.toml", "holidays = \"england-and-wales\"\n", "");
    let bridge = council.site.start().await;
    council.collect(0, 3).await;
    council.holds(3).await;
    // What the store waits for is the next of them, by the clock on the wall; then the wait is cut short.
    let store = rusqlite::Connection::open(council.site.folder.0.join("var/packhorse.db")).unwrap();
    store.busy_timeout(Duration::from_secs(10)).unwrap();
    let cut_off: i64 = store.query_row("SELECT cut_off FROM batch", [], |row| row.get(0)).unwrap();
    let stored = jiff::Timestamp::from_millisecond(cut_off).unwrap().to_zoned(zone.clone());
    assert_eq!(stored.strftime("%F %H:%M:%S").to_string(), next.strftime("%F %H:%M:00").to_string());
    let soon = jiff::Timestamp::now().as_millisecond() + 2_000;
    store.execute("UPDATE batch SET cut_off = ?1", [soon]).unwrap();
    drop(store);
    let sent = council.at("sent").await;
    assert_eq!((&sent["sealed_by"], &sent["items"]), (&json!("cut-off"), &json!(3)));
    let sealed: jiff::Timestamp = sent["sealed_at"].as_str().unwrap().parse().unwrap();
    assert!(sealed.as_second() >= soon / 1_000, "not before its time, which is told in whole seconds");
    // The day of processing is the one after the day of input, of any days here.
    let day = sealed.to_zoned(zone).date().tomorrow().unwrap().to_string();
    assert_eq!(sent["processing_date"], json!(day));
    let submission = read(&council.files()["BACS000001.txt"]);
    assert_eq!(submission.references.len(), 3);
    assert!(submission.lines[3].contains(&bacs_day(&day)), "{}", submission.lines[3]);
    assert_eq!(council.batches().await.len(), 1);
    assert!(bridge.stop().await);
    assert_eq!(council.site.account(ROUTE).await["delivered"], 3);
}

/// The program, on a disk that takes no file of more than so many KiB, as one that is full takes no more of it.
async fn run_with_a_small_disk(site: &Site, kib: u32) -> tokio::process::Child {
    let log = site.folder.0.join("log");
    // In blocks of 512 bytes; the signal is ignored, so that the program sees the error.
    let command = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" run --log text", kib * 2);
    let mut child = tokio::process::Command::new("/bin/sh")
        .args(["-c", &command, env!("CARGO_BIN_EXE_packhorse")])
        .current_dir(&site.folder.0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(std::fs::File::create(&log).unwrap()))
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until("the program runs", async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if let Ok(Some(status)) = child.try_wait() {
            panic!("the program ended with {status}:\n{text}");
        }
        text.contains("the bridge runs").then_some(())
    })
    .await;
    child
}

#[tokio::test]
async fn our_own_disk_that_takes_no_more_of_a_batch_is_told_and_nothing_half_of_it_counts() {
    const ITEMS: u32 = 10_000;
    let council = Council::new().await;
    council.without_cut_off();
    let bridge = council.site.run().await;
    council.collect(0, ITEMS).await;
    council.holds(i64::from(ITEMS)).await;
    assert_eq!(bridge.terminate().await, 0);
    // What the store has written so far is in its file; what it writes from here on is small.
    let store = rusqlite::Connection::open(council.site.folder.0.join("var/packhorse.db")).unwrap();
    store.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(store);
    // The submission has a megabyte.
    let mut bridge = run_with_a_small_disk(&council.site, 600).await;
    council.seal().await;
    let waits = council.batch("a batch that waits", |batch| batch["failed"].as_i64() > Some(0)).await;
    assert_eq!((&waits["code"], &waits["stage"]), (&json!("PH4002"), &json!("numbered")), "{waits}");
    let own = council.site.folder.0.join("var/packhorse.files/batches/1");
    assert!(!own.join("submission").exists(), "what is not whole has no name");
    assert!(council.files().is_empty());
    bridge.kill().await.unwrap();
    // There is room again.
    let bridge = council.site.run().await;
    let sent = council.at("sent").await;
    assert_eq!((&sent["serial"], &sent["sealed_at"]), (&json!(1), &waits["sealed_at"]));
    assert_eq!(bridge.terminate().await, 0);
    assert_eq!(read(&council.files()["BACS000001.txt"]).references.len(), ITEMS as usize);
    assert_eq!(council.site.account(ROUTE).await["delivered"], ITEMS);
}

/// The bridge's own word that the adapter's files lie on an SFTP server.
fn reached(address: &str, server: &Server, host_key: &str, adapter: &str) -> String {
    let key = server.key("client_ed25519");
    format!(
        "\n[adapters.{adapter}.sftp]\naddress = \"{address}\"\nusername = \"{}\"\nkey = \"file:{}\"\nhost_keys = [\"{host_key}\"]\n",
        server.says("SFTP_USER"),
        key.display()
    )
}

/// Adds to the settings, or puts these in place of what was added.
fn say_more(site: &Site, more: &str) {
    let path = site.folder.0.join("packhorse.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let own = text.split("\n# More\n").next().unwrap().to_owned();
    std::fs::write(path, format!("{own}\n# More\n{more}")).unwrap();
}

/// The files on a server are seen from behind.
fn files_of(server: &Server) -> PathBuf {
    PathBuf::from(server.says("SFTP_FILES"))
}

fn names(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_to_an_sftp_server_that_is_killed_in_the_middle_and_lies_there_once_and_whole() {
    const ITEMS: u32 = 3_000;
    let council = Council::new().await;
    council.without_cut_off();
    let server = Server::start();
    // So much may pass that the connection is made, and a part of the 300 KB of the file is put.
    let mut between = Between::start(server.says("SFTP_ADDRESS"), 120 << 10).await;
    let files = files_of(&server);
    council.site.edit("packhorse.toml", &format!("{}/out", council.site.folder.0.display()), "");
    say_more(
        &council.site,
        &reached(&between.address, &server, server.says("SFTP_HOST_KEY"), "bacs-standard-18"),
    );
    let bridge = council.site.start().await;
    council.collect(0, ITEMS).await;
    council.holds(i64::from(ITEMS)).await;
    council.seal().await;
    between.is_held().await;
    server.does("kill");
    between.may_pass.send_replace(u64::MAX);
    let waits = council.batch("a batch that waits", |batch| batch["failed"].as_i64() > Some(0)).await;
    assert_eq!((&waits["stage"], &waits["code"]), (&json!("rendered"), &json!("PH2001")), "{waits}");
    assert!(!names(&files).contains(&"BACS000001.txt".to_owned()));
    let rendered = council.site.folder.0.join("var/packhorse.files/batches/1/submission");
    let bytes = std::fs::read(rendered).unwrap();
    server.does("again");
    council.at("sent").await;
    assert_eq!(std::fs::read(files.join("BACS000001.txt")).unwrap(), bytes, "the same bytes");
    assert_eq!(read(&bytes).references.len(), ITEMS as usize);
    assert_eq!(names(&files).iter().filter(|name| name.contains("BACS")).count(), 1, "no part is left");
    assert!(bridge.stop().await);
    assert_eq!(council.site.account(ROUTE).await["delivered"], ITEMS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_host_key_stops_what_is_delivered_and_nothing_of_it_is_given_up() {
    const WRITE: &str = "version = 1\ntitle = \"Single\"\nabout = \"a file an event\"\n[settings.folder]\nabout = \"f\"\n[folder]\npath = \"{{ settings.folder }}\"\n\
        [deliver.one]\nabout = \"o\"\nevent = \"test.child.v1\"\nmapping = \"single/child\"\nmakes = \"record\"\nrepeat = \"key\"\nretry = { waits = [\"5s\"], give_up = \"6s\" }\n\
        [deliver.one.write]\nname = \"{{ event.id }}.json\"\n";
    const OTHER: &str = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let council = Council::new().await;
    council.without_cut_off();
    council.site.folder.write("adapters/single.toml", WRITE);
    council
        .site
        .folder
        .write("mappings/events/test.child.v1.schema.json", schema("test.child.v1", &["child"]));
    let mapping = "version = 1\nabout = \"m\"\nevent = \"test.child.v1\"\ndocument = { format = \"json\" }\nfields = [{ event = \"child\", document = \"id\" }]\n";
    council.site.folder.write("mappings/single/child.toml", mapping);
    let server = Server::start();
    let files = files_of(&server);
    council.site.edit("packhorse.toml", &format!("{}/out", council.site.folder.0.display()), "");
    let settings = |host_key: &str| {
        let own = ["bacs-standard-18", "single"]
            .map(|adapter| reached(server.says("SFTP_ADDRESS"), &server, host_key, adapter));
        say_more(
            &council.site,
            &format!("{}\n[adapters.single]\nsettings = {{ folder = \"\" }}\n{}", own[0], own[1]),
        );
    };
    settings(OTHER);
    let running = council.site.run().await;
    let logged = async |text: &str| {
        until(&format!("{text:?} in the log"), async || {
            let log = std::fs::read_to_string(council.site.folder.0.join("log")).unwrap_or_default();
            log.contains(text).then_some(())
        })
        .await;
    };
    council.site.vhost.say("test.child.v1", "event-1", &json!({ "child": "A" })).await;
    logged("nothing is delivered any more").await;
    // What comes now stays in the queue, and is neither tried nor given up.
    council.site.vhost.say("test.child.v1", "event-2", &json!({ "child": "B" })).await;
    // What joins a batch is taken, and its batch waits, told once.
    council.collect(0, 2).await;
    council.holds(2).await;
    council.seal().await;
    let waits = council.batch("a batch that waits", |batch| batch["failed"].as_i64() > Some(0)).await;
    assert_eq!((&waits["code"], &waits["stage"]), (&json!("PH2201"), &json!("rendered")), "{waits}");
    // The first one is back from its retry: longer than it would have taken to give it up.
    until("both are in the queue", async || {
        (council.site.vhost.depth("packhorse.single.one").await == 2).then_some(())
    })
    .await;
    let waits = council.at("rendered").await;
    assert_eq!(waits["failed"], 1, "it is not tried again and again: {waits}");
    assert_eq!(council.site.vhost.depth("packhorse.dead").await, 0);
    assert_eq!(running.terminate().await, 0);
    // A person has looked.
    settings(server.says("SFTP_HOST_KEY"));
    let running = council.site.run().await;
    council.at("sent").await;
    until("both are delivered", async || {
        let line: Value = council.site.account("single.one").await;
        (line["delivered"] == 2).then_some(())
    })
    .await;
    let there = names(&files);
    for name in ["event-1.json", "event-2.json", "BACS000001.txt"] {
        assert!(there.contains(&name.to_owned()), "{there:?}");
    }
    assert_eq!(running.terminate().await, 0);
}
