//! The builtin agent: deterministic, for tests, load runs and evaluation.

use std::time::Duration;

use dashmap::DashMap;
use minicbor::{Decode, Encode};

use super::{Agent, Completion, ModelOutput};
use crate::conversation::Failure;
use crate::deltas::DeltaSink;
use crate::id::Address;
use crate::limits;
use crate::message::Json;
use crate::tool::Tools;
use crate::usage::estimate;

/// How a builtin agent answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Behaviour {
    /// It repeats the message.
    #[default]
    #[n(0)]
    Echo,
    /// It answers by the first matching entry of its script, else it repeats the message.
    #[n(1)]
    Scripted,
}

/// A line of a script.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ScriptEntry {
    /// The text to find anywhere in the message, in any case.
    #[n(0)]
    pub on: String,
    /// The replies.
    #[n(1)]
    pub reply: Vec<String>,
    /// A tool to call, as given.
    #[n(2)]
    pub tool_call: Option<Json>,
}

/// The configuration of a builtin agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Builtin {
    /// Its behaviour.
    #[n(0)]
    pub behaviour: Behaviour,
    /// Its script.
    #[n(1)]
    pub script: Vec<ScriptEntry>,
    /// How long an answer takes, in milliseconds.
    #[n(2)]
    pub latency_ms: u64,
    /// How many messages a single reply is split into; 0 and 1: one.
    #[n(3)]
    pub split: u32,
    /// Every nth turn fails; 0: none.
    #[n(4)]
    pub fail_every: u32,
}

/// Counts the turns of agents of which every nth fails. The counts restart with the process, when the agent is deleted,
/// and when there are more than [`limits::COUNTED_AGENTS`].
#[derive(Debug, Default)]
pub(crate) struct TurnCounter(DashMap<(Address, String), u64>);

impl TurnCounter {
    /// Counts a turn and returns whether it fails.
    pub(crate) fn fails(&self, workspace: Address, agent: &Agent, every: u32) -> bool {
        if every == 0 {
            return false;
        }
        let key = (workspace, agent.id.clone());
        if self.0.len() >= limits::COUNTED_AGENTS && !self.0.contains_key(&key) {
            self.0.clear();
        }
        let mut count = self.0.entry(key).or_default();
        *count += 1;
        count.is_multiple_of(u64::from(every))
    }

    /// Drops the count of a deleted agent.
    pub(crate) fn forget(&self, workspace: Address, agent: &str) {
        self.0.remove(&(workspace, agent.to_owned()));
    }
}

/// The next step of a builtin agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// It replies.
    Reply(Vec<String>),
    /// It calls a tool of its script.
    Call(Json),
}

/// The next step of `builtin` for `text`, after its tool calls so far had these results.
///
/// After a call it gives the replies of the entry that called. If that entry has none, it answers the result like a
/// message: so a script can branch on people's decisions.
#[must_use]
pub fn next(builtin: &Builtin, text: &str, results: &[&str]) -> Next {
    let mut input = text;
    let mut results = results.iter();
    loop {
        let entry = match builtin.behaviour {
            Behaviour::Echo => None,
            Behaviour::Scripted => find(&builtin.script, input),
        };
        let called = entry.and_then(|entry| Some((entry, entry.tool_call.as_ref()?)));
        match (called, results.next()) {
            (Some((_, call)), None) => return Next::Call(call.clone()),
            (Some((entry, _)), Some(result)) if entry.reply.is_empty() => input = result,
            (Some((entry, _)), Some(_)) => return Next::Reply(in_parts(builtin, entry.reply.clone())),
            (None, _) => {
                let replies = entry.map_or_else(|| vec![input.to_owned()], |entry| entry.reply.clone());
                return Next::Reply(in_parts(builtin, replies));
            }
        }
    }
}

/// The first entry that matches.
fn find<'a>(script: &'a [ScriptEntry], text: &str) -> Option<&'a ScriptEntry> {
    let input = text.to_lowercase();
    script.iter().find(|entry| input.contains(&entry.on.to_lowercase()))
}

