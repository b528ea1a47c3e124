//! The campaign: a bridge, or several on one store, with routes of every kind under load, while at random the program is
//! killed, also at gaps by name, the broker stops, is alarmed or given other policies, the network cuts and stalls, servers are killed, the systems cut
//! their answers, give them late, twice, or say nothing, and operators work. Afterwards everything drains, and what arrived
//! is compared with what was said. Started by `scripts/faults`, which gives it time and seed; the seed decides what happens,
//! the machine decides when.

mod chance;
mod end;
mod faults;
mod load;
mod machines;
mod operators;
mod world;

use operators::Operators;
use std::time::{Duration, Instant};
use world::World;

/// How long draining may take: breaks between attempts are part of it.
const DRAIN: Duration = Duration::from_secs(300);

const POST: &str = "localgov-ims.post";
const CROSS: &str = "council-broker.payments";
/// The same, where nothing makes a repeat safe, and nobody can be asked.
const BANK: &str = "council-bank.payments";
const UPDATES: &str = "council-broker.updates";
const COLLECT: &str = "bacs-standard-18.collections";
const REFUND: &str = "govuk-pay.refund";
const REFUNDED: &str = "govuk-pay.refund-status";
const NOTICES: &str = "govuk-pay.notices";
const ROWS: &str = "nightly.rows";
const EXTRACTS: &str = "nightly.children";
const REMOTE: &str = "remote.rows";
const CASES: &str = crate::ordered::ROUTE;
const QUERY: &str = crate::databases::QUERY;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as it is told to; run scripts/faults"]
async fn under_any_faults_nothing_is_lost_and_nothing_is_paid_twice_and_the_account_closes() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (seconds, seed) = (number("PACKHORSE_FAULTS_SECONDS", 60), number("PACKHORSE_FAULTS_SEED", 1));
    let bridges = std::env::var("PACKHORSE_FAULTS_STORE").is_ok_and(|store| store == "postgres");
    let bridges = bridges.then(|| number("PACKHORSE_FAULTS_BRIDGES", 1) as usize);
    let mut world = World::new(seed, bridges).await;
    world.run().await;
    let operators = Operators::start(&world, seed);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        world.load().await;
        let system = world.misbehave();
        world.chance.pause(1_500).await;
        let what = world.fault().await;
        println!("{:>4} s  {what}; {system}", began.elapsed().as_secs());
        world.chance.pause(1_500).await;
        for at in 0..world.machines.len() {
            if world.machines[at].has_ended() {
                println!("        a bridge has died, and is started");
                world.begin(at).await;
            }
        }
    }
    let acts = operators.stop().await;
    let draining = Instant::now();
    world.drain().await;
    println!("        all is drained, after {} s", draining.elapsed().as_secs());
    let wrong = world.table(&acts, &format!("seed {seed}, {seconds} s")).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
