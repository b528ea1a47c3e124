//! Events in every form in which they arrive over AMQP 0-9-1, and every way in which a message is not one.

use packhorse::{
    code::Code,
    event::{self, Accept, Arrived, Event, HeaderValue, Key},
    format::Limits,
    tree::Tree,
};

fn read(arrived: &Arrived<'_>) -> Result<Event, (Code, String)> {
    read_with(arrived, Accept::default())
}

fn read_with(arrived: &Arrived<'_>, accept: Accept) -> Result<Event, (Code, String)> {
    event::decode(arrived, accept, &Limits::default()).map_err(|bad| (bad.code, bad.field))
}

fn structured(body: &str) -> Result<Event, (Code, String)> {
    read(&Arrived {
        content_type: Some("application/cloudevents+json"),
        body: body.as_bytes(),
        ..Arrived::default()
    })
}

fn text(text: &str) -> HeaderValue {
    HeaderValue::Text(text.to_owned())
}

fn binary(prefix: &'static str) -> Vec<(&'static str, HeaderValue)> {
    let leak = |name: &str| -> &'static str { Box::leak(format!("{prefix}{name}").into_boxed_str()) };
    vec![
        (leak("specversion"), text("1.0")),
        (leak("id"), text("7")),
        (leak("source"), text("urn:s")),
        (leak("type"), text("payment.requested.v1")),
    ]
}

const WHOLE: &str = r#"{"specversion":"1.0","id":"7","source":"urn:s","type":"t.v1","subject":"s","time":"2026-11-23T09:00:00Z",
    "datacontenttype":"application/json","correlationid":"c","sampled":true,"n":5,"nothing":null,"data":{"a":1}}"#;

#[test]
fn a_structured_event_is_read_whole_and_written_so_that_it_is_read_again() {
    let event = structured(WHOLE).unwrap();
    assert_eq!((event.id.as_str(), event.source.as_str(), event.event_type.as_str()), ("7", "urn:s", "t.v1"));
    assert_eq!(event.attribute("correlationid"), Some("c"));
    assert_eq!(
        (event.attribute("sampled"), event.attribute("n"), event.attribute("nothing")),
        (Some("true"), Some("5"), None)
    );
    assert_eq!(event.data.at(&["a"]), Some(&Tree::integer(1)));
    assert_eq!(structured(&event.to_json()).unwrap(), event);
}

#[test]
fn the_content_type_is_compared_without_case_and_parameters() {
    for content_type in [
        "Application/CloudEvents+JSON",
        "application/cloudevents+json; charset=UTF-8",
        " application/cloudevents+json ",
    ] {
        let arrived =
            Arrived { content_type: Some(content_type), body: WHOLE.as_bytes(), ..Arrived::default() };
        assert!(read(&arrived).is_ok(), "{content_type}");
    }
}

