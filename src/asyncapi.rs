//! The contract with the platform as an AsyncAPI 3 document: every event that goes in and out, with its schema, its
//! channel and its example. From the bridge's own point of view: `receive` is what it takes, `send` what it publishes.

use crate::{
    broker::topology::{EVENTS, UPDATES},
    config::{
        Project,
        plan::{Emit, EmitAction, Source},
    },
};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The document for a project: of all its adapters, or of those in use if there are settings.
pub fn document(project: &Project) -> Value {
    let mut taken: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut published: BTreeSet<String> = BTreeSet::new();
    let emitted = |emits: &[Emit], published: &mut BTreeSet<String>| {
        for emit in emits {
            if let EmitAction::Event(mapping) = &emit.action {
                published.insert(mapping.schema.event_type.clone());
            }
        }
    };
    for adapter in project.adapters.values() {
        for route in &adapter.deliver {
            let about = format!("{} {}: {}", adapter.title, route.name, route.about);
            taken.entry(route.event.event_type.clone()).or_default().push(about);
            emitted(&route.reply, &mut published);
        }
        for route in &adapter.collect {
            emitted(&route.events, &mut published);
            if let Source::Consume(consume) = &route.source
                && consume.events
            {
                published.extend(project.schemas.keys().cloned());
            }
        }
    }
    let council = project.config.as_ref().map_or("{council}".to_owned(), |config| config.council.clone());
    let mut schemas = Map::new();
    let mut messages = Map::new();
    for (name, schema) in &project.schemas {
        let mut data = schema.document.clone();
        if let Value::Object(object) = &mut data {
            if let Some(Value::Object(definitions)) = object.remove("$defs") {
                for (name, mut definition) in definitions {
                    point_into_components(&mut definition);
                    schemas.insert(name, definition);
                }
            }
            object.remove("$schema");
            object.remove("$id");
        }
        point_into_components(&mut data);
        schemas.insert(name.clone(), data);
        let text =
            |key: &str| schema.document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let example = project.examples.get(name).map(|data| {
            json!({ "name": name, "payload": { "specversion": "1.0", "id": "an-id", "source": "urn:example", "type": name, "data": data.to_json() } })
        });
        messages.insert(
            name.clone(),
            json!({
                "name": name,
                "title": text("title"),
                "summary": first_sentence(&text("description")),
                "contentType": crate::event::MEDIA_TYPE,
                "payload": {
                    "allOf": [
                        { "$ref": "#/components/schemas/cloudEvent" },
                        { "type": "object", "required": ["data"],
                          "properties": { "type": { "const": name }, "data": { "$ref": format!("#/components/schemas/{name}") } } },
                    ]
                },
                "examples": example.into_iter().collect::<Vec<Value>>(),
                "bindings": { "amqp": { "messageType": name, "bindingVersion": "0.3.0" } },
            }),
        );
    }
    schemas.insert("cloudEvent".to_owned(), envelope());
    let exchange = |name: &str| {
        json!({ "amqp": { "is": "routingKey", "bindingVersion": "0.3.0",
                 "exchange": { "name": name, "type": "topic", "durable": true, "autoDelete": false, "vhost": "/" } } })
    };
    let mut channels = Map::new();
    let mut operations = Map::new();
    let mut channel = |way: &str, exchange_name: &str, event: &str, operation: Value| {
        let key = format!("{way}-{}", event.replace('.', "-"));
        channels.insert(
            key.clone(),
            json!({ "address": format!("{event}.{council}"), "title": format!("{event} on {exchange_name}"),
                    "messages": { event: { "$ref": format!("#/components/messages/{event}") } },
                    "parameters": if council == "{council}" { json!({ "council": { "description": "the council's code" } }) } else { json!({}) },
                    "bindings": exchange(exchange_name) }),
        );
        let mut operation = operation;
        if let Value::Object(object) = &mut operation {
            object.insert("channel".to_owned(), json!({ "$ref": format!("#/channels/{key}") }));
            object.insert(
                "messages".to_owned(),
                json!([{ "$ref": format!("#/channels/{key}/messages/{event}") }]),
            );
        }
        operations.insert(key, operation);
    };
    for (event, routes) in &taken {
        let operation = json!({ "action": "receive", "summary": format!("The bridge takes {event} for {} route(s)", routes.len()),
                                "description": routes.join("\n\n"), "bindings": { "amqp": { "ack": true, "bindingVersion": "0.3.0" } } });
        channel("take", EVENTS, event, operation);
    }
    for event in &published {
        let operation = json!({ "action": "send", "summary": format!("The bridge publishes {event}"),
                                "bindings": { "amqp": { "deliveryMode": 2, "mandatory": true, "timestamp": true, "bindingVersion": "0.3.0" } } });
        channel("publish", UPDATES, event, operation);
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Packhorse",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The events between the national platform and a council's bridge: CloudEvents 1.0 in structured JSON form over RabbitMQ. The routing key is the event's type and the council's code.",
            "license": { "name": "MIT" },
        },
        "defaultContentType": crate::event::MEDIA_TYPE,
        "servers": { "broker": { "host": "localhost:5672", "protocol": "amqp", "protocolVersion": "0.9.1" } },
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas },
    })
}

/// CloudEvents 1.0 s.3.1, the JSON format.
fn envelope() -> Value {
    json!({
        "type": "object",
        "title": "CloudEvent",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": { "type": "string", "const": "1.0" },
            "id": { "type": "string", "minLength": 1, "description": "Unique together with source: the same pair is the same event." },
            "source": { "type": "string", "minLength": 1, "format": "uri-reference" },
            "type": { "type": "string", "minLength": 1 },
            "subject": { "type": "string", "minLength": 1, "description": "What the event is about; events of one subject have an order." },
            "time": { "type": "string", "format": "date-time" },
            "datacontenttype": { "type": "string", "const": "application/json" },
            "dataschema": { "type": "string", "format": "uri" },
            "causationid": { "type": "string", "description": "The id of the event that caused this one." },
            "traceparent": { "type": "string", "description": "W3C Trace Context of the start of the journey." },
        },
    })
}

/// References to a schema's own definitions become references into the components.
fn point_into_components(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get_mut("$ref")
                && let Some(name) = reference.strip_prefix("#/$defs/")
            {
                *reference = format!("#/components/schemas/{name}");
            }
            object.values_mut().for_each(point_into_components);
        }
        Value::Array(items) => items.iter_mut().for_each(point_into_components),
        _ => {}
    }
}

fn first_sentence(text: &str) -> String {
    text.split_inclusive(". ").next().unwrap_or(text).trim().to_owned()
}
