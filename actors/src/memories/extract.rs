//! Extracting facts that people state about themselves, without a model: a few fixed phrases, the same result each
//! time.
//!
//! A fact is kept in its author's words. Its slot is its topic, so that a later statement about the same thing replaces
//! it: one name, one place to live, one answer to whether the author likes olives.

mod clauses;
mod openings;
mod phrases;

use clauses::{Join, Reach, begin, estranges, is_statement_begun, joins};
use openings::{Form, Opening, THING_BYTES};

use super::model::TEXT_CHARS;

/// A fact worth remembering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The statement, in its author's words.
    pub text: String,
    /// Its topic; a newer fact about the same topic replaces it.
    pub slot: String,
}

/// The part of a sentence that is searched, in bytes: more than the longest memory has.
const SENTENCE_BYTES: usize = 2_048;
/// Facts of one message; a longer list is no conversation.
pub(crate) const MAX_FACTS: usize = 32;

/// Words after an object that say when, or how much.
const TRAILERS: [&str; 13] = [
    " anymore",
    " any more",
    " any longer",
    " now",
    " these days",
    " at all",
    " very much",
    " so much",
    " a lot",
    " too",
    " either",
    " as well",
    " please",
];

/// Words whose dot ends no sentence.
const ABBREVIATIONS: [&str; 8] = ["st", "dr", "mr", "mrs", "ms", "prof", "mt", "ft"];

/// The beginnings of questions, or of their part after a comma.
const QUESTIONS: [&str; 23] = [
    "do", "does", "don't", "did", "didn't", "what", "how", "and", "is", "isn't", "are", "aren't", "can", "could",
    "would", "will", "where", "why", "when", "which", "right", "ok", "okay",
];

/// Beginnings of a question only after a comma: `Dr. Who` is a name.
const RETURNS: [&str; 3] = ["who", "you", "yours"];

/// Pairs of signs around a value.
const PAIRS: [(char, char); 4] = [('(', ')'), ('\u{201c}', '\u{201d}'), ('\u{201e}', '\u{201c}'), ('\u{ab}', '\u{bb}')];

/// Words after `call me` that ask for a phone call, not for a name.
const NO_NAMES: [&str; 22] = [
    "about", "after", "again", "and", "as", "asap", "at", "back", "before", "for", "if", "in", "later", "now", "on",
    "once", "or", "to", "today", "tomorrow", "tonight", "when",
];

/// The facts that a text states about its author, in order; of several about one topic the last.
#[must_use]
pub fn facts(text: &str) -> Vec<Fact> {
    let mut found: Vec<Fact> = Vec::new();
    for sentence in sentences(text) {
        for fact in of_sentence(sentence) {
            if found.iter().any(|earlier| earlier.slot == fact.slot && leaves(&fact.text, &earlier.text)) {
                continue;
            }
            found.retain(|earlier| earlier.slot != fact.slot);
            found.push(fact);
        }
    }
    let surplus = found.len().saturating_sub(MAX_FACTS);
    found.drain(..surplus);
    found
}

/// The sentences of a text that state something; questions only up to the statement before them: `I like tea, do you?`
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let ends = |(at, c): (usize, char)| ends_sentence(text, at, c).then_some((at, c));
    let mut ends = text.char_indices().filter_map(ends).collect::<Vec<_>>().into_iter();
    let mut begin = Some(0);
    std::iter::from_fn(move || {
        let from = begin?;
        let end = ends.next();
        begin = end.map(|(at, c)| at + c.len_utf8());
        let sentence = &text[from..end.map_or(text.len(), |(at, _)| at)];
        Some((sentence, end.is_some_and(|(_, c)| c == '?')))
    })
    .filter_map(|(sentence, question)| if question { before_question(sentence) } else { Some(sentence) })
}

/// Whether a sentence ends at this character.
fn ends_sentence(text: &str, at: usize, c: char) -> bool {
    let after = &text[at + c.len_utf8()..];
    match c {
        '!' | '\n' | ';' => true,
        // Within an address it begins the query.
        '?' => !after.starts_with(char::is_alphanumeric) || !last_word(&text[..at]).contains('/'),
        // A dot within a number or an address ends nothing.
        '.' if !after.chars().next().is_none_or(char::is_whitespace) => false,
        '.' => {
            let word = last_word(&text[..at]);
            let is_short = ABBREVIATIONS.iter().any(|short| word.eq_ignore_ascii_case(short));
            !is_short || is_statement_begun(after) || question_begins(after)
        }
        _ => false,
    }
}

