//! How well memories are found: questions about dialogues, and whether the memory that answers each is among the first
//! five. Prints its figures; `cargo test -p actors --test engine recall -- --nocapture` shows them.
//!
//! The vectors are those of a real model (all-MiniLM-L6-v2), computed once and kept beside the dialogues with eight
//! bits a number, so that a run needs no model and gives the same figures everywhere.

use std::collections::HashMap;
use std::sync::Arc;

use actors::conversation::{Command, Details, Opening, Origin, Post};
use actors::directory::CommandContext;
use actors::id::{Address, ContactId, ConversationId, EntityKey};
use actors::memories::rank::words;
use actors::memories::recall::{Embeddings, all, search};
use actors::memories::{Subject, extract};
use actors::message::{Content, NewMessage};
use actors::node::Node;
use actors::ports::Ports;
use actors::store::memory::MemoryStore;
use futures_util::future::BoxFuture;

use crate::support::*;

const DIALOGUES: &str = include_str!("../recall/dialogues.txt");
const VECTORS: &str = include_str!("../recall/vectors.txt");
/// Memories that a search returns.
const AT: usize = 5;

#[derive(Default)]
struct Person {
    said: Vec<&'static str>,
    /// Questions, each with the memory that answers it.
    asked: Vec<(&'static str, &'static str)>,
}

fn people() -> Vec<Person> {
    let mut people: Vec<Person> = Vec::new();
    for line in DIALOGUES.lines() {
        match line.split_once(' ') {
            Some(("person", _)) => people.push(Person::default()),
            Some(("said", text)) => people.last_mut().unwrap().said.push(text),
            Some(("ask", text)) => people.last_mut().unwrap().asked.push(text.split_once(" => ").unwrap()),
            _ => {}
        }
    }
    people
}

/// Precomputed vectors.
struct Recorded(HashMap<&'static str, Vec<f32>>);

impl Recorded {
    fn read() -> Self {
        let number = |hex: &str| f32::from(u8::from_str_radix(hex, 16).unwrap()) - 128.0;
        let vector = |hex: &str| (0..hex.len()).step_by(2).map(|at| number(&hex[at..at + 2])).collect();
        Self(VECTORS.lines().filter_map(|line| line.split_once('\t')).map(|(text, hex)| (text, vector(hex))).collect())
    }
}

impl Embeddings for Recorded {
    fn model(&self) -> &'static str {
        "all-MiniLM-L6-v2"
    }

    fn embed(&self, texts: Vec<String>) -> BoxFuture<'_, Result<Vec<Vec<f32>>, String>> {
        let vector = |text: &String| self.0.get(text.as_str()).cloned().ok_or_else(|| format!("no vector of {text:?}"));
        let vectors = texts.iter().map(vector).collect();
        Box::pin(async move { vectors })
    }
}

/// Posts what a person has said, so that memories are drawn; returns their subject and its entity.
async fn told(node: &Arc<Node>, n: usize, person: &Person) -> (Subject, EntityKey) {
    let contact = ContactId::new(NOW, Address([u8::try_from(n).unwrap(); 10]));
    let e = entity(u64::try_from(n).unwrap());
    let origin = Origin::Api { channel: "shop".to_owned(), contact, agent: "bot".to_owned() };
    let opening = Opening { id: ConversationId::new(NOW, e.id), origin, owner: None, details: Details::default() };
    let message = |text: &&str| {
        let content = Arc::new(Content { memories: true, ..content(text) });
        NewMessage { content, parent: None, review_millis: None }
    };
    let messages = person.said.iter().map(message).collect();
    let post = Post { opening: Some(opening), expected: None, messages, turn: None };
    node.conversation(e, Command::Post(post), CommandContext::default()).await.unwrap();
    settle().await;
    let subject = Subject::Contact(contact);
    let entity = subject.entity(WORKSPACE);
    (subject, entity)
}

/// The number of questions, and of those answered by the first memory and by one of the first five.
#[derive(Clone, Copy, Default)]
struct Tally {
    asked: usize,
    first: usize,
    within: usize,
}

impl Tally {
    fn count(&mut self, place: Option<usize>) {
        self.asked += 1;
        self.first += usize::from(place == Some(0));
        self.within += usize::from(place.is_some());
    }

    /// The percentage of questions whose answer is among the first five.
    fn percent(self) -> usize {
        self.within * 100 / self.asked
    }
}

/// Tallies of the questions that share a word with their answer, and of those that do not.
async fn hits(ports: Ports) -> [Tally; 2] {
    let node = Node::start(Arc::new(MemoryStore::default()), TokioClock::start(), entropy(), ports);
    let mut tallies = [Tally::default(); 2];
    for (n, person) in people().iter().enumerate() {
        let (subject, entity) = told(&node, n, person).await;
        let known = all(&node, entity, &subject).await.unwrap();
        // Repeats until every vector is learned: each question has some of the missing ones learned.
        for _ in 0..4 {
            search(&node, entity, &subject, person.asked[0].0, AT).await.unwrap();
            settle().await;
        }
        for (question, answer) in &person.asked {
            assert!(known.iter().any(|memory| memory.text == *answer), "{answer:?} is remembered");
            let found = search(&node, entity, &subject, question, AT).await.unwrap();
            let answer_words = words(answer);
            let shares = words(question).iter().any(|word| answer_words.contains(word));
            tallies[usize::from(!shares)].count(found.iter().position(|(memory, _)| memory.text == *answer));
        }
    }
    tallies
}

/// By a word they share, or by what they mean.
#[tokio::test(start_paused = true)]
async fn questions_find_their_answer_among_the_first_five() {
    let by_words = hits(Ports::default()).await;
    let with_vectors = hits(Ports { embeddings: Some(Arc::new(Recorded::read())), ..Ports::default() }).await;
    for (name, tallies) in [("BM25 alone", by_words), ("with vectors", with_vectors)] {
        for (how, tally) in ["with a word in common", "in other words"].into_iter().zip(tallies) {
            let rate = |hits: usize| hits as f64 / tally.asked as f64;
            let within = rate(tally.within);
            let first = rate(tally.first);
            println!("{name}, {how}: hit rate at 5 {within:.2}, at 1 {first:.2} ({} questions)", tally.asked);
        }
    }
    assert!(by_words[0].percent() >= 90, "words find what shares a word");
    assert_eq!(by_words[1].within, 0, "and nothing else");
    assert!(with_vectors[0].percent() >= 90 && with_vectors[1].percent() >= 85, "vectors find what means the same");
}

#[test]
fn the_vectors_belong_to_the_dialogues_and_questions() {
    let recorded = Recorded::read();
    for person in people() {
        let memories = person.said.iter().flat_map(|text| extract::facts(text)).map(|fact| fact.text);
        for text in memories.chain(person.asked.iter().map(|(question, _)| (*question).to_owned())) {
            assert!(recorded.0.get(text.as_str()).is_some_and(|vector| vector.len() == 384), "{text}");
        }
    }
}
