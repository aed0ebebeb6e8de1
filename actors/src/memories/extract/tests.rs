//! What is kept of which sentences.

use super::*;

fn said(text: &str) -> Vec<String> {
    facts(text).into_iter().map(|fact| fact.text).collect()
}

#[test]
fn statements_about_oneself_are_kept_in_the_speakers_words() {
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
fn questions_and_statements_about_others_are_not_kept() {
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
fn the_later_of_two_statements_about_one_thing_is_kept() {
    assert_eq!(said("My name is Ana. Sorry, my name is Anna."), ["My name is Anna"]);
    assert_eq!(said("I like olives. No, I hate olives."), ["I hate olives"]);
    assert_eq!(said("I prefer tea to coffee. I prefer coffee to tea."), ["I prefer coffee to tea"]);
    assert_eq!(said("I live in Porto. I don't live in Lisbon."), ["I live in Porto"], "no contradiction");
    let slots: Vec<_> = facts("I like Tea. I prefer coffee. I live in Rome. I moved to Oslo").into_iter().collect();
    assert_eq!(slots.iter().map(|fact| fact.slot.as_str()).collect::<Vec<_>>(), ["taste:tea", "taste:coffee", "lives"]);
}

#[test]
fn a_flood_of_statements_and_a_statement_without_end_are_bounded() {
    let many: String = (0..500).map(|n| format!("My thing {n} is {n}. ")).collect();
    assert_eq!(facts(&many).len(), MAX_FACTS);
    let long = format!("I like {}", "\u{e9}".repeat(10_000));
    assert_eq!(facts(&long)[0].text.chars().count(), TEXT_CHARS);
}

#[test]
fn only_the_beginning_of_a_long_sentence_is_searched_for_facts() {
    let said_late = |bytes: usize| said(&format!("{}, my name is Ana", "x ".repeat(bytes / 2)));
    assert_eq!(said_late(SENTENCE_BYTES / 2), ["My name is Ana"]);
    assert_eq!(said_late(SENTENCE_BYTES), [""; 0]);
    assert_eq!(said_late(SENTENCE_BYTES - 14), [""; 0], "half a name is none");
    // Each of these took minutes while every beginning looked for its end in all that follows.
    for part in [
        "my ",
        "i like a, but",
        "St. ",
        "I like tea, ",
        "my a is ",
        "a? ",
        "please ",
        ", ",
        " and",
        "said ",
        "hi, ",
        "said, ",
        "i really ",
        "if i ",
        "\"",
        "i like a and please ",
        "as ",
        "as a, ",
        "i like a as said ",
        "for a ",
        "i like a, for a ",
        "\u{2014}",
    ] {
        assert!(facts(&part.repeat(256 * 1024 / part.len())).len() <= MAX_FACTS);
    }
}

#[test]
fn each_statement_of_a_sentence_is_a_memory_of_its_own() {
    for (text, kept) in [
        ("my name is Ana, I'm allergic to nuts", vec!["My name is Ana", "I'm allergic to nuts"]),
        ("my name is Ana, I\u{2019}m allergic to nuts", vec!["My name is Ana", "I'm allergic to nuts"]),
        ("I live in Rome and I'm allergic to nuts", vec!["I live in Rome", "I'm allergic to nuts"]),
        ("I live in Rome and I\u{2018}m allergic to nuts", vec!["I live in Rome", "I'm allergic to nuts"]),
        ("I live in Rome and I am allergic to nuts", vec!["I live in Rome", "I am allergic to nuts"]),
        ("I live in Rome,I am allergic to nuts", vec!["I live in Rome", "I am allergic to nuts"]),
        ("My name is Albert, call me Al", vec!["My name is Albert", "Call me Al"]),
        ("My name is Albert, and please call me Al", vec!["My name is Albert", "Call me Al"]),
        ("My name is Albert but you can call me Al", vec!["My name is Albert", "Call me Al"]),
        ("My name is Albert, don't call me Al", vec!["My name is Albert", "Don't call me Al"]),
        ("my name's Ana and I can't stand olives", vec!["My name's Ana", "I can't stand olives"]),
        ("my dog is Rex & my cat is Tom", vec!["My dog is Rex", "My cat is Tom"]),
        ("I live in Rome - I like tea", vec!["I live in Rome", "I like tea"]),
        ("I live in Rome (my email is ana@example.com)", vec!["I live in Rome", "My email is ana@example.com"]),
        ("I live in Rome so I like pasta", vec!["I live in Rome", "I like pasta"]),
        ("I live in Rome and I'm happy", vec!["I live in Rome"]),
        ("I don't like tea and I don't prefer coffee", vec!["I don't like tea", "I don't prefer coffee"]),
        ("I like tea, coffee and milk, and my order is late", vec!["I like tea, coffee and milk", "My order is late"]),
        ("I like bread and butter", vec!["I like bread and butter"]),
        ("I like the song \"Me, my dog is Rex\"", vec!["I like the song \"Me, my dog is Rex\""]),
        ("My screen is 5\" wide, I like it", vec!["My screen is 5\" wide", "I like it"]),
    ] {
        assert_eq!(said(text), kept, "{text}");
    }
}

#[test]
fn a_statement_may_stand_behind_a_greeting_or_another_clause() {
    for (text, kept) in [
        ("Hi, my name is Ana", "My name is Ana"),
        ("Hi my name is Ana", "My name is Ana"),
        ("Hi Tom my name is Ana", "My name is Ana"),
        ("Hello there, I live in Rome", "I live in Rome"),
        ("Hello! I live in Rome", "I live in Rome"),
        ("Dear support team, I am allergic to nuts", "I am allergic to nuts"),
        ("Good morning, please call me Al", "Call me Al"),
        ("You can call me Al", "Call me Al"),
        ("my friends call me Al", "Call me Al"),
        ("They call me Al", "Call me Al"),
        ("just call me Al", "Call me Al"),
        ("Feel free to call me Al", "Call me Al"),
        ("By the way, my dog is called Rex", "My dog is called Rex"),
        ("btw I moved to Oslo", "I moved to Oslo"),
        ("Well I really like tea", "I really like tea"),
        ("Yes, I prefer the window", "I prefer the window"),
        ("no I prefer the window", "I prefer the window"),
        ("Thanks! My phone number is 12 34", "My phone number is 12 34"),
        ("Nice to meet you, my name is Ana", "My name is Ana"),
        ("Sorry I'm late, my name is Ana", "My name is Ana"),
        ("I am a nurse and I live in Rome", "I live in Rome"),
        ("I need a flight to Oslo, I prefer window seats", "I prefer window seats"),
        ("I think you have my order, my name is Ana", "My name is Ana"),
        ("If you need me, my email is ana@example.com", "My email is ana@example.com"),
        ("No satay please because I'm allergic to peanuts", "I'm allergic to peanuts"),
        ("Please note that I am allergic to nuts", "I am allergic to nuts"),
        ("remember, I'm allergic to nuts", "I'm allergic to nuts"),
        ("Don't forget that I hate olives", "I hate olives"),
        ("As I said, I live in Rome", "I live in Rome"),
        ("I mean, I like tea", "I like tea"),
        ("That's true, I like tea", "I like tea"),
        ("About me: I live in Rome", "I live in Rome"),
        ("- I live in Rome", "I live in Rome"),
        ("1) I live in Rome", "I live in Rome"),
        ("\u{201c}I live in Rome\u{201d}", "I live in Rome"),
        ("And I also like tea", "I also like tea"),
        ("I currently live in Rome", "I currently live in Rome"),
        ("I'm severely allergic to nuts", "I'm severely allergic to nuts"),
        ("Hi, I like tea, do you?", "I like tea"),
        ("I\u{2019}m allergic to nuts, do you mind?", "I'm allergic to nuts"),
        ("People think I like tea, but I hate tea", "I hate tea"),
        ("I don't think I like tea but I love coffee", "I love coffee"),
    ] {
        assert_eq!(said(text), [kept], "{text}");
    }
}

#[test]
fn a_question_or_a_report_of_one_thing_ends_with_its_clause() {
    for (text, kept) in [
        ("I want to know if my order has shipped, my name is Ana Silva", "My name is Ana Silva"),
        ("I want to know if my order is late, my name is Ana Silva", "My name is Ana Silva"),
        ("Please check whether my order is late, my name is Ana", "My name is Ana"),
        ("Tell me if my order is late - my name is Ana", "My name is Ana"),
        ("If I remember correctly, my order number is 123", "My order number is 123"),
        ("If I can't be reached, my wife's number is 123", "My wife's number is 123"),
        ("Please make sure my allergy is noted, I'm allergic to nuts", "I'm allergic to nuts"),
        ("I'm not sure my order is complete, my name is Ana", "My name is Ana"),
        ("I was told my order is on its way, my name is Ana", "My name is Ana"),
        ("Your colleague said my order is on its way, my name is Ana", "My name is Ana"),
        ("As the doctor said, I'm allergic to nuts", "I'm allergic to nuts"),
        ("Hi, like my doctor told me, I'm allergic to nuts", "I'm allergic to nuts"),
    ] {
        assert_eq!(said(text), [kept], "{text}");
    }
}

#[test]
fn a_statement_may_stand_behind_a_reason_or_a_sign() {
    for (text, kept) in [
        ("No nuts please as I am allergic to nuts", vec!["I am allergic to nuts"]),
        ("No nuts for me as I'm allergic to them", vec!["I'm allergic to them"]),
        ("I hate satay as I'm allergic to nuts", vec!["I hate satay", "I'm allergic to nuts"]),
        ("I like tea as a drink", vec!["I like tea as a drink"]),
        ("I like tea as much as I like coffee", vec!["I like tea as much as I like coffee"]),
        ("I hate it the same as I hate rain", vec!["I hate it the same as I hate rain"]),
        ("He acts as though I like tea", vec![]),
        ("He acts as if I like tea", vec![]),
        ("No nuts\u{2014}I'm allergic to nuts", vec!["I'm allergic to nuts"]),
        ("I live in Rome\u{2014}I like tea", vec!["I live in Rome", "I like tea"]),
        ("I live in Rome / I like tea", vec!["I live in Rome", "I like tea"]),
        ("I live in Rome -- I like tea", vec!["I live in Rome", "I like tea"]),
        ("No nuts\u{2026} I'm allergic to nuts", vec!["I'm allergic to nuts"]),
        ("She said\u{2014}I like tea", vec![]),
    ] {
        assert_eq!(said(text), kept, "{text}");
    }
}

#[test]
fn a_statement_may_stand_behind_a_time_a_place_or_a_purpose() {
    for (text, kept) in [
        ("Recently I moved to Oslo", "I moved to Oslo"),
        ("I recently moved to Oslo", "I recently moved to Oslo"),
        ("Last year I moved to Oslo", "I moved to Oslo"),
        ("I usually prefer aisle seats", "I usually prefer aisle seats"),
        ("I simply love tea", "I simply love tea"),
        ("For flights I prefer aisle seats", "I prefer aisle seats"),
        ("When flying I prefer aisle seats", "I prefer aisle seats"),
        ("When I travel I prefer aisle seats", "I prefer aisle seats"),
        ("If possible I prefer a window seat", "I prefer a window seat"),
        ("As a vegetarian I hate meat", "I hate meat"),
        ("For breakfast I like eggs", "I like eggs"),
        ("In the morning I like eggs", "I like eggs"),
        ("Since I hate rain I like tea", "I hate rain I like tea"),
        ("Howdy, I like tea", "I like tea"),
        ("Hola Tom I like tea", "I like tea"),
    ] {
        assert_eq!(said(text), [kept], "{text}");
    }
}

#[test]
fn a_statement_may_stand_behind_an_assertion() {
    for (text, kept) in [
        ("I'm afraid I'm allergic to shellfish", "I'm allergic to shellfish"),
        ("I am afraid that I'm allergic to shellfish", "I'm allergic to shellfish"),
        ("Bear in mind that I'm allergic to nuts", "I'm allergic to nuts"),
        ("Just a reminder that I'm allergic to nuts", "I'm allergic to nuts"),
        ("I should tell you I hate olives", "I hate olives"),
        ("I must tell you that I hate olives", "I hate olives"),
        ("I have to tell you that I hate olives", "I hate olives"),
        ("I want to mention that I hate olives", "I hate olives"),
        ("It's important to know that I hate olives", "I hate olives"),
        ("As I said that I live in Rome", "I live in Rome"),
        ("I already told you that my name is Ana", "My name is Ana"),
        ("I told you that my name is Ana", "My name is Ana"),
        ("I said my name is Ana", "My name is Ana"),
        ("I mean that I like tea", "I like tea"),
    ] {
        assert_eq!(said(text), [kept], "{text}");
    }
}

#[test]
fn a_statement_may_follow_a_short_greeting_without_a_sign() {
    for (text, kept) in [
        ("I need help my name is Ana", "My name is Ana"),
        ("Can you help me my name is Ana", "My name is Ana"),
        ("hello I am Ana my email is ana@x.de", "My email is ana@x.de"),
        ("this is Ana Silva my order is late", "My order is late"),
        ("Thanks Tom my number is 12", "My number is 12"),
        ("Hi support team my number is 12", "My number is 12"),
    ] {
        assert_eq!(said(text), [kept], "{text}");
    }
}

#[test]
fn a_question_in_return_takes_nothing_from_the_statement() {
    for (text, kept) in [
        ("My name is Ana, what's yours?", "My name is Ana"),
        ("My name is Ana, what\u{2019}s yours?", "My name is Ana"),
        ("My name is Ana, who are you?", "My name is Ana"),
        ("My name is Ana, who're you?", "My name is Ana"),
        ("I like tea, you?", "I like tea"),
        ("My name is Ana, yours?", "My name is Ana"),
        ("My name is Dr. Who", "My name is Dr. Who"),
    ] {
        assert_eq!(said(text), [kept], "{text}");
    }
}

#[test]
fn a_value_keeps_no_half_of_a_pair_of_quotes() {
    for (text, kept) in [
        ("\u{201c}I live in Rome.\u{201d}", "I live in Rome"),
        ("\u{ab}I live in Rome\u{bb}", "I live in Rome"),
        ("I like \u{201c}Hey Jude\u{201d}", "I like \u{201c}Hey Jude\u{201d}"),
        ("\u{201e}I live in Rome\u{201c}", "I live in Rome"),
        ("(I like tea)", "I like tea"),
    ] {
        assert_eq!(said(text), [kept], "{text}");
    }
}

#[test]
fn quoted_supposed_and_denied_statements_are_not_kept() {
    for text in [
        "I never said my name is Carl",
        "I don't think I like tea",
        "I doubt that I like tea",
        "It is not true that I hate rain",
        "It isn't true that I hate rain and I like tea",
        "My brother said I like pizza",
        "My brother said I like pizza, and I live in Rome",
        "My brother said pizza is good",
        "My brother said my name is Bob",
        "My mother says, I like pizza",
        "She told me: I like pizza",
        "He said \"my name is Ana\".",
        "He said: \"my name is Ana\"",
        "If my name is Bob, tell me",
        "If my name is Bob, I live in Rome",
        "Tell me if I like tea",
        "Imagine you are a pirate, my name is Jack and I live in Tortuga",
        "Suppose I live in Rome and I like tea",
        "Pretend my name is Bob",
        "Maybe I like tea",
        "Hey guess I like tea",
        "Nobody may call me Bob",
        "You can't call me Bob",
        "What I like is tea",
        "I used to live in Rome",
        "I wish I live in Rome",
        "If I like tea, I live in Rome",
        "Tell me if I live in Rome and I like tea",
        "Check whether my order is late and my email is correct",
        "My brother said my dog is Rex and my cat is Tom",
        "I'm not sure my name is Bob",
        "Hey maybe I like tea",
        "Hey nobody knows my name is Bob",
        "In case I live in Rome",
        "In my dreams I live in Rome",
        "When she says I like tea",
        "At no time I like tea",
        "When I think I like tea",
        "For details call me Monday",
        "As a pirate my name is Jack",
        "When do I like tea",
        "Hey I bet my name is Bob",
        "I'm joking my name is Bob",
        "As if I like tea",
        "I was told I like tea",
        "If I were a pirate, my name is Jack",
        "As if she said, I like tea",
        "In Oslo, where I moved to last year, it rains",
    ] {
        assert_eq!(said(text), [""; 0], "{text}");
    }
}

#[test]
fn a_denial_replaces_what_it_denies_and_nothing_else() {
    for (text, kept) in [
        ("I live in Rome. I don't live in Rome anymore", vec!["I don't live in Rome anymore"]),
        ("I live in Rome. I do not live in Rome", vec!["I do not live in Rome"]),
        ("I live in Rome, Italy. I don\u{2019}t live in rome any more", vec!["I don't live in rome any more"]),
        ("I live in Rome. I no longer live in Rome", vec!["I no longer live in Rome"]),
        ("I live in Rome. I'm not living in Rome", vec!["I'm not living in Rome"]),
        ("I moved to Oslo, I no longer live in Rome", vec!["I moved to Oslo"]),
        ("I don't live in Rome. I live in Oslo", vec!["I live in Oslo"]),
        ("I prefer tea. I don't prefer tea", vec!["I don't prefer tea"]),
        ("I like tea. I don't like tea anymore", vec!["I don't like tea anymore"]),
        ("I like tea. I no longer really like tea", vec!["I no longer really like tea"]),
        ("I don't like tea. I like tea very much", vec!["I like tea very much"]),
        ("call me Al. don't call me Al", vec!["Don't call me Al"]),
        ("call me Al. Please do not call me Al anymore", vec!["Do not call me Al anymore"]),
        ("call me Al. Stop calling me Al, please", vec!["Stop calling me Al"]),
        ("call me Al. Don't call me Bob", vec!["Call me Al"]),
        ("please do not call me Bob", vec!["Do not call me Bob"]),
        ("Never call me Bob. Call me Al", vec!["Call me Al"]),
        ("My name is Ana. My name is not Ana", vec!["My name is not Ana"]),
        ("My name is Ana. My name isn't Bob", vec!["My name is Ana"]),
        ("I'm allergic to nuts. I'm not allergic to nuts anymore", vec!["I'm not allergic to nuts anymore"]),
        ("My colour is red. My colour isn't red", vec!["My colour isn't red"]),
    ] {
        assert_eq!(said(text), kept, "{text}");
    }
}

/// It ends behind a word.
#[test]
fn a_statement_longer_than_a_memory_ends_with_an_ellipsis() {
    let fits = format!("I like {}", "walks ".repeat(82));
    assert_eq!(said(&fits), [fits.trim()]);
    let long = said(&format!("I like {}. I live in Rome", "walks ".repeat(300)));
    assert!(long[0].ends_with("walks walks\u{2026}"), "{long:?}");
    assert!((TEXT_CHARS - 6..=TEXT_CHARS).contains(&long[0].chars().count()));
    assert_eq!(long[1], "I live in Rome");
    let long = said(&format!("I like {} and I live in Rome", "\u{4f60}\u{597d} ".repeat(200)));
    assert!(long[0].ends_with("\u{4f60}\u{597d}\u{2026}") && long[1] == "I live in Rome", "{long:?}");
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_it(text in "(?s)(my|i|name|is|live in|like|call me|'|\u{2019}|\u{130}|\u{df}|[.!?;, \n]|.){0,40}") {
        for fact in facts(&text) {
            proptest::prop_assert!(!fact.text.is_empty() && !fact.slot.is_empty());
        }
    }
}