/// The statement before a question: the sentence begins with a statement, and the question follows a comma.
fn before_question(sentence: &str) -> Option<&str> {
    let (stated, asked) = sentence.rsplit_once(',')?;
    (is_statement_begun(stated) && is_asked(asked)).then_some(stated)
}

/// Whether this begins like a question.
fn question_begins(text: &str) -> bool {
    QUESTIONS.contains(&first_word(text).as_str())
}

/// Whether this is a question, when it stands after a statement and a comma.
fn is_asked(text: &str) -> bool {
    question_begins(text) || RETURNS.contains(&first_word(text).as_str())
}

/// The first word of a text in lower case, without a verb that is drawn into it: `what` of `What's yours`.
fn first_word(text: &str) -> String {
    let beginning = straight(first(text.trim_start(), THING_BYTES)).to_lowercase();
    let word = beginning.split(|c: char| !c.is_alphanumeric() && c != '\'').next().unwrap_or_default();
    let whole = ["'s", "'re"].iter().find_map(|verb| word.strip_suffix(verb)).unwrap_or(word);
    whole.to_owned()
}

/// The last word of a text; of an overlong one, its end.
fn last_word(text: &str) -> &str {
    let near = &text[text.ceil_char_boundary(text.len().saturating_sub(THING_BYTES * 2))..];
    near.rsplit(char::is_whitespace).next().unwrap_or_default()
}

/// One kind of apostrophe.
fn straight(text: &str) -> String {
    text.replace(['\u{2019}', '\u{2018}'], "'")
}

/// A sentence in the form in which openings are searched: every character keeps its byte position in `text`, because
/// one whose length would change is in no opening.
fn folded(text: &str) -> String {
    text.to_ascii_lowercase()
}

