//! Stored bytes stay readable: an example of every stored type, as it was written once.
//!
//! A test that fails here has found a change that old data would not survive. If the change is intended and old bytes
//! can still be read, `GOLDEN=write cargo test -p actors golden` writes new examples.

use std::sync::Arc;

use actors::agent::builtin::{Behaviour, Builtin, ScriptEntry};
use actors::agent::{Agent, Provider};
use actors::channel::{Channel, ChannelKind};
use actors::clock::Millis;
use actors::codec;
use actors::conversation::remember::{Note, Remembering};
use actors::conversation::{
    self, Accepted, BusyPolicy, Call, Calls, Conversation, Details, Errand, Event, Failure, Fork, Forked, Origin,
    ReviewEnd, Turn, TurnStatus, Usage, Wait,
};
use actors::directory::CommandContext;
use actors::id::{
    Address, AttachmentId, ContactId, ConversationId, EndpointId, EntityKey, KeyId, MemoryId, MessageId, TurnId,
};
use actors::key::{ApiKey, Principal, PrincipalKind, Scope};
use actors::message::{
    Attachment, Callback, Content, Json, MediaKind, Overlay, Quorum, Removal, Review, ReviewState, ReviewStatus,
    Sender, SenderKind, Severity, Vote,
};
use actors::outbox::state::Retried;
use actors::outbox::{Attempt, Delivery, EarlierEnd, End, LaneRow, Outbox, Receiver, RetryRequest};
use actors::registry::RowChange;
use actors::store::memory::MemoryStore;
use actors::store::{Fingerprint, KeyHash, NodeId, ReadLevel, SeqRange, Store, StoreError, Table};
use actors::tool::{Ask, Asker};
use actors::trace::TraceContext;
use actors::usage;
use actors::webhook::{DisabledReason, Format, RetiredSecret, WebhookEndpoint};
use actors::workflows::claims::Claim;
use actors::workspace::Workspace;
use actors::{attachment, contact, memories, registry};
use bytes::Bytes;

use self::compared::Golden;
use self::examples::*;
use crate::support::{entity, node_on, post};

mod compared;
mod examples;

const AT: Millis = Millis(1_732_000_000_123);

