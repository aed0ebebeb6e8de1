//! Where a statement may begin: at the beginning of a sentence or of a clause, after a greeting or the like at most.
//! Elsewhere the same words are somebody else's, or only supposed: `she said I like tea`.

use super::openings::{Form, Opening, THING_BYTES, opening};
use super::phrases::{ASSERTIONS, GREETINGS, INTRODUCTIONS, SELVES};
use super::{first, folded, straight};

/// The most introductions before one statement.
const MAX_INTRODUCTIONS: usize = 6;
/// The most words of the name after a greeting or `I am`.
const NAME_WORDS: usize = 2;
/// The most words after `for`, `when` and the like, before one statement.
const ADVERBIAL_WORDS: usize = 3;
/// The words after `said` in which the opening of a statement is looked for.
const REPORTED_WORDS: usize = 8;

/// Words that join two clauses; some signs do so too.
const JOINS: [&str; 17] = [
    "and", "but", "&", "+", "-", "--", "\u{2013}", "\u{2014}", "/", "plus", "so", "as", "because", "since", "though",
    "although", "while",
];

/// Signs that join two clauses without a blank around them.
const SIGNS: [&str; 2] = ["\u{2014}", "\u{2026}"];

/// Joins after which somebody goes on with what was begun.
const ADDITIONS: [&str; 4] = ["and", "&", "+", "plus"];

/// Words before `as` that make it compare.
const COMPARED: [&str; 4] = ["same", "such", "just", "even"];

/// Joins that end a value even if no statement follows.
const ENDS: [&str; 3] = ["but", "because", "though"];

/// What ends a value after a comma.
const TAILS: [&str; 5] = ["so ", "which ", "please", "thanks", "thank you"];

/// Other beginnings of clauses about the author; they end a value after a comma or `and`.
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

/// Words after which a condition is a question: `tell me if`.
const ASKS: [&str; 17] = [
    "ask",
    "asked",
    "asking",
    "check",
    "checking",
    "clear",
    "confirm",
    "curious",
    "idea",
    "know",
    "me",
    "out",
    "see",
    "sure",
    "verify",
    "wonder",
    "wondering",
];

/// Words after which `sure` asserts nothing: `make sure`.
const MAKES: [&str; 2] = ["make", "making"];

/// The beginnings of an adverbial: `for breakfast`, `when flying`.
const ADVERBIALS: [&str; 8] = ["as", "at", "for", "in", "last", "on", "since", "when"];

/// Words in front of a statement that deny it or leave it open.
const DOUBTS: [&str; 45] = [
    "bet",
    "book",
    "case",
    "character",
    "did",
    "do",
    "does",
    "dream",
    "dreams",
    "example",
    "fantasy",
    "film",
    "game",
    "hardly",
    "hope",
    "instance",
    "joke",
    "joking",
    "kidding",
    "lying",
    "maybe",
    "movie",
    "never",
    "no",
    "nobody",
    "none",
    "not",
    "nothing",
    "opinion",
    "paper",
    "perhaps",
    "possibly",
    "sake",
    "scenario",
    "should",
    "story",
    "theory",
    "what",
    "where",
    "which",
    "whom",
    "whose",
    "why",
    "wish",
    "without",
];

/// Words that make all that follows a supposition.
const SUPPOSITIONS: [&str; 8] =
    ["suppose", "supposing", "imagine", "pretend", "pretending", "assuming", "hypothetically", "roleplay"];

/// How far words reach that are somebody else's, or only supposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// To the end of their clause and of what is added to it by `and`: `I was told my order is late`.
    Clause,
    /// To the end of the sentence.
    Sentence,
}

/// The join between two clauses.
pub(super) struct Join {
    /// Its first byte.
    pub(super) at: usize,
    /// The first byte after it.
    pub(super) end: usize,
    /// Its word or sign.
    word: &'static str,
}

impl Join {
    /// Whether what follows is said by the author again, when what was said before reaches so far: `they say I like
    /// tea, but I hate it`.
    pub(super) fn ends(&self, reach: Reach) -> bool {
        self.word == "but" || (reach == Reach::Clause && !ADDITIONS.contains(&self.word))
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
        if !is_quoted
            && let Some((word, len)) = join(&folded[at..])
            && !compares(&folded[..at], word, &folded[at + len..])
        {
            found.push(Join { at, end: at + len, word });
        }
    }
    found
}

