//! Extracting facts that people state about themselves, without a model: a few fixed phrases, the same result each
//! time.
//!
//! A fact is kept in its author's words. Its slot is its topic, so that a later statement about the same thing replaces
//! it: one name, one place to live, one answer to whether the author likes olives.

use std::ops::Range;

/// A fact worth remembering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The words.
    pub text: String,
    /// Its topic; a newer fact about the same topic replaces it.
    pub slot: String,
}

/// The longest fact, in characters: one statement, not a story.
const FACT_CHARS: usize = 200;
/// The part of a sentence that is searched, in bytes. Searching for the ends of statements takes the square of that.
const SENTENCE_BYTES: usize = 1_024;
/// Facts of one message; a longer list is no conversation.
pub(crate) const FACTS_MAX: usize = 32;
/// The most words of the thing in `my … is`.
const THING_WORDS: usize = 4;
/// The furthest end of the thing behind `my`, in bytes.
const THING_BYTES: usize = 128;

/// The opening of a statement, in lower case and with straight apostrophes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// There is one fact of this form.
    One(&'static str),
    /// There is one fact of this form for each object.
    Each(&'static str),
}

/// Longer openings come before their shorter prefixes.
const OPENINGS: [(&str, Form); 32] = [
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
    ("i also like ", Form::Each("taste")),
    ("i also prefer ", Form::Each("taste")),
    ("i also love ", Form::Each("taste")),
    ("i also hate ", Form::Each("taste")),
    ("i also enjoy ", Form::Each("taste")),
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

/// Words that end a value within a sentence.
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

/// Words whose dot ends no sentence.
const ABBREVIATIONS: [&str; 8] = ["st", "dr", "mr", "mrs", "ms", "prof", "mt", "ft"];

/// The beginnings of questions, or of their part behind a comma.
const QUESTIONS: [&str; 23] = [
    "do", "does", "don't", "did", "didn't", "what", "how", "and", "is", "isn't", "are", "aren't", "can", "could",
    "would", "will", "where", "why", "when", "which", "right", "ok", "okay",
];

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
            found.retain(|earlier| earlier.slot != fact.slot);
            found.push(fact);
        }
    }
    let surplus = found.len().saturating_sub(FACTS_MAX);
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
            !is_short || statement_begins(after) || question_begins(after)
        }
        _ => false,
    }
}

/// The statement before a question: the sentence begins with a statement, and the question follows a comma.
fn before_question(sentence: &str) -> Option<&str> {
    let (stated, asked) = sentence.rsplit_once(',')?;
    (statement_begins(stated) && question_begins(asked)).then_some(stated)
}

/// Whether this begins like a question.
fn question_begins(text: &str) -> bool {
    let beginning = first(text.trim_start(), THING_BYTES).replace(['\u{2019}', '\u{2018}'], "'").to_lowercase();
    let word = beginning.split(|c: char| !c.is_alphanumeric() && c != '\'').next().unwrap_or_default();
    QUESTIONS.contains(&word)
}

/// The last word of a text; of an overlong one, its end.
fn last_word(text: &str) -> &str {
    let near = &text[text.ceil_char_boundary(text.len().saturating_sub(THING_BYTES * 2))..];
    near.rsplit(char::is_whitespace).next().unwrap_or_default()
}

/// Whether this begins with a statement.
fn statement_begins(text: &str) -> bool {
    let beginning = first(text.trim_start(), THING_BYTES).replace(['\u{2019}', '\u{2018}'], "'");
    statement_at(&folded(&beginning), 0).is_some()
}

/// A sentence in the form in which openings are searched: every character keeps its byte position in `text`.
fn folded(text: &str) -> String {
    let fold = |c: char| match c {
        // A character whose length would change by folding is in no opening.
        c if c.is_ascii() => c.to_ascii_lowercase().to_string(),
        c => c.to_string(),
    };
    text.chars().map(fold).collect()
}

