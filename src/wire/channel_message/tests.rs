mod tables;
mod view;

use std::net::IpAddr;

use serde_json::{Value as Any, json};

use super::*;
use crate::validation;
use crate::wire::channel_message::review::{Expiry, MAX_EXPIRY_SECONDS};

const NOW: Millis = Millis(1_735_689_600_000);

fn rules() -> Rules<'static> {
    Rules { now: NOW, allow: &|ip: IpAddr| ip == IpAddr::from([127, 0, 0, 9]) }
}

fn read_text(body: &str, strict: bool) -> (ChannelPost, Report) {
    let mut report = Report::new(strict);
    let object = Object::parse(body.as_bytes()).unwrap();
    let post = ChannelPost::read(object, None, rules(), &mut report);
    (post, report)
}

fn read(body: &Any) -> (ChannelPost, Report) {
    read_text(&body.to_string(), false)
}

fn named(faults: &[crate::problem::Fault]) -> Vec<String> {
    faults.iter().map(|fault| format!("{} {}", fault.code, fault.pointer)).collect()
}

fn faults(body: &Any) -> Vec<String> {
    let mut report = read(body).1;
    validation::run_deferred_here(&mut report).unwrap();
    named(&report.faults)
}

/// A body with `members` beside what is required.
fn with(members: Any) -> Any {
    let mut body = json!({"channelId": "demo", "text": "hello"});
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    body
}

fn review(members: Any) -> Any {
    let mut review = json!({"type": "custom"});
    review.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    with(json!({ "review": review }))
}

fn payload(kind: &str, payload: Any) -> Any {
    review(json!({"type": kind, "payload": payload}))
}

#[test]
fn all_faults_are_named_at_once() {
    let body = json!({
        "channelId": "", "text": 1, "status": "bad", "metadata": 5, "webhookUrl": "http://10.0.0.1",
            "attachmentIds": ["a", "a"],
        "review": {"type": "", "payload": [], "callback": {"url": "x", "headers": {"Host": "h", "Webhook-Id": "w"}},
                   "expiresInSeconds": 0, "quorum": {"of": 0}},
    });
    assert_eq!(
        faults(&body),
        [
            "too_short /channelId",
            "invalid_type /text",
            "invalid_enum /status",
            "required /review/type",
            "invalid_type /review/payload",
            "invalid_url /review/callback/url",
            "forbidden_header /review/callback/headers/Host",
            "forbidden_header /review/callback/headers/Webhook-Id",
            "out_of_range /review/expiresInSeconds",
            "out_of_range /review/quorum/of",
            "invalid_type /metadata",
            "blocked_url /webhookUrl",
            "duplicate_value /attachmentIds/1",
        ]
    );
}

#[test]
fn a_deadline_in_the_past_is_judged_after_the_key() {
    for past in
        ["2025-01-01T00:00:00Z", "2024-12-31T23:59:59.999Z", "1960-01-01T00:00:00Z", "2025-01-01T00:30:00+01:00"]
    {
        let (_, mut report) = read(&review(json!({ "expiresAt": past })));
        assert!(report.faults.is_empty(), "{past}");
        assert_eq!(named(&report.late), ["expiry_in_past /review/expiresAt"], "{past}");
        assert!(report.refuse().is_ok());
        assert_eq!(report.refuse_late().unwrap_err().code, "expiry_in_past");
    }
}

#[test]
fn a_refused_deadline_names_the_maximum_and_a_refused_word_the_words() {
    let (_, report) = read(&with(json!({"status": "x", "review": {"type": "t", "expiresInSeconds": 31_536_001}})));
    assert!(report.faults[0].message.contains("info, success, warning, error"), "{}", report.faults[0].message);
    assert!(report.faults[1].message.contains("31536000"), "{}", report.faults[1].message);
}

#[test]
fn the_relative_deadline_wins() {
    let expiry = |members: Any| read(&review(members)).0.review.unwrap().expiry;
    assert_eq!(expiry(json!({"expiresInSeconds": 60, "expiresAt": "2025-06-01T00:00:00Z"})), Expiry::In(60_000));
    assert_eq!(expiry(json!({"expiresAt": "2025-01-01T00:00:01Z"})), Expiry::At(NOW.plus(1_000)));
    assert_eq!(expiry(json!({"expiresInSeconds": MAX_EXPIRY_SECONDS})), Expiry::In(MAX_EXPIRY_SECONDS * 1000));
    assert_eq!(expiry(json!({})), Expiry::Default);
}