/// The first bytes of a text, at most this many.
fn first(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

fn of_sentence(sentence: &str) -> Vec<Fact> {
    let sentence = sentence.trim_start();
    let is_cut = sentence.len() > SENTENCE_BYTES;
    // One blank between words; the sentence itself is changed, so that positions stay the same.
    let words: Vec<&str> = first(sentence, SENTENCE_BYTES).split_whitespace().collect();
    let sentence = straight(&words.join(" "));
    let folded = folded(&sentence);
    let joins = joins(&folded);
    let mut facts = Vec::new();
    let mut from = 0;
    let mut estranged = None::<Reach>;
    loop {
        let (at, opening) = begin(&folded, from);
        let over = match opening.filter(|_| estranged.is_none()) {
            Some(opening) => {
                let value_at = at + opening.len;
                let end = value_end(&folded, value_at, &joins);
                let found = fact(&sentence[at..end.max(value_at)], &opening);
                // The rest of a statement that continues after the cut is unknown.
                facts.extend(found.filter(|fact| !is_cut || end < folded.len() || is_long(&fact.text)));
                end
            }
            None => {
                let over = joins_from(&joins, at).first().map_or(folded.len(), |join| join.at);
                estranged = estranged.max(estranges(&folded[at..over]));
                over
            }
        };
        let Some(join) = joins_from(&joins, over).first() else { break };
        estranged = estranged.filter(|reach| !join.ends(*reach));
        from = join.end;
    }
    facts.into_iter().map(|fact| Fact { text: shortened(fact.text), ..fact }).collect()
}

/// The joins at or after this byte.
fn joins_from(joins: &[Join], at: usize) -> &[Join] {
    &joins[joins.partition_point(|join| join.at < at)..]
}

/// The end of a value: the end of the sentence, or the beginning of something else.
fn value_end(folded: &str, value_at: usize, joins: &[Join]) -> usize {
    // The blank after the opening may belong to a join.
    let joins = joins_from(joins, value_at.saturating_sub(1));
    joins.iter().find(|join| join.ends_value(folded)).map_or(folded.len(), |join| join.at)
}

/// The fact of a statement, unless there is no value.
fn fact(statement: &str, opening: &Opening) -> Option<Fact> {
    let (words, value) = statement.split_at(opening.len);
    let value = trimmed(value);
    if value.is_empty() || (opening.form == Form::One("called") && is_no_name(value)) {
        return None;
    }
    let slot = match opening.form {
        Form::One(slot) => slot.to_owned(),
        Form::Each(slot) => format!("{slot}:{}", object(&folded(words), value)),
        Form::Thing(thing) => format!("my {thing}"),
    };
    Some(Fact { text: capitalized(format!("{words}{value}").trim()), slot })
}

/// Whether a statement leaves an older one about the same topic as it is, because it denies something else: who does
/// not live in Lisbon may well live in Porto.
pub(super) fn leaves(newer: &str, older: &str) -> bool {
    let [newer, older] = [newer, older].map(|text| folded(&straight(text)));
    let (Some(denied), Some(stated)) = (openings::opening(&newer), openings::opening(&older)) else { return false };
    let is_one = matches!(denied.form, Form::One(_)) && denied.form == stated.form;
    let [denied_words, stated_words] = [&newer[denied.len..], &older[stated.len..]].map(spaced);
    let is_same = denied_words.contains(&stated_words) || stated_words.contains(&denied_words);
    is_one && denied.denies && !stated.denies && !is_same
}

/// The words of an object, each between blanks.
fn spaced(value: &str) -> String {
    let words = untrailed(value).split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(" ".to_owned(), |text, word| text + &word.to_lowercase() + " ")
}

/// A value without words that say when, or how much.
fn untrailed(value: &str) -> &str {
    let mut value = value;
    while let Some(shorter) = TRAILERS.iter().find_map(|trailer| value.strip_suffix(trailer)) {
        value = shorter.trim_end_matches([' ', ',']);
    }
    value
}

/// Whether a text is longer than a memory.
fn is_long(text: &str) -> bool {
    text.chars().nth(TEXT_CHARS).is_some()
}

/// A text of at most the length of a memory; a longer one ends with an ellipsis, after a complete word unless that
/// would take half of it away.
fn shortened(text: String) -> String {
    if !is_long(&text) {
        return text;
    }
    let whole: String = text.chars().take(TEXT_CHARS - 1).collect();
    let is_word_cut = text[whole.len()..].starts_with(|c: char| !c.is_whitespace());
    let words =
        whole.rfind(' ').filter(|at| is_word_cut && *at > whole.len() / 2).map_or(&whole[..], |at| &whole[..at]);
    format!("{}\u{2026}", words.trim_end_matches([' ', ',', ':']))
}

/// Whether `call me` is about a telephone.
fn is_no_name(value: &str) -> bool {
    let first = value.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_lowercase();
    NO_NAMES.contains(&first.as_str())
}

/// The topic of a taste. A preference between two things has the same topic either way round, so that the opposite
/// replaces it.
fn object(opening: &str, value: &str) -> String {
    let value = value.to_lowercase();
    let value = untrailed(&value);
    let pair = [" to ", " over "].iter().find_map(|than| value.split_once(than)).filter(|_| opening.contains("prefer"));
    match pair {
        Some((one, other)) => format!("{} or {}", one.min(other), one.max(other)),
        None => value.to_owned(),
    }
}

/// A value without its surroundings: punctuation at its ends, quotes around the whole of it, and halves of pairs.
fn trimmed(value: &str) -> &str {
    let mut value = value;
    loop {
        value = value.trim_matches(|c: char| c.is_whitespace() || matches!(c, ',' | ':' | '.'));
        let count = |sign: char| value.matches(sign).count();
        let quote = ['"', '\''].into_iter().find(|quote| match count(*quote) {
            2 => value.starts_with(*quote) && value.ends_with(*quote),
            quotes => quotes % 2 == 1 && (value.starts_with(*quote) || value.ends_with(*quote)),
        });
        let half = match quote {
            None => {
                PAIRS.iter().find_map(|&(open, close)| value.strip_suffix(close).filter(|_| count(close) > count(open)))
            }
            Some(quote) => value.strip_suffix(quote).or_else(|| value.strip_prefix(quote)),
        };
        match half {
            Some(rest) => value = rest,
            None => return value,
        }
    }
}

fn capitalized(words: &str) -> String {
    let mut chars = words.chars();
    let first = chars.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(chars).collect()
}

#[cfg(test)]
mod tests;
