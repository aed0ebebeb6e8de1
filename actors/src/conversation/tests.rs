//! Decisions as data: no runtime, no store.

use crate::id::{ContactId, MessageId, TurnId};
use crate::key::{Principal, PrincipalKind};
use crate::message::{Content, Message};
use std::sync::Arc;

use super::*;
use crate::machine::sim::Sim;
use crate::message::{NewMessage, Parent, Review, SenderKind};
use crate::patch::Patch;
use crate::tables::{CONTACT_CONVERSATIONS, CONVERSATIONS};

mod calls;
mod erasure;
mod forks;
mod posts;
mod random;
mod reviews;
mod turns;

const NOW: Millis = Millis(1_763_000_000_000);
const AGENT: &str = "echo";

fn entity() -> EntityKey {
    EntityKey::conversation(Address([1; 10]), Address([2; 10]))
}

fn user(id: &str) -> Principal {
    Principal { kind: PrincipalKind::User, id: id.to_owned() }
}

fn opening() -> Opening {
    Opening {
        id: ConversationId::new(NOW, entity().id),
        origin: Origin::Direct,
        owner: Some("ana".to_owned()),
        details: Details::default(),
    }
}

/// A conversation that does not exist yet.
fn nothing() -> Sim<Conversation> {
    Sim::new(entity(), NOW)
}

/// One that was opened.
fn opened() -> Sim<Conversation> {
    let mut sim = nothing();
    sim.run(&Command::Open(opening())).unwrap();
    sim
}

/// One that was closed.
fn closed() -> Sim<Conversation> {
    let mut sim = opened();
    sim.run(&Command::Update(Update { closed: Some(true), ..Update::default() })).unwrap();
    sim
}

fn content(text: &str) -> Content {
    Content::text("user", message_sender(), text)
}

fn message_sender() -> crate::message::Sender {
    crate::message::Sender { kind: SenderKind::User, id: "ana".to_owned() }
}

fn say(content: Content) -> NewMessage {
    NewMessage { content: Arc::new(content), parent: None, review_millis: None }
}

fn review(expires_at: Millis, on_expire: Option<&str>) -> Review {
    Review {
        kind: "approval".to_owned(),
        payload: None,
        callback: None,
        expires_at,
        on_expire: on_expire.map(crate::message::Json::from_checked),
        quorum: None,
        asker: None,
        place: None,
    }
}

fn ask(expires_at: Millis, on_expire: Option<&str>) -> NewMessage {
    say(Content { review: Some(review(expires_at, on_expire)), ..content("may I?") })
}

fn post(messages: Vec<NewMessage>) -> Command {
    Command::Post(Post { opening: Some(opening()), expected: None, messages, turn: None })
}

fn post_with_turn(text: &str, policy: BusyPolicy) -> Command {
    let turn = Some(TurnRequest { agent: AGENT.to_owned(), policy });
    Command::Post(Post { opening: Some(opening()), expected: None, messages: vec![say(content(text))], turn })
}

/// The messages that a post was answered with, and its turn.
fn posted(reply: Result<Reply, Rejection>) -> (Vec<Message>, Option<Turn>) {
    match reply {
        Ok(Reply::Posted(Posted { messages, turn })) => (messages, turn.map(|turn| *turn)),
        other => panic!("{other:?}"),
    }
}

fn turned(reply: Result<Reply, Rejection>) -> Turn {
    match reply {
        Ok(Reply::Turn(turn)) => *turn,
        other => panic!("{other:?}"),
    }
}

fn names(events: &[&Event]) -> Vec<&'static str> {
    events.iter().map(|event| event.name().unwrap_or("mark")).collect()
}

fn usage() -> Usage {
    Usage { input_tokens: 1, output_tokens: 2, millicredits: 3, model: "builtin".to_owned() }
}

fn done(number: u64, attempt: u32, replies: &[&str]) -> Command {
    let replies = replies.iter().map(|&reply| reply.to_owned()).collect();
    Command::FinishTurn(Finish {
        attempt: Attempt { number, attempt },
        outcome: Ok(Completed { replies, said: None, usage: usage() }),
        branch: None,
    })
}

fn failed(number: u64, attempt: u32) -> Command {
    let failure = Failure { code: "x".to_owned(), detail: "y".to_owned() };
    Command::FinishTurn(Finish { attempt: Attempt { number, attempt }, outcome: Err(failure), branch: None })
}

#[test]
fn commands_that_need_a_conversation_answer_not_found_without_one() {
    let commands = [
        Command::Post(Post { opening: None, expected: None, messages: vec![say(content("hi"))], turn: None }),
        Command::Update(Update::default()),
        Command::StartTurn(StartTurn { agent: AGENT.to_owned(), key: None }),
        Command::RetryTurn(RetryTurn { number: 1, agent: None }),
        done(1, 1, &[]),
        Command::CancelTurn(CancelTurn { number: 1 }),
        Command::Wake { lost: None },
    ];
    for command in commands {
        assert_eq!(nothing().run(&command), Err(Rejection::NotFound), "{command:?}");
    }
}