#[test]
fn golden_records_of_a_conversation() {
    let mut golden = Golden::default();
    let api = Origin::Api { channel: text("shop"), contact: contact_id(), agent: text("echo") };
    let created = |origin| Event::ConversationCreated {
        id: conversation(),
        origin,
        owner: Some(text("ana")),
        details: details(),
        forked: None,
    };
    let end = || ReviewEnd { message: message(2), state: review_state(), asker: None, kind: None, expires_at: None };
    let plain = Content::text("user", Sender { kind: SenderKind::User, id: text("ana") }, "hi");
    let bare = Accepted { parent: None, owner: None, turn: None, ..accepted(plain) };
    golden.record("conversation-created-human", None, created(Origin::Human { channel: text("demo") }));
    golden.record("conversation-created-api", Some(trace()), created(api));
    golden.record("conversation-created-store", None, created(Origin::Direct));
    let copy = Event::ConversationCreated {
        id: conversation(),
        origin: Origin::Direct,
        owner: None,
        details: details(),
        forked: Some(forked()),
    };
    golden.record("conversation-created-copy", None, copy);
    golden.record("fork-moved", None, Event::ForkMoved(fork()));
    golden.record(
        "conversation-updated",
        None,
        Event::ConversationUpdated { owner: None, details: details(), reopened: true },
    );
    golden.record("conversation-closed", None, Event::ConversationClosed);
    golden.record("message-created", Some(trace()), Event::MessageCreated(accepted(content())));
    golden.record("message-created-plain", None, Event::MessageCreated(bare));
    let gone = accepted(content().redacted(Removal::Erased));
    golden.record("message-created-erased", None, Event::MessageCreated(gone));
    golden.record("conversation-erased", None, Event::ConversationErased);
    golden.record("erasure-moved", None, Event::ErasureMoved { next: Some(65), first_unread: None });
    golden.record("erasure-moved-past", None, Event::ErasureMoved { next: None, first_unread: Some(7) });
    let note = Note { memory: memory().id, subject: subject(), source: Some(message(2)), created: true };
    golden.record("memory-noted", None, Event::MemoryNoted(note));
    golden.record("memory-failed", None, Event::MemoryFailed { first: 2, last: 3 });
    golden.record("memories-drawn", None, Event::MemoriesDrawn { left: Some(remembering()) });
    golden.record("memories-drawn-all", None, Event::MemoriesDrawn { left: None });
    let requested = |kind| Event::ReviewRequested { message: message(2), expires_at: AT, kind };
    golden.record("review-requested", None, requested(None));
    golden.record("review-requested-typed", None, requested(Some(text("approval"))));
    golden.record("review-completed", None, Event::ReviewCompleted(end()));
    golden.record("review-expired", None, Event::ReviewExpired(end()));
    golden.record("review-cancelled", None, Event::ReviewCancelled(end()));
    let typed = ReviewEnd { kind: Some(text("approval")), expires_at: Some(AT), ..end() };
    golden.record("review-cancelled-typed", None, Event::ReviewCancelled(typed));
    golden.record("turn-queued", None, Event::TurnQueued(turn(1)));
    golden.record("turn-started", None, Event::TurnStarted(turn(1)));
    let running = Turn { runner: Some(NodeId([5; 16])), ..turn(1) };
    golden.record("turn-started-somewhere", None, Event::TurnStarted(running));
    golden.record("turn-completed", None, Event::TurnCompleted(turn(1)));
    golden.record("turn-failed", None, Event::TurnFailed(turn(1)));
    golden.record("turn-cancelled", None, Event::TurnCancelled(turn(1)));
    let in_closed = Turn { in_closed: Some(true), ..turn(1) };
    golden.record("turn-completed-in-closed", None, Event::TurnCompleted(in_closed));
    let trace = TraceContext { trace_id: [7; 16], span_id: [8; 8], flags: 1 };
    let waited = Turn { trace: Some(Box::new(trace)), ..turn(1) };
    golden.record("turn-started-after-waiting", None, Event::TurnStarted(waited));
    golden.record("deadline-moved", None, Event::DeadlineMoved { next: Some(AT) });
    golden.record("deadline-moved-away", None, Event::DeadlineMoved { next: None });
    let mut with_file = Content { mentions: Some(vec![attachment_id()]), ..content() };
    with_file.attachments[0].claim = Some(3);
    golden.record("message-created-claim", None, Event::MessageCreated(accepted(with_file)));
    let disclaimed = Event::AttachmentDisclaimed { attachment: address(), number: 3 };
    golden.record("attachment-disclaimed", None, disclaimed);
    let outbox = Some(Outbox { from: None, check_at: AT.plus(5), lanes: 300 });
    golden.record("outbox-moved", None, Event::OutboxMoved { outbox });
    golden.record("outbox-settled", None, Event::OutboxMoved { outbox: None });
    golden.done();
}

