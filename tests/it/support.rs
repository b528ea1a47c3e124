//! What the tests of the whole stand on: a vhost of its own for each on the real RabbitMQ that `scripts/test` started, a
//! project folder of its own with the adapters and mappings of this repository, a bridge in this process or as a program
//! that can be killed, and another client to look from outside.

use packhorse::{bridge::Bridge, config::Project};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// Long enough for a busy machine; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: these tests need a RabbitMQ of their own; run scripts/test")
    })
}

/// Once in each test binary: one TLS provider, whoever comes first.
pub fn crypto() {
    if std::env::var_os("PACKHORSE_TEST_LOG").is_some() {
        let _ = tracing_subscriber::fmt().with_env_filter("packhorse=debug").with_test_writer().try_init();
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Tries again until something holds; the tests' only way to wait for what sends no signal (RabbitMQ's counters).
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look).await
}

/// The same with more patience.
pub async fn until_within<T>(patience: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < patience, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A broker, as `scripts/broker` prints where it is.
#[derive(Debug, Clone)]
pub struct Broker {
    /// `amqp://127.0.0.1:port`
    pub address: String,
    pub management: String,
    pub user: String,
    pub password: String,
}

impl Broker {
    /// The one that `scripts/test` started for all tests.
    pub fn shared() -> Broker {
        let address = setting("BROKER_ADDRESS");
        Broker {
            address: address.rsplit_once('/').unwrap().0.to_owned(),
            management: setting("BROKER_MANAGEMENT"),
            user: setting("BROKER_USER"),
            password: setting("BROKER_PASSWORD"),
        }
    }

    /// The one whose settings were printed.
    pub fn printed(settings: &str) -> Broker {
        Broker {
            address: printed(settings, "BROKER_ADDRESS").rsplit_once('/').unwrap().0.to_owned(),
            management: printed(settings, "BROKER_MANAGEMENT"),
            user: printed(settings, "BROKER_USER"),
            password: printed(settings, "BROKER_PASSWORD"),
        }
    }
}

/// One of the settings that `scripts/broker` prints.
pub fn printed(settings: &str, name: &str) -> String {
    let line = settings.lines().find_map(|line| line.strip_prefix(&format!("{name}='")));
    line.unwrap_or_else(|| panic!("no {name} in {settings}")).trim_end_matches('\'').to_owned()
}

/// A broker of a test's own, to be killed, blocked and started again.
pub struct Node {
    folder: Folder,
    pub broker: Broker,
}

impl Node {
    pub async fn start() -> Node {
        Node::with(&["rabbitmq_management"]).await
    }

    pub async fn with(plugins: &[&str]) -> Node {
        Node::configured(plugins, Folder::new(), "").await
    }

    /// The same with a configuration of its own besides, and the files in this folder that it names.
    pub async fn configured(plugins: &[&str], folder: Folder, configuration: &str) -> Node {
        let path = folder.0.join("broker");
        let more = folder.write("more.conf", configuration);
        let arguments = [&["start", path.to_str().unwrap()], plugins].concat();
        let out = script_with(&arguments, &[("BROKER_CONF", more.to_str().unwrap())]).await;
        Node { folder, broker: Broker::printed(&out) }
    }

    async fn on(&self, command: &str, more: &[&str]) -> String {
        let path = self.folder.0.join("broker");
        script(&[&[command, path.to_str().unwrap()], more].concat()).await
    }

    /// `kill -9`, some seconds from now: a quorum queue that RabbitMQ 3.10 was told of less than about three seconds before
    /// it is killed is stuck afterwards (seen here; most likely its names are in a table that is written with a delay).
    /// Nothing shows when that has happened.
    pub async fn kill(&self) {
        tokio::time::sleep(Duration::from_secs(5)).await;
        self.on("kill", &[]).await;
    }

    pub async fn again(&self) {
        self.on("again", &[]).await;
        self.answers().await;
    }

    /// Waits until its management interface answers.
    pub async fn answers(&self) {
        let (management, user) = (format!("{}/api/overview", self.broker.management), &self.broker.user);
        until("the management interface", async || {
            let request =
                reqwest::Client::new().get(&management).basic_auth(user, Some(&self.broker.password));
            request.send().await.ok().filter(|answer| answer.status().is_success()).map(|_| ())
        })
        .await;
    }

    pub async fn ctl(&self, arguments: &[&str]) -> String {
        self.on("ctl", arguments).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let path = self.folder.0.join("broker");
        let _ = std::process::Command::new(root().join("scripts/broker")).arg("stop").arg(path).status();
    }
}

/// Runs `scripts/broker`; what it prints.
pub async fn script(arguments: &[&str]) -> String {
    script_with(arguments, &[]).await
}

/// The same with these variables in its environment.
async fn script_with(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = tokio::process::Command::new(root().join("scripts/broker"));
    let command = command.args(arguments).envs(environment.iter().copied());
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "scripts/broker {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// A vhost of a test's own, gone when the test is over.
pub struct Vhost {
    pub name: String,
    broker: Broker,
    http: reqwest::Client,
}

/// A message as another client sees it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub routing_key: String,
    pub properties: Value,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> String {
        match &self.properties["headers"][name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

impl Vhost {
    pub async fn new(broker: Broker) -> Vhost {
        crypto();
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // A connection for each call: one that was kept would be dead after the broker was killed.
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let vhost = Vhost { name, broker, http };
        vhost.call("PUT", "", json!({})).await;
        let (management, user) = (&vhost.broker.management, &vhost.broker.user);
        let permissions = format!("{management}/api/permissions/{}/{user}", vhost.name);
        let all = json!({ "configure": ".*", "write": ".*", "read": ".*" });
        vhost.request("PUT", &permissions, all).await;
        vhost
    }

    /// Looks at it from another node of its cluster from now on.
    pub fn seen_from(&mut self, node: &Broker) {
        self.broker = node.clone();
    }

    /// `amqp://127.0.0.1:port/vhost`, without user and password.
    pub fn address(&self) -> String {
        format!("{}/{}", self.broker.address, self.name)
    }

    /// The same with user and password, as other clients want it.
    pub fn address_with_login(&self) -> String {
        let login = format!("://{}:{}@", self.broker.user, self.broker.password);
        self.address().replacen("://", &login, 1)
    }

    async fn request(&self, method: &str, url: &str, body: Value) -> Option<Value> {
        let request = self
            .http
            .request(method.parse().unwrap(), url)
            .basic_auth(&self.broker.user, Some(&self.broker.password))
            .header("content-type", "application/json")
            .body(if body.is_null() { String::new() } else { body.to_string() });
        let answer = request.send().await.unwrap_or_else(|error| panic!("{method} {url}: {error}"));
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        match status.is_success() {
            true => Some(serde_json::from_str(&text).unwrap_or_default()),
            false if status.as_u16() == 404 => None,
            false => panic!("{method} {url}: {status}: {text}"),
        }
    }

    /// A call to the management interface about something in this vhost: `queues/…`; `""` is the vhost itself.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> Option<Value> {
        let management = &self.broker.management;
        let url = match path.split_once('/') {
            None if path.is_empty() => format!("{management}/api/vhosts/{}", self.name),
            None => format!("{management}/api/{path}/{}", self.name),
            Some((kind, rest)) => format!("{management}/api/{kind}/{}/{rest}", self.name),
        };
        self.request(method, &url, body).await
    }

    /// Makes or removes RabbitMQ's own Shovel, for the benchmarks.
    #[allow(dead_code)]
    pub async fn shovel(&self, method: &str, value: Value) {
        let url = format!("{}/api/parameters/shovel/{}/bench", self.broker.management, self.name);
        self.request(method, &url, value).await;
    }

    /// A queue that everything of the platform's updates goes to: the platform itself.
    pub async fn platform(&self) -> &Vhost {
        self.queue("platform").await;
        for exchange in ["platform.updates", "platform.events"] {
            let topic = json!({ "type": "topic", "durable": true });
            self.call("PUT", &format!("exchanges/{exchange}"), topic).await;
        }
        self.bind("platform.updates", "platform", "#").await;
        self
    }

    pub async fn queue(&self, name: &str) {
        // Every look counts as a delivery, and RabbitMQ 4 drops a message after twenty of them unless told otherwise.
        let arguments = json!({ "x-queue-type": "quorum", "x-delivery-limit": 1_000_000 });
        let quorum = json!({ "durable": true, "arguments": arguments });
        self.call("PUT", &format!("queues/{name}"), quorum).await;
    }

    pub async fn bind(&self, exchange: &str, queue: &str, key: &str) {
        self.call("POST", &format!("bindings/e/{exchange}/q/{queue}"), json!({ "routing_key": key })).await;
    }

    /// Publishes; whether the broker had a queue for it.
    pub async fn publish(&self, exchange: &str, routing_key: &str, properties: Value, body: &[u8]) -> bool {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let exchange = if exchange.is_empty() { "amq.default" } else { exchange };
        let message = json!({ "properties": properties, "routing_key": routing_key, "payload": STANDARD.encode(body), "payload_encoding": "base64" });
        let answer = self.call("POST", &format!("exchanges/{exchange}/publish"), message).await.unwrap();
        answer["routed"] == true
    }

    /// The platform says something: an event with these data goes to `platform.events`.
    pub async fn say(&self, event_type: &str, id: &str, data: &Value) {
        let event = json!({ "specversion": "1.0", "id": id, "source": "urn:platform:payments", "type": event_type,
                            "time": "2026-11-23T09:41:06.884Z", "datacontenttype": "application/json", "data": data });
        self.say_bytes(event_type, id, event.to_string().as_bytes()).await;
    }

    pub async fn say_bytes(&self, event_type: &str, id: &str, body: &[u8]) {
        let properties =
            json!({ "message_id": id, "content_type": "application/cloudevents+json", "delivery_mode": 2 });
        let routed =
            self.publish("platform.events", &format!("{event_type}.example"), properties, body).await;
        assert!(routed, "nobody takes {event_type}");
    }

    /// Everything that is in a queue, left there.
    pub async fn peek(&self, queue: &str) -> Vec<Seen> {
        self.take(queue, "ack_requeue_true").await
    }

    async fn take(&self, queue: &str, mode: &str) -> Vec<Seen> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let ask = json!({ "count": 1000, "ackmode": mode, "encoding": "base64" });
        let Some(Value::Array(messages)) = self.call("POST", &format!("queues/{queue}/get"), ask).await
        else {
            return Vec::new();
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        messages
            .iter()
            .map(|message| Seen {
                routing_key: text(&message["routing_key"]),
                properties: message["properties"].clone(),
                body: STANDARD.decode(text(&message["payload"])).unwrap(),
            })
            .collect()
    }

    /// Waits until so many messages lie in a queue, and looks at them.
    pub async fn until(&self, queue: &str, count: usize) -> Vec<Seen> {
        until(&format!("{count} messages in {queue}"), async || {
            let seen = self.peek(queue).await;
            (seen.len() >= count).then_some(seen)
        })
        .await
    }

    /// A connection and a channel of another client.
    async fn channel(&self) -> (lapin::Connection, lapin::Channel) {
        let address = self.address_with_login();
        let connection =
            lapin::Connection::connect(&address, lapin::ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        (connection, channel)
    }

    /// Publishes many structured events (id and body) straight to a queue, confirmed.
    pub async fn publish_many(&self, queue: &str, events: &[(String, Vec<u8>)]) {
        use lapin::{BasicProperties, options};
        let (connection, channel) = self.channel().await;
        channel.confirm_select(options::ConfirmSelectOptions::default()).await.unwrap();
        let mut confirms = Vec::new();
        for (id, body) in events {
            let properties = BasicProperties::default()
                .with_delivery_mode(2)
                .with_message_id(id.as_str().into())
                .with_content_type("application/cloudevents+json".into());
            let plain = options::BasicPublishOptions::default();
            confirms
                .push(channel.basic_publish("".into(), queue.into(), plain, body, properties).await.unwrap());
        }
        for confirm in futures_util::future::join_all(confirms).await {
            assert!(confirm.unwrap().is_ack());
        }
        let _ = connection.close(200, "done".into()).await;
    }

    /// Takes everything out of a queue; the message ids.
    pub async fn everything(&self, queue: &str) -> Vec<String> {
        self.bodies(queue).await.into_iter().map(|(id, _)| id).collect()
    }

    /// Takes everything out of a queue, in its order: message ids and bodies.
    pub async fn bodies(&self, queue: &str) -> Vec<(String, Vec<u8>)> {
        use lapin::options;
        let (connection, channel) = self.channel().await;
        let mut all = Vec::new();
        let take = options::BasicGetOptions { no_ack: true };
        while let Some(message) = channel.basic_get(queue.into(), take).await.unwrap() {
            let id = message.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
            all.push((id, message.delivery.data));
        }
        let _ = connection.close(200, "done".into()).await;
        all
    }

    /// How many messages are ready in a queue: asked of the queue itself, since the management's counters lag.
    pub async fn depth(&self, queue: &str) -> u64 {
        use lapin::{options::QueueDeclareOptions, types::FieldTable};
        let (connection, channel) = self.channel().await;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap();
        let count = declared.message_count();
        let _ = connection.close(200, "done".into()).await;
        u64::from(count)
    }

    /// Cuts every connection to this vhost, as a fault of the network does.
    pub async fn cut(&self) {
        let management = &self.broker.management;
        let list = format!("{management}/api/vhosts/{}/connections", self.name);
        let names = until("the broker shows a connection", async || {
            let found = self.request("GET", &list, Value::Null).await.unwrap_or_default();
            let names: Vec<String> = found
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|connection| connection["name"].as_str().map(str::to_owned))
                .collect();
            (!names.is_empty()).then_some(names)
        })
        .await;
        for name in names {
            let mut url = reqwest::Url::parse(&format!("{management}/api/connections")).unwrap();
            url.path_segments_mut().unwrap().push(&name);
            self.request("DELETE", url.as_str(), Value::Null).await;
        }
    }

    /// Waits until everything in a queue has been taken. What was taken may be under way still: a stop waits for that.
    pub async fn drained(&self, queue: &str) {
        until(&format!("nothing in {queue}"), async || (self.depth(queue).await == 0).then_some(())).await;
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        // In a thread of its own, with a connection of its own: the test's runtime is held up until it is done.
        let (name, broker) = (self.name.clone(), self.broker.clone());
        let _ = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let url = format!("{}/api/vhosts/{name}", broker.management);
                let request =
                    reqwest::Client::new().delete(url).basic_auth(broker.user, Some(broker.password));
                let _ = request.timeout(Duration::from_secs(20)).send().await;
            });
        })
        .join();
    }
}

