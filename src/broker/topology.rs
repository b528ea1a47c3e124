//! What exchanges and queues there must be, for which configuration; declaring, verifying and exporting them.
//!
//! Every argument has its reason in `docs/reference/topology.md`; in short: quorum queues, a stated delivery limit (4.x
//! would drop messages at its own of 20), dead-lettering at least once, which needs `reject-publish` and a target that
//! routes.

use super::{BrokerError, Link, link::Live};
use crate::{
    code::Code,
    config::{Config, TIERS, units},
};
use lapin::{
    BasicProperties, Channel, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use serde_json::{Value, json};
use std::time::Duration;

/// The exchange on which the platform publishes its events.
pub const EVENTS: &str = "platform.events";
/// The exchange on which the platform receives updates.
pub const UPDATES: &str = "platform.updates";
/// How often a message may be given back before the broker itself gives it up: practically never.
const DELIVERY_LIMIT: i32 = 100_000;
/// The same for dead letters, as high as it goes: whoever looks at them takes them and gives them back, and what exceeds the
/// limit there is gone. RabbitMQ before 4.0 knows no word for "none".
const LOOKS_AT_DEAD_LETTERS: i32 = i32::MAX;

/// The names of a bridge's own exchanges and queues.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// The names with this prefix.
    pub fn new(prefix: &str) -> Names {
        Names { prefix: prefix.to_owned() }
    }

    /// The exchange and queue of dead letters.
    pub fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The exchange by which messages come back from a retry tier to their route's queue.
    pub fn back(&self) -> String {
        format!("{}.return", self.prefix)
    }

    /// The exchange and queue of a retry tier.
    pub fn tier(&self, wait: Duration) -> String {
        let tier = TIERS.iter().filter(|(_, delay)| *delay >= wait).map(|(name, _)| *name).next();
        format!("{}.retry.{}", self.prefix, tier.unwrap_or("6h"))
    }
}

/// An exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// `topic`, `direct`, `fanout`.
    pub kind: &'static str,
    /// Where messages go that it cannot route.
    pub alternate: Option<String>,
    /// Whether it is the platform's and only checked.
    pub platform: bool,
}

/// A queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its arguments: texts and numbers.
    pub arguments: Vec<(&'static str, Argument)>,
    /// What it is for.
    pub about: String,
}

/// An argument of a queue.
#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// True.
    True,
}

/// A binding.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// From this exchange.
    pub exchange: String,
    /// To this queue.
    pub queue: String,
    /// By this key.
    pub key: String,
}

/// Everything a configuration needs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Topology {
    /// In the order in which they are declared.
    pub exchanges: Vec<Exchange>,
    /// The queues.
    pub queues: Vec<Queue>,
    /// The bindings.
    pub bindings: Vec<Binding>,
}

/// How a part of the topology stands on a broker.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// `exchange packhorse.dead`
    pub subject: String,
    /// What is wrong; `None` if all is well.
    pub error: Option<BrokerError>,
}