/// The join at the beginning of a text, and its bytes.
fn join(rest: &str) -> Option<(&'static str, usize)> {
    if let Some(after) = rest.strip_prefix(',') {
        let both =
            after.starts_with(' ').then(|| join(after)).flatten().filter(|(word, _)| ["and", "but"].contains(word));
        return Some(both.map_or((",", 1), |(word, len)| (word, 1 + len)));
    }
    if rest.starts_with(": ") {
        return Some((":", 1));
    }
    if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
        return Some((sign, sign.len()));
    }
    let after = rest.strip_prefix(' ')?;
    if after.starts_with('(') {
        return Some(("(", 2));
    }
    let (word, _) = after.split_once(' ')?;
    JOINS.into_iter().find(|join| *join == word).map(|join| (join, 1 + join.len()))
}

/// Whether a word compares instead of joining: `as much as`, `the same as`, `as though`.
fn compares(before: &str, word: &str, after: &str) -> bool {
    let mut words = before.rsplit(' ');
    let last = words.next().unwrap_or_default();
    let earlier = words.next().unwrap_or_default();
    match word {
        "as" => after.starts_with(" though ") || COMPARED.contains(&last) || ["as", "so"].contains(&earlier),
        "though" => last == "as",
        _ => false,
    }
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\u{201c}' | '\u{201d}' | '\u{ab}' | '\u{bb}')
}

