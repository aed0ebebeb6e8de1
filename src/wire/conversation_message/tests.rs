use std::sync::Arc;

use actors::clock::Millis;
use actors::id::{Address, ConversationId, MessageId};
use actors::message::{Json, Message, Overlay, Parent, Sender, SenderKind};
use serde_json::{Value as Any, json};
use sha2::{Digest, Sha256};

use super::*;
use crate::wire::conversation_message::view::{checksum, conversation_view};

const NOW: Millis = Millis(1_735_689_600_000);

fn read_text(body: &str, strict: bool) -> (ConversationPost, Report) {
    let mut report = Report::new(strict);
    let rules = Rules { now: NOW, allow: &|_| false };
    let post = ConversationPost::read(Object::parse(body.as_bytes()).unwrap(), None, rules, &mut report);
    (post, report)
}

fn read(body: &Any) -> (ConversationPost, Report) {
    read_text(&body.to_string(), false)
}

fn named(report: &Report) -> Vec<String> {
    report.faults.iter().map(|fault| format!("{} {}", fault.code, fault.pointer)).collect()
}

/// A body with one message that has `members` beside its content.
fn with(members: Any) -> Any {
    let mut item = json!({"content": "hello"});
    item.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    json!({ "content": item })
}

fn item(members: Any) -> ConversationItem {
    read(&with(members)).0.messages.remove(0)
}

fn parent_id() -> String {
    MessageId::new(NOW, Address([7; 10]), 3).to_string()
}

#[test]
fn every_body_that_the_contract_allows_is_accepted() {
    let tags = |n: usize| (0..n).map(|i| format!("t{i}")).collect::<Vec<_>>();
    let deep: Any = serde_json::from_str(&format!("{}1{}", "{\"a\":".repeat(20), "}".repeat(20))).unwrap();
    for body in [
        with(json!({})),
        json!({"content": [{"content": "a"}]}),
        json!({"content": (0..100).map(|_| json!({"content": "a"})).collect::<Vec<_>>()}),
        json!({"content": {"content": "a"}, "conversation_id": null, "enable_memories": null}),
        json!({"content": {"content": "a"}, "conversation_id": "conv_x", "enable_memories": true}),
        json!({"content": {"content": "a"}, "enable_memories": false}),
        with(json!({"content": "x".repeat(262_144)})),
        with(json!({"content": "é".repeat(131_072)})),
        with(json!({"content": " "})),
        with(json!({"content": "", "tool_calls": [{}]})),
        with(json!({"content": "", "attachments": [{"url": "x"}]})),
        with(json!({"content": null, "tool_calls": [{"id": "1"}], "role": "assistant"})),
        with(json!({"sender_id": "s".repeat(255)})),
        with(json!({"sender_id": "é".repeat(255)})),
        with(json!({"created_at": "2023-11-07T05:31:56Z"})),
        with(json!({"created_at": "2025-01-01T00:05:00.000Z"})),
        with(json!({"created_at": "1970-01-01T00:00:00Z"})),
        with(json!({"role": "user"})),
        with(json!({"role": "assistant"})),
        with(json!({"role": "system"})),
        with(json!({"role": "tool"})),
        with(json!({"role": "developer"})),
        with(json!({"role": "narrator_of_it"})),
        with(json!({"role": "r".repeat(32)})),
        with(json!({"message_type": "m".repeat(64)})),
        with(json!({"tool_calls": []})),
        with(json!({"tool_calls": [{}], "role": "user"})),
        with(json!({"tool_calls": [{"id": "x", "function": {"name": "f", "arguments": "{}"}}]})),
        with(json!({"attachments": []})),
        with(json!({"attachments": [{}, {"id": null}, {"id": "att_1"}, {"url": "ftp://x"}]})),
        with(json!({"tags": []})),
        with(json!({"tags": tags(32)})),
        with(json!({"tags": ["é".repeat(64), format!("  {}  ", "x".repeat(64))]})),
        with(json!({"tags": vec!["same"; 32]})),
        with(json!({"meta_data": {}})),
        with(json!({"meta_data": {"k": "x".repeat(16_376)}})),
        with(json!({"meta_data": deep})),
        with(json!({"parent_message_id": parent_id()})),
        json!({"content": [{"content": "a"}, {"content": "b", "parent_message_id": "#0"}, {"content": "c",
            "parent_message_id": "#1"}]}),
        with(json!({"sender_id": null, "created_at": null, "role": null, "message_type": null, "tool_calls": null,
                    "parent_message_id": null, "tags": null, "meta_data": null, "attachments": null})),
    ] {
        let (_, report) = read(&body);
        let shown: String = body.to_string().chars().take(200).collect();
        assert_eq!((named(&report), report.ignored), (vec![], vec![]), "{shown}");
    }
}