/// A single reply, split into the configured number of messages. An empty reply is no message.
fn in_parts(builtin: &Builtin, mut replies: Vec<String>) -> Vec<String> {
    replies.retain(|reply| !reply.trim().is_empty());
    match replies.as_slice() {
        [only] if builtin.split > 1 => split(only, builtin.split as usize),
        _ => replies,
    }
}

/// Cuts `text` into exactly `parts` pieces, none of them blank, which together are the text: between words, or if there
/// are fewer words than parts, between characters. The last piece of a text that is too short is repeated.
fn split(text: &str, parts: usize) -> Vec<String> {
    let words = units(text, |before, c| before.is_whitespace() && !c.is_whitespace());
    let units = if words.len() < parts { units(text, |_, c| !c.is_whitespace()) } else { words };
    let cuts = parts.min(units.len());
    let mut pieces: Vec<String> =
        (0..cuts).map(|part| units[part * units.len() / cuts..(part + 1) * units.len() / cuts].concat()).collect();
    if let Some(last) = pieces.last().cloned() {
        pieces.resize(parts, last);
    }
    pieces
}

/// A text cut before each character for which `begins` holds, given the previous one; not before the first non-blank
/// one.
fn units(text: &str, begins: impl Fn(char, char) -> bool) -> Vec<&str> {
    let mut units = Vec::new();
    let mut from = 0;
    let mut before = None;
    for (at, c) in text.char_indices() {
        if let Some(before) = before
            && begins(before, c)
            && !text[from..at].trim().is_empty()
        {
            units.push(&text[from..at]);
            from = at;
        }
        before = Some(c);
    }
    units.push(&text[from..]);
    units
}

/// The input of a builtin agent.
#[derive(Debug)]
pub(crate) struct BuiltinInput<'a> {
    /// The agent.
    pub(crate) agent: &'a Agent,
    /// Its configuration.
    pub(crate) builtin: &'a Builtin,
    /// The text to be answered.
    pub(crate) text: &'a str,
    /// Results of its calls so far.
    pub(crate) results: &'a [&'a str],
    /// About how many tokens a model would read.
    pub(crate) input_tokens: u64,
    /// Whether it is to fail.
    pub(crate) fails: bool,
}

/// The output of a builtin agent.
pub(crate) async fn complete(input: &BuiltinInput<'_>, tools: &dyn Tools, deltas: &DeltaSink) -> Completion {
    let BuiltinInput { agent, builtin, text, results, input_tokens, fails } = input;
    if builtin.latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(builtin.latency_ms)).await;
    }
    if *fails {
        let detail = format!("the builtin agent fails every {} turns", builtin.fail_every);
        return Err(Failure { code: "builtin_failure".to_owned(), detail });
    }
    let (replies, calls) = match next(builtin, text, results) {
        Next::Reply(replies) => (replies, Vec::new()),
        Next::Call(call) => (Vec::new(), vec![tools.scripted(&call)]),
    };
    for (message, reply) in (0..).zip(&replies) {
        // Like a model: a word at a time.
        reply.split_inclusive(char::is_whitespace).for_each(|word| deltas.send(message, word));
    }
    let replied = replies.iter().map(|reply| estimate(reply)).sum::<u64>();
    let called = calls.iter().map(|call| estimate(&call.arguments)).sum::<u64>();
    let usage = agent.usage(*input_tokens, replied + called, agent.model.as_deref().unwrap_or("builtin"));
    Ok(ModelOutput { replies, calls, usage })
}

