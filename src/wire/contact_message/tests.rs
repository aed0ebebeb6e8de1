use std::sync::Arc;

use actors::clock::Millis;
use actors::id::{Address, ContactId, ConversationId, MessageId, TurnId};
use actors::message::Message;
use serde_json::{Value as Any, json};

use super::content::Media;
use super::*;
use crate::wire::contact_message::view::{ContactParts, Usage, contact_view};

const NOW: Millis = Millis(1_735_689_600_000);

fn read_text(body: &str, strict: bool) -> (ContactPost, Report) {
    let mut report = Report::new(strict);
    let rules = Rules { now: NOW, allow: &|_| false };
    let post = ContactPost::read(Object::parse(body.as_bytes()).unwrap(), rules, &mut report);
    (post, report)
}

fn read(body: &Any) -> (ContactPost, Report) {
    read_text(&body.to_string(), false)
}

fn named(report: &Report) -> Vec<String> {
    report.faults.iter().map(|fault| format!("{} {}", fault.code, fault.pointer)).collect()
}

fn with(kind: &str, content: Any) -> Any {
    json!({"type": kind, "contactIdentifier": "user@example.com", "content": content})
}

fn text(members: Any) -> Any {
    let mut body = with("TEXT", json!({"text": {"body": "hello"}}));
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    body
}

fn media(body: &Any) -> Media {
    match read(body).0.content.unwrap() {
        ContactContent::Media(media) => media,
        ContactContent::Text(text) => panic!("{text}"),
    }
}

#[test]
fn every_body_that_the_contract_allows_is_accepted() {
    for body in [
        text(json!({})),
        text(json!({"contactName": "User Name"})),
        text(json!({"contactName": null})),
        text(json!({"contactName": "é".repeat(255)})),
        text(json!({"contactName": ""})),
        text(json!({"enableMemories": true})),
        text(json!({"enableMemories": null})),
        text(json!({"contactIdentifier": "é".repeat(255)})),
        text(json!({"contactIdentifier": format!("  {}  ", "x".repeat(255))})),
        with("TEXT", json!({"text": {"body": "x".repeat(65_536)}})),
        with("TEXT", json!({"text": {"body": "é".repeat(32_768)}})),
        with("TEXT", json!({"text": {"body": " x "}, "image": null})),
        with("IMAGE", json!({"image": {"url": "https://example.com/image.jpg", "caption": "Image caption"}})),
        with("IMAGE", json!({"image": {"url": "https://example.com/image.jpg", "caption": "é".repeat(1_024)}})),
        with("AUDIO", json!({"audio": {"url": "https://example.com/audio.mp3"}})),
        with("VIDEO", json!({"video": {"url": "https://example.com/video.mp4", "caption": null}})),
        with(
            "DOCUMENT",
            json!({"document": {"url": "https://example.com/d.pdf", "filename": "document.pdf", "caption": "d"}}),
        ),
        with("DOCUMENT", json!({"document": {"url": "https://example.com/d.pdf", "filename": "é".repeat(255)}})),
        with("DOCUMENT", json!({"document": {"url": "https://example.com/d.pdf", "filename": ""}})),
    ] {
        let (post, report) = read(&body);
        assert_eq!((named(&report), report.ignored), (vec![], vec![]), "{body}");
        assert!(post.content.is_some());
    }
}