/// The first word of a clause after its introductions, and the statement that begins there.
pub(super) fn begin(folded: &str, from: usize) -> (usize, Option<Opening<'_>>) {
    // A sentence may begin with the sign or the number of a list, and may be quoted as a whole.
    let is_word = |c: char| c.is_alphabetic() || (from > 0 && (c.is_numeric() || c == '\'' || is_quote(c)));
    let mut at = from;
    for _ in 0..=MAX_INTRODUCTIONS {
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
    let longest = greeting.max(assertion).max(phrase(rest, INTRODUCTIONS));
    longest.max(own_name(rest)).max(adverbial(rest)).max(aside(rest))
}

/// The bytes of the longest of these phrases with which a text begins.
fn phrase(rest: &str, phrases: &[&str]) -> Option<usize> {
    let is_whole = |len: usize| !rest[len..].starts_with(|c: char| c.is_alphanumeric() || c == '\'');
    let begins = |phrase: &&&str| rest.starts_with(**phrase) && is_whole(phrase.len());
    phrases.iter().filter(begins).map(|phrase| phrase.len()).max()
}

/// The bytes of the name between a greeting and a statement: `hi Tom my name is Ana`.
fn name(rest: &str) -> usize {
    let is_begun = |words: usize, after: &str| opening(after).is_some() && (words == 1 || is_mine(after));
    words_before(rest, NAME_WORDS, is_begun).unwrap_or(0)
}

/// The bytes of the author's name before a statement: `I am Ana my number is 12`.
fn own_name(rest: &str) -> Option<usize> {
    let len = phrase(rest, SELVES)?;
    let is_begun = |_, after: &str| is_mine(after) && opening(after).is_some();
    Some(len + words_before(&rest[len..], NAME_WORDS, is_begun)?)
}

/// The bytes of a time, a place or a purpose before a statement: `for breakfast I like eggs`. Not before a name, which
/// is one for a role or a telephone: `as a pirate my name is Jack`, `on Monday call me first`.
fn adverbial(rest: &str) -> Option<usize> {
    let len = phrase(rest, &ADVERBIALS)?;
    let is_named = |opening: &Opening| matches!(opening.form, Form::One("name" | "called"));
    let is_begun = |_, after: &str| opening(after).is_some_and(|opening| !is_named(&opening));
    // What is a statement itself is no adverbial: `since I like tea I like cake`.
    let after = rest[len..].trim_start();
    let words = words_before(&rest[len..], ADVERBIAL_WORDS, is_begun).filter(|_| opening(after).is_none());
    words.map(|words| len + words)
}

/// The bytes of a remark that somebody says so too: `as the doctor said, I'm allergic to nuts`.
fn aside(rest: &str) -> Option<usize> {
    phrase(rest, &["as", "like"]).filter(|_| phrase(rest, &["as if", "as though", "like if"]).is_none())?;
    let end = first(rest, THING_BYTES).find(',')?;
    let mut words = words(&rest[..end]);
    (words.any(|word| REPORTS.contains(&word)) && words.all(|word| HEARERS.contains(&word))).then_some(end)
}

/// The bytes of the few words after which a statement begins, with the blanks before them. The words may not say that
/// it is no statement.
fn words_before(rest: &str, most: usize, is_begun: impl Fn(usize, &str) -> bool) -> Option<usize> {
    let mut len = 0;
    for words in 1..=most {
        let (word, after) = rest[len..].strip_prefix(' ')?.split_once(' ')?;
        if !is_plain(word) {
            return None;
        }
        len += 1 + word.len();
        if is_begun(words, after) {
            return Some(len);
        }
    }
    None
}

/// Whether a word neither reports what follows nor supposes, doubts or quotes it, nor begins another clause.
fn is_plain(word: &str) -> bool {
    let leaves_open = [&CONDITIONS[..], &CLAIMS, &DOUBTS].iter().any(|words| words.contains(&word));
    !leaves_open && !word.contains(|c| is_quote(c) || matches!(c, ',' | ':' | '(')) && estranges(word).is_none()
}

/// Whether a statement is about a thing of the author's.
fn is_mine(statement: &str) -> bool {
    statement.starts_with("my ")
}

/// Whether a thing is none, because the words are those of a report: `my brother said pizza is good`.
pub(super) fn reports(thing: &str) -> bool {
    words(thing).any(|word| REPORTS.contains(&word))
}

/// How far a clause makes statements after it in the same sentence somebody else's, or a supposition.
pub(super) fn estranges(clause: &str) -> Option<Reach> {
    let words: Vec<&str> = words(clause).collect();
    let reach = |n: usize| estrangement(words[..n].last().copied().unwrap_or_default(), words[n], &words[n + 1..]);
    (0..words.len()).filter_map(reach).max()
}

/// How far a word does so, between the word before it and the words after it.
fn estrangement(before: &str, word: &str, after: &[&str]) -> Option<Reach> {
    let stated = || reported(after).and_then(|said| statement_reach(&said));
    if SUPPOSITIONS.contains(&word) || (word == "if" && after.starts_with(&["i", "were"])) {
        return Some(Reach::Sentence);
    }
    if CONDITIONS.contains(&word) {
        return stated().map(|_| if ASKS.contains(&before) { Reach::Clause } else { Reach::Sentence });
    }
    // The words may come only in the next clause: `she said, I like tea`.
    if REPORTS.contains(&word) && reported(after).is_none() {
        return Some(Reach::Sentence);
    }
    let is_made = word == "sure" && MAKES.contains(&before);
    let claims = REPORTS.contains(&word) || (CLAIMS.contains(&word) && !is_made);
    claims.then(stated).flatten()
}

/// The first words that are reported, if there are any.
fn reported<'a>(after: &[&'a str]) -> Option<Vec<&'a str>> {
    let said = after.iter().skip_while(|word| HEARERS.contains(word));
    let said: Vec<&str> = said.take(REPORTED_WORDS).copied().collect();
    (!said.is_empty()).then_some(said)
}

/// How far reported words reach if they are a statement. One about a thing is mostly about an order or the like, and
/// then the author goes on: `they said my order is late, my name is Ana`.
fn statement_reach(said: &[&str]) -> Option<Reach> {
    let said = format!("{} ", said.join(" "));
    opening(&said).map(|opening| match opening.form {
        Form::Thing(_) => Reach::Clause,
        Form::One(_) | Form::Each(_) => Reach::Sentence,
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty())
}

/// Whether this begins with a statement.
pub(super) fn is_statement_begun(text: &str) -> bool {
    begin(&folded(&straight(first(text.trim_start(), THING_BYTES))), 0).1.is_some()
}
