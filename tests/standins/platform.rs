//! A stand-in for the national platform: hears what councils tell (`platform.updates`), hands payments that succeeded back
//! to the councils' bridges (`platform.events`), and says what it is told to say.
//!
//! `POST /say?type=…&id=…` with an event's data says an event; `GET /heard` lists what was heard, an event a line;
//! `POST /remove?queue=…` or `?exchange=…` removes what a demonstration has declared in a broker that was there before.

use crate::standins::http::{Answer, Handle, Request, Server};
use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions,
        ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::FieldTable,
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

pub struct Platform {
    channel: Channel,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Platform {
    /// Connects, declares the two exchanges and listens; refuses a vhost that has a platform already.
    pub async fn start(url: &str, at: SocketAddr) -> Result<Server, String> {
        let said = |error: lapin::Error| error.to_string();
        let connection = Connection::connect(url, ConnectionProperties::default()).await.map_err(said)?;
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let look = connection.create_channel().await.map_err(said)?;
        let there = look.exchange_declare(
            "platform.updates".into(),
            ExchangeKind::Topic,
            passive,
            FieldTable::default(),
        );
        if there.await.is_ok() {
            return Err("this vhost has a platform already; give an empty vhost".to_owned());
        }
        let channel = connection.create_channel().await.map_err(said)?;
        for exchange in ["platform.updates", "platform.events"] {
            let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            channel
                .exchange_declare(exchange.into(), ExchangeKind::Topic, durable, FieldTable::default())
                .await
                .map_err(said)?;
        }
        let queue = "standin.platform";
        channel
            .queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default())
            .await
            .map_err(said)?;
        channel
            .queue_bind(
                queue.into(),
                "platform.updates".into(),
                "#".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(said)?;
        let mut consumer = channel
            .basic_consume(
                queue.into(),
                "platform".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(said)?;
        let platform = Platform { channel: channel.clone(), heard: Arc::default() };
        let heard = platform.heard.clone();
        tokio::spawn(async move {
            // The connection lives as long as somebody listens.
            let _connection = connection;
            while let Some(Ok(delivery)) = consumer.next().await {
                let key = delivery.routing_key.as_str().to_owned();
                heard.lock().unwrap().push(format!("{key} {}", String::from_utf8_lossy(&delivery.data)));
                if key.starts_with("payment.succeeded.v1.") {
                    let _ = publish(&channel, &key, delivery.properties.clone(), &delivery.data).await;
                }
                let _ = delivery.ack(BasicAckOptions::default()).await;
            }
        });
        Server::start_at(Arc::new(platform), at, None).await.map_err(|error| error.to_string())
    }

    fn say(&self, request: &Request) -> Answer {
        let (Some(event_type), Some(id)) = (request.query("type"), request.query("id")) else {
            return Answer::of(400, "text/plain", "type and id are needed");
        };
        let event = serde_json::json!({ "specversion": "1.0", "id": id, "source": "urn:platform:payments", "type": event_type,
            "time": jiff::Timestamp::now().to_string(), "datacontenttype": "application/json", "data": request.json() });
        let properties = BasicProperties::default()
            .with_message_id(id.into())
            .with_delivery_mode(2)
            .with_content_type("application/cloudevents+json".into());
        let (channel, key) = (self.channel.clone(), format!("{event_type}.example"));
        tokio::spawn(async move {
            let _ = publish(&channel, &key, properties, event.to_string().as_bytes()).await;
        });
        Answer::empty(202)
    }

    fn remove(&self, request: &Request) -> Answer {
        let channel = self.channel.clone();
        let name = |kind| request.query(kind).map(str::to_owned);
        let (queue, exchange) = (name("queue"), name("exchange"));
        tokio::spawn(async move {
            if let Some(queue) = queue {
                let _ = channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await;
            }
            if let Some(exchange) = exchange {
                let _ = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await;
            }
        });
        Answer::empty(202)
    }
}

async fn publish(
    channel: &Channel,
    key: &str,
    properties: BasicProperties,
    body: &[u8],
) -> lapin::Result<()> {
    let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    channel.basic_publish("platform.events".into(), key.into(), mandatory, body, properties).await?.await?;
    Ok(())
}

impl Handle for Platform {
    fn answer(&self, request: &Request) -> Answer {
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/say") => self.say(request),
            ("POST", "/remove") => self.remove(request),
            ("GET", "/heard") => {
                let heard = self.heard.lock().unwrap();
                Answer::of(
                    200,
                    "text/plain; charset=utf-8",
                    heard.iter().map(|line| format!("{line}\n")).collect::<String>(),
                )
            }
            _ => Answer::empty(404),
        }
    }
}
