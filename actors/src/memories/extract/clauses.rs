//! Where a statement may begin: at the beginning of a sentence or of a clause, behind a greeting or the like at most.
//! Elsewhere the same words are somebody else's, or only supposed: `she said I like tea`.

use super::openings::{Opening, THING_BYTES, opening};
use super::phrases::{ASSERTIONS, GREETINGS, INTRODUCTIONS};
use super::{first, folded, straight};

/// The most introductions before one statement.
const INTRODUCTIONS_MAX: usize = 6;
/// The words behind `said` in which the opening of a statement is looked for.
const REPORTED_WORDS: usize = 8;

/// Words that join two clauses; some signs do so too.
const JOINS: [&str; 14] = [
    "and", "but", "&", "+", "-", "\u{2013}", "\u{2014}", "plus", "so", "because", "since", "though", "although",
    "while",
];

/// Joins that end a value even if no statement follows.
const ENDS: [&str; 3] = ["but", "because", "though"];

/// What ends a value behind a comma.
const TAILS: [&str; 5] = ["so ", "which ", "please", "thanks", "thank you"];

/// Other beginnings of clauses about the author; they end a value behind a comma or `and`.
const AUTHORS: [&str; 3] = ["i ", "i'", "my "];

/// Verbs by which somebody reports words or thoughts.
const REPORTS: [&str; 10] =
    ["said", "says", "told", "tells", "thinks", "believes", "believed", "claimed", "insisted", "insists"];

/// Other words that put what follows into somebody's mouth or mind, or deny it.
const CLAIMS: [&str; 30] = [
    "assume",
    "assumed",
    "assumes",
    "believe",
    "claim",
    "claims",
    "doubt",
    "doubts",
    "dreamed",
    "dreamt",
    "false",
    "guess",
    "guessed",
    "idea",
    "lie",
    "mean",
    "means",
    "rumor",
    "rumour",
    "say",
    "saying",
    "suggested",
    "suggests",
    "sure",
    "tell",
    "telling",
    "think",
    "thinking",
    "thought",
    "true",
];

/// What may stand between such a word and the statement.
const HEARERS: [&str; 9] = ["that", "me", "us", "him", "her", "them", "people", "everyone", "everybody"];

/// Words that make a clause about the author a condition.
const CONDITIONS: [&str; 3] = ["if", "unless", "whether"];

/// Words that make all that follows a supposition.
const SUPPOSITIONS: [&str; 8] =
    ["suppose", "supposing", "imagine", "pretend", "pretending", "assuming", "hypothetically", "roleplay"];

/// The join between two clauses.
pub(super) struct Join {
    /// Its first byte.
    pub(super) at: usize,
    /// The first byte behind it.
    pub(super) end: usize,
    /// Its word or sign.
    word: &'static str,
}

impl Join {
    /// Whether what follows is said by the author again, whoever spoke before: `they say I like tea, but I hate it`.
    pub(super) fn is_turn(&self) -> bool {
        self.word == "but"
    }

    /// Whether a value ends here: something else begins.
    pub(super) fn ends_value(&self, folded: &str) -> bool {
        let after = folded[self.end..].trim_start();
        let begins = |beginnings: &[&str]| beginnings.iter().any(|beginning| after.starts_with(beginning));
        ENDS.contains(&self.word)
            || (self.word == "," && begins(&TAILS))
            || ([",", "and"].contains(&self.word) && begins(&AUTHORS))
            || begin(folded, self.end).1.is_some()
    }
}

/// All joins of a sentence, except within quotes.
pub(super) fn joins(folded: &str) -> Vec<Join> {
    let is_paired = folded.matches(is_quote).count().is_multiple_of(2);
    let mut is_quoted = false;
    let mut found = Vec::new();
    for (at, c) in folded.char_indices() {
        is_quoted ^= is_paired && is_quote(c);
        if !is_quoted && let Some((word, len)) = join(&folded[at..]) {
            found.push(Join { at, end: at + len, word });
        }
    }
    found
}