/// Turns that call tools and wait for people, and errands between conversations.
#[test]
fn golden_calls_and_errands() {
    let mut golden = Golden::default();
    let asker = Asker { conversation: address(), turn: 3, call: text("call_3_1_1_0") };
    let waiting = Turn {
        status: TurnStatus::AwaitingReview,
        rounds: Some(2),
        open_calls: Some(1),
        series_after: Some(1),
        check_at: Some(AT.plus(60_000)),
        waiting_since: Some(AT),
        ..turn(1)
    };
    let review = content().review.map(|review| Review { asker: Some(asker.clone()), ..review });
    let asking = Content { review, ..content() };
    let end = || ReviewEnd { message: message(2), state: review_state(), asker: None, kind: None, expires_at: None };
    let asked = ReviewEnd { asker: Some(asker.clone()), ..end() };
    golden.record("turn-moved", None, Event::TurnMoved(waiting));
    golden.record("errands-due", None, Event::ErrandsDue { at: Some(AT) });
    golden.record("errands-run", None, Event::ErrandsDue { at: None });
    golden.record("message-created-asking", None, Event::MessageCreated(accepted(asking.clone())));
    let placed = content().review.map(|review| Review { place: Some(AT.plus(1)), ..review });
    let placed = Content { review: placed, ..content() };
    golden.record("message-created-placed", None, Event::MessageCreated(accepted(placed)));
    golden.record("review-completed-asked", None, Event::ReviewCompleted(asked));
    let kinds = vec![None, Some(PrincipalKind::User), Some(PrincipalKind::Agent)];
    let allowed = kinds.into_iter().map(|kind| (text("ana"), kind)).collect();
    let chosen = content().review.map(|review| Review { quorum: Some(Quorum::new(2, allowed)), ..review });
    let chosen = Content { review: chosen, ..content() };
    golden.record("message-created-allowed-kinds", None, Event::MessageCreated(accepted(chosen)));
    let mut end = end();
    end.state.votes[0].print = Some([9; 16]);
    let known = Vote { kind: Some(PrincipalKind::Agent), ..end.state.votes[0].clone() };
    end.state.votes.push(known);
    golden.record("review-completed-by-kinds", None, Event::ReviewCompleted(end));
    let ask = Ask { channel: text("demo"), content: asking, review_millis: Some(600_000) };
    let wait = Wait { review: message(2), expires_at: AT };
    let given = None;
    let open =
        Call { id: text("c0"), name: text("request_review"), ask: Some(ask), wait: Some(wait), answered: false, given };
    let answered = Call { id: text("c1"), name: text("find"), ask: None, wait: None, answered: true, given: None };
    let named = Call { given: Some(text("call_a")), ..answered.clone() };
    golden.value("calls", &Calls { calls: vec![open, answered], branch: Some(message(5)) });
    golden.value("calls-given", &Calls { calls: vec![named], branch: None });
    let trace = Some(TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1 });
    golden.value("errand-tell", &Errand::NotifyAsker { asker: asker.clone(), message: message(2), trace: None });
    golden.value("errand-tell-traced", &Errand::NotifyAsker { asker, message: message(2), trace });
    let channel = text("demo");
    let call = text("c0");
    let review = Some(message(2));
    let withdraw = |trace| Errand::Withdraw {
        channel: channel.clone(),
        turn: turn(1).id,
        call: call.clone(),
        review,
        since: AT,
        trace,
    };
    golden.value("errand-withdraw", &withdraw(None));
    golden.value("errand-withdraw-traced", &withdraw(trace));
    let usage = Usage { input_tokens: 1, output_tokens: 300, millicredits: 70_000, model: text("m") };
    let entry = |last, calls| usage::Entry { agent: text("echo"), usage: usage.clone(), last, calls };
    golden.value("usage-entry", &entry(true, None));
    golden.value("usage-entry-of-several-calls", &entry(false, Some(3)));
    let remote = Provider::OpenAi { base_url: text("https://api.example.com/v1"), api_key: None };
    let concurrency = Some(4);
    let input_price = Some(500);
    let output_price = Some(1_500);
    let agent = Agent::new("bot", "Bot", remote, AT);
    golden.value(
        "agent-priced",
        &Agent { concurrency, input_price, output_price, without_streaming: Some(true), ..agent },
    );
    golden.done();
}

#[test]
fn golden_records_of_contacts_and_registries() {
    let mut golden = Golden::default();
    let created = contact::Event::ContactCreated {
        id: contact_id(),
        identifier: text("Ana@example.com"),
        name: Some(text("Ana")),
    };
    golden.record("contact-created", None, created);
    golden.record("conversation-assigned", None, contact::Event::ConversationAssigned(open_conversation()));
    golden.record("contact-updated", None, contact::Event::ContactUpdated { name: None });
    golden.record("contact-erased", None, contact::Event::ContactErased);
    golden.record("contact-erasure-moved", None, contact::Event::ErasureMoved(Some(erasing())));
    let past = contact::Erasing { next: None, first_unread: Some(1), ..erasing() };
    golden.record("contact-erasure-past", None, contact::Event::ErasureMoved(Some(past)));
    golden.record("contact-erasure-done", None, contact::Event::ErasureMoved(None));
    let outbox = Some(Outbox { from: Some(8), check_at: AT.plus(2_000), lanes: 1 });
    golden.record("contact-outbox-moved", None, contact::Event::OutboxMoved { outbox });
    let remembered = memories::Event::Remembered { subject: subject(), number: 3, created: true };
    golden.record("memory-remembered", None, remembered);
    golden.record("memory-forgotten", None, memories::Event::Forgotten { number: 3 });
    let subject = memories::Subject::Owner(text("ana"));
    let forgotten = memories::Event::ManyForgotten { subject, left: 2, for_good: true };
    golden.record("memories-forgotten", None, forgotten);
    let changes =
        vec![RowChange::put(Table(17), b"key", &Bytes::from_static(b"value")), RowChange::delete(Table(18), b"other")];
    golden.record("registry-changed", None, registry::Event { changes });
    golden.done();
}