/// A folder of a test's own, gone when the test is over.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("packhorse-it-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether a command of the machine succeeded.
pub fn ran(command: &str, arguments: &[&str]) -> bool {
    std::process::Command::new(command).args(arguments).output().is_ok_and(|done| done.status.success())
}

/// Mounts a disk of one megabyte there; where that is not permitted it says so, and the test is left out.
pub fn small_disk(at: &Path) -> bool {
    std::fs::create_dir(at).unwrap();
    let mounted = ran("mount", &["-t", "tmpfs", "-o", "size=1m", "none", at.to_str().unwrap()]);
    if !mounted {
        eprintln!("left out: no small disk can be mounted here");
    }
    mounted
}

/// Copies a folder with all below it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A project folder with this repository's own adapters and mappings, and the bridge's settings.
pub struct Site {
    pub folder: Folder,
    pub vhost: Vhost,
}

impl Site {
    /// A project for a vhost of its own; `more` is the rest of its `packhorse.toml`, from `[adapters…]` on.
    pub async fn new(more: &str) -> Site {
        Site::on(Broker::shared(), more).await
    }

    /// The same on a broker of the test's own.
    pub async fn on(broker: Broker, more: &str) -> Site {
        let vhost = Vhost::new(broker).await;
        vhost.platform().await;
        let folder = Folder::new();
        copy(&root().join("adapters"), &folder.0.join("adapters"));
        copy(&root().join("mappings"), &folder.0.join("mappings"));
        let site = Site { folder, vhost };
        site.settings(&site.vhost.address(), more);
        site
    }