#[test]
fn each_fault_has_its_code_and_pointer() {
    let tags = |n: usize| (0..n).map(|i| format!("t{i}")).collect::<Vec<_>>();
    for (body, expected) in [
        (json!({}), "required /content"),
        (json!({"content": null}), "required /content"),
        (json!({"content": "text"}), "invalid_type /content"),
        (json!({"content": []}), "empty_batch /content"),
        (json!({"content": (0..101).map(|_| json!({"content": "a"})).collect::<Vec<_>>()}), "batch_too_large /content"),
        (json!({"content": [{"content": "a"}, "b"]}), "invalid_type /content/1"),
        (json!({"content": [{"content": "a"}, null]}), "invalid_type /content/1"),
        (json!({"content": {}}), "required /content/content"),
        (json!({"content": {"content": null}}), "required /content/content"),
        (json!({"content": {"content": ""}}), "required /content/content"),
        (json!({"content": {"content": "", "tool_calls": []}}), "required /content/content"),
        (json!({"content": {"content": "", "attachments": [], "tool_calls": null}}), "required /content/content"),
        (json!({"content": [{"content": "a"}, {"role": "user"}]}), "required /content/1/content"),
        (with(json!({"content": 5})), "invalid_type /content/content"),
        (with(json!({"content": "x".repeat(262_145)})), "too_long /content/content"),
        (with(json!({"content": "é".repeat(131_073)})), "too_long /content/content"),
        (with(json!({"sender_id": "s".repeat(256)})), "too_long /content/sender_id"),
        (with(json!({"sender_id": 5})), "invalid_type /content/sender_id"),
        (with(json!({"created_at": "yesterday"})), "invalid_datetime /content/created_at"),
        (with(json!({"created_at": "2023-11-07T05:31:56"})), "invalid_datetime /content/created_at"),
        (with(json!({"created_at": "2025-01-01T00:05:00.001Z"})), "invalid_datetime /content/created_at"),
        (with(json!({"created_at": 5})), "invalid_type /content/created_at"),
        (with(json!({"role": "User"})), "invalid_role /content/role"),
        (with(json!({"role": ""})), "invalid_role /content/role"),
        (with(json!({"role": "role2"})), "invalid_role /content/role"),
        (with(json!({"role": "a-b"})), "invalid_role /content/role"),
        (with(json!({"role": "r".repeat(33)})), "invalid_role /content/role"),
        (with(json!({"role": 1})), "invalid_type /content/role"),
        (
            json!({"content": [{"content": "a"}, {"content": "a"}, {"content": "a"}, {"content": "a", "role": "X"}]}),
            "invalid_role /content/3/role",
        ),
        (with(json!({"message_type": "m".repeat(65)})), "too_long /content/message_type"),
        (with(json!({"message_type": []})), "invalid_type /content/message_type"),
        (with(json!({"tool_calls": {}})), "invalid_type /content/tool_calls"),
        (with(json!({"tool_calls": "x"})), "invalid_type /content/tool_calls"),
        (with(json!({"tool_calls": [{}, 1]})), "invalid_type /content/tool_calls/1"),
        (with(json!({"attachments": {}})), "invalid_type /content/attachments"),
        (with(json!({"attachments": ["att_1"]})), "invalid_type /content/attachments/0"),
        (with(json!({"attachments": [{"id": 5}]})), "invalid_type /content/attachments/0/id"),
        (with(json!({"tags": "a"})), "invalid_type /content/tags"),
        (with(json!({"tags": ["a", 1]})), "invalid_type /content/tags/1"),
        (with(json!({"tags": ["a", "  "]})), "too_short /content/tags/1"),
        (with(json!({"tags": ["x".repeat(65)]})), "too_long /content/tags/0"),
        (with(json!({"tags": tags(33)})), "too_many /content/tags"),
        (with(json!({"tags": vec!["same"; 129]})), "too_many /content/tags"),
        (with(json!({"meta_data": []})), "invalid_type /content/meta_data"),
        (with(json!({"meta_data": {"k": "x".repeat(16_377)}})), "too_large /content/meta_data"),
        (with(json!({"parent_message_id": "nope"})), "parent_not_found /content/parent_message_id"),
        (with(json!({"parent_message_id": ""})), "parent_not_found /content/parent_message_id"),
        (with(json!({"parent_message_id": "#0"})), "parent_not_found /content/parent_message_id"),
        (with(json!({"parent_message_id": 1})), "invalid_type /content/parent_message_id"),
        (
            json!({"content": [{"content": "a"}, {"content": "b", "parent_message_id": "#1"}]}),
            "parent_not_found /content/1/parent_message_id",
        ),
        (
            json!({"content": [{"content": "a"}, {"content": "b", "parent_message_id": "#"}]}),
            "parent_not_found /content/1/parent_message_id",
        ),
        (
            json!({"content": [{"content": "a"}, {"content": "b", "parent_message_id": "#+0"}]}),
            "parent_not_found /content/1/parent_message_id",
        ),
        (
            json!({"content": [{"content": "a"}, {"content": "b", "parent_message_id": "#-1"}]}),
            "parent_not_found /content/1/parent_message_id",
        ),
        (
            json!({"content": [{"content": "a", "parent_message_id": "#1"}, {"content": "b"}]}),
            "parent_not_found /content/0/parent_message_id",
        ),
        (json!({"content": {"content": "a"}, "conversation_id": 5}), "invalid_type /conversation_id"),
        (json!({"content": {"content": "a"}, "enable_memories": "yes"}), "invalid_type /enable_memories"),
        (json!({"content": {"content": "a"}, "enable_memories": 1}), "invalid_type /enable_memories"),
    ] {
        let shown: String = body.to_string().chars().take(200).collect();
        assert_eq!(named(&read(&body).1), [expected], "{shown}");
    }
}