#[test]
fn each_fault_has_its_code_and_pointer() {
    let image = |members: Any| {
        let mut image = json!({"url": "https://example.com/i.png"});
        image.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        with("IMAGE", json!({ "image": image }))
    };
    let document = |members: Any| {
        let mut document = json!({"url": "https://example.com/i.pdf"});
        document.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        with("DOCUMENT", json!({ "document": document }))
    };
    for (body, expected) in [
        (text(json!({"type": null})), "required /type"),
        (text(json!({"type": "text"})), "invalid_enum /type"),
        (text(json!({"type": "STICKER"})), "invalid_enum /type"),
        (text(json!({"type": 5})), "invalid_type /type"),
        (text(json!({"contactIdentifier": null})), "required /contactIdentifier"),
        (text(json!({"contactIdentifier": ""})), "required /contactIdentifier"),
        (text(json!({"contactIdentifier": " \t "})), "required /contactIdentifier"),
        (text(json!({"contactIdentifier": "x".repeat(256)})), "too_long /contactIdentifier"),
        (text(json!({"contactIdentifier": 5})), "invalid_type /contactIdentifier"),
        (text(json!({"contactName": "x".repeat(256)})), "too_long /contactName"),
        (text(json!({"contactName": 5})), "invalid_type /contactName"),
        (text(json!({"enableMemories": "yes"})), "invalid_type /enableMemories"),
        (text(json!({"content": null})), "required /content"),
        (text(json!({"content": "hello"})), "invalid_type /content"),
        (text(json!({"content": []})), "invalid_type /content"),
        (with("TEXT", json!({})), "content_type_mismatch /content"),
        (with("IMAGE", json!({})), "content_type_mismatch /content"),
        (with("TEXT", json!({"text": "hello"})), "invalid_type /content/text"),
        (with("TEXT", json!({"text": {}})), "required /content/text/body"),
        (with("TEXT", json!({"text": {"body": null}})), "required /content/text/body"),
        (with("TEXT", json!({"text": {"body": ""}})), "required /content/text/body"),
        (with("TEXT", json!({"text": {"body": " \n\t\u{a0}"}})), "required /content/text/body"),
        (with("TEXT", json!({"text": {"body": 5}})), "invalid_type /content/text/body"),
        (with("TEXT", json!({"text": {"body": "x".repeat(65_537)}})), "too_long /content/text/body"),
        (with("TEXT", json!({"text": {"body": "é".repeat(32_769)}})), "too_long /content/text/body"),
        (with("TEXT", json!({"image": {"url": "https://example.com"}})), "content_type_mismatch /content/image"),
        (with("TEXT", json!({"text": {"body": "x"}, "image": {}})), "content_type_mismatch /content/image"),
        (with("IMAGE", json!({"text": {"body": "x"}})), "content_type_mismatch /content/text"),
        (with("VIDEO", json!({"document": 5})), "content_type_mismatch /content/document"),
        (with("IMAGE", json!({"image": "x"})), "invalid_type /content/image"),
        (with("IMAGE", json!({"image": {}})), "required /content/image/url"),
        (with("AUDIO", json!({"audio": {}})), "required /content/audio/url"),
        (image(json!({"url": 5})), "invalid_type /content/image/url"),
        (image(json!({"url": ""})), "invalid_url /content/image/url"),
        (image(json!({"url": "/relative.png"})), "invalid_url /content/image/url"),
        (image(json!({"url": "data:image/png;base64,xx"})), "invalid_url /content/image/url"),
        (image(json!({"url": "http://169.254.169.254/"})), "blocked_url /content/image/url"),
        (image(json!({"url": "http://localhost/i.png"})), "blocked_url /content/image/url"),
        (image(json!({"caption": "é".repeat(1_025)})), "too_long /content/image/caption"),
        (image(json!({"caption": 5})), "invalid_type /content/image/caption"),
        (with("AUDIO", json!({"audio": {"url": "http://[::1]/"}})), "blocked_url /content/audio/url"),
        (with("VIDEO", json!({"video": {"url": "ftp://example.com"}})), "invalid_url /content/video/url"),
        (document(json!({"filename": "x".repeat(256)})), "too_long /content/document/filename"),
        (document(json!({"filename": 5})), "invalid_type /content/document/filename"),
        (document(json!({"caption": []})), "invalid_type /content/document/caption"),
        (document(json!({"url": null})), "required /content/document/url"),
    ] {
        let shown: String = body.to_string().chars().take(200).collect();
        assert_eq!(named(&read(&body).1), [expected], "{shown}");
    }
}