#[test]
fn an_event_that_is_not_one_says_which_attribute_is_at_fault() {
    let wrong =
        |body: &str, code, field: &str| assert_eq!(structured(body), Err((code, field.to_owned())), "{body}");
    let base = r#""source":"s","type":"t""#;
    wrong(&format!(r#"{{"specversion":"1.0",{base}}}"#), Code::EventAttributeMissing, "id");
    wrong(&format!(r#"{{"specversion":"1.0","id":"",{base}}}"#), Code::EventAttributeMissing, "id");
    wrong(&format!(r#"{{"specversion":"1.0","id":null,{base}}}"#), Code::EventAttributeMissing, "id");
    wrong(&format!(r#"{{"id":"1",{base}}}"#), Code::EventAttributeMissing, "specversion");
    wrong(&format!(r#"{{"specversion":"2.0","id":"1",{base}}}"#), Code::BadEventAttribute, "specversion");
    wrong(&format!(r#"{{"specversion":"1.0","id":7,{base}}}"#), Code::BadEventAttribute, "id");
    wrong(
        &format!(r#"{{"specversion":"1.0","id":"1","time":"yesterday",{base}}}"#),
        Code::BadEventAttribute,
        "time",
    );
    wrong(
        &format!(r#"{{"specversion":"1.0","id":"1","time":"2026-11-23T09:00:00",{base}}}"#),
        Code::BadEventAttribute,
        "time",
    );
    wrong(
        &format!(r#"{{"specversion":"1.0","id":"1","subject":"",{base}}}"#),
        Code::BadEventAttribute,
        "subject",
    );
    wrong(
        &format!(r#"{{"specversion":"1.0","id":"1","my_ext":"x",{base}}}"#),
        Code::BadEventAttribute,
        "my_ext",
    );
    wrong(&format!(r#"{{"specversion":"1.0","id":"1","ext":{{}},{base}}}"#), Code::BadEventAttribute, "ext");
    wrong(&format!(r#"{{"specversion":"1.0","id":"a\nb",{base}}}"#), Code::BadEventAttribute, "id");
    wrong(&format!(r#"{{"specversion":"1.0","id":"a\u0000b",{base}}}"#), Code::BadEventAttribute, "id");
    wrong(
        &format!(r#"{{"specversion":"1.0","id":"1",{base},"data":1,"data_base64":"MQ=="}}"#),
        Code::BadEventAttribute,
        "data",
    );
    wrong(
        &format!(r#"{{"specversion":"1.0","id":"1",{base},"data_base64":"!"}}"#),
        Code::BadEventAttribute,
        "data_base64",
    );
    wrong("[1]", Code::NotAnEvent, "body");
    wrong("{", Code::MalformedJson, "body");
    wrong(&format!(r#"{{"specversion":"1.0","id":"1","id":"2",{base}}}"#), Code::DuplicateMember, "body");
}

#[test]
fn data_in_base64_is_the_bytes_and_null_data_is_not_no_data() {
    let with = |more: &str| {
        structured(&format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t",{more}}}"#))
            .unwrap()
            .data
    };
    assert_eq!(with(r#""data_base64":"eyJhIjoxfQ==""#).at(&["a"]), Some(&Tree::integer(1)));
    assert_eq!(with(r#""datacontenttype":"text/plain","data_base64":"aGk=""#), Tree::text("hi"));
    assert_eq!(with(r#""data":null"#), Tree::Null);
    // A string is a JSON string, never JSON text to be parsed once more.
    assert_eq!(with(r#""data":"{\"a\":1}""#), Tree::text("{\"a\":1}"));
}

#[test]
fn binary_events_are_read_under_every_prefix_that_anybody_writes() {
    for prefix in ["ce-", "CE-", "ce_", "cloudEvents_", "cloudEvents:", "cloudevents:"] {
        let arrived = Arrived {
            content_type: Some("application/json; charset=utf-8"),
            headers: binary(prefix),
            body: br#"{"a":1}"#,
            ..Arrived::default()
        };
        let event = read(&arrived).unwrap_or_else(|error| panic!("{prefix}: {error:?}"));
        assert_eq!((event.id.as_str(), event.data.at(&["a"])), ("7", Some(&Tree::integer(1))), "{prefix}");
    }
}

#[test]
fn header_values_are_taken_in_every_type_that_can_hold_them() {
    let with = |name: &'static str, value| {
        let mut headers = binary("ce-");
        headers.push((name, value));
        read(&Arrived { headers, body: b"1", ..Arrived::default() })
    };
    let time = |value| with("ce-time", value).unwrap().time.unwrap();
    assert_eq!(time(HeaderValue::Timestamp(1_795_424_400)), "2026-11-23T09:00:00Z");
    assert_eq!(time(HeaderValue::Integer(1_795_424_400)), "2026-11-23T09:00:00Z");
    // The Python SDK writes milliseconds.
    assert_eq!(time(HeaderValue::Integer(1_795_424_400_123)), "2026-11-23T09:00:00.123Z");
    assert_eq!(with("ce-n", HeaderValue::Integer(-5)).unwrap().attribute("n"), Some("-5"));
    assert_eq!(with("ce-flag", HeaderValue::Boolean(true)).unwrap().attribute("flag"), Some("true"));
    assert_eq!(with("ce-raw", HeaderValue::Bytes(vec![0, 255])).unwrap().attribute("raw"), Some("AP8="));
    assert_eq!(with("ce-subject", HeaderValue::Void).unwrap().subject, None);
    assert_eq!(
        with("ce-subject", HeaderValue::Integer(1)),
        Err((Code::BadEventAttribute, "ce-subject".to_owned()))
    );
    assert_eq!(with("ce-table", HeaderValue::Other), Err((Code::BadEventAttribute, "ce-table".to_owned())));
}

#[test]
fn headers_that_contradict_each_other_are_refused_and_equal_ones_taken() {
    let both = |second: &str| {
        let mut headers = binary("ce-");
        headers.push(("cloudEvents_id", text(second)));
        read(&Arrived { headers, body: b"1", ..Arrived::default() })
    };
    assert!(both("7").is_ok());
    assert_eq!(both("8").unwrap_err().0, Code::ContradictingHeaders);
    let mut headers = binary("ce-");
    headers.push(("ce-datacontenttype", text("text/csv")));
    let arrived =
        Arrived { content_type: Some("application/json"), headers, body: b"1", ..Arrived::default() };
    assert_eq!(read(&arrived).unwrap_err().0, Code::ContradictingHeaders);
    // A content type that lies about the body.
    let arrived = Arrived {
        content_type: Some("application/json"),
        headers: binary("ce-"),
        body: b"<a/>",
        ..Arrived::default()
    };
    assert_eq!(read(&arrived).unwrap_err().0, Code::MalformedJson);
}

#[test]
fn forms_of_single_products_are_taken_only_where_a_route_says_so() {
    let bare: Vec<(&str, HeaderValue)> = vec![
        ("specversion", text("1.0")),
        ("id", text("7")),
        ("source", text("s")),
        ("type", text("t")),
        ("x-other", text("y")),
    ];
    let knative =
        Arrived { content_type: Some("application/json"), headers: bare, body: b"1", ..Arrived::default() };
    assert_eq!(read(&knative).unwrap_err().0, Code::NotAnEvent);
    assert!(read_with(&knative, Accept { bare_headers: true, ..Accept::default() }).is_ok());
    let dapr = Arrived { content_type: Some("text/plain"), body: WHOLE.as_bytes(), ..Arrived::default() };
    assert_eq!(read(&dapr).unwrap_err().0, Code::NotAnEvent);
    assert!(read_with(&dapr, Accept { untyped_json: true, ..Accept::default() }).is_ok());
}

#[test]
fn messages_that_are_something_else_say_what_they_look_like() {
    let with = |content_type: &'static str| {
        read(&Arrived { content_type: Some(content_type), body: b"{}", ..Arrived::default() }).unwrap_err()
    };
    assert_eq!(with("application/cloudevents-batch+json").0, Code::BatchRefused);
    assert_eq!(with("application/cloudevents+avro").0, Code::EventFormatUnknown);
    assert_eq!(with("application/vnd.masstransit+json").0, Code::NotAnEvent);
    let packed = Arrived {
        headers: vec![("x-amqp-1.0-app-properties", HeaderValue::Bytes(vec![1]))],
        ..Arrived::default()
    };
    assert_eq!(read(&packed).unwrap_err().0, Code::AmqpOneMessage);
    let value = Arrived { message_type: Some("amqp-1.0"), body: b"x", ..Arrived::default() };
    assert_eq!(read(&value).unwrap_err().0, Code::AmqpOneMessage);
    assert_eq!(read(&Arrived::default()).unwrap_err().0, Code::NotAnEvent);
}

#[test]
fn packed_bodies_are_unpacked_within_the_limit() {
    use std::io::Write as _;
    let pack = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let with = |encoding: &'static str, body: &[u8]| {
        read(&Arrived {
            content_type: Some("application/cloudevents+json"),
            content_encoding: Some(encoding),
            body,
            ..Arrived::default()
        })
    };
    assert!(with("gzip", &pack(WHOLE.as_bytes())).is_ok());
    assert!(with("utf-8", WHOLE.as_bytes()).is_ok());
    assert_eq!(with("gzip", WHOLE.as_bytes()).unwrap_err().0, Code::ContentEncodingUnknown);
    assert_eq!(with("br", WHOLE.as_bytes()).unwrap_err().0, Code::ContentEncodingUnknown);
    let bomb = pack(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 1 << 20);
    assert_eq!(with("gzip", &bomb).unwrap_err().0, Code::DocumentTooLarge);
}

#[test]
fn identity_is_the_pair_and_stays_the_same_for_what_cannot_be_read() {
    assert_ne!(Key::of("a", "bc"), Key::of("ab", "c"));
    assert_ne!(Key::of("a", "1"), Key::of("b", "1"));
    let long = "x".repeat(10_000);
    let with =
        |id: &str| structured(&format!(r#"{{"specversion":"1.0","id":"{id}","source":"s","type":"t"}}"#));
    assert_eq!(with("x").unwrap().key(), Key::of("s", "x"));
    // More than a property of a message holds is refused, not cut: two long ids must not become one.
    assert!(with(&"x".repeat(255)).is_ok());
    assert_eq!(with(&long).unwrap_err(), (Code::BadEventAttribute, "id".to_owned()));
    assert_eq!(Key::of_bytes(None, b"junk"), Key::of_bytes(None, b"junk"));
    assert_ne!(Key::of_bytes(None, b"junk"), Key::of_bytes(Some("id"), b"junk"));
}
