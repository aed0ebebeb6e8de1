//! The values that the examples encode.

use super::*;

pub(super) fn text(text: &str) -> String {
    text.to_owned()
}

pub(super) fn json(text: &str) -> Json {
    Json::from_checked(text)
}

pub(super) fn address() -> Address {
    Address([0, 1, 2, 3, 4, 5, 6, 7, 8, 255])
}

pub(super) fn conversation() -> ConversationId {
    ConversationId::new(AT, address())
}

pub(super) fn contact_id() -> ContactId {
    ContactId::new(AT, address())
}

pub(super) fn attachment_id() -> AttachmentId {
    AttachmentId::new(AT, address())
}

pub(super) fn file() -> attachment::File {
    attachment::File {
        filename: text("a.png"),
        mime_type: text("image/png"),
        size: 10_485_760,
        digest: [7; 32],
        storage_key: text("k"),
    }
}

pub(super) fn message(number: u64) -> MessageId {
    MessageId::new(AT, address(), number)
}

pub(super) fn turn(number: u64) -> Turn {
    Turn {
        id: TurnId::new(AT, address(), number),
        agent: text("echo"),
        trigger: Some(2),
        status: TurnStatus::Completed,
        attempt: 3,
        started_at: Some(AT),
        ended_at: Some(AT.plus(5)),
        replies: Some(SeqRange::new(3, 4)),
        usage: Some(Usage { input_tokens: 1, output_tokens: 300, millicredits: 70_000, model: text("m") }),
        failure: Some(Failure { code: text("agent_timeout"), detail: text("too slow") }),
        rounds: None,
        open_calls: None,
        series_after: None,
        check_at: None,
        waiting_since: None,
        runner: None,
        in_closed: None,
        trace: None,
    }
}

pub(super) fn forked() -> Forked {
    Forked { source: conversation(), upto: 300 }
}

pub(super) fn fork() -> Fork {
    Fork { of: forked(), next: Some(129), copied: 70, at: AT, check_at: AT.plus(10_000), put_off: 2 }
}

pub(super) fn details() -> Details {
    Details { title: Some(text("a title")), summary: Some(text("a summary")), metadata: Some(json("{\"a\":1.50}")) }
}

pub(super) fn review_state() -> ReviewState {
    let vote = Vote {
        principal: text("ana"),
        response: json("{}"),
        feedback: Some(text("fine")),
        at: AT,
        print: None,
        kind: None,
    };
    ReviewState {
        status: ReviewStatus::Completed,
        response: Some(json("{\"selectedOption\":\"approve\"}")),
        feedback: Some(text("go")),
        decided_by: Some(text("ana")),
        completed_at: Some(AT),
        votes: vec![vote],
    }
}

/// A message with every field set.
pub(super) fn content() -> Content {
    let review = Review {
        kind: text("approval"),
        payload: Some(json("{\"options\":[]}")),
        callback: Some(Callback {
            url: text("https://example.com/cb"),
            method: text("PUT"),
            headers: vec![(text("x-a"), text("b"))],
        }),
        expires_at: AT.plus(86_400_000),
        on_expire: Some(json("{\"selectedOption\":\"reject\"}")),
        quorum: Some(Quorum { of: 2, allowed: vec![text("ana"), text("bob")], kinds: None }),
        asker: None,
        place: None,
    };
    let attachment = Attachment {
        id: attachment_id(),
        filename: text("a.png"),
        mime_type: text("image/png"),
        size: 10_485_760,
        storage_key: text("k"),
        claim: None,
    };
    Content {
        role: text("assistant"),
        sender: Sender { kind: SenderKind::Contact, id: text("c") },
        text: Some(text("h\u{e9}llo \u{1f44b}")),
        severity: Some(Severity::Warning),
        metadata: Some(json("{\"n\":12345678901234567890}")),
        review: Some(review),
        webhook_url: Some(text("https://example.com/hook")),
        attachments: vec![attachment],
        iteration_of: Some(message(2)),
        message_type: text("text"),
        tool_calls: Some(json("[{}]")),
        references: Some(json("[]")),
        tags: Some(vec![text("t")]),
        sent_at: Some(AT.into()),
        media: MediaKind::Document,
        media_content: Some(json("{}")),
        memories: true,
        mentions: None,
        removal: None,
    }
}

pub(super) fn accepted(content: Content) -> Accepted {
    Accepted {
        conversation: conversation(),
        content: Arc::new(content),
        parent: Some(message(1)),
        owner: Some(text("ana")),
        turn: Some(turn(1).id),
    }
}

pub(super) fn trace() -> TraceContext {
    TraceContext { trace_id: [0xab; 16], span_id: [0xcd; 8], flags: 1 }
}

pub(super) fn open_conversation() -> contact::OpenConversation {
    contact::OpenConversation {
        channel: text("shop"),
        generation: 2,
        id: conversation(),
        earlier: vec![conversation()],
        first: None,
        returned_to_earlier: None,
    }
}

pub(super) fn erasing() -> contact::Erasing {
    contact::Erasing { next: Some(2), last: 9, check_at: AT, put_off: 1, id: contact_id(), first_unread: None }
}

pub(super) fn subject() -> memories::Subject {
    memories::Subject::Contact(contact_id())
}

pub(super) fn memory() -> memories::Memory {
    let id = MemoryId::new(AT, address(), 3);
    let source = Some(message(2));
    let first = Some(message(1));
    memories::Memory { id, text: text("I like tea"), source, updated_at: Some(AT), slot: [5; 16], first }
}

pub(super) fn remembering() -> Remembering {
    Remembering { next: 2, last: 9, check_at: AT, attempts: 1, put_off: 3 }
}