impl Topology {
    /// What this configuration needs.
    pub fn of(config: &Config) -> Topology {
        let names = Names::new(&config.prefix);
        let exchange = |name: String, kind, alternate| Exchange { name, kind, alternate, platform: false };
        let mut topology = Topology::default();
        for name in [EVENTS, UPDATES] {
            topology.exchanges.push(Exchange {
                name: name.to_owned(),
                kind: "topic",
                alternate: None,
                platform: true,
            });
        }
        topology.exchanges.push(exchange(names.dead(), "fanout", None));
        topology.exchanges.push(exchange(names.back(), "direct", Some(names.dead())));
        topology.queues.push(Queue {
            name: names.dead(),
            arguments: quorum(None),
            about: "messages that were given up, whole, with the reason".to_owned(),
        });
        topology.bindings.push(Binding { exchange: names.dead(), queue: names.dead(), key: String::new() });
        for (_, delay) in TIERS {
            let name = names.tier(delay);
            topology.exchanges.push(exchange(name.clone(), "fanout", None));
            let mut arguments = quorum(Some(names.back()));
            arguments.push(("x-message-ttl", Argument::Number(delay.as_millis() as i64)));
            topology.queues.push(Queue {
                name: name.clone(),
                arguments,
                about: format!(
                    "messages of all routes that wait {} before the next attempt",
                    units::in_words(delay)
                ),
            });
            topology.bindings.push(Binding { exchange: name.clone(), queue: name, key: String::new() });
        }
        for route in &config.deliver {
            let mut arguments = quorum(Some(names.dead()));
            if route.plan.order.is_some() {
                // Of several bridges one has the queue at a time: two would overtake each other.
                arguments.push(("x-single-active-consumer", Argument::True));
            }
            topology.queues.push(Queue {
                name: route.queue.clone(),
                arguments,
                about: format!("{} for {}", route.plan.event.event_type, route.id),
            });
            let key = format!("{}.{}", route.plan.event.event_type, config.council);
            topology.bindings.push(Binding { exchange: EVENTS.to_owned(), queue: route.queue.clone(), key });
            let (exchange, queue) = (names.back(), route.queue.clone());
            topology.bindings.push(Binding { exchange, key: queue.clone(), queue });
        }
        topology
    }

    /// Declares what is missing and checks what is there. `platform` also declares the platform's exchanges; without
    /// `declare` nothing is made, everything must be there.
    ///
    /// # Errors
    /// The connection failed. What is wrong with single parts is in the findings.
    pub async fn apply(
        &self,
        link: &Link,
        declare: bool,
        platform: bool,
    ) -> Result<Vec<Finding>, BrokerError> {
        let Some(live) = link.live().await else {
            return Err(BrokerError::new(Code::BrokerUnreachable, "we are stopping"));
        };
        let mut hand = Hand { live, channel: None, findings: Vec::new() };
        for exchange in &self.exchanges {
            let make = declare && (!exchange.platform || platform);
            let subject = format!("exchange {}", exchange.name);
            hand.call(subject, async |channel: &Channel| {
                let options = ExchangeDeclareOptions {
                    passive: !make,
                    durable: true,
                    ..ExchangeDeclareOptions::default()
                };
                let mut arguments = FieldTable::default();
                if let Some(alternate) = &exchange.alternate {
                    arguments.insert("alternate-exchange".into(), text(alternate));
                }
                channel
                    .exchange_declare(
                        name(&exchange.name),
                        ExchangeKind::Custom(exchange.kind.to_owned()),
                        options,
                        arguments,
                    )
                    .await
            })
            .await?;
        }
        for queue in &self.queues {
            hand.call(format!("queue {}", queue.name), async |channel: &Channel| {
                let options = QueueDeclareOptions {
                    passive: !declare,
                    durable: true,
                    ..QueueDeclareOptions::default()
                };
                channel.queue_declare(name(&queue.name), options, table(&queue.arguments)).await.map(|_| ())
            })
            .await?;
        }
        for binding in self.bindings.iter().filter(|_| declare) {
            let subject = format!("binding {} -> {} ({})", binding.exchange, binding.queue, binding.key);
            hand.call(subject, async |channel: &Channel| {
                let (queue, exchange, key) =
                    (name(&binding.queue), name(&binding.exchange), name(&binding.key));
                channel
                    .queue_bind(queue, exchange, key, QueueBindOptions::default(), FieldTable::default())
                    .await
            })
            .await?;
        }
        Ok(hand.findings)
    }