/// About how many tokens these texts have together.
pub(crate) fn tokens_of<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    texts.map(estimate).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Millis;

    fn scripted(on: &str, reply: &[&str]) -> Builtin {
        let reply = reply.iter().map(|&reply| reply.to_owned()).collect();
        let script = vec![ScriptEntry { on: on.to_owned(), reply, tool_call: None }];
        Builtin { behaviour: Behaviour::Scripted, script, ..Builtin::default() }
    }

    fn replies(builtin: &Builtin, text: &str) -> Vec<String> {
        match next(builtin, text, &[]) {
            Next::Reply(replies) => replies,
            Next::Call(call) => panic!("{call:?}"),
        }
    }

    #[test]
    fn the_echo_repeats_the_text() {
        assert_eq!(replies(&Builtin::default(), "Hello  world"), ["Hello  world"]);
    }

    #[test]
    fn a_script_matches_in_any_case_and_falls_back_to_the_echo() {
        let builtin = scripted("PRICE", &["It is 5.", "Anything else?"]);
        assert_eq!(replies(&builtin, "what is the price?"), ["It is 5.", "Anything else?"]);
        assert_eq!(replies(&builtin, "hello"), ["hello"]);
    }

    #[test]
    fn a_script_calls_its_tool_once_and_goes_on_with_what_it_got() {
        let entry = |on: &str, reply: &[&str], call: Option<&str>| ScriptEntry {
            on: on.to_owned(),
            reply: reply.iter().map(|&reply| reply.to_owned()).collect(),
            tool_call: call.map(Json::from_checked),
        };
        let script = vec![
            entry("refund", &["Done."], Some("{\"name\":\"a\"}")),
            entry("ship", &[], Some("{\"name\":\"b\"}")),
            entry("approve", &["Shipped."], None),
        ];
        let builtin = Builtin { behaviour: Behaviour::Scripted, script, ..Builtin::default() };
        let reply = |text: &str| Next::Reply(vec![text.to_owned()]);
        assert_eq!(next(&builtin, "Refund me", &[]), Next::Call(Json::from_checked("{\"name\":\"a\"}")));
        assert_eq!(next(&builtin, "Refund me", &["anything"]), reply("Done."));
        assert_eq!(next(&builtin, "ship it", &["{\"selectedOption\":\"approve\"}"]), reply("Shipped."));
        assert_eq!(next(&builtin, "ship it", &["no"]), reply("no"), "what no entry matches is repeated");
        let again = next(&builtin, "ship it", &["refund"]);
        assert_eq!(again, Next::Call(Json::from_checked("{\"name\":\"a\"}")), "a result may lead to a next call");
        assert_eq!(next(&builtin, "ship it", &["refund", "ok"]), reply("Done."));
    }

    #[test]
    fn every_nth_turn_fails_and_the_counters_are_bounded() {
        let counter = TurnCounter::default();
        let agent = |id: String| Agent::new(id, "x", super::super::Provider::Builtin(Builtin::default()), Millis(0));
        let bot = agent("bot".to_owned());
        let workspace = Address([1; 10]);
        let failed: Vec<bool> = (0..6).map(|_| counter.fails(workspace, &bot, 3)).collect();
        assert_eq!(failed, [false, false, true, false, false, true]);
        assert!(!counter.fails(workspace, &bot, 0));
        counter.forget(workspace, "bot");
        assert!(counter.0.is_empty());
        for n in 0..limits::COUNTED_AGENTS * 2 {
            counter.fails(workspace, &agent(n.to_string()), 2);
            assert!(counter.0.len() <= limits::COUNTED_AGENTS);
        }
    }

    #[test]
    fn a_split_reply_has_the_asked_number_of_parts_and_none_is_blank() {
        for text in
            ["hello", "Hello, how can I help you?", "\n éééé ü", "a b c d e f g h i j k l m n o p", "aa  bb cc "]
        {
            for parts in 2..=5 {
                let pieces = split(text, parts);
                assert_eq!(pieces.len(), parts, "{text} in {parts}");
                assert_eq!(pieces.concat(), text);
                assert!(pieces.iter().all(|piece| !piece.trim().is_empty()), "{pieces:?}");
            }
        }
        assert_eq!(split("hello world foo", 3), ["hello ", "world ", "foo"]);
        assert_eq!(split("one two three four", 2), ["one two ", "three four"]);
        assert_eq!(split("two words", 3), ["tw", "o wo", "rds"]);
    }

    #[test]
    fn a_split_repeats_the_last_part_of_a_text_that_is_too_short() {
        assert_eq!(split("hi", 3), ["h", "i", "i"]);
        assert_eq!(split(" x ", 2), [" x ", " x "]);
    }
}