#[test]
fn all_faults_of_all_items_are_named_at_once() {
    let body = json!({
        "content": [{"content": "", "role": "X"}, {"content": "ok"}, {"content": 1, "tags": ["", "a"],
            "parent_message_id": "#2"}],
        "enable_memories": 0, "conversation_id": [],
    });
    let expected = [
        "required /content/0/content",
        "invalid_role /content/0/role",
        "invalid_type /content/2/content",
        "parent_not_found /content/2/parent_message_id",
        "too_short /content/2/tags/0",
        "invalid_type /conversation_id",
        "invalid_type /enable_memories",
    ];
    assert_eq!(named(&read(&body).1), expected);
}

#[test]
fn defaults_are_filled_in_except_the_sender() {
    let item = item(json!({}));
    assert_eq!((item.role.as_str(), item.message_type.as_str(), item.sender_id), ("user", "text", None));
    let (post, _) = read(&with(json!({})));
    assert_eq!((post.conversation_id, post.enable_memories, post.batch), (None, false, false));
    assert!(read(&json!({"content": [{"content": "a"}]})).0.batch);
}

#[test]
fn tags_are_trimmed_and_each_is_kept_once_in_order() {
    assert_eq!(item(json!({"tags": [" b ", "a", "b", "A", "a\t"]})).tags.unwrap(), ["b", "a", "A"]);
    assert_eq!(item(json!({"tags": []})).tags, Some(vec![]));
}