    /// Writes `packhorse.toml`.
    pub fn settings(&self, broker: &str, more: &str) {
        let secret = |name: &str, text: &str| {
            let path = self.folder.write(name, text);
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        secret("secrets/broker", &self.vhost.broker.password);
        secret("secrets/pay-key", crate::standins::pay::API_KEY);
        secret("secrets/pay-signing", crate::standins::pay::SIGNING_SECRET);
        secret("secrets/scp-key", crate::standins::scp::KEY);
        let folder = self.folder.0.display();
        let user = &self.vhost.broker.user;
        let text = format!(
            "version = 1\ncouncil = \"example\"\n\n[broker]\naddresses = [\"{broker}\"]\nusername = \"{user}\"\npassword = \"file:{folder}/secrets/broker\"\n\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n\n{}",
            more.replace("$FOLDER", &folder.to_string())
        );
        // `PACKHORSE_STORE=postgres` has every bridge of the tests keep its store there.
        let text = match std::env::var("PACKHORSE_STORE").as_deref() {
            Ok("postgres") if !text.contains("[store]") => text + &self.store_on_postgres(),
            _ => text,
        };
        self.folder.write("packhorse.toml", text);
    }

    /// The settings of a store on the PostgreSQL that `scripts/test` started, in a schema of this project's own.
    pub fn store_on_postgres(&self) -> String {
        let setting =
            |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"));
        let (address, user) = (setting("POSTGRES_ADDRESS"), setting("POSTGRES_USER"));
        let password = self.folder.write("secrets/store", setting("POSTGRES_PASSWORD"));
        let schema = self.folder.0.file_name().unwrap().to_string_lossy().replace('-', "_");
        format!(
            "\n[store]\nurl = \"postgres://{user}@{address}/postgres\"\npassword = \"file:{}\"\nschema = \"{schema}\"\n",
            password.display()
        )
    }

    /// Changes a file of the project.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let path = self.folder.0.join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name} does not hold {from:?}");
        std::fs::write(path, text.replacen(from, to, 1)).unwrap();
    }