#[test]
fn unknown_fields_are_named_except_inside_free_objects() {
    let body = r#"{"channelId":"x","text":"t","foo":1,"content":{},"metadata":{"free":1},
        "review":{"type":"approval","bar":2,"payload":{"free":{"x":1}},"callback":{"url":"https://example.com","baz":3},
        "onExpire":{"response":{"free":1},"q":1},"quorum":{"of":1,"r":1}}}"#;
    let expected = ["review.callback.baz", "review.onExpire.q", "review.quorum.r", "review.bar", "foo", "content"];
    assert_eq!(read_text(body, false).1.ignored, expected);
    let (_, strict) = read_text(body, true);
    let pointers: Vec<_> = expected.iter().map(|name| format!("unknown_field /{}", name.replace('.', "/"))).collect();
    assert_eq!(named(&strict.faults), pointers);
}

#[test]
fn members_that_stand_twice_are_named_at_every_level() {
    let body = r#"{"channelId":"x","text":"t","text":"u","review":{"type":"a","type":"b",
        "callback":{"url":"https://example.com","headers":{"A":"1","A":"2"}}}}"#;
    let expected =
        ["duplicate_field /text", "duplicate_field /review/type", "duplicate_field /review/callback/headers/A"];
    assert_eq!(named(&read_text(body, false).1.faults), expected);
}

#[test]
fn the_alias_takes_the_channel_of_its_path() {
    let of = |body: Any| {
        let mut report = Report::new(true);
        let text = body.to_string();
        let post = ChannelPost::read(Object::parse(text.as_bytes()).unwrap(), Some("demo"), rules(), &mut report);
        (post.channel_id, named(&report.faults))
    };
    assert_eq!(of(json!({"text": "x"})), ("demo".to_owned(), vec![]));
    assert_eq!(of(json!({"text": "x", "channelId": null})), ("demo".to_owned(), vec![]));
    assert_eq!(of(json!({"text": "x", "channelId": "demo"})), ("demo".to_owned(), vec![]));
    let mismatch = vec!["channel_id_mismatch /channelId".to_owned()];
    assert_eq!(of(json!({"text": "x", "channelId": "other"})), ("demo".to_owned(), mismatch.clone()));
    assert_eq!(of(json!({"text": "x", "channelId": ""})), ("demo".to_owned(), mismatch));
}

#[test]
fn the_key_in_the_body_is_judged_without_its_quotes_and_handed_on_with_them() {
    assert_eq!(read(&with(json!({"clientId": "\"abc\""}))).0.client_id.as_deref(), Some("\"abc\""));
    assert_eq!(named(&read(&with(json!({"clientId": "\"\""}))).1.faults), ["too_short /clientId"]);
    assert_eq!(read(&with(json!({"clientId": "abc"}))).0.client_id.as_deref(), Some("abc"));
}

#[test]
fn the_sample_as_it_stands_in_the_documentation_gets_each_placeholder_named() {
    let sample = r#"{"channelId":"<string>","text":"<string>","status":"info","review":{"type":"<string>","payload":{},
      "callback":{"url":"<string>","method":"<string>","headers":{}},"expiresAt":"<string>",
      "expiresInSeconds":4503599627370495},"metadata":{},"webhookUrl":"<string>","attachmentIds":["<string>"]}"#;
    assert_eq!(
        named(&read_text(sample, true).1.faults),
        [
            "invalid_url /review/callback/url",
            "invalid_enum /review/callback/method",
            "invalid_datetime /review/expiresAt",
            "expiry_too_far /review/expiresInSeconds",
            "invalid_url /webhookUrl",
        ]
    );
}

#[test]
fn uploads_keep_their_places_beside_faulty_ones() {
    let (post, _) = read(&with(json!({"attachmentIds": ["a", "a", 5, ""]})));
    let places: Vec<_> = post.attachment_ids.iter().map(|(path, id)| (path.pointer(), id.as_str())).collect();
    assert_eq!(places, [("/attachmentIds/0".to_owned(), "a"), ("/attachmentIds/3".to_owned(), "")]);
}