#[test]
fn client_json_is_kept_compact_and_otherwise_untouched() {
    let body = r#"{"content":{"content":"x","tool_calls":[ {"n": 1.0} , {} ],"attachments":[{"b":1,
        "id":"att_1"},{"id":"y"}],
        "meta_data":{ "z": 12345678901234567890, "a":1e5 }}}"#;
    let (post, report) = read_text(body, true);
    assert!(report.faults.is_empty());
    let item = &post.messages[0];
    assert_eq!(item.tool_calls.as_ref().unwrap().as_str(), r#"[{"n":1.0},{}]"#);
    assert_eq!(item.meta_data.as_ref().unwrap().as_str(), r#"{"z":12345678901234567890,"a":1e5}"#);
    let ids: Vec<_> = item.reference_ids.iter().map(|(path, id)| (path.pointer(), id.as_str())).collect();
    assert_eq!(ids, [("/content/attachments/0/id".to_owned(), "att_1"), ("/content/attachments/1/id".to_owned(), "y")]);
}

#[test]
fn at_most_a_hundred_uploads_are_named_while_other_references_are_free() {
    let of = |n: usize, reference: Any| named(&read(&with(json!({ "attachments": vec![reference; n] }))).1);
    assert!(of(100, json!({"id": "att_1"})).is_empty());
    assert_eq!(of(101, json!({"id": "att_1"})), ["too_many /content/attachments"]);
    assert!(of(1_000, json!({"url": "x"})).is_empty());
}

#[test]
fn no_more_tags_are_read_than_may_be_received() {
    let found = named(&read(&with(json!({"tags": vec![1; 500]}))).1);
    assert_eq!((found.len(), found.last().unwrap().as_str()), (129, "too_many /content/tags"));
}

#[test]
fn parents_are_messages_or_earlier_items() {
    let body = json!({"content": [{"content": "a", "parent_message_id": parent_id()}, {"content": "b",
        "parent_message_id": "#0"}]});
    let (post, _) = read(&body);
    assert_eq!(post.messages[1].parent, Some(Parent::Item(0)));
    assert_eq!(post.messages[0].parent, MessageId::parse(&parent_id()).map(Parent::Message));
}

#[test]
fn unknown_and_duplicate_fields_are_named() {
    let body = r#"{"content":[{"content":"a"},{"content":"b","x":1,"meta_data":{"free":1},
        "tool_calls":[{"free":1}]}],"clientId":"k"}"#;
    assert_eq!(read_text(body, false).1.ignored, ["content.1.x", "clientId"]);
    assert_eq!(named(&read_text(body, true).1), ["unknown_field /content/1/x", "unknown_field /clientId"]);
    let twice =
        r#"{"content":{"content":"a","role":"user","role":"tool"},"enable_memories":true,"enable_memories":true}"#;
    assert_eq!(
        named(&read_text(twice, false).1),
        ["duplicate_field /enable_memories", "duplicate_field /content/role"]
    );
}

#[test]
fn the_alias_takes_the_conversation_of_its_path() {
    let of = |body: Any| {
        let mut report = Report::new(false);
        let rules = Rules { now: NOW, allow: &|_| false };
        let text = body.to_string();
        let object = Object::parse(text.as_bytes()).unwrap();
        let post = ConversationPost::read(object, Some("conv_1"), rules, &mut report);
        assert_eq!(post.conversation_id.as_deref(), Some("conv_1"));
        named(&report)
    };
    assert!(of(with(json!({}))).is_empty());
    assert!(of(json!({"content": {"content": "a"}, "conversation_id": "conv_1"})).is_empty());
    let other = of(json!({"content": {"content": "a"}, "conversation_id": "conv_2"}));
    assert_eq!(other, ["conversation_id_mismatch /conversation_id"]);
}

#[test]
fn the_sample_as_it_stands_in_the_documentation_has_only_its_parent_missing() {
    let sample = r#"{"content":{"content":"<string>","sender_id":"<string>","created_at":"2023-11-07T05:31:56Z",
        "role":"user",
      "message_type":"text","tool_calls":[{}],"parent_message_id":"<string>","tags":["<string>"],"meta_data":{},
      "attachments":[{}]},"conversation_id":"<string>","enable_memories":false}"#;
    assert_eq!(named(&read_text(sample, true).1), ["parent_not_found /content/parent_message_id"]);
}

fn message(item: ConversationItem) -> Message {
    let sender = Sender { kind: SenderKind::User, id: item.sender_id.clone().unwrap_or_else(|| "me".to_owned()) };
    let (content, parent) = item.into_content(sender, false);
    Message {
        id: MessageId::new(NOW, Address([1; 10]), 4),
        conversation: ConversationId::new(Millis(5), Address([1; 10])),
        owner: None,
        parent: parent.and_then(|parent| match parent {
            Parent::Message(id) => Some(id),
            Parent::Item(_) => None,
        }),
        turn: None,
        content: Arc::new(content),
    }
}

fn shown(message: &Message, overlay: &Overlay) -> String {
    String::from_utf8(serde_json::to_vec(&conversation_view("default", message, overlay)).unwrap()).unwrap()
}

