//! What people say of themselves, found without a model: a few forms of words, the same result every time.
//!
//! A fact is kept in the words it was said in. Its slot says what it is about, so that a later statement about the same
//! thing replaces it: there is one name, one place to live, one answer to whether somebody likes olives.

use std::ops::Range;

/// Something that is worth remembering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The words.
    pub text: String,
    /// What it is about; a newer fact about the same replaces it.
    pub slot: String,
}

/// The longest fact, in characters: one statement, not a story.
const FACT_CHARS: usize = 200;
/// Facts of one message; a longer list is no conversation.
pub const FACTS_MAX: usize = 32;
/// The most words that `my … is` may name a thing with.
const THING_WORDS: usize = 4;

/// How a statement begins, in lower case and with straight apostrophes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// There is one of these.
    One(&'static str),
    /// There is one of these about each object.
    Each(&'static str),
}

/// Longer openings stand before shorter ones that they begin with.
const OPENINGS: [(&str, Form); 27] = [
    ("my name is ", Form::One("name")),
    ("my name's ", Form::One("name")),
    ("call me ", Form::One("called")),
    ("i live in ", Form::One("lives")),
    ("i am living in ", Form::One("lives")),
    ("i'm living in ", Form::One("lives")),
    ("i moved to ", Form::One("lives")),
    ("i no longer live in ", Form::One("lives")),
    ("i do not like ", Form::Each("taste")),
    ("i don't like ", Form::Each("taste")),
    ("i no longer like ", Form::Each("taste")),
    ("i really like ", Form::Each("taste")),
    ("i like ", Form::Each("taste")),
    ("i prefer ", Form::Each("taste")),
    ("i love ", Form::Each("taste")),
    ("i hate ", Form::Each("taste")),
    ("i dislike ", Form::Each("taste")),
    ("i enjoy ", Form::Each("taste")),
    ("i can't stand ", Form::Each("taste")),
    ("i am not allergic to ", Form::Each("allergy")),
    ("i'm not allergic to ", Form::Each("allergy")),
    ("i am no longer allergic to ", Form::Each("allergy")),
    ("i'm no longer allergic to ", Form::Each("allergy")),
    ("i am allergic to ", Form::Each("allergy")),
    ("i'm allergic to ", Form::Each("allergy")),
    ("i am very allergic to ", Form::Each("allergy")),
    ("i'm very allergic to ", Form::Each("allergy")),
];

/// Where a value ends although the sentence goes on.
const ENDINGS: [&str; 18] = [
    ", but ",
    ", so ",
    ", because ",
    ", which ",
    ", please",
    ", thanks",
    ", thank you",
    ", and i ",
    ", and my ",
    ", and call ",
    ", i ",
    ", my ",
    " and i ",
    " and my ",
    " and call me ",
    " but ",
    " because ",
    " though ",
];

/// What is said behind `call me` by those who want to be rung up.
const NO_NAMES: [&str; 22] = [
    "about", "after", "again", "and", "as", "asap", "at", "back", "before", "for", "if", "in", "later", "now", "on",
    "once", "or", "to", "today", "tomorrow", "tonight", "when",
];

/// What a text says of whoever wrote it, in its order; of several statements about one thing the last.
#[must_use]
pub fn facts(text: &str) -> Vec<Fact> {
    let mut found: Vec<Fact> = Vec::new();
    for sentence in sentences(text) {
        for fact in of_sentence(sentence) {
            found.retain(|earlier| earlier.slot != fact.slot);
            found.push(fact);
        }
    }
    let surplus = found.len().saturating_sub(FACTS_MAX);
    found.drain(..surplus);
    found
}

/// The sentences of a text that state something; questions do not.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let ends = |(at, c): (usize, char)| {
        let after = &text[at + c.len_utf8()..];
        // A dot within a number or an address ends nothing.
        let stop =
            matches!(c, '!' | '?' | '\n' | ';') || (c == '.' && after.chars().next().is_none_or(char::is_whitespace));
        stop.then_some((at, c))
    };
    let mut ends = text.char_indices().filter_map(ends).collect::<Vec<_>>().into_iter();
    let mut begin = Some(0);
    std::iter::from_fn(move || {
        let from = begin?;
        let end = ends.next();
        begin = end.map(|(at, c)| at + c.len_utf8());
        let sentence = &text[from..end.map_or(text.len(), |(at, _)| at)];
        Some((sentence, end.is_some_and(|(_, c)| c == '?')))
    })
    .filter_map(|(sentence, question)| (!question).then_some(sentence))
}

