//! Events contain what the document says: in webhooks, in lists and in streams.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use actors::codec::decode_record;
use actors::contact;
use actors::conversation::Event;
use actors::id::{Address, ContactId, ConversationId, MessageId};
use actors::machine::Record;
use actors::memories::Subject;
use actors::webhook::EVENT_TYPES;
use bytes::Bytes;
use serde_json::{Value, json};
use tertulia::wire::contact::contact_event;
use tertulia::wire::event::{Source, event_json};

use super::{assert_valid, component, document};
use crate::support::{BEGIN, TestApp};

const PLACE: Address = Address([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);

/// A stored record of this name as readers see it: on a human channel, on an api channel, and on none.
fn shown(name: &str, stored: &Bytes) -> Vec<Value> {
    if name.starts_with("contact-") {
        let Ok(record) = decode_record::<contact::Event>(7, stored) else { return Vec::new() };
        let of = (PLACE, ContactId::new(BEGIN, PLACE));
        return contact_event(&record, of).map(|event| serde_json::to_value(event).unwrap()).into_iter().collect();
    }
    let Ok(record) = decode_record::<Event>(7, stored) else { return Vec::new() };
    let mut other = record.clone();
    match &mut other.event {
        Event::MemoryNoted(note) => {
            note.created = !note.created;
            note.subject = Subject::Owner("ana".to_owned());
        }
        Event::ConversationUpdated { owner, .. } => *owner = Some("ana".to_owned()),
        _ => return of_conversation(&record),
    }
    [of_conversation(&record), of_conversation(&other)].concat()
}

fn of_conversation(record: &Record<Event>) -> Vec<Value> {
    let conversation = ConversationId::new(BEGIN, PLACE);
    let told = [(Some("desk"), true), (Some("shop"), false), (None, false)].map(|(channel, is_human)| {
        event_json(record, &Source { workspace: "default", conversation, channel, is_human }).unwrap()
    });
    told.into_iter().flatten().map(|event| serde_json::from_slice(&event).unwrap()).collect()
}

/// Events that contain only the id of their message.
fn of_messages() -> Vec<Value> {
    let message = MessageId::new(BEGIN, PLACE, 3);
    let events = [
        Event::MessageUpdated { message },
        Event::MessageDeleted { message },
        Event::MessageDelivered { message },
        Event::MessageRead { message },
    ];
    let records = events.map(|event| Record { seq: 7, at: BEGIN, trace: None, event });
    records.iter().flat_map(of_conversation).collect()
}

/// At least one example of every event, by type: the stored records that serve for comparison.
fn examples() -> BTreeMap<String, Vec<Value>> {
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("actors/tests/golden");
    let mut all = of_messages();
    for entry in fs::read_dir(stored).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let of_a_log = ["message-", "review-", "turn-", "memory-", "contact-", "conversation-"];
        if !of_a_log.iter().any(|family| name.starts_with(family)) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let digits = text.trim().as_bytes().chunks(2);
        let bytes = digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
        all.extend(shown(&name, &bytes.collect()));
    }
    let mut out: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for event in all {
        out.entry(event["type"].as_str().unwrap().to_owned()).or_default().push(event);
    }
    out
}

/// The member names of each form that a shape allows.
fn forms(document: &Value, shape: &Value) -> Vec<BTreeSet<String>> {
    if let Some(reference) = shape["$ref"].as_str() {
        return forms(document, document.pointer(&reference[1..]).unwrap());
    }
    match shape["oneOf"].as_array() {
        Some(shapes) => shapes.iter().flat_map(|shape| forms(document, shape)).collect(),
        None => vec![shape["properties"].as_object().unwrap().keys().cloned().collect()],
    }
}

fn webhook<'a>(document: &'a Value, kind: &str) -> &'a Value {
    let webhook = &document["webhooks"][kind]["post"];
    assert!(webhook.is_object(), "{kind} is no webhook of the document");
    webhook
}

/// The shape of a request body, for this media type.
fn body<'a>(document: &'a Value, kind: &str, media: &str) -> &'a Value {
    &webhook(document, kind)["requestBody"]["content"][media]["schema"]
}

#[tokio::test]
async fn every_type_of_event_is_a_webhook_with_all_members_documented() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let types: BTreeSet<_> = EVENT_TYPES.iter().copied().collect();
    let documented = document["webhooks"].as_object().unwrap().keys().map(String::as_str);
    assert_eq!(documented.collect::<BTreeSet<_>>(), types);
    let examples = examples();
    assert_eq!(examples.keys().map(String::as_str).collect::<BTreeSet<_>>(), types, "a type has no example");
    let mut said: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (kind, events) in &examples {
        let shape = &body(&document, kind, "application/json")["properties"]["data"];
        let of_shape = said.entry(shape["$ref"].as_str().unwrap().to_owned()).or_default();
        for event in events {
            assert_valid(&document, &component("Event"), event, kind);
            assert_valid(&document, shape, &event["data"], kind);
            let members: BTreeSet<_> = event["data"].as_object().unwrap().keys().cloned().collect();
            let known = forms(&document, shape);
            assert!(known.iter().any(|form| form.is_superset(&members)), "{kind} says {members:?} of {known:?}");
            of_shape.extend(members);
        }
    }
    for (reference, members) in said {
        let documented: BTreeSet<_> = forms(&document, &json!({"$ref": reference})).into_iter().flatten().collect();
        // Later changes of a message are not part of its first event.
        let later = ["updatedAt", "deliveredAt", "readAt"].map(str::to_owned);
        let unsaid: Vec<_> = documented.difference(&members).filter(|name| !later.contains(name)).collect();
        assert!(unsaid.is_empty(), "{reference}: no example has {unsaid:?}");
    }
}

#[tokio::test]
async fn the_document_describes_signatures_and_answers_of_webhooks() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let mut ids = BTreeSet::new();
    for kind in EVENT_TYPES {
        let webhook = webhook(&document, kind);
        assert!(ids.insert(webhook["operationId"].as_str().unwrap()), "{kind}");
        assert_eq!(webhook["security"], json!([]), "{kind}: it comes without a key");
        let parameters = webhook["parameters"].as_array().unwrap().iter();
        let required = parameters.filter(|header| header["in"] == "header" && header["required"] == true);
        let names: Vec<_> = required.map(|header| header["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["webhook-id", "webhook-timestamp", "webhook-signature"], "{kind}");
        let answers: BTreeSet<_> = webhook["responses"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(answers, BTreeSet::from(["2XX", "410", "default"]), "{kind}");
        for media in ["application/json", "application/cloudevents+json"] {
            assert_eq!(body(&document, kind, media)["properties"]["type"]["enum"], json!([kind]), "{media}");
        }
    }
}