    pub fn project(&self) -> Project {
        Project::load(&self.folder.0.join("packhorse.toml"))
    }

    /// Starts a bridge in this process.
    pub async fn start(&self) -> Bridge {
        let project = self.project();
        let wrong: Vec<String> = project
            .diagnostics
            .iter()
            .filter(|found| found.is_error())
            .map(|found| {
                let (path, problem) = (found.path.display(), &found.problem);
                format!("{path}:{}:{}: {} {}", found.line, found.column, problem.code, problem.what)
            })
            .collect();
        let config = project.config.unwrap_or_else(|| panic!("{}", wrong.join("\n")));
        Bridge::start(config).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts the program, as an operator does; waits until it is ready.
    pub async fn run(&self) -> Running {
        self.run_with(&[]).await
    }

    /// The same with these variables in its environment.
    pub async fn run_with(&self, environment: &[(&str, &str)]) -> Running {
        self.run_as("log", environment).await
    }

    /// The same with a log of its own: one of several bridges of this site. Each can be killed alone ([`Running::kill`]).
    pub async fn run_as(&self, log: &str, environment: &[(&str, &str)]) -> Running {
        Site::runs(self.begin_in(&self.folder, log, environment), self.folder.0.join(log)).await
    }

    /// The same on another machine, which has the same files in another folder.
    pub async fn run_in(&self, folder: &Folder, log: &str, environment: &[(&str, &str)]) -> Running {
        Site::runs(self.begin_in(folder, log, environment), folder.0.join(log)).await
    }

    async fn runs(mut running: Running, log: PathBuf) -> Running {
        until("the program runs", async || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if let Ok(Some(status)) = running.child.try_wait() {
                panic!("the program ended with {status}:\n{text}");
            }
            text.contains("the bridge runs").then_some(())
        })
        .await;
        running
    }