/// What a client computes from an answer, as docs/API.md says.
fn recomputed(view: &Any) -> String {
    let names = ["role", "sender_id", "message_type", "content", "tool_calls", "attachments", "parent_message_id"];
    let picked: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), view[*name].clone())).collect();
    let hash = Sha256::digest(serde_json_canonicalizer::to_vec(&picked).unwrap());
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[test]
fn the_answer_has_the_seventeen_members_in_their_order() {
    let message = message(item(json!({})));
    let id = message.id;
    let conversation = message.conversation;
    let checksum = checksum(&message, &Overlay::default());
    let expected = format!(
        "{{\"conversation_id\":\"{conversation}\",\"sender_id\":\"me\",\"content\":\"hello\",\
         \"workspace_id\":\"default\",\
         \"created_at\":\"2025-01-01T00:00:00.000Z\",\"updated_at\":null,\"id\":\"{id}\",\"role\":\"user\",\
         \"tool_calls\":null,\"message_type\":\"text\",\"tags\":null,\"checksum\":\"{checksum}\",\"attachments\":null,\
         \"parent_message_id\":null,\"meta_data\":{{}},\"sent_at\":\"2025-01-01T00:00:00.000Z\",\"owner_id\":null}}"
    );
    assert_eq!(shown(&message, &Overlay::default()), expected);
}

#[test]
fn a_client_can_compute_the_checksum_from_the_answer() {
    for members in [
        json!({}),
        json!({"content": "é \" \\ / \n \u{1} \u{7f} 😀"}),
        json!({"role": "assistant", "sender_id": "s", "message_type": "m", "parent_message_id": parent_id()}),
        json!({"tool_calls": [], "attachments": []}),
        json!({"tool_calls": [{"b": 1.0, "a": 1e3}, {}], "attachments": [{"z": [1, 2], "a": null}]}),
        json!({"tags": ["x"], "meta_data": {"k": 1}, "created_at": "2020-01-01T00:00:00Z"}),
    ] {
        let message = message(item(members.clone()));
        let view: Any = serde_json::from_str(&shown(&message, &Overlay::default())).unwrap();
        assert_eq!(view["checksum"], recomputed(&view), "{members}");
        assert_eq!(checksum(&message, &Overlay::default()), recomputed(&view));
    }
    let known = message(item(json!({"sender_id": "s"})));
    let canonical = "{\"attachments\":null,\"content\":\"hello\",\"message_type\":\"text\",\"parent_message_id\":null,\
                     \"role\":\"user\",\"sender_id\":\"s\",\"tool_calls\":null}";
    let hash: String = Sha256::digest(canonical).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(checksum(&known, &Overlay::default()), format!("sha256:{hash}"));
}

#[test]
fn an_import_shows_the_time_it_was_given() {
    let message = message(item(json!({"created_at": "2023-11-07T06:31:56+01:00"})));
    let view: Any = serde_json::from_str(&shown(&message, &Overlay::default())).unwrap();
    assert_eq!(
        (&view["created_at"], &view["sent_at"]),
        (&json!("2023-11-07T05:31:56.000Z"), &json!("2023-11-07T05:31:56.000Z"))
    );
}

#[test]
fn a_read_shows_edits_and_a_deleted_message_keeps_only_its_place() {
    let message = message(item(
        json!({"tags": ["a"], "meta_data": {"k": 1}, "tool_calls": [{"secret": 1}], "attachments": [{"u": 1}]}),
    ));
    let mut overlay = Overlay {
        text: Some("edited".to_owned()),
        metadata: Some(Json::from_checked("{\"n\":2}")),
        tags: Some(vec!["b".to_owned()]),
        updated_at: Some(NOW.plus(1)),
        ..Overlay::default()
    };
    let view: Any = serde_json::from_str(&shown(&message, &overlay)).unwrap();
    assert_eq!(
        (&view["content"], &view["tags"], &view["meta_data"]),
        (&json!("edited"), &json!(["b"]), &json!({"n": 2}))
    );
    assert_eq!(view["updated_at"], "2025-01-01T00:00:00.001Z");
    assert_ne!(checksum(&message, &overlay), checksum(&message, &Overlay::default()));
    assert_eq!(view["checksum"], recomputed(&view));
    overlay.deleted = true;
    let text = shown(&message, &overlay);
    let view: Any = serde_json::from_str(&text).unwrap();
    assert_eq!((&view["deleted"], &view["content"], &view["meta_data"]), (&json!(true), &json!(""), &json!({})));
    for gone in ["edited", "hello", "secret", "\"b\"", "\"n\""] {
        assert!(!text.contains(gone), "{gone} in {text}");
    }
}