#[test]
fn golden_records_of_attachments() {
    use attachment::{Bound, Event};
    let mut golden = Golden::default();
    golden.record("attachment-begun", Some(trace()), Event::Begun(attachment_id()));
    golden.record("attachment-completed", None, Event::Completed(file()));
    golden.record("attachment-bound", None, Event::Bound(Bound { conversation: address(), number: 3 }));
    golden.record("attachment-mentioned", None, Event::Mentioned(address()));
    golden.record("attachment-linked", None, Event::Linked(message(2)));
    golden.record("attachment-check-moved", None, Event::CheckMoved(Some(AT)));
    golden.record("attachment-check-moved-away", None, Event::CheckMoved(None));
    golden.record("attachment-erased", None, Event::Erased);
    let state = attachment::State {
        id: attachment_id(),
        file: Some(file()),
        bound: Some(Bound { conversation: address(), number: 3 }),
        message: Some(message(2)),
        mentioned: vec![address()],
        check_at: Some(AT),
        erased: true,
        completed: Some(3),
        held_until: None,
    };
    golden.value("attachment-state", &state);
    golden.value("attachment-state-held", &attachment::State { held_until: Some(AT), ..state });
    golden.value("attachment-claim", &conversation::attach::Claim { number: 3, message: Some(message(2)) });
    golden.value("attachment-claim-disclaimed", &conversation::attach::Claim { number: 3, message: None });
    golden.done();
}

#[test]
fn golden_states() {
    let mut golden = Golden::default();
    let running = Turn { status: TurnStatus::Running, usage: None, failure: None, ..turn(1) };
    let state = conversation::State {
        id: conversation(),
        origin: Origin::Direct,
        owner: Some(text("ana")),
        closed: true,
        updated_at: AT,
        last_message_at: Some(AT),
        messages: 3,
        turns: 2,
        running: Some(running),
        queued: vec![turn(2)],
        next_deadline: Some(AT),
        last_seq: 9,
        errands_at: None,
        erasure: None,
        outbox: None,
        remembering: None,
        fork: None,
        began_at: None,
        newest_message: None,
    };
    golden.value("conversation-state", &state);
    let erasure = Some(conversation::Erasure { since: AT, next: Some(65), last: 99, first_unread: None });
    golden.value("conversation-state-erased", &conversation::State { erasure, ..state.clone() });
    let outbox = Some(Outbox { from: Some(8), check_at: AT.plus(2_000), lanes: 1 });
    golden.value("conversation-state-sending", &conversation::State { outbox, ..state.clone() });
    let remembering = Some(remembering());
    golden.value("conversation-state-remembering", &conversation::State { remembering, ..state.clone() });
    golden.value("conversation-state-copy", &conversation::State { fork: Some(fork()), ..state.clone() });
    golden.value("conversation-state-placed", &conversation::State { began_at: Some(AT), ..state.clone() });
    golden.value("conversation-state-spoken", &conversation::State { newest_message: Some(7), ..state });
    let state = memories::State { subject: subject(), count: 3, last: 7, updated_at: AT, erased: true };
    golden.value("memories-state", &state);
    let contact = contact::State {
        id: contact_id(),
        identifier: text("Ana@example.com"),
        name: Some(text("Ana")),
        updated_at: AT,
        open: vec![open_conversation()],
        erased_at: None,
        erasing: None,
        first_seq: None,
        outbox: None,
        last_seq: None,
        began_at: None,
    };
    golden.value("contact-state", &contact);
    let outbox = Some(Outbox { from: Some(8), check_at: AT.plus(2_000), lanes: 1 });
    golden.value("contact-state-sending", &contact::State { outbox, last_seq: Some(8), ..contact.clone() });
    golden.value("contact-state-placed", &contact::State { began_at: Some(AT), ..contact.clone() });
    let erased = contact::State {
        erased_at: Some(AT),
        erasing: Some(erasing()),
        first_seq: Some(7),
        open: vec![contact::OpenConversation { first: Some(3), ..open_conversation() }],
        ..contact
    };
    golden.value("contact-state-erased", &erased);
    golden.value("contact-aside", &contact::OverflowRow { conversation: open_conversation(), life: 7 });
    let back = contact::OpenConversation { returned_to_earlier: Some(true), ..open_conversation() };
    golden.value("contact-aside-back", &contact::OverflowRow { conversation: back, life: 7 });
    golden.value("registry-state", &registry::State { updated_at: AT, channels_at: None });
    golden.value("registry-state-channels", &registry::State { updated_at: AT, channels_at: Some(300) });
    golden.done();
}

