//! Several bridges on one store: which of them live, who has which duty, and what becomes of both when a connection is cut.

use super::Home;
use crate::support::until;
use packhorse::{
    event::Key,
    store::{Claim, Opener, Place, Record, State, Store},
};

fn claim(id: &str) -> Claim {
    let source = "urn:test".to_owned();
    Claim { key: Key::of(&source, id), part: 0, id: id.into(), source, attempt: 1, replay: 0, settled: false }
}

async fn places(store: &Store, id: &str) -> Vec<Place> {
    let route = store.route("pay.post").await.unwrap();
    store.claim(route, 5, vec![claim(id)]).await.unwrap()
}

/// Ends the connections of a bridge at the server, as a cut does; how many.
async fn cut(home: &Home, run: i64) -> usize {
    let database = home.database.as_ref().unwrap();
    // The one that holds the lock of the run.
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND objid = {run}
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    );
    database.texts(&sql).await.len()
}

/// The session that holds the lock of a run.
async fn holder(home: &Home, run: i64) -> Vec<String> {
    let sql = format!(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND objid = {run} AND granted
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    );
    home.database.as_ref().unwrap().texts(&sql).await
}

#[tokio::test]
async fn a_claim_of_a_bridge_that_lives_is_busy_and_of_one_that_is_gone_in_doubt() {
    let home = Home::on_postgres().await;
    let (first, second) = (home.open(Opener::Bridge), home.open(Opener::Bridge));
    assert_eq!((first.run(), second.run()), (1, 2));
    assert!(matches!(places(&first, "a").await[..], [Place::Go(_)]));
    assert_eq!(places(&second, "a").await, [Place::Busy]);
    assert!(second.lives(1).await.unwrap() && first.lives(2).await.unwrap());
    assert!(!second.lives(3).await.unwrap());
    drop(first);
    until("the first is gone", async || (!second.lives(1).await.unwrap()).then_some(())).await;
    let places = places(&second, "a").await;
    assert!(matches!(&places[..], [Place::Go(went)] if went.doubt), "{places:?}");
    // A command beside them is no bridge.
    let command = home.open(Opener::Command);
    assert_eq!(command.run(), 0);
    assert!(!second.lives(0).await.unwrap());
    assert!(command.lives(2).await.unwrap());
}

/// What is written with this store, by whoever leads.
async fn writes(store: &Store, id: &str) -> Option<Vec<Place>> {
    let route = store.route("pay.post").await.ok()?;
    store.claim(route, 5, vec![claim(id)]).await.ok()
}

#[tokio::test]
async fn a_duty_is_one_bridges_until_it_lets_it_go_or_is_gone() {
    let home = Home::on_postgres().await;
    let (first, second) = (home.open(Opener::Bridge), home.open(Opener::Bridge));
    let led = first.lead("collect one").await.unwrap().expect("nobody else has it");
    assert!(first.lead("collect one").await.unwrap().is_some(), "it is ours still");
    assert!(second.lead("collect one").await.unwrap().is_none());
    assert!(second.lead("collect two").await.unwrap().is_some(), "another duty");
    assert!(writes(&led, "a").await.is_some());
    led.follow().await;
    assert!(writes(&led, "b").await.is_none(), "nothing is written without the lead");
    assert!(second.lead("collect one").await.unwrap().is_some());
    assert!(first.lead("collect one").await.unwrap().is_none());
    drop(second);
    until("the second is gone", async || first.lead("collect two").await.unwrap()).await;
    // Another council's bridges on the same database have duties of their own.
    let mut other = home.config();
    let server = packhorse::config::StoreServer {
        schema: "packhorse_other".into(),
        ..(*other.server.clone().unwrap()).clone()
    };
    other.server = Some(server.into());
    other.path = home.folder.0.join("other.db");
    let third = Store::of(&other, Opener::Bridge).unwrap();
    assert_eq!(third.run(), 1);
    assert!(third.lead("collect two").await.unwrap().is_some());
}

