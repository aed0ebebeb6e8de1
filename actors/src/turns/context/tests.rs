use std::sync::Arc;

use super::*;
use crate::id::{Address, ConversationId, TurnId};
use crate::memories::recall::Remembered;
use crate::message::{Content, Message, ReviewState, Sender, SenderKind};
use crate::tool::{Called, Invocation, NoTools, Plan};

/// Tools whose calls and answers are their ids.
struct Ids;

impl Tools for Ids {
    fn plan(&self, invocation: &Invocation) -> Plan {
        NoTools.plan(invocation)
    }

    fn recorded(&self, calls: &[Invocation]) -> Json {
        NoTools.recorded(calls)
    }

    fn ids_of(&self, tool_calls: &Json) -> Vec<String> {
        tool_calls.as_str().split(',').map(str::to_owned).collect()
    }

    fn answered(&self, metadata: &Json) -> Option<String> {
        Some(metadata.as_str().to_owned())
    }

    fn files_of(&self, references: &Json) -> Vec<String> {
        references.as_str().split(',').filter(|name| !name.is_empty()).map(|name| format!("[{name}]")).collect()
    }

    fn scripted(&self, call: &Json) -> Called {
        NoTools.scripted(call)
    }

    fn reviewed(&self, state: &ReviewState) -> String {
        NoTools.reviewed(state)
    }

    fn remembered(&self, memories: &[Remembered]) -> String {
        NoTools.remembered(memories)
    }

    fn failed(&self, code: &str, detail: &str) -> String {
        NoTools.failed(code, detail)
    }
}

fn conversation() -> ConversationId {
    ConversationId::new(Millis(1), Address([1; 10]))
}

fn said(role: &str, text: &str) -> Content {
    Content::text(role, Sender { kind: SenderKind::User, id: "ana".to_owned() }, text)
}

fn calling(ids: &str) -> Content {
    Content { tool_calls: Some(Json::from_checked(ids)), ..said("assistant", "") }
}

fn result(id: &str, text: &str) -> Content {
    Content { metadata: Some(Json::from_checked(id)), ..said("tool", text) }
}

/// What the model is handed of these, of which the last is the question.
fn read(contents: Vec<Content>) -> Context {
    read_as(contents, true)
}

/// The same; the last may be no message of the turn's own.
fn read_as(contents: Vec<Content>, own: bool) -> Context {
    let turn = Turn::requested(Millis(5_000), conversation(), 1, "bot");
    let mut reader = Reader::of(&turn, &Ids);
    let last = contents.len() as u64;
    for (seq, content) in (1..=last).rev().zip(contents.into_iter().rev()) {
        let message = Message {
            id: MessageId::new(Millis(seq), conversation().address, seq),
            conversation: conversation(),
            owner: None,
            parent: None,
            turn: (own && seq == last).then_some(TurnId::new(Millis(5_000), conversation().address, 1)),
            content: Arc::new(content),
        };
        reader.take(Arc::new(PromptMessage::of(message, &Overlay::default(), &Ids)));
    }
    reader.finish()
}

fn texts(context: &Context) -> Vec<String> {
    let text = |said: &PromptMessage| match said.calls() {
        Some(calls) => format!("calls {}", calls.as_str()),
        None => said.text().chars().take(10).collect(),
    };
    context.all().map(text).collect()
}

/// Only the question may be longer.
#[test]
fn a_message_that_does_not_fit_ends_the_context() {
    let long = "é".repeat(limits::CONTEXT_CHARS);
    let context = read(vec![said("user", "old"), said("user", &long), said("user", "new"), said("user", &long)]);
    assert_eq!(texts(&context), ["éééééééééé"], "the question fills all");
    let context = read(vec![said("user", "old"), said("user", &long), said("user", "new"), said("user", "?")]);
    assert_eq!(texts(&context), ["new", "?"]);
    let context =
        read(vec![said("user", "old"), said("user", &long[..2 * (limits::CONTEXT_CHARS - 4)]), said("user", "new?")]);
    assert_eq!(texts(&context), ["éééééééééé", "new?"], "it fits just so");
}

#[test]
fn calls_count_as_what_is_read() {
    let arguments = "x".repeat(limits::CONTEXT_CHARS / 2);
    let context = read(vec![calling(&format!("a{arguments}")), calling(&format!("b{arguments}")), said("user", "?")]);
    assert_eq!(context.before.len(), 1);
    let agent = Agent::new("bot", "Bot", crate::agent::Provider::Builtin(builtin::Builtin::default()), Millis(1));
    assert_eq!(context.tokens(&agent), 4_001 + 1);
}

#[test]
fn results_go_with_their_calls_and_what_answers_no_call_counts_for_nothing() {
    let long = "x".repeat(limits::CONTEXT_CHARS);
    let mut contents = vec![said("user", "old"), result("none", &long), said("user", "a")];
    contents.extend((0..150).map(|_| result("never called", "y")));
    contents.extend([calling("1,2"), said("user", "between"), result("2", "two"), result("1", "one")]);
    contents.push(said("user", "?"));
    let context = read(contents);
    assert_eq!(texts(&context), ["old", "a", "calls 1,2", "one", "two", "between", "?"]);
    let context = read(vec![calling("1"), result("1", "early"), calling("1"), result("1", "late"), said("user", "?")]);
    assert_eq!(texts(&context), ["calls 1", "early", "calls 1", "late", "?"]);
}

