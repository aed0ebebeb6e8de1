use std::sync::Arc;

use actors::id::{Address, AttachmentId, ConversationId};
use actors::message::{Message, Overlay, Quorum, ReviewState, ReviewStatus, Vote};

use super::*;
use crate::wire::channel_message::view::channel_view;

fn message(post: ChannelPost, kind: SenderKind) -> Message {
    let id = MessageId::new(NOW, Address([1; 10]), 1);
    let file = Attachment {
        id: AttachmentId::new(NOW, Address([2; 10])),
        filename: "report.pdf".to_owned(),
        mime_type: "application/pdf".to_owned(),
        size: 1024,
        storage_key: "uploads/x/report.pdf".to_owned(),
        claim: Some(1),
    };
    let files = if post.attachment_ids.is_empty() { vec![] } else { vec![file] };
    let content = post.into_content(Sender { kind, id: "demo".to_owned() }, files, None, NOW, 86_400_000);
    let conversation = ConversationId::new(NOW, Address([1; 10]));
    Message { id, conversation, owner: None, parent: None, turn: None, content: Arc::new(content) }
}

fn shown(message: &Message, overlay: &Overlay) -> String {
    String::from_utf8(serde_json::to_vec(&channel_view("demo", message, overlay)).unwrap()).unwrap()
}

#[test]
fn the_answer_has_the_members_of_the_contract_in_their_order() {
    let body = r#"{"channelId":"demo","text":"Hello \"agent\"","status":"info","attachmentIds":["att_1"],
        "metadata": {"z" : 1.0, "a": 12345678901234567890},
        "review":{"type":"approval","payload":{ "q": [1e5] },"callback":{"url":"https://example.com"}},
            "iterationOf":"msg_1"}"#;
    let message = message(read_text(body, true).0, SenderKind::Agent);
    let id = message.id;
    let file = message.content.attachments[0].id;
    let expected = format!(
        "{{\"id\":\"{id}\",\"channelId\":\"demo\",\"senderType\":\"agent\",\"senderId\":\"demo\",\
         \"createdAt\":\"2025-01-01T00:00:00.000Z\",\"attachments\":[{{\"id\":\"{file}\",\"messageId\":\"{id}\",\
         \"pluginType\":\"file\",\"filename\":\"report.pdf\",\"mimeType\":\"application/pdf\",\"size\":1024,\
         \"storageKey\":\"uploads/x/report.pdf\",\"createdAt\":\"2025-01-01T00:00:00.000Z\"}}],\
         \"text\":\"Hello \\\"agent\\\"\",\"status\":\"info\",\"review\":{{\"type\":\"approval\",\
         \"status\":\"pending\",\
         \"payload\":{{\"q\":[1e5]}},\"expiresAt\":\"2025-01-02T00:00:00.000Z\",\"response\":null,\"feedback\":null,\
         \"decidedBy\":null,\"completedAt\":null}},\"metadata\":{{\"z\":1.0,\"a\":12345678901234567890}}}}"
    );
    assert_eq!(shown(&message, &Overlay::default()), expected);
    let bare = self::message(read_text(r#"{"channelId":"demo","text":"x"}"#, true).0, SenderKind::User);
    let expected = format!(
        "{{\"id\":\"{id}\",\"channelId\":\"demo\",\"senderType\":\"user\",\"senderId\":\"demo\",\
         \"createdAt\":\"2025-01-01T00:00:00.000Z\",\"attachments\":[],\"text\":\"x\",\"review\":null}}"
    );
    assert_eq!(shown(&bare, &Overlay::default()), expected);
    assert_eq!((bare.content.role.as_str(), message.content.role.as_str()), ("user", "assistant"));
}

#[test]
fn a_read_shows_what_became_of_the_message() {
    let body = r#"{"channelId":"demo","text":"old","metadata":{"a":1},"attachmentIds":["att_1"],
        "review":{"type":"t","payload":{"secret":1},"quorum":{"of":2}}}"#;
    let message = message(read_text(body, true).0, SenderKind::Agent);
    let vote = Vote {
        principal: "p".to_owned(),
        response: Json::from_checked("{\"a\":1}"),
        feedback: None,
        at: NOW,
        print: None,
        kind: None,
    };
    let mut overlay = Overlay {
        text: Some("new".to_owned()),
        metadata: Some(Json::from_checked("{\"b\":2}")),
        updated_at: Some(NOW),
        review: Some(ReviewState {
            status: ReviewStatus::Completed,
            response: Some(Json::from_checked("{\"a\":1}")),
            feedback: Some("fine".to_owned()),
            decided_by: Some("p".to_owned()),
            completed_at: Some(NOW),
            votes: vec![vote],
        }),
        ..Overlay::default()
    };
    assert_eq!(message.content.review.as_ref().unwrap().quorum, Some(Quorum::new(2, Vec::new())));
    let view: Any = serde_json::from_str(&shown(&message, &overlay)).unwrap();
    assert_eq!(
        (&view["text"], &view["metadata"], &view["updatedAt"]),
        (&json!("new"), &json!({"b": 2}), &json!("2025-01-01T00:00:00.000Z"))
    );
    assert_eq!(
        view["review"],
        json!({"type": "t", "status": "completed", "payload": {"secret": 1}, "expiresAt": "2025-01-02T00:00:00.000Z",
               "response": {"a": 1}, "feedback": "fine", "decidedBy": "p", "completedAt": "2025-01-01T00:00:00.000Z",
               "votes": [{"principal": "p", "response": {"a": 1}, "feedback": null, "at": "2025-01-01T00:00:00.000Z"}]})
    );
    overlay.deleted = true;
    let text = shown(&message, &overlay);
    let view: Any = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&view["deleted"], &view["attachments"], &view["review"]["status"]),
        (&json!(true), &json!([]), &json!("completed"))
    );
    for gone in ["new", "old", "secret", "fine", "\"b\"", "\"text\"", "\"metadata\""] {
        assert!(!text.contains(gone), "{gone} in {text}");
    }
}