#[test]
fn an_opened_conversation_is_answered_as_it_stands_when_it_is_opened_again() {
    let mut sim = nothing();
    let details = Details { title: Some("one".to_owned()), ..Details::default() };
    sim.run(&Command::Open(Opening { details: details.clone(), ..opening() })).unwrap();
    let other = Details { title: Some("two".to_owned()), ..Details::default() };
    let reply = sim.run(&Command::Open(Opening { details: other, owner: None, ..opening() })).unwrap();
    let Reply::Conversation(state, found) = reply else { panic!("{reply:?}") };
    assert_eq!((found, state.owner.as_deref(), sim.seq), (details, Some("ana"), 1));
}

#[test]
fn origins_are_listed_where_they_belong() {
    let contact = ContactId::new(NOW, Address([3; 10]));
    let api = Origin::Api { channel: "c".to_owned(), contact, agent: AGENT.to_owned() };
    let human = Origin::Human { channel: "c".to_owned() };
    for (origin, lists) in
        [(Origin::Direct, vec![CONVERSATIONS]), (api, vec![CONVERSATIONS, CONTACT_CONVERSATIONS]), (human, vec![])]
    {
        let mut sim = nothing();
        sim.run(&Command::Open(Opening { origin, ..opening() })).unwrap();
        assert_eq!(sim.views.keys().map(|(view, _)| *view).collect::<Vec<_>>(), lists);
    }
}

#[test]
fn a_closed_conversation_takes_nothing_from_clients_until_reopened() {
    let mut sim = closed();
    assert_eq!(sim.run(&post(vec![say(content("hi"))])), Err(Rejection::Closed));
    assert_eq!(sim.run(&Command::StartTurn(StartTurn { agent: AGENT.to_owned(), key: None })), Err(Rejection::Closed));
    sim.run(&Command::Update(Update { closed: Some(false), ..Update::default() })).unwrap();
    assert!(!sim.state.as_ref().unwrap().closed);
    posted(sim.run(&post(vec![say(content("hi"))])));
}

#[test]
fn a_turn_that_runs_when_its_conversation_is_closed_may_end() {
    let mut sim = nothing();
    posted(sim.run(&post_with_turn("hi", BusyPolicy::Queue)));
    sim.run(&Command::Update(Update { closed: Some(true), ..Update::default() })).unwrap();
    assert_eq!(turned(sim.run(&done(1, 1, &["bye"]))).status, TurnStatus::Completed);
    assert_eq!(
        sim.run(&Command::RetryTurn(RetryTurn { number: 1, agent: None })),
        Err(Rejection::TurnNotPossible(TurnStatus::Completed))
    );
}

#[test]
fn an_update_changes_what_it_names_and_an_empty_one_nothing() {
    let mut sim = opened();
    let title = Update { title: Patch::Set("t".to_owned()), ..Update::default() };
    sim.run(&Command::Update(title.clone())).unwrap();
    assert_eq!(sim.seq, 2);
    for same in [title, Update::default(), Update { closed: Some(false), ..Update::default() }] {
        sim.run(&Command::Update(same)).unwrap();
        assert_eq!(sim.seq, 2, "nothing changed");
    }
    let both = Update { owner: Patch::Clear, title: Patch::Clear, closed: Some(true), ..Update::default() };
    let known = sim.log.len();
    let Ok(Reply::Conversation(state, details)) = sim.run(&Command::Update(both)) else { panic!() };
    assert_eq!(names(&sim.since(known)), ["conversation.updated", "conversation.closed"]);
    assert_eq!((state.owner.as_deref(), details.title.as_deref(), state.closed), (None, None, true));
    assert_eq!(*state, *sim.state.as_ref().unwrap(), "the answer is the state as it is then");
}

#[test]
fn i7_every_command_weighs_at_least_what_its_words_take() {
    let words = "x".repeat(1_000);
    let json = crate::message::Json::from_checked(format!("{{\"a\":\"{words}\"}}"));
    let message = MessageId::new(NOW, entity().id, 1);
    let details = Details { title: Some(words.clone()), ..Details::default() };
    let commands = [
        Command::Open(Opening { details, ..opening() }),
        Command::Post(Post { opening: None, expected: None, messages: vec![say(content(&words))], turn: None }),
        Command::Update(Update { summary: Patch::Set(words.clone()), ..Update::default() }),
        Command::Update(Update { metadata: Patch::Set(json.clone()), ..Update::default() }),
        Command::Amend(Amend {
            message,
            amendment: amend::Amendment::Edit(amend::Edit { text: Patch::Set(words), ..amend::Edit::default() }),
        }),
        Command::Respond(review::Response {
            message,
            response: json,
            alike: None,
            feedback: None,
            principal: user("ana"),
        }),
    ];
    for command in &commands {
        assert!(Conversation::weight(command) >= 1_000, "{command:?}");
    }
}