#[test]
fn results_of_a_call_id_that_stands_twice_keep_their_order() {
    let said =
        |ids| vec![calling(ids), result("1", "first"), result("1", "second"), result("2", "two"), said("user", "?")];
    assert_eq!(texts(&read(said("1,1,2"))), ["calls 1,1,2", "first", "second", "two", "?"]);
    assert_eq!(texts(&read(said("1,2,1"))), ["calls 1,2,1", "first", "two", "second", "?"]);
    assert_eq!(texts(&read(said("1,1,1"))), ["calls 1,1,1", "first", "second", "?"]);
}

#[test]
fn a_result_that_does_not_fit_is_shortened_and_hides_nothing() {
    let long = "é".repeat(limits::CONTEXT_CHARS);
    let last = |text| vec![said("user", "old"), calling("1"), result("1", text), said("user", "a"), said("user", "?")];
    let context = read(last(&long));
    assert_eq!(texts(&context), ["old", "calls 1", "éééééééééé", "a", "?"]);
    let (beginning, note) = context.before[2].text().split_once('\n').unwrap();
    assert_eq!(beginning.chars().count(), limits::SHORTENED_CHARS);
    assert_eq!(note, "[31000 more characters of this result are omitted]");
    // `old`, `1`, `a` and the question have six.
    let context = read(last(&long[..2 * (limits::CONTEXT_CHARS - 6)]));
    assert_eq!(context.before[2].text().chars().count(), limits::CONTEXT_CHARS - 6, "it fits just so");
    assert_eq!(context.before.len(), 4);
    // More than is kept of what waits for its call.
    let mut many = vec![said("user", "old"), calling("1,2,3"), result("1", "one")];
    many.extend(["2", "3", "none"].map(|id| result(id, &"x".repeat(limits::QUESTION_BYTES / 3))));
    many.push(said("user", "?"));
    assert_eq!(texts(&read(many)), ["old", "calls 1,2,3", "one", "xxxxxxxxxx", "xxxxxxxxxx", "?"]);
    // Where they do not fit shortened either they take their call with them.
    let words = "x".repeat(limits::CONTEXT_CHARS - 500);
    let context =
        read(vec![said("user", "old"), calling("1"), result("1", &long), said("user", &words), said("user", "?")]);
    assert_eq!(texts(&context), ["xxxxxxxxxx", "?"]);
}

#[test]
fn a_prompt_lists_named_files_and_omits_empty_parts() {
    let naming =
        |text: &str, names: &str| Content { references: Some(Json::from_checked(names)), ..said("user", text) };
    let user_calls = Content { role: "user".to_owned(), ..calling("1") };
    let contents = vec![
        naming("", "a,b"),
        naming("see", "c"),
        naming("", ""),
        user_calls,
        said("assistant", ""),
        said("user", "?"),
    ];
    let context = read(contents.clone());
    let agent = Agent::new("bot", "Bot", crate::agent::Provider::Builtin(builtin::Builtin::default()), Millis(1));
    let prompt: Vec<String> = context.prompt(&agent, &[]).into_iter().map(|message| message.text).collect();
    assert_eq!(prompt, ["[a]\n[b]", "see\n[c]", "?"]);
    assert_eq!(read(contents[..1].to_vec()).question_text(), "[a]\n[b]", "there is nothing else to be answered");
    assert_eq!(read(contents[..2].to_vec()).question_text(), "see");
    let long = "x".repeat(limits::CONTEXT_CHARS);
    assert_eq!(read(vec![naming("", &long), said("user", "?")]).before.len(), 0, "what is shown counts");
}

#[test]
fn a_turn_without_a_question_reads_what_it_answers_at_any_length() {
    let long = "x".repeat(2 * limits::CONTEXT_CHARS);
    let context = read_as(vec![said("user", "old"), said("user", &long)], false);
    assert_eq!(texts(&context), ["xxxxxxxxxx"]);
    let context = read_as(vec![said("user", "old"), said("user", "a"), calling("1"), result("1", &long)], false);
    assert_eq!(texts(&context), ["a", "calls 1", "xxxxxxxxxx"]);
    let context =
        read_as(vec![said("user", "old"), said("user", "a"), said("assistant", &long), said("assistant", "b")], false);
    assert_eq!(texts(&context), ["a", "b"], "the newest words of somebody are what is to be answered");
}

#[test]
fn a_reply_answers_its_message_even_if_the_model_cannot_read_that() {
    let turn = Turn::requested(Millis(5_000), conversation(), 1, "bot");
    let mut reader = Reader::of(&turn, &Ids);
    let id = |seq| MessageId::new(Millis(seq), conversation().address, seq);
    for (seq, parent, turn, content) in
        [(2, Some(id(1)), Some(turn.id), said("user", "")), (1, None, None, said("user", "old"))]
    {
        let content = Arc::new(content);
        let message = Message { id: id(seq), conversation: conversation(), owner: None, parent, turn, content };
        reader.take(Arc::new(PromptMessage::of(message, &Overlay::default(), &Ids)));
    }
    assert_eq!(reader.finish().branch(), Some(id(2)));
}