/// A sentence in the form in which openings are looked for: every character at the byte where it stands in `text`.
fn folded(text: &str) -> String {
    let fold = |c: char| match c {
        // Where folding would change the length, the character is none of an opening's.
        c if c.is_ascii() => c.to_ascii_lowercase().to_string(),
        c => c.to_string(),
    };
    text.chars().map(fold).collect()
}

fn of_sentence(sentence: &str) -> Vec<Fact> {
    // One kind of apostrophe, and one blank between words; the sentence itself is changed, so that places stay the same.
    let words: Vec<&str> = sentence.split_whitespace().collect();
    let sentence = words.join(" ").replace(['\u{2019}', '\u{2018}'], "'");
    let folded = folded(&sentence);
    let mut facts = Vec::new();
    let mut at = 0;
    while let Some((range, form, opening)) = next_statement(&folded, at) {
        let value_at = range.end;
        let end = value_at + value_end(&folded[value_at..]);
        at = end.max(value_at);
        let value = trimmed(&sentence[value_at..end]);
        if value.is_empty() || (form == Some(Form::One("called")) && is_no_name(value)) {
            continue;
        }
        let slot = match form {
            Some(Form::One(slot)) => slot.to_owned(),
            Some(Form::Each(slot)) => format!("{slot}:{}", value.to_lowercase()),
            None => opening,
        };
        let words = format!("{}{value}", &sentence[range.start..value_at]);
        facts.push(Fact { text: capitalized(words.trim()), slot });
    }
    facts
}

/// The next statement from `at` on: where its opening stands, which form it has, and for `my … is` what it is about.
fn next_statement(folded: &str, at: usize) -> Option<(Range<usize>, Option<Form>, String)> {
    let starts = (at..folded.len()).filter(|start| folded.is_char_boundary(*start) && begins_word(folded, *start));
    for start in starts {
        let rest = &folded[start..];
        if let Some((opening, form)) = OPENINGS.iter().find(|(opening, _)| rest.starts_with(opening)) {
            return Some((start..start + opening.len(), Some(*form), String::new()));
        }
        if let Some((len, thing)) = thing(rest) {
            return Some((start..start + len, None, format!("my {thing}")));
        }
    }
    None
}

/// Whether `call me` is about a telephone.
fn is_no_name(value: &str) -> bool {
    let first = value.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_lowercase();
    NO_NAMES.contains(&first.as_str())
}

fn begins_word(text: &str, at: usize) -> bool {
    text[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && before != '\'')
}

/// `my <thing> is `: its length, and the thing.
fn thing(rest: &str) -> Option<(usize, &str)> {
    let behind = rest.strip_prefix("my ")?;
    let (end, verb) = [" is ", " are "].into_iter().filter_map(|verb| Some((behind.find(verb)?, verb))).min()?;
    let thing = &behind[..end];
    let named = thing.split(' ').count() <= THING_WORDS
        && thing.chars().all(|c| c.is_alphanumeric() || matches!(c, ' ' | '\'' | '-'))
        && thing.chars().any(char::is_alphanumeric);
    named.then_some(("my ".len() + end + verb.len(), thing))
}