#[test]
fn all_faults_are_named_at_once() {
    let expected = ["required /type", "required /contactIdentifier", "required /content"];
    assert_eq!(named(&read(&json!({})).1), expected);
    let body = json!({"type": "X", "contactIdentifier": " ", "contactName": 1, "content": {"image": {"url": "x",
        "caption": 1}}});
    let expected = [
        "invalid_enum /type",
        "required /contactIdentifier",
        "invalid_type /contactName",
        "invalid_url /content/image/url",
        "invalid_type /content/image/caption",
    ];
    assert_eq!(named(&read(&body).1), expected);
    let body = with("TEXT", json!({"image": {}, "audio": {}}));
    assert_eq!(named(&read(&body).1), ["content_type_mismatch /content/image", "content_type_mismatch /content/audio"]);
}

#[test]
fn a_refused_type_names_the_types() {
    let (_, report) = read(&text(json!({"type": "x"})));
    assert!(report.faults[0].message.contains("TEXT, IMAGE, AUDIO, VIDEO, DOCUMENT"));
}

#[test]
fn the_identifier_is_kept_trimmed_and_compared_normalized() {
    let (post, _) = read(&text(json!({"contactIdentifier": "  User@Example.com "})));
    assert_eq!(
        (post.identifier.as_str(), post.normalized_identifier.as_str()),
        ("User@Example.com", "user@example.com")
    );
    assert_eq!(post.content, Some(ContactContent::Text("hello".to_owned())));
    assert_eq!(read(&text(json!({"contactName": " "}))).0.contact_name, None);
}

#[test]
fn a_document_has_its_own_name_or_that_of_its_url_and_never_a_directory() {
    let of = |url: &str, filename: Any| {
        media(&with("DOCUMENT", json!({"document": {"url": url, "filename": filename}}))).filename
    };
    for (url, filename, name) in [
        ("https://example.com/a/b.pdf?x=1", json!("doc.pdf"), Some("doc.pdf")),
        ("https://example.com/a/b.pdf?x=1", json!("../../etc/passwd"), Some("passwd")),
        ("https://example.com/a/b.pdf?x=1", json!("C:\\dir\\x.doc"), Some("x.doc")),
        ("https://example.com/a/b.pdf?x=1#y", json!(null), Some("b.pdf")),
        ("https://example.com/a/b.pdf", json!(".."), Some("b.pdf")),
        ("https://example.com/a/b.pdf", json!("a\r\nb"), Some("ab")),
        ("https://example.com/a/%C3%A9%20x.pdf", json!(""), Some("é x.pdf")),
        ("https://example.com/a/..%2Fx.pdf", json!(null), Some("x.pdf")),
        ("https://example.com/a/100%.pdf", json!(null), Some("100%.pdf")),
        ("https://example.com/", json!(null), None),
        ("https://example.com", json!("dir/"), None),
    ] {
        assert_eq!(of(url, filename.clone()).as_deref(), name, "{url} {filename}");
    }
}

#[test]
fn media_have_their_caption_as_text_and_point_to_their_url() {
    let body = r#"{"type":"IMAGE","contactIdentifier":"u",
        "content":{ "image": {"url":"https://example.com/i.png", "caption":"c"} }}"#;
    let Some(ContactContent::Media(media)) = read_text(body, true).0.content else { panic!() };
    assert_eq!(media.url_pointer(), "/content/image/url");
    let content = ContactContent::Media(media).into_content("cont_1".to_owned(), vec![]);
    assert_eq!((content.text.as_deref(), content.media, content.role.as_str()), (Some("c"), MediaKind::Image, "user"));
}

#[test]
fn a_sound_has_no_caption_and_unknown_members_are_named() {
    let body = r#"{"type":"AUDIO","contactIdentifier":"u","x":1,
        "content":{"audio":{"url":"https://example.com/a.mp3","caption":5},"y":1}}"#;
    assert_eq!(read_text(body, false).1.ignored, ["content.audio.caption", "content.y", "x"]);
    let expected = ["unknown_field /content/audio/caption", "unknown_field /content/y", "unknown_field /x"];
    assert_eq!(named(&read_text(body, true).1), expected);
    let twice = r#"{"type":"TEXT","type":"TEXT","contactIdentifier":"u","content":{"text":{"body":"a","body":"b"}}}"#;
    assert_eq!(named(&read_text(twice, false).1), ["duplicate_field /type", "duplicate_field /content/text/body"]);
}