    /// Compares the broker with what there must be, and changes nothing: what is not there is told; what is there is
    /// declared as it must be, which a broker takes in silence if it is the same and refuses if it differs. That we may not
    /// declare counts only if the bridge `declares`.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn verify(&self, link: &Link, declares: bool) -> Result<Vec<Finding>, BrokerError> {
        let there = Topology { bindings: Vec::new(), ..self.clone() };
        let missing = there.apply(link, false, false).await?;
        let is_there = |subject: String| {
            missing.iter().any(|finding| finding.subject == subject && finding.error.is_none())
        };
        let present = Topology {
            exchanges: self
                .exchanges
                .iter()
                .filter(|exchange| is_there(format!("exchange {}", exchange.name)))
                .cloned()
                .collect(),
            queues: self
                .queues
                .iter()
                .filter(|queue| is_there(format!("queue {}", queue.name)))
                .cloned()
                .collect(),
            bindings: Vec::new(),
        };
        let mut findings: Vec<Finding> =
            missing.iter().filter(|finding| finding.error.is_some()).cloned().collect();
        for finding in present.apply(link, true, false).await? {
            // Who may not declare cannot compare either; that is no difference.
            let forbidden =
                !declares && finding.error.as_ref().is_some_and(|error| error.code == Code::NoPermission);
            findings.push(Finding { error: finding.error.filter(|_| !forbidden), ..finding });
        }
        Ok(findings)
    }

    /// Where the bridge may not publish or consume although it has to; one finding says so if it may do everything. The
    /// broker is asked for what it must refuse anyway, and looks at permissions first: nothing is published or taken.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn permissions(&self, link: &Link) -> Result<Vec<Finding>, BrokerError> {
        let Some(live) = link.live().await else {
            return Err(BrokerError::new(Code::BrokerUnreachable, "we are stopping"));
        };
        let mut hand = Hand { live, channel: None, findings: Vec::new() };
        let published = |exchange: &&Exchange| exchange.name != EVENTS && exchange.alternate.is_none();
        for exchange in self.exchanges.iter().filter(published) {
            hand.call(format!("publishing to {}", exchange.name), async |channel: &Channel| {
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                // Neither a time to live nor the name of our user: each is reason enough to refuse the message.
                let impossible = BasicProperties::default()
                    .with_expiration("never".into())
                    .with_user_id("packhorse doctor".into());
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let name = name(&exchange.name);
                channel.basic_publish(name, "".into(), options, &[], impossible).await?.await.map(|_| ())
            })
            .await?;
        }
        // What waits in a retry tier is moved by the broker itself.
        let tier = |queue: &&Queue| queue.arguments.iter().any(|(name, _)| *name == "x-message-ttl");
        for queue in self.queues.iter().filter(|queue| !tier(queue)) {
            hand.call(format!("consuming {}", queue.name), async |channel: &Channel| {
                let impossible = AMQPValue::LongString("not a number".into());
                let mut arguments = FieldTable::default();
                arguments.insert("x-priority".into(), impossible);
                channel.basic_qos(1, BasicQosOptions::default()).await?;
                let options = BasicConsumeOptions::default();
                channel.basic_consume(name(&queue.name), "".into(), options, arguments).await.map(|_| ())
            })
            .await?;
        }
        let forbidden =
            |finding: &Finding| finding.error.as_ref().is_some_and(|error| error.code == Code::NoPermission);
        let found: Vec<Finding> = hand.findings.into_iter().filter(forbidden).collect();
        Ok(match found.is_empty() {
            true => vec![Finding { subject: "permissions".to_owned(), error: None }],
            false => found,
        })
    }

    /// How many messages wait in a queue; `None` if it is not there.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn depth(live: &Live, queue: &str) -> Result<Option<u32>, BrokerError> {
        let channel = live.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declare = channel.queue_declare(name(queue), options, FieldTable::default());
        match live.call("asking for a queue", declare).await {
            Ok(queue) => {
                let count = queue.message_count();
                let _ = live.call("closing a channel", channel.close(200, "done".into())).await;
                Ok(Some(count))
            }
            Err(error) if error.code == Code::TopologyMissing => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A definitions file for a broker administrator (`rabbitmqctl import_definitions`), with a user's least permissions
    /// if one is named.
    pub fn definitions(&self, vhost: &str, user: Option<&str>, prefix: &str) -> Value {
        let exchanges: Vec<Value> = self
            .exchanges
            .iter()
            .map(|exchange| {
                let arguments = match &exchange.alternate {
                    Some(alternate) => json!({ "alternate-exchange": alternate }),
                    None => json!({}),
                };
                json!({ "name": exchange.name, "vhost": vhost, "type": exchange.kind, "durable": true,
                        "auto_delete": false, "internal": false, "arguments": arguments })
            })
            .collect();
        let queues: Vec<Value> = self
            .queues
            .iter()
            .map(|queue| {
                let arguments: serde_json::Map<String, Value> = queue
                    .arguments
                    .iter()
                    .map(|(name, argument)| {
                        let value = match argument {
                            Argument::Text(text) => Value::from(text.clone()),
                            Argument::Number(number) => Value::from(*number),
                            Argument::True => Value::from(true),
                        };
                        ((*name).to_owned(), value)
                    })
                    .collect();
                json!({ "name": queue.name, "vhost": vhost, "durable": true, "auto_delete": false, "arguments": arguments })
            })
            .collect();
        let bindings: Vec<Value> = self
            .bindings
            .iter()
            .map(|binding| {
                json!({ "source": binding.exchange, "vhost": vhost, "destination": binding.queue,
                        "destination_type": "queue", "routing_key": binding.key, "arguments": {} })
            })
            .collect();
        let mut definitions = json!({ "vhosts": [{ "name": vhost }], "exchanges": exchanges, "queues": queues, "bindings": bindings });
        if let (Some(user), Value::Object(object)) = (user, &mut definitions) {
            let own = format!("^{}\\.", escape(prefix));
            let permission = json!({ "user": user, "vhost": vhost, "configure": "^$",
                "write": format!("{own}|^{}$", escape(UPDATES)), "read": own });
            object.insert("permissions".to_owned(), json!([permission]));
        }
        definitions
    }
}

