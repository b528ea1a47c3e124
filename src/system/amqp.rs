//! A system that is a broker: the council's own, another vhost, or the platform's. Documents are published to it and
//! consumed from it.

use crate::{
    broker::{Link, Message, Properties, Published, Publisher},
    code::Code,
    config::{
        Address, Broker, Config, Instance, Tls,
        plan::{Amqp, Publish},
    },
    template::{Scope, Template},
    verdict::{Class, Failure},
};
use bytes::Bytes;
use std::{path::PathBuf, sync::Arc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A system that is a broker.
pub struct AmqpSystem {
    /// For consuming from it.
    pub link: Link,
    /// For publishing to it.
    pub publisher: Publisher,
}

impl AmqpSystem {
    /// Connects; without addresses of its own, the platform's broker is meant.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn open(
        instance: &Arc<Instance>,
        plan: &Amqp,
        config: &Config,
        platform: (&Link, &Publisher),
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<AmqpSystem, Failure> {
        let Some(broker) = broker(instance, plan, config)? else {
            return Ok(AmqpSystem { link: platform.0.clone(), publisher: platform.1.clone() });
        };
        let link = Link::start(&format!("{} consume", instance.name), broker.clone(), stop.clone(), tasks);
        let publish = Link::start(&format!("{} publish", instance.name), broker, stop.clone(), tasks);
        Ok(AmqpSystem { link, publisher: Publisher::new(publish, 4) })
    }

    /// Whether the broker can be reached and lets us in.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn try_out(instance: &Instance, plan: &Amqp, config: &Config) -> Result<(), Failure> {
        let broker = broker(instance, plan, config)?.unwrap_or_else(|| config.broker.clone());
        let mut last = Failure::not_done(Code::BadAddress, "the broker has no address");
        for address in &broker.addresses {
            match crate::broker::link::connect("doctor", &broker, address).await {
                Ok(connection) => {
                    crate::broker::link::close(connection).await;
                    return Ok(());
                }
                Err(error) => last = Failure::not_done(error.code, error.what),
            }
        }
        Err(last)
    }

    /// Makes the message for a document.
    ///
    /// # Errors
    /// A template that cannot be rendered.
    pub fn message(
        &self,
        publish: &Publish,
        scope: &Scope<'_>,
        body: Bytes,
        properties: Properties,
    ) -> Result<Message, Failure> {
        let render = |template: &Template, field: &str| {
            template.render(scope).map_err(|failed| Failure::refused(Code::TemplateFailed, field, failed.0))
        };
        let mut properties = properties;
        for (name, template) in &publish.headers {
            properties = properties.with_text(name, &render(template, name)?);
        }
        Ok(Message {
            exchange: render(&publish.exchange, "exchange")?,
            routing_key: render(&publish.routing_key, "routing_key")?,
            properties,
            body,
        })
    }

    /// Publishes documents; for each whether it is there, or why not.
    pub async fn send(&self, messages: &[Message]) -> Vec<Result<(), Failure>> {
        let failure = |code, class, what: String| Failure {
            code,
            class,
            what,
            field: String::new(),
            retry_after: None,
        };
        let results = self.publisher.publish(messages).await.into_iter();
        results
            .map(|result| match result {
                Published::Confirmed => Ok(()),
                Published::Nacked => Err(failure(
                    Code::PublishRefused,
                    Class::NotDone,
                    "the broker would not take the message".to_owned(),
                )),
                Published::Returned(text) => Err(failure(
                    Code::PublishReturned,
                    Class::NotDone,
                    format!("the broker has no queue for the message: {text}"),
                )),
                Published::NotSent(error) => Err(failure(error.code, Class::Away, error.what)),
                Published::Unknown(error) => Err(failure(Code::OutcomeUnknown, Class::Unknown, error.what)),
                Published::Refused(error) => Err(failure(error.code, Class::Refused, error.what)),
            })
            .collect()
    }
}

/// The broker that an adapter's settings mean; `None` is the platform's.
///
/// # Errors
/// Addresses that are none, a password over an unencrypted connection, a key that is not a reference.
pub fn broker(instance: &Instance, plan: &Amqp, config: &Config) -> Result<Option<Broker>, Failure> {
    let bad = |code, what: String| Failure::refused(code, "", format!("{}: {what}", instance.name));
    let text =
        |template: &Template| instance.render(template).map_err(|failed| bad(Code::TemplateFailed, failed.0));
    let mut addresses = Vec::new();
    for address in text(&plan.addresses)?.split_whitespace() {
        addresses.push(Address::parse(address).map_err(|what| bad(Code::BadAddress, what))?);
    }
    if addresses.is_empty() {
        return Ok(None);
    }
    let password = plan.password.as_ref().and_then(|name| instance.secrets.get(name).cloned());
    let allowed = plan.allow_unencrypted_login.as_ref().is_some_and(|name| {
        instance.settings.get(name).is_some_and(|text| matches!(text.as_str(), "yes" | "true"))
    });
    if password.is_some() && !allowed && addresses.iter().any(|address| !address.tls && !address.is_local()) {
        return Err(bad(
            Code::PlainCredentials,
            "the password would go to another machine unencrypted".to_owned(),
        ));
    }
    let path = |template: &Option<Template>| -> Result<Option<PathBuf>, Failure> {
        let path = template.as_ref().map(text).transpose()?;
        Ok(path.filter(|path| !path.is_empty()).map(|path| instance.path(&path)))
    };
    let tls = match &plan.tls {
        None => Tls::default(),
        Some(tls) => {
            let key = tls.key.as_ref().map(text).transpose()?.filter(|key| !key.is_empty());
            let key = key.map(|key| {
                instance.reference(&key).ok_or_else(|| {
                    bad(Code::SecretInClear, "the certificate's key is a reference".to_owned())
                })
            });
            Tls { ca: path(&tls.ca)?, certificate: path(&tls.certificate)?, key: key.transpose()? }
        }
    };
    let username = plan.username.as_ref().map(text).transpose()?.filter(|username| !username.is_empty());
    Ok(Some(Broker {
        addresses,
        username,
        password,
        tls,
        heartbeat: config.broker.heartbeat,
        allow_unencrypted_login: allowed,
    }))
}