/// The first bytes of a text, at most this many.
fn first(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

fn of_sentence(sentence: &str) -> Vec<Fact> {
    let sentence = sentence.trim_start();
    let is_cut = sentence.len() > SENTENCE_BYTES;
    let sentence = first(sentence, SENTENCE_BYTES);
    // One kind of apostrophe, and one blank between words; the sentence itself is changed, so that positions stay the
    // same.
    let words: Vec<&str> = sentence.split_whitespace().collect();
    let sentence = words.join(" ").replace(['\u{2019}', '\u{2018}'], "'");
    let folded = folded(&sentence);
    let mut facts = Vec::new();
    let mut at = 0;
    while let Some((range, form, opening)) = next_statement(&folded, at) {
        let value_at = range.end;
        let end = value_at + value_end(&folded[value_at..]);
        at = end.max(value_at);
        if is_cut && end == folded.len() {
            // The rest of the statement is unknown.
            break;
        }
        let value = trimmed(&sentence[value_at..end]);
        if value.is_empty() || (form == Some(Form::One("called")) && is_no_name(value)) {
            continue;
        }
        let slot = match form {
            Some(Form::One(slot)) => slot.to_owned(),
            Some(Form::Each(slot)) => format!("{slot}:{}", object(&folded[range.clone()], value)),
            None => opening,
        };
        let words = format!("{}{value}", &sentence[range.start..value_at]);
        facts.push(Fact { text: capitalized(words.trim()), slot });
    }
    facts
}

/// The range and the form of a statement's opening, and for `my … is` its topic.
type Opening = (Range<usize>, Option<Form>, String);

/// The next statement at or after `at`.
fn next_statement(folded: &str, at: usize) -> Option<Opening> {
    (at..folded.len()).find_map(|start| statement_at(folded, start))
}

/// The statement that begins at this byte.
fn statement_at(folded: &str, start: usize) -> Option<Opening> {
    if !folded.is_char_boundary(start) || !begins_word(folded, start) {
        return None;
    }
    let rest = &folded[start..];
    if let Some((opening, form)) = OPENINGS.iter().find(|(opening, _)| rest.starts_with(opening)) {
        return Some((start..start + opening.len(), Some(*form), String::new()));
    }
    let (len, thing) = thing(rest)?;
    Some((start..start + len, None, format!("my {thing}")))
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
    let behind = first(rest.strip_prefix("my ")?, THING_BYTES);
    let (end, verb) = [" is ", " are "].into_iter().filter_map(|verb| Some((behind.find(verb)?, verb))).min()?;
    let thing = &behind[..end];
    let named = thing.split(' ').count() <= THING_WORDS
        && thing.chars().all(|c| c.is_alphanumeric() || matches!(c, ' ' | '\'' | '-'))
        && thing.chars().any(char::is_alphanumeric);
    named.then_some(("my ".len() + end + verb.len(), thing))
}

/// The end of a value: the end of the sentence, or the beginning of something else.
fn value_end(folded: &str) -> usize {
    let longest = folded.char_indices().nth(FACT_CHARS).map_or(folded.len(), |(at, _)| at);
    let value = &folded[..longest];
    ENDINGS.iter().filter_map(|ending| value.find(ending)).min().unwrap_or(longest)
}

/// The topic of a taste. A preference between two things has the same topic either way round, so that the opposite
/// replaces it.
fn object(opening: &str, value: &str) -> String {
    let value = value.to_lowercase();
    let pair = [" to ", " over "].iter().find_map(|than| value.split_once(than)).filter(|_| opening.contains("prefer"));
    match pair {
        Some((one, other)) => format!("{} or {}", one.min(other), one.max(other)),
        None => value,
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
            None => value.strip_suffix(')').filter(|_| count(')') > count('(')),
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
            ("my name is Ana (not Anna)", vec!["My name is Ana (not Anna)"]),
            ("(my name is Ana)", vec!["My name is Ana"]),
            ("He said \"my name is Ana\".", vec!["My name is Ana"]),
            ("I like the song \"Hey Jude\"", vec!["I like the song \"Hey Jude\""]),
            ("I like \"quotes\" & <b>tags</b>", vec!["I like \"quotes\" & <b>tags</b>"]),
            ("call me 'Annie'", vec!["Call me Annie"]),
            ("I live in St. Louis. My name is Dr. Who.", vec!["I live in St. Louis", "My name is Dr. Who"]),
            ("I live in Main St. My name is Ana", vec!["I live in Main St", "My name is Ana"]),
            ("I live in Main St. Do you like it?", vec!["I live in Main St"]),
            ("I like tea?No", vec![]),
            ("my website is https://x.de/a?b=c", vec!["My website is https://x.de/a?b=c"]),
            ("I like tea, do you?", vec!["I like tea"]),
            ("My car is a VW, what do you think?", vec!["My car is a VW"]),
            ("I also hate fish", vec!["I also hate fish"]),
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
            "Well, do you think I like tea, or not?",
            "My name is Ana?",
            "My order is where, exactly?",
            "I live in Paris, Texas?",
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
        assert_eq!(said("I prefer tea to coffee. I prefer coffee to tea."), ["I prefer coffee to tea"]);
        assert_eq!(said("I live in Porto. I don't live in Lisbon."), ["I live in Porto"], "no contradiction");
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

    #[test]
    fn of_a_long_sentence_only_the_beginning_is_looked_at() {
        let said_late = |bytes: usize| said(&format!("{}my name is Ana", "x ".repeat(bytes / 2)));
        assert_eq!(said_late(SENTENCE_BYTES / 2), ["My name is Ana"]);
        assert_eq!(said_late(SENTENCE_BYTES), [""; 0]);
        assert_eq!(said_late(SENTENCE_BYTES - 12), [""; 0], "half a name is none");
        // Each of these took minutes while every beginning looked for its end in all that follows.
        for part in ["my ", "i like a, but", "St. ", "I like tea, ", "my a is ", "a? "] {
            assert!(facts(&part.repeat(256 * 1024 / part.len())).len() <= FACTS_MAX);
        }
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
