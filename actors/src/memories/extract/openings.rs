//! The openings of statements: `my name is`, `I do not live in`, `my … is`.

use super::first;

/// The most words of the thing in `my … is`.
const THING_WORDS: usize = 4;
/// The furthest end of the thing after `my`, in bytes.
pub(super) const THING_BYTES: usize = 128;

/// What a statement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form<'a> {
    /// There is one fact of this form.
    One(&'static str),
    /// There is one fact of this form for each object.
    Each(&'static str),
    /// There is one fact about this thing.
    Thing(&'a str),
}

/// The opening of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening<'a> {
    /// Its bytes.
    pub len: usize,
    /// What the statement is about.
    pub form: Form<'a>,
    /// Whether it says that something is not so.
    pub denies: bool,
}

/// Openings that are always said in the same words, in lower case and with straight apostrophes; longer ones come
/// before their prefixes.
const FIXED: [(&str, Form, bool); 13] = [
    ("my name is not ", Form::One("name"), true),
    ("my name is no longer ", Form::One("name"), true),
    ("my name isn't ", Form::One("name"), true),
    ("my name is ", Form::One("name"), false),
    ("my name's not ", Form::One("name"), true),
    ("my name's ", Form::One("name"), false),
    ("do not ever call me ", Form::One("called"), true),
    ("do not call me ", Form::One("called"), true),
    ("don't ever call me ", Form::One("called"), true),
    ("don't call me ", Form::One("called"), true),
    ("never call me ", Form::One("called"), true),
    ("stop calling me ", Form::One("called"), true),
    ("call me ", Form::One("called"), false),
];

/// What may follow `I`, with adverbs and a negation between.
const DOES: [(&str, Form); 11] = [
    ("live in ", Form::One("lives")),
    ("moved to ", Form::One("lives")),
    ("like ", Form::Each("taste")),
    ("prefer ", Form::Each("taste")),
    ("love ", Form::Each("taste")),
    ("hate ", Form::Each("taste")),
    ("dislike ", Form::Each("taste")),
    ("enjoy ", Form::Each("taste")),
    ("can't stand ", Form::Each("taste")),
    ("cannot stand ", Form::Each("taste")),
    ("can not stand ", Form::Each("taste")),
];

/// What may follow `I am`, likewise.
const IS: [(&str, Form); 2] = [("living in ", Form::One("lives")), ("allergic to ", Form::Each("allergy"))];

/// Negations before a verb.
const NEGATIONS: [&str; 5] = ["don't ", "do not ", "no longer ", "never ", "not "];

/// Adverbs before a verb, and before `allergic`.
const ADVERBS: [&str; 37] = [
    "absolutely ",
    "actually ",
    "also ",
    "always ",
    "badly ",
    "currently ",
    "deathly ",
    "definitely ",
    "do ",
    "especially ",
    "extremely ",
    "generally ",
    "highly ",
    "just ",
    "mildly ",
    "mostly ",
    "much ",
    "now ",
    "normally ",
    "often ",
    "particularly ",
    "personally ",
    "presently ",
    "quite ",
    "rather ",
    "really ",
    "recently ",
    "severely ",
    "simply ",
    "slightly ",
    "still ",
    "strongly ",
    "terribly ",
    "totally ",
    "truly ",
    "usually ",
    "very ",
];

/// The opening at the beginning of a folded text.
pub(super) fn opening(rest: &str) -> Option<Opening<'_>> {
    let fixed = FIXED.iter().find(|(words, ..)| rest.starts_with(words));
    let fixed = fixed.map(|&(words, form, denies)| Opening { len: words.len(), form, denies });
    fixed.or_else(|| of_author(rest)).or_else(|| of_thing(rest))
}

/// `I … like`, `I'm … allergic to`, with adverbs and negations between.
fn of_author(rest: &str) -> Option<Opening<'_>> {
    let (subject, predicates) = [("i am ", &IS[..]), ("i'm ", &IS), ("i ", &DOES)]
        .into_iter()
        .find(|(subject, _)| rest.starts_with(subject))?;
    let mut len = subject.len();
    let mut denies = false;
    loop {
        let rest = &rest[len..];
        let begins = |words: &&&str| rest.starts_with(**words);
        if let Some((words, form)) = predicates.iter().find(|(words, _)| rest.starts_with(words)) {
            return Some(Opening { len: len + words.len(), form: *form, denies });
        }
        let negation = NEGATIONS.iter().find(begins);
        denies |= negation.is_some();
        len += negation.or_else(|| ADVERBS.iter().find(begins))?.len();
    }
}

/// `my <thing> is `.
fn of_thing(rest: &str) -> Option<Opening<'_>> {
    let after = first(rest.strip_prefix("my ")?, THING_BYTES);
    let verbs = [" is ", " are ", " isn't ", " aren't "];
    let (end, verb) = verbs.into_iter().filter_map(|verb| Some((after.find(verb)?, verb))).min()?;
    let thing = &after[..end];
    let named = thing.split(' ').count() <= THING_WORDS
        && thing.chars().all(|c| c.is_alphanumeric() || matches!(c, ' ' | '\'' | '-'))
        && thing.chars().any(char::is_alphanumeric)
        && !super::clauses::reports(thing);
    let denies = verb.contains("n't");
    named.then_some(Opening { len: "my ".len() + end + verb.len(), form: Form::Thing(thing), denies })
}
