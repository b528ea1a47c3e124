//! The stand-ins as a program, for the demonstration and for trying things out.
//!
//!   cargo run --example standins -- AMQP_URL [WEBHOOK_URL [FIRST_PORT [ADDRESS]]]
//!
//! Prints where each of them is, as shell variables, and runs until it is ended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code)]

mod platform;
#[path = "mod.rs"]
mod standins;

use platform::Platform;
use standins::{http::Server, ims::Ims, pay::Pay, scp::Scp};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(broker) = arguments.next() else {
        eprintln!("usage: standins AMQP_URL [WEBHOOK_URL [FIRST_PORT [ADDRESS]]]");
        std::process::exit(2);
    };
    let webhook = arguments.next();
    let first: u16 = arguments.next().map_or(0, |port| port.parse().expect("a port"));
    // The loopback, unless a container is around it.
    let host: IpAddr =
        arguments.next().map_or(Ipv4Addr::LOCALHOST.into(), |host| host.parse().expect("an address"));
    let at = |number: u16| SocketAddr::new(host, if first == 0 { 0 } else { first + number });
    rustls::crypto::ring::default_provider().install_default().expect("one provider");
    let pay = Arc::new(Pay::default());
    *pay.webhook.lock().unwrap() = webhook;
    let pay = Server::start_at(pay, at(0), None).await.expect("a port");
    let scp = Server::start_at(Arc::new(Scp::default()), at(1), None).await.expect("a port");
    let ims = Server::start_at(Arc::new(Ims::default()), at(2), None).await.expect("a port");
    let platform = match Platform::start(&broker, at(3)).await {
        Ok(platform) => platform,
        Err(what) => {
            eprintln!("the platform's stand-in cannot start: {what}");
            std::process::exit(1);
        }
    };
    println!(
        "PAY_URL='{}'\nSCP_URL='{}'\nIMS_URL='{}'\nPLATFORM_URL='{}'",
        pay.url, scp.url, ims.url, platform.url
    );
    std::future::pending::<()>().await;
}