/// A bridge that is held still says nothing; one that has nothing to say is not given up for one that is.
#[tokio::test]
async fn the_server_gives_up_a_bridge_of_which_it_hears_nothing_and_none_that_is_only_idle() {
    let home = Home::on_postgres().await;
    let (first, second) = (home.open(Opener::Bridge), home.open(Opener::Bridge));
    let led = first.lead("collect").await.unwrap().unwrap();
    let database = home.database.as_ref().unwrap();
    let seen = "SELECT pid FROM pg_stat_activity
                  WHERE query = 'SELECT 1' AND state = 'idle' AND datname = current_database()";
    until("both are heard of", async || (database.texts(seen).await.len() == 2).then_some(())).await;
    let idle = std::time::Instant::now();
    while idle.elapsed() < std::time::Duration::from_secs(14) {
        assert!(second.lead("collect").await.unwrap().is_none());
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    assert!(writes(&led, "a").await.is_some(), "it leads still, after longer than the server waits");
}

/// What a bridge was about to send when it was held still, and another has taken over since.
#[tokio::test]
async fn a_bridge_learns_before_it_sends_that_another_one_has_taken_a_message_over() {
    let home = Home::on_postgres().await;
    let (first, second) = (home.open(Opener::Bridge), home.open(Opener::Bridge));
    let route = first.route("pay.post").await.unwrap();
    for id in ["a", "b"] {
        assert!(matches!(places(&first, id).await[..], [Place::Go(_)]));
    }
    assert_eq!(first.are_ours(route, vec![(claim("a").key, 0)]).await.unwrap(), [true]);
    assert!(first.sending(route, claim("a").key, 0, 6).await.unwrap());
    // While its connection is gone the second takes one of them; then it is back, under the same number.
    let taken = until("the second takes it", async || {
        cut(&home, 1).await;
        matches!(places(&second, "a").await[..], [Place::Go(_)]).then_some(())
    });
    taken.await;
    until("the first is back", async || second.lives(1).await.unwrap().then_some(())).await;
    assert_eq!(first.are_ours(route, vec![(claim("a").key, 0)]).await.unwrap(), [false]);
    assert!(!first.sending(route, claim("a").key, 0, 7).await.unwrap());
    assert_eq!(first.are_ours(route, vec![(claim("b").key, 0)]).await.unwrap(), [true]);
    assert!(first.sending(route, claim("b").key, 0, 7).await.unwrap());
}

/// It may still be about to send, and the next one must not wait for it for ever.
#[tokio::test]
async fn what_an_earlier_term_has_claimed_is_in_doubt_for_the_next_although_its_bridge_lives() {
    let home = Home::on_postgres().await;
    let (first, second) = (home.open(Opener::Bridge), home.open(Opener::Bridge));
    let led = first.lead("deliver").await.unwrap().unwrap();
    assert!(matches!(writes(&led, "a").await.unwrap()[..], [Place::Go(_)]));
    assert_eq!(writes(&led, "a").await.unwrap(), [Place::Busy]);
    led.follow().await;
    let next = second.lead("deliver").await.unwrap().unwrap();
    let places = writes(&next, "a").await.unwrap();
    assert!(matches!(&places[..], [Place::Go(went)] if went.doubt), "{places:?}");
    assert!(first.lives(1).await.unwrap());
}

#[tokio::test]
async fn a_cut_connection_is_made_anew_with_the_same_run_and_without_the_duties() {
    let home = Home::on_postgres().await;
    let (first, second) = (home.open(Opener::Bridge), home.open(Opener::Bridge));
    assert!(matches!(places(&first, "a").await[..], [Place::Go(_)]));
    let led = first.lead("collect").await.unwrap().unwrap();
    assert!(writes(&led, "b").await.is_some());
    let before = holder(&home, 1).await;
    assert_eq!(cut(&home, 1).await, 1);
    // It is noticed while nothing is asked, and the run's lock taken again at once.
    until("the first is back", async || {
        let now = holder(&home, 1).await;
        (!now.is_empty() && now != before).then_some(())
    })
    .await;
    assert_eq!(places(&second, "a").await, [Place::Busy]);
    assert_eq!(places(&first, "a").await, [Place::Busy], "its own claim is known again");
    // The duty went with the connection; whoever had it hears it, and can write nothing with it any more.
    led.led_no_more().await;
    assert!(writes(&led, "c").await.is_none());
    assert!(second.lead("collect").await.unwrap().is_some());
    assert!(first.lead("collect").await.unwrap().is_none());
    let route = first.route("pay.post").await.unwrap();
    let done = vec![(claim("a").key, 0, Record::Delivered { opens: None })];
    first.record(route, 6, None, done).await.unwrap();
    assert_eq!(second.state(route, claim("a").key).await.unwrap(), Some((State::Delivered, false)));
}

#[tokio::test]
async fn what_another_bridge_has_taken_over_is_not_changed_by_the_one_that_had_it_but_by_what_the_system_has_done()
 {
    let home = Home::on_postgres().await;
    let (first, second) = (home.open(Opener::Bridge), home.open(Opener::Bridge));
    let led = first.lead("deliver").await.unwrap().unwrap();
    let route = led.route("pay.post").await.unwrap();
    for id in ["a", "b"] {
        assert!(matches!(writes(&led, id).await.unwrap()[..], [Place::Go(_)]));
    }
    led.follow().await;
    let next = second.lead("deliver").await.unwrap().unwrap();
    for id in ["a", "b"] {
        assert!(matches!(writes(&next, id).await.unwrap()[..], [Place::Go(_)]));
    }
    // The first bridge, without its lead, as one that never had one.
    let waiting = Record::Waiting { attempt: 2, due_at: 9, failed_at: 8, doubt: false };
    first.record(route, 8, None, vec![(claim("a").key, 0, waiting)]).await.unwrap();
    assert_eq!(next.state(route, claim("a").key).await.unwrap(), Some((State::Claimed, true)));
    first.record(route, 8, None, vec![(claim("b").key, 0, Record::Delivered { opens: None })]).await.unwrap();
    assert_eq!(next.state(route, claim("b").key).await.unwrap(), Some((State::Delivered, false)));
}

#[tokio::test]
async fn bridges_that_write_at_once_lose_nothing_and_count_everything() {
    let home = Home::on_postgres().await;
    let stores = [home.open(Opener::Bridge), home.open(Opener::Bridge), home.open(Opener::Bridge)];
    // All see the same messages, as after a redelivery: each is taken by one.
    let mut tasks = tokio::task::JoinSet::new();
    for store in stores.clone() {
        tasks.spawn(async move {
            let route = store.route("pay.post").await.unwrap();
            let mut went = 0;
            for window in 0..20 {
                let claims: Vec<Claim> = (0..10).map(|n| claim(&format!("{window} {n}"))).collect();
                let places = store.claim(route, 5, claims.clone()).await.unwrap();
                let ours = claims.iter().zip(&places).filter(|(_, place)| matches!(place, Place::Go(_)));
                let done: Vec<_> =
                    ours.map(|(claim, _)| (claim.key, 0, Record::Delivered { opens: None })).collect();
                went += done.len();
                store.record(route, 6, None, done).await.unwrap();
            }
            went
        });
    }
    let went: usize = tasks.join_all().await.into_iter().sum();
    assert_eq!(went, 200);
    let account = stores[0].account(packhorse::store::Asked::default()).await.unwrap();
    assert!(account.closes(), "{account:?}");
    assert_eq!(account.routes[0].delivered, 200);
}
