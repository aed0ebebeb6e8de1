//! The builtin agent: deterministic, for tests, load runs and first steps.

use std::time::Duration;

use dashmap::DashMap;
use minicbor::{Decode, Encode};

use super::{Agent, Completion};
use crate::conversation::{Failure, Usage};
use crate::id::Address;
use crate::message::Json;

/// What it does with what it hears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Behaviour {
    /// It repeats it.
    #[default]
    #[n(0)]
    Echo,
    /// It answers by the first entry of its script that matches, else it repeats.
    #[n(1)]
    Scripted,
}

/// A line of a script.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ScriptEntry {
    /// Stands somewhere in the text, in any case.
    #[n(0)]
    pub on: String,
    /// The replies.
    #[n(1)]
    pub reply: Vec<String>,
    /// A tool to call, as given.
    #[n(2)]
    pub tool_call: Option<Json>,
}

/// How it behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Builtin {
    /// What it does.
    #[n(0)]
    pub behaviour: Behaviour,
    /// Its script.
    #[n(1)]
    pub script: Vec<ScriptEntry>,
    /// How long it takes.
    #[n(2)]
    pub latency_ms: u64,
    /// In how many messages it says a single reply; 0 and 1: in one.
    #[n(3)]
    pub split: u32,
    /// Every such turn fails; 0: none.
    #[n(4)]
    pub fail_every: u32,
}

/// Counts each agent's turns, for `fail_every`. The count begins anew with the process.
#[derive(Debug, Default)]
pub struct TurnCounter(DashMap<(Address, String), u64>);

impl TurnCounter {
    /// This turn's number among the agent's, from 1.
    fn next(&self, workspace: Address, agent: &str) -> u64 {
        let mut count = self.0.entry((workspace, agent.to_owned())).or_default();
        *count += 1;
        *count
    }
}

/// About how many tokens a text is: four characters each, rounded up.
fn tokens(text: &str) -> u64 {
    (text.chars().count() as u64).div_ceil(4)
}

/// What `builtin` replies to `text`.
#[must_use]
pub fn replies(builtin: &Builtin, text: &str) -> Vec<String> {
    let heard = text.to_lowercase();
    let entry = match builtin.behaviour {
        Behaviour::Echo => None,
        Behaviour::Scripted => builtin.script.iter().find(|entry| heard.contains(&entry.on.to_lowercase())),
    };
    let replies = entry.map_or_else(|| vec![text.to_owned()], |entry| entry.reply.clone());
    match replies.as_slice() {
        [only] if builtin.split > 1 => split(only, builtin.split as usize),
        _ => replies,
    }
}

/// Cuts `text` into exactly `parts` pieces, at a blank where one is near; together they are the text. A text with
/// fewer characters than parts is said once whole and then character by character no more: the last one is repeated.
fn split(text: &str, parts: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut pieces = Vec::with_capacity(parts);
    let mut from = 0;
    for part in 1..=parts {
        let left = parts - part;
        let ideal = (chars.len() * part / parts).max(from + 1).min(chars.len().saturating_sub(left));
        let to = if left == 0 {
            chars.len()
        } else {
            let blank = (from + 1..=ideal).rev().find(|i| chars[i - 1].is_whitespace());
            blank.filter(|to| ideal - to < 16).unwrap_or(ideal).max(from + 1)
        };
        match chars.get(from..to.min(chars.len())) {
            Some(piece) if !piece.is_empty() => pieces.push(piece.iter().collect()),
            _ => pieces.push(pieces.last().cloned().unwrap_or_default()),
        }
        from = to.min(chars.len());
    }
    pieces
}

/// One turn of a builtin agent.
pub(crate) async fn complete(
    (counter, workspace): (&TurnCounter, Address),
    agent: &Agent,
    builtin: &Builtin,
    text: &str,
    heard: u64,
) -> Completion {
    if builtin.latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(builtin.latency_ms)).await;
    }
    let fails =
        builtin.fail_every > 0 && counter.next(workspace, &agent.id).is_multiple_of(u64::from(builtin.fail_every));
    if fails {
        let detail = format!("the builtin agent fails every {} turns", builtin.fail_every);
        return Err(Failure { code: "builtin_failure".to_owned(), detail });
    }
    let replies = replies(builtin, text);
    let output_tokens = replies.iter().map(|reply| tokens(reply)).sum();
    let model = agent.model.clone().unwrap_or_else(|| "builtin".to_owned());
    let usage = Usage { input_tokens: heard, output_tokens, millicredits: heard + output_tokens, model };
    Ok((replies, usage))
}

/// About how many tokens these texts are together.
pub(crate) fn tokens_of<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    texts.map(tokens).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scripted(on: &str, reply: &[&str]) -> Builtin {
        let reply = reply.iter().map(|&reply| reply.to_owned()).collect();
        let script = vec![ScriptEntry { on: on.to_owned(), reply, tool_call: None }];
        Builtin { behaviour: Behaviour::Scripted, script, ..Builtin::default() }
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
    fn a_split_reply_has_exactly_that_many_parts_which_together_are_the_text() {
        for text in ["hello", "Hello, how can I help you?", "éééé ü", "a b c d e f g h i j k l m n o p"] {
            for parts in 2..=5 {
                let pieces = split(text, parts);
                assert_eq!(pieces.len(), parts, "{text} in {parts}");
                if text.chars().count() >= parts {
                    assert_eq!(pieces.concat(), text);
                }
                assert!(pieces.iter().all(|piece| !piece.is_empty()));
            }
        }
    }
}