/// How far a value goes: to the end of the sentence, or to where something else begins.
fn value_end(folded: &str) -> usize {
    let end = ENDINGS.iter().filter_map(|ending| folded.find(ending)).min().unwrap_or(folded.len());
    let longest = folded.char_indices().nth(FACT_CHARS).map_or(folded.len(), |(at, _)| at);
    end.min(longest)
}

fn trimmed(value: &str) -> &str {
    value.trim_matches(|c: char| c.is_whitespace() || matches!(c, ',' | ':' | '"' | '\'' | '.' | ')'))
}

fn capitalized(words: &str) -> String {
    let mut chars = words.chars();
    let first = chars.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<String> {
        facts(text).into_iter().map(|fact| fact.text).collect()
    }

    #[test]
    fn what_people_say_of_themselves_is_kept_in_their_words() {
        for (text, kept) in [
            ("My name is Ana.", vec!["My name is Ana"]),
            ("hello, my name's Zo\u{eb} O'Neill!", vec!["My name's Zo\u{eb} O'Neill"]),
            ("Please call me Annie", vec!["Call me Annie"]),
            ("I live in S\u{e3}o Paulo, Brazil.", vec!["I live in S\u{e3}o Paulo, Brazil"]),
            (
                "I\u{2019}m allergic to peanuts and shellfish, so no satay please",
                vec!["I'm allergic to peanuts and shellfish"],
            ),
            ("I like tea, coffee and cake", vec!["I like tea, coffee and cake"]),
            ("i prefer window seats", vec!["I prefer window seats"]),
            ("I HATE olives!!", vec!["I HATE olives"]),
            ("My favourite colour is dark green", vec!["My favourite colour is dark green"]),
            ("my dog's name is Rex", vec!["My dog's name is Rex"]),
            ("My email is ana.b@example.com.", vec!["My email is ana.b@example.com"]),
            (
                "Hi! My name is Ana and I live in Porto. I like tea, but I hate coffee; my shoe size is 38",
                vec!["My name is Ana", "I live in Porto", "I like tea", "I hate coffee", "My shoe size is 38"],
            ),
            ("my brother and my sister are twins", vec!["My brother and my sister are twins"]),
        ] {
            assert_eq!(said(text), kept, "{text}");
        }
    }

    #[test]
    fn what_is_asked_or_is_about_others_is_not_kept() {
        for text in [
            "What is my name?",
            "Is my name is Ana a sentence?",
            "Do you think I like tea?",
            "Her name is Ana",
            "They call mechanics",
            "Please call me back, or call me at noon",
            "Tommy is late",
            "my",
            "my is",
            "My name is ",
            "call me, ",
            "my !! is",
            "",
            "Would you say that my order which I placed last week is late",
        ] {
            assert_eq!(said(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn of_two_statements_about_one_thing_the_later_stands() {
        assert_eq!(said("My name is Ana. Sorry, my name is Anna."), ["My name is Anna"]);
        assert_eq!(said("I like olives. No, I hate olives."), ["I hate olives"]);
        let slots: Vec<_> = facts("I like Tea. I prefer coffee. I live in Rome. I moved to Oslo").into_iter().collect();
        assert_eq!(
            slots.iter().map(|fact| fact.slot.as_str()).collect::<Vec<_>>(),
            ["taste:tea", "taste:coffee", "lives"]
        );
    }

    #[test]
    fn a_flood_of_statements_and_a_statement_without_end_are_bounded() {
        let many: String = (0..500).map(|n| format!("My thing {n} is {n}. ")).collect();
        assert_eq!(facts(&many).len(), FACTS_MAX);
        let long = format!("I like {}", "\u{e9}".repeat(10_000));
        assert_eq!(facts(&long)[0].text.chars().count(), "I like ".len() + FACT_CHARS);
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_it(text in "(?s)(my|i|name|is|live in|like|call me|'|\u{2019}|\u{130}|\u{df}|[.!?;, \n]|.){0,40}") {
            for fact in facts(&text) {
                proptest::prop_assert!(!fact.text.is_empty() && !fact.slot.is_empty());
            }
        }
    }
}