/// A channel that is opened anew when the broker closes it over a question.
struct Hand {
    live: Live,
    channel: Option<Channel>,
    findings: Vec<Finding>,
}

impl Hand {
    async fn call(
        &mut self,
        subject: String,
        call: impl AsyncFnOnce(&Channel) -> lapin::Result<()>,
    ) -> Result<(), BrokerError> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => self.live.channel().await?,
        };
        let error = match self.live.call(&subject, call(&channel)).await {
            Ok(()) => {
                self.channel = Some(channel);
                None
            }
            Err(error) if error.code == Code::BrokerUnreachable => return Err(error),
            Err(error) => Some(error),
        };
        self.findings.push(Finding { subject, error });
        Ok(())
    }
}

fn quorum(dead_letters: Option<String>) -> Vec<(&'static str, Argument)> {
    let limit = if dead_letters.is_some() { DELIVERY_LIMIT } else { LOOKS_AT_DEAD_LETTERS };
    let mut arguments = vec![
        ("x-queue-type", Argument::Text("quorum".to_owned())),
        ("x-delivery-limit", Argument::Number(i64::from(limit))),
        ("x-overflow", Argument::Text("reject-publish".to_owned())),
    ];
    if let Some(exchange) = dead_letters {
        arguments.push(("x-dead-letter-exchange", Argument::Text(exchange)));
        arguments.push(("x-dead-letter-strategy", Argument::Text("at-least-once".to_owned())));
    }
    arguments
}

fn table(arguments: &[(&'static str, Argument)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, argument) in arguments {
        let value = match argument {
            Argument::Text(value) => text(value),
            Argument::True => AMQPValue::Boolean(true),
            Argument::Number(number) => {
                i32::try_from(*number).map_or(AMQPValue::LongLongInt(*number), AMQPValue::LongInt)
            }
        };
        table.insert((*key).into(), value);
    }
    table
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

fn name(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap_or_default()
}

/// A name as it stands in a regular expression of RabbitMQ's permissions.
fn escape(text: &str) -> String {
    text.replace('.', "\\.")
}
