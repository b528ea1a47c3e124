//! Everything that takes part: the bridge's project with its routes, the systems behind them, the broker, the network.

use super::{
    chance::Chance,
    load::Said,
    machines::{Machine, receiver},
};
use crate::{
    databases::{self, Database},
    files::sftp,
    nightly::{self, Nightly},
    ordered,
    proxy::Proxy,
    standins::{http::Server, ims::Ims, pay::Pay},
    support::{Node, Site, Vhost},
};
use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc, time::Duration};

/// A system with its server.
pub struct System<T> {
    pub is: Arc<T>,
    pub server: Server,
}

impl<T: crate::standins::http::Handle + Default> System<T> {
    async fn start() -> System<T> {
        let is = Arc::new(T::default());
        System { server: Server::start(is.clone(), 0).await.unwrap(), is }
    }
}

/// An SFTP server on which a system leaves its files, and its folder there.
pub struct Remote {
    pub server: sftp::Server,
    pub files: PathBuf,
}

pub struct World {
    pub node: Node,
    pub nightly: Arc<Nightly>,
    pub council: Vhost,
    pub ims: System<Ims>,
    pub pay: System<Pay>,
    pub cases: Arc<ordered::System>,
    /// Where an SFTP server can be had.
    pub remote: Option<Remote>,
    /// Where a PostgreSQL can be had.
    pub database: Option<Database>,
    pub proxy: Arc<Proxy>,
    pub machines: Vec<Machine>,
    pub chance: Chance,
    /// The faults that have not happened since all others have.
    pub deck: Vec<super::faults::Kind>,
    pub said: Said,
}

/// Whether something was left out, as `scripts/faults` says.
fn is_left_out(what: &str) -> bool {
    std::env::var("PACKHORSE_FAULTS_WITHOUT").is_ok_and(|list| list.split(' ').any(|one| one == what))
}

impl Remote {
    /// One of our own, and what the bridge is told of it.
    fn start() -> (Remote, String) {
        let server = sftp::Server::start();
        let files = PathBuf::from(server.says("SFTP_FILES")).join("council");
        std::fs::create_dir(&files).unwrap();
        std::fs::set_permissions(&files, std::fs::Permissions::from_mode(0o777)).unwrap();
        let settings = format!(
            "[adapters.remote]\nsettings = {{ folder = \"council\" }}\nwhen_away = {{ first = \"1s\", most = \"2s\" }}\n\
             [adapters.remote.sftp]\naddress = \"{}\"\nusername = \"{}\"\nkey = \"file:{}\"\nhost_keys = [\"{}\"]\n",
            server.says("SFTP_ADDRESS"),
            server.says("SFTP_USER"),
            server.key("client_ed25519").display(),
            server.says("SFTP_HOST_KEY")
        );
        (Remote { server, files }, settings)
    }
}

/// The routes of Pay that are not asked for here, and those that ask, soon.
fn of_pay(server: &Server) -> String {
    let mut settings = format!(
        "[adapters.govuk-pay]\nsettings = {{ base_url = \"{}\", api_key = \"file:$FOLDER/secrets/pay-key\", signing_secret = \"file:$FOLDER/secrets/pay-signing\" }}\nwhen_away = {{ first = \"1s\", most = \"2s\" }}\n",
        server.url
    );
    for route in ["sweep", "sweep-delayed", "refund-sweep", "settlements"] {
        settings += &format!("[adapters.govuk-pay.routes.{route}]\nenabled = false\n");
    }
    for (route, wait) in [("unfinished", "1h"), ("refund-status", "1s")] {
        settings += &format!("[adapters.govuk-pay.routes.{route}]\nwaits = [\"{wait}\"]\n");
    }
    settings
}