    /// Starts the program without waiting for anything.
    #[allow(dead_code)]
    pub fn begin(&self, environment: &[(&str, &str)]) -> Running {
        self.begin_in(&self.folder, "log", environment)
    }

    /// The same, in a folder with the files of this site, with a log of its own.
    pub fn begin_in(&self, folder: &Folder, log: &str, environment: &[(&str, &str)]) -> Running {
        let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_packhorse"))
            .current_dir(&folder.0)
            .args(["run", "--log", "text"])
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(std::fs::File::create(folder.0.join(log)).unwrap()))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Running { child }
    }

    /// Runs a command to its end: exit code, standard output, standard error.
    pub async fn command(&self, arguments: &[&str]) -> (i32, String, String) {
        self.command_with(&[], arguments).await
    }

    /// The same with these variables in its environment.
    pub async fn command_with(
        &self,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> (i32, String, String) {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_packhorse"))
            .current_dir(&self.folder.0)
            .args(arguments)
            .envs(environment.iter().copied())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// Runs a command that must succeed; its standard output.
    pub async fn good(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.command(arguments).await;
        assert_eq!(code, 0, "packhorse {}: {out}{err}", arguments.join(" "));
        out
    }

    /// A route's line of the account; every line must close.
    pub async fn account(&self, route: &str) -> Value {
        let out = self.good(&["account", "--json"]).await;
        let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &lines {
            assert_eq!(line["difference"], 0, "{line}");
        }
        lines.into_iter().find(|line| line["route"] == route).unwrap_or_else(|| panic!("no {route} in {out}"))
    }

    /// The dead letters, when there are so many.
    pub async fn dead(&self, count: usize) -> Vec<Seen> {
        self.vhost.until("packhorse.dead", count).await
    }
}

impl Drop for Site {
    /// A test that fails shows the end of what the program said.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.0.join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the program's log ends:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

/// The program, running.
pub struct Running {
    child: tokio::process::Child,
}

impl Running {
    /// The most memory that it has had, in KiB, by the kernel's own count.
    #[allow(dead_code)]
    pub fn most_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Whether it has ended by itself.
    #[allow(dead_code)]
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Its exit code, when it has ended.
    #[allow(dead_code)]
    pub fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten().map(|status| status.code().unwrap_or(-1))
    }

    /// `kill -9`.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends it a signal: `STOP`, `CONT`.
    pub async fn signal(&self, name: &str) {
        let (signal, pid) = (format!("-{name}"), self.child.id().unwrap().to_string());
        let sent = tokio::process::Command::new("kill").args([signal, pid]).status().await.unwrap();
        assert!(sent.success());
    }

    /// SIGTERM; its exit code.
    pub async fn terminate(mut self) -> i32 {
        self.signal("TERM").await;
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        status.code().unwrap_or(-1)
    }
}

/// An event of the platform with these data: its id and its bytes.
pub fn event(event_type: &str, id: &str, data: &Value) -> (String, Vec<u8>) {
    let event = json!({ "specversion": "1.0", "id": id, "source": "urn:platform:payments", "type": event_type, "data": data });
    (id.to_owned(), event.to_string().into_bytes())
}

/// The data of an event's example.
pub fn example(event_type: &str) -> Value {
    let path = root().join(format!("mappings/events/{event_type}.example.json"));
    let event: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    event["data"].clone()
}