#[test]
fn the_samples_of_the_documentation_are_accepted() {
    for body in [
        r#"{"content":{"text":{"body":"Hello, how can I help you?"}},"type":"TEXT",
            "contactIdentifier":"user@example.com","contactName":"User Name"}"#,
        r#"{"content":{"image":{"url":"https://example.com/image.jpg","caption":"Image caption"}},
            "type":"IMAGE","contactIdentifier":"user@example.com"}"#,
        r#"{"content":{"audio":{"url":"https://example.com/audio.mp3"}},"type":"AUDIO",
            "contactIdentifier":"user@example.com"}"#,
        r#"{"content":{"video":{"url":"https://example.com/video.mp4","caption":"Video caption"}},
            "type":"VIDEO","contactIdentifier":"user@example.com"}"#,
        r#"{"content":{"document":{"url":"https://example.com/document.pdf","filename":"document.pdf",
            "caption":"Document description"}},"type":"DOCUMENT","contactIdentifier":"user@example.com"}"#,
    ] {
        assert!(named(&read_text(body, true).1).is_empty(), "{body}");
    }
}

#[test]
fn the_answer_has_the_members_of_the_contract_in_their_order() {
    let address = Address([1; 10]);
    let contact = ContactId::new(NOW, address);
    let conversation = ConversationId::new(NOW, address);
    let inbound = MessageId::new(NOW, address, 1);
    let turn = TurnId::new(NOW, address, 1);
    let reply = |number, content| Message {
        id: MessageId::new(NOW.plus(number), address, number),
        conversation,
        owner: None,
        parent: None,
        turn: Some(turn),
        content: Arc::new(content),
    };
    let agent = Sender { kind: SenderKind::Agent, id: "echo".to_owned() };
    let replies = [reply(2, Content::text("assistant", agent, "hi \"you\""))];
    let mut parts = ContactParts {
        contact,
        conversation,
        created_at: NOW,
        conversation_status: "open",
        channel_id: "demo-api",
        agent_id: "echo",
        updated_at: NOW.plus(2),
        last_message_at: NOW.plus(2),
        message: inbound,
        replies: &replies,
        usage: Usage { credits: 1.0, input_tokens: 2, output_tokens: 3, model: Some("echo") },
        turn,
        turn_status: "completed",
    };
    let reply_id = replies[0].id;
    let expected = format!(
        "{{\"success\":true,\"contactId\":\"{contact}\",\"conversationId\":\"{conversation}\",\
         \"messageId\":\"{inbound}\",\
         \"conversation\":{{\"id\":\"{conversation}\",\"status\":\"open\",\"channelId\":\"demo-api\",\
         \"contactId\":\"{contact}\",\
         \"assignment\":{{\"type\":\"AI_AGENT\",\"agentId\":\"echo\"}},\"createdAt\":\"2025-01-01T00:00:00.000Z\",\
         \"updatedAt\":\"2025-01-01T00:00:00.002Z\",\"lastMessageAt\":\"2025-01-01T00:00:00.002Z\"}},\
         \"aiMessages\":[{{\"id\":\"{reply_id}\",\"type\":\"TEXT\",\
         \"content\":{{\"text\":{{\"body\":\"hi \\\"you\\\"\"}}}},\
         \"createdAt\":\"2025-01-01T00:00:00.002Z\"}}],\"usage\":{{\"credits\":1.0,\"inputTokens\":2,\"outputTokens\":3,\
         \"model\":\"echo\"}},\"turn\":{{\"id\":\"{turn}\",\"status\":\"completed\"}}}}"
    );
    assert_eq!(String::from_utf8(serde_json::to_vec(&contact_view(&parts)).unwrap()).unwrap(), expected);
    (parts.replies, parts.turn_status, parts.usage) = (&[], "running", Usage::default());
    let view: Any = serde_json::from_slice(&serde_json::to_vec(&contact_view(&parts)).unwrap()).unwrap();
    assert_eq!(
        (&view["aiMessages"], &view["turn"]["status"], &view["usage"]["model"]),
        (&json!([]), &json!("running"), &Any::Null)
    );
}