impl World {
    /// `bridges`: so many share a store on a PostgreSQL; none: one has it in a file.
    pub async fn new(seed: u64, bridges: Option<usize>) -> World {
        let node = Node::start().await;
        let nightly = Nightly::on(node.broker.clone()).await;
        let council = Vhost::new(node.broker.clone()).await;
        council.queue("payments.succeeded").await;
        council.queue("bank").await;
        council.queue("platform.outbox").await;
        let (ims, pay) = (System::<Ims>::start().await, System::<Pay>::start().await);
        let cases = ordered::System::start().await;
        let site = &nightly.site;
        let address = site.vhost.address();
        let (_, at) = address.split_once("://").unwrap();
        let (at, vhost) = at.split_once('/').unwrap();
        let proxy = Proxy::to(at.parse().unwrap()).await;
        let receiver = receiver();
        let mut more = format!(
            "[receiver]\nlisten = \"{receiver}\"\n\
             [adapters.nightly]\nsettings = {{ folder = \"$FOLDER/extracts\" }}\n\
             [adapters.localgov-ims]\nsettings = {{ base_url = \"{}\" }}\nwhen_away = {{ first = \"1s\", most = \"2s\" }}\n\
             [adapters.council-broker]\nsettings = {{ addresses = \"{}\", username = \"{}\", password = \"file:$FOLDER/secrets/broker\", payments_queue = \"payments.succeeded\", updates_queue = \"platform.outbox\" }}\n\
             [adapters.council-bank]\nsettings = {{ addresses = \"{}\", username = \"{}\", password = \"file:$FOLDER/secrets/broker\", payments_queue = \"bank\", updates_queue = \"none\" }}\n\
             [adapters.bacs-standard-18]\nsettings = {{ folder = \"$FOLDER/out\", service_user_number = \"123456\", service_user_name = \"EXAMPLE COUNCIL\", sort_code = \"601613\", account = \"87654321\", account_name = \"EXAMPLE COUNCIL\" }}\n",
            ims.server.url,
            council.address(),
            node.broker.user,
            council.address(),
            node.broker.user
        );
        more += &of_pay(&pay.server);
        more += &cases.settings();
        let remote = (!is_left_out("sftp")).then(|| {
            let (remote, settings) = Remote::start();
            more += &settings;
            site.folder.write("adapters/remote.toml", nightly::split_only());
            remote
        });
        let database = if is_left_out("postgres") {
            None
        } else {
            let database = Database::alone().await;
            database.table().await;
            let adapter = format!("{}{}", databases::HEAD, databases::READ);
            database.put(site, &adapter, &[("changes.sql", databases::CHANGES)]);
            more += &database.settings("reader");
            more += "when_away = { first = \"1s\", most = \"2s\" }\n";
            Some(database)
        };
        for (what, there) in [("SFTP server", remote.is_some()), ("PostgreSQL", database.is_some())] {
            if !there {
                println!("left out: there is no {what}");
            }
        }
        site.settings(&format!("amqp://{}/{vhost}", proxy.address), &more);
        site.edit("packhorse.toml", "[broker]", "[broker]\nheartbeat = \"2s\"");
        std::fs::create_dir_all(site.folder.0.join("out")).unwrap();
        site.folder.write("adapters/cases.toml", ordered::adapter("concurrency = 4\n"));
        bank(site);
        prepare(site);
        *ims.is.lag.lock().unwrap() = Duration::from_secs(2);
        for (queue, key) in [
            ("rows", "test.child.v1.#"),
            ("posted", "payment.posted.v1.#"),
            ("paid", "payment.succeeded.v1.#"),
            ("refunds", "refund.settled.v1.#"),
            ("seen", "record.seen.v1.#"),
        ] {
            site.vhost.queue(queue).await;
            site.vhost.bind("platform.updates", queue, key).await;
        }
        let machines = match bridges {
            None => vec![Machine::alone(receiver)],
            Some(count) => {
                let database = database.as_ref().expect("a PostgreSQL for the store");
                Machine::sharing(count, site, database, &receiver).await
            }
        };
        site.good(&["topology", "apply"]).await;
        World {
            node,
            nightly: Arc::new(nightly),
            council,
            ims,
            pay,
            cases: Arc::new(cases),
            remote,
            database,
            proxy,
            machines,
            chance: Chance::of_seed(seed),
            deck: Vec::new(),
            said: Said::default(),
        }
    }

    pub fn site(&self) -> &Site {
        &self.nightly.site
    }

    /// Whether the store is on a server.
    pub fn is_shared(&self) -> bool {
        self.machines.iter().any(|machine| machine.store.is_some())
    }
}

/// A broker of the council that knows no second copy.
fn bank(site: &Site) {
    let adapter = std::fs::read_to_string(site.folder.0.join("adapters/council-broker.toml")).unwrap();
    let (adapter, _) = adapter.split_once("[collect.updates]").unwrap();
    site.folder
        .write("adapters/council-bank.toml", adapter.replace("repeat = \"key\"", "repeat = \"never\""));
}

/// What waits comes again soon: a campaign has no hours.
fn prepare(site: &Site) {
    for (adapter, route) in [
        ("localgov-ims", "[deliver.post]\n"),
        ("council-broker", "[deliver.payments]\n"),
        ("council-bank", "[deliver.payments]\n"),
        ("govuk-pay", "[deliver.refund]\n"),
    ] {
        site.edit(
            &format!("adapters/{adapter}.toml"),
            route,
            &format!("{route}retry = {{ waits = [\"5s\"] }}\n"),
        );
    }
    // Its search lags behind, and the adapter says by how much.
    site.edit(
        "adapters/localgov-ims.toml",
        "[deliver.post.probe]\n",
        "[deliver.post.probe]\nsettle = \"4s\"\n",
    );
    site.edit("adapters/bacs-standard-18.toml", "cut_off = [\"16:00\"]", "cut_off = []\nmost = 20");
}