#[test]
fn golden_rows() {
    let mut golden = Golden::default();
    let channel = Channel {
        id: text("shop"),
        name: text("The shop"),
        kind: ChannelKind::Api,
        agent: Some(text("echo")),
        busy_policy: BusyPolicy::Interrupt,
        enabled: true,
        webhook_url: Some(text("https://example.com/hook")),
        webhook_secret: text("whsec_x"),
        retired_secret: None,
        routed_at: None,
        retired_earlier: None,
        life: None,
        review_defaults: Some(json("{}")),
        review_seconds: Some(86_400),
        created_at: AT,
        updated_at: Some(AT),
    };
    golden.value("channel", &channel);
    let retired = RetiredSecret { secret: text("whsec_y"), until: AT.plus(9) };
    golden.value("channel-rotated", &Channel { retired_secret: Some(retired.clone()), ..channel.clone() });
    let endpoint = WebhookEndpoint {
        id: EndpointId::new(AT, address()),
        url: text("https://example.com/hook"),
        events: vec![text("review.*"), text("turn.failed")],
        channel: Some(text("shop")),
        format: Format::CloudEvents,
        disabled: Some(DisabledReason::Gone),
        secret: text("whsec_x"),
        retired_secret: Some(retired),
        since: AT,
        updated_at: Some(AT.plus(1)),
        routed_at: None,
        retired_earlier: None,
    };
    golden.value("webhook-endpoint", &endpoint);
    let retired_earlier = Some(vec![RetiredSecret { secret: text("whsec_z"), until: AT.plus(3) }]);
    let routed_at = Some(AT.plus(2));
    golden.value("channel-routed", &Channel { routed_at, retired_earlier: retired_earlier.clone(), ..channel });
    golden.value("webhook-endpoint-routed", &WebhookEndpoint { routed_at, retired_earlier, ..endpoint });
    let attempt = Attempt { at: AT, status: Some(500), error: Some(text("500")), duration_millis: 12 };
    let waiting = LaneRow {
        next: 7,
        until: 300,
        attempts: vec![attempt.clone(), Attempt { status: None, ..attempt.clone() }],
        next_at: AT.plus(5_000),
        failing_since: Some(AT),
        deferred_until: Some(AT.plus(9)),
        retry_requested: true,
        tries: 3,
        deferred_by: None,
        tried_at: None,
        was: None,
        handed: None,
        url: None,
        retry_requests: None,
        in_flight: None,
        scheduled_at: None,
    };
    golden.value("waiting-lane", &waiting);
    golden.value("waiting-lane-asked", &LaneRow { deferred_by: Some(7), ..waiting.clone() });
    golden.value("waiting-lane-tried", &LaneRow { tried_at: Some(7), ..waiting.clone() });
    let was = Some(EarlierEnd { end: End::Delivered, url: Some(text("https://example.com/hook")) });
    golden.value("waiting-lane-handed", &LaneRow { handed: Some(true), ..waiting.clone() });
    golden.value("waiting-lane-again", &LaneRow { was, ..waiting.clone() });
    let url = Some(text("https://example.com/hook"));
    golden.value("waiting-lane-sent", &LaneRow { url, ..waiting.clone() });
    let retry_requests = Some(vec![RetryRequest { seq: 300, at: AT }, RetryRequest { seq: 7, at: AT.plus(1) }]);
    golden.value("waiting-lane-asked-for", &LaneRow { retry_requests, ..waiting.clone() });
    golden.value("waiting-lane-in-flight", &LaneRow { in_flight: Some(true), ..waiting.clone() });
    golden.value("waiting-lane-scheduled", &LaneRow { scheduled_at: Some(AT.plus(30_000)), ..waiting.clone() });
    golden.value("waiting-lane-fresh", &LaneRow::new(1, 2, AT));
    let retried = |key: u8, before| Retried::with(KeyHash([key; 16]), LaneRow::new(1, 1, AT), before);
    golden.value("delivery-retried", &retried(7, None));
    golden.value("delivery-retried-more", &retried(9, Some(retried(8, Some(retried(7, None))))));
    let receivers = [Receiver::Endpoint(EndpointId::new(AT, address())), Receiver::Channel];
    for (name, receiver) in ["delivery-endpoint", "delivery-channel"].into_iter().zip(receivers) {
        let url = text("https://example.com/hook");
        let attempts = vec![attempt.clone()];
        let event = text("review.completed");
        golden.value(name, &Delivery { at: AT, event, receiver, url, end: End::Failed, attempts });
    }
    let script = vec![ScriptEntry { on: text("price"), reply: vec![text("5")], tool_call: Some(json("{}")) }];
    let builtin = Builtin { behaviour: Behaviour::Scripted, script, latency_ms: 5, split: 2, fail_every: 3 };
    let remote = Provider::OpenAi { base_url: text("https://api.example.com/v1"), api_key: Some(text("secret")) };
    for (name, provider) in [("agent-builtin", Provider::Builtin(builtin)), ("agent-openai", remote)] {
        let agent = Agent {
            model: Some(text("m")),
            system_prompt: Some(text("be kind")),
            temperature_milli: Some(700),
            max_output_tokens: Some(1_000),
            timeout_seconds: 120,
            tools: Some(json("[]")),
            ..Agent::new("bot", "Bot", provider, AT)
        };
        golden.value(name, &agent);
    }
    let key = ApiKey {
        id: KeyId::new(AT, address()),
        name: text("ci"),
        scopes: Scope::ALL.to_vec(),
        workspace: text("default"),
        principal: Principal { kind: PrincipalKind::Agent, id: text("bot") },
        hash: [0xee; 32],
        created_at: AT,
    };
    golden.value("api-key", &key);
    golden.value("workspace", &Workspace { id: text("default"), name: text("Default"), created_at: AT });
    let overlay = Overlay {
        text: Some(text("edited")),
        metadata: Some(json("{}")),
        tags: Some(vec![text("t")]),
        updated_at: Some(AT),
        deleted: true,
        erased: true,
        review: Some(review_state()),
        delivered_at: Some(AT),
        read_at: Some(AT),
        superseded_by: None,
        review_end: None,
        untagged: None,
        textless: None,
        revised_before: None,
    };
    golden.value("overlay", &overlay);
    golden.value("overlay-untagged", &Overlay { untagged: Some(true), ..overlay.clone() });
    golden.value("overlay-textless", &Overlay { textless: Some(true), ..overlay.clone() });
    golden.value("overlay-revision", &Overlay { revised_before: Some(message(7)), ..Overlay::default() });
    golden.value("overlay-answered", &Overlay { review_end: Some(7), ..overlay });
    golden.value("overlay-empty", &Overlay::default());
    golden.value("memory", &memory());
    golden.value("copy-barred", &AT);
    golden.value("contact-copied", &contact::Copied { contact: contact_id(), copy: conversation() });
    golden.value("vector", &memories::Vector { model: text("m"), of: AT, numbers: vec![0.5, -1.25] });
    golden.value("turn", &turn(1));
    golden.value("details", &details());
    golden.value("trace-context", &trace());
    let target = EntityKey::workspace(Address([1; 10]));
    golden.value("claim", &Claim { number: 2, fingerprint: Fingerprint([3; 16]), target });
    golden.done();
}

#[tokio::test(start_paused = true)]
async fn golden_snapshot() {
    let store = MemoryStore::new(1);
    let node = node_on(store.clone());
    let e = entity(1);
    node.conversation(e, post(e, "hi"), CommandContext::default()).await.unwrap();
    let loaded = store.load(e, ReadLevel::Acknowledged).await.unwrap().unwrap();
    assert_eq!(loaded.tail, [], "the state is all there is to load");
    let mut golden = Golden::default();
    golden.check("conversation-snapshot", &loaded.state.unwrap());
    golden.done();
    assert_eq!(node.state::<Conversation>(e).await.unwrap().unwrap().messages, 1);
}

#[test]
fn foreign_bytes_are_reported_as_corrupt_and_never_decoded() {
    for bytes in [&[][..], &[0], &[2, 0x80], &[1], &[1, 0xff], &[1, 0x82, 0x01]] {
        assert!(matches!(codec::decode::<Details>(bytes), Err(StoreError::Corrupt(_))), "{bytes:?}");
    }
}