/// The join at the beginning of a text, and its bytes.
fn join(rest: &str) -> Option<(&'static str, usize)> {
    if let Some(behind) = rest.strip_prefix(',') {
        let both =
            behind.starts_with(' ').then(|| join(behind)).flatten().filter(|(word, _)| ["and", "but"].contains(word));
        return Some(both.map_or((",", 1), |(word, len)| (word, 1 + len)));
    }
    if rest.starts_with(": ") {
        return Some((":", 1));
    }
    let behind = rest.strip_prefix(' ')?;
    if behind.starts_with('(') {
        return Some(("(", 2));
    }
    let (word, _) = behind.split_once(' ')?;
    JOINS.into_iter().find(|join| *join == word).map(|join| (join, 1 + join.len()))
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\u{201c}' | '\u{201d}' | '\u{ab}' | '\u{bb}')
}

/// The first word of a clause behind its introductions, and the statement that begins there.
pub(super) fn begin(folded: &str, from: usize) -> (usize, Option<Opening<'_>>) {
    // A sentence may begin with the sign or the number of a list, and may be quoted as a whole.
    let is_word = |c: char| c.is_alphabetic() || (from > 0 && (c.is_numeric() || c == '\'' || is_quote(c)));
    let mut at = from;
    for _ in 0..=INTRODUCTIONS_MAX {
        at += folded[at..].find(is_word).unwrap_or(folded.len() - at);
        let rest = &folded[at..];
        if let Some(opening) = opening(rest) {
            return (at, Some(opening));
        }
        let Some(len) = introduction(rest) else { break };
        at += len;
    }
    (at, None)
}

/// The bytes of the introduction at the beginning of a text.
fn introduction(rest: &str) -> Option<usize> {
    let greeting = phrase(rest, GREETINGS).map(|len| len + name(&rest[len..]));
    let assertion = phrase(rest, ASSERTIONS).map(|len| len + phrase(&rest[len..], &[" that"]).unwrap_or(0));
    greeting.max(assertion).max(phrase(rest, INTRODUCTIONS))
}

/// The bytes of the longest of these phrases with which a text begins.
fn phrase(rest: &str, phrases: &[&str]) -> Option<usize> {
    let is_whole = |len: usize| !rest[len..].starts_with(|c: char| c.is_alphanumeric() || c == '\'');
    let begins = |phrase: &&&str| rest.starts_with(**phrase) && is_whole(phrase.len());
    phrases.iter().filter(begins).map(|phrase| phrase.len()).max()
}

/// The bytes of the name between a greeting and a statement: `hi Tom my name is Ana`.
fn name(rest: &str) -> usize {
    let named = rest.strip_prefix(' ').and_then(|behind| behind.split_once(' '));
    let is_name = |word: &str| !CONDITIONS.contains(&word) && !CLAIMS.contains(&word) && !estranges(word);
    let named = named.filter(|(name, after)| is_name(name) && opening(after).is_some());
    named.map_or(0, |(name, _)| 1 + name.len())
}

/// Whether a thing is none, because the words are those of a report: `my brother said pizza is good`.
pub(super) fn reports(thing: &str) -> bool {
    words(thing).any(|word| REPORTS.contains(&word))
}

/// Whether a clause makes statements behind it in the same sentence somebody else's, or a supposition.
pub(super) fn estranges(clause: &str) -> bool {
    let words: Vec<&str> = words(clause).collect();
    words.iter().enumerate().any(|(n, word)| {
        let behind = &words[n + 1..];
        SUPPOSITIONS.contains(word)
            || (CONDITIONS.contains(word) && behind.first().is_none_or(|next| is_author(next)))
            // The words may come only in the next clause: `she said, I like tea`.
            || (REPORTS.contains(word) && reported(behind).is_none_or(|said| is_statement(&said)))
            || (CLAIMS.contains(word) && reported(behind).is_some_and(|said| is_statement(&said)))
    })
}

/// The first words that are reported, if there are any.
fn reported<'a>(behind: &[&'a str]) -> Option<Vec<&'a str>> {
    let said = behind.iter().skip_while(|word| HEARERS.contains(word));
    let said: Vec<&str> = said.take(REPORTED_WORDS).copied().collect();
    (!said.is_empty()).then_some(said)
}

fn is_statement(said: &[&str]) -> bool {
    opening(&format!("{} ", said.join(" "))).is_some()
}

fn is_author(word: &str) -> bool {
    word == "i" || word == "my" || word.starts_with("i'")
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty())
}

/// Whether this begins with a statement.
pub(super) fn is_statement_begun(text: &str) -> bool {
    begin(&folded(&straight(first(text.trim_start(), THING_BYTES))), 0).1.is_some()
}
