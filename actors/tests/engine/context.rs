//! The prompt of a turn is the same, whether the turn reads its conversation or this process knows it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actors::agent::builtin::Builtin;
use actors::agent::{Completion, ModelOutput, Models, Prompt, Provider};
use actors::conversation::amend::{Amend, Amendment, Edit, Receipt};
use actors::conversation::{BusyPolicy, Command, Post, TurnRequest, TurnStatus, Usage};
use actors::directory::CommandContext;
use actors::id::MessageId;
use actors::limits;
use actors::node::Node;
use actors::patch::Patch;
use actors::store::Store;
use actors::store::memory::MemoryStore;
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use crate::support::*;

/// A model that records its prompts.
#[derive(Debug, Default)]
struct Listening(Arc<Mutex<Vec<Vec<String>>>>);

impl Models for Listening {
    fn complete(&self, prompt: Prompt) -> BoxFuture<'_, Completion> {
        let asked: Vec<String> = prompt.messages.iter().map(|message| message.text.clone()).collect();
        let reply = format!("answer {}", asked.len());
        self.0.lock().unwrap().push(asked);
        let usage = Usage { input_tokens: 1, output_tokens: 1, millicredits: 1, model: "listening".to_owned() };
        Box::pin(async move { Ok(ModelOutput { replies: vec![reply], calls: Vec::new(), usage }) })
    }
}

/// The prompts of a long conversation in which messages are edited and deleted now and then.
async fn prompts(store: impl Store) -> Vec<Vec<String>> {
    let models = Listening::default();
    let heard = Arc::clone(&models.0);
    let node = Node::start(Arc::new(store), TokioClock::start(), entropy(), Arc::new(models));
    make_agent(&node, remote()).await;
    let e = entity(1);
    let tell = async |command| node.conversation(e, command, CommandContext::default()).await.unwrap();
    let mut said: Vec<MessageId> = Vec::new();
    for n in 0..140_usize {
        let amended = match n {
            20 => Some((3, Amendment::Edit(Edit { text: Patch::Set("edited".to_owned()), ..Edit::default() }))),
            // From here on turns read the conversation, as long as the deleted message might be given to the model.
            110 => Some((100, Amendment::Delete { seen: None })),
            91..105 => Some((n - 5, Amendment::Acknowledge(Receipt::Read))),
            _ => None,
        };
        if let Some((which, amendment)) = amended {
            tell(Command::Amend(Amend { message: said[which], amendment })).await;
        }
        if n % 7 == 0 {
            tell(post(e, &format!("aside {n}"))).await;
        }
        let text = if n == 130 { "long ".repeat(7_000) } else { format!("question {n}") };
        said.push(messages(tell(post_with_turn(e, &text)).await)[0].id);
        settle().await;
    }
    assert_eq!(status(&node, e, 140).await, (TurnStatus::Completed, 1));
    let heard = heard.lock().unwrap();
    heard.clone()
}

#[tokio::test(start_paused = true)]
async fn a_turn_knows_of_its_conversation_what_it_would_read() {
    let known = prompts(MemoryStore::default()).await;
    let read = prompts(MemoryStore::default().shared()).await;
    for (n, (known, read)) in known.iter().zip(&read).enumerate() {
        assert_eq!(known, read, "question {n}");
    }
    assert_eq!(known.len(), read.len());
    assert!(known[19].contains(&"question 3".to_owned()) && known[20].contains(&"edited".to_owned()));
    assert!(known[109].contains(&"question 100".to_owned()) && !known[110].contains(&"question 100".to_owned()));
    assert!((100..102).contains(&known[129].len()), "{}", known[129].len());
    assert!(known[131].len() < 5, "the long one leaves room for few: {}", known[131].len());
}

#[tokio::test(start_paused = true)]
async fn a_turn_of_a_conversation_that_is_known_reads_nothing_of_it() {
    let gate = Gate::new();
    let node = Node::start(Arc::new(gate.clone()), TokioClock::start(), entropy(), Arc::new(Listening::default()));
    make_agent(&node, remote()).await;
    let e = entity(1);
    let mut reads = Vec::new();
    for n in 0..4 {
        node.conversation(e, post_with_turn(e, &format!("{n}")), CommandContext::default()).await.unwrap();
        settle().await;
        reads.push(gate.reads());
    }
    // The one read is of the sender's memories.
    assert_eq!(reads[1..], [1; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_turn_with_too_many_questions_is_asked_the_newest() {
    let models = Listening::default();
    let heard = Arc::clone(&models.0);
    let node = Node::start(Arc::new(MemoryStore::default()), TokioClock::start(), entropy(), Arc::new(models));
    let slow = Builtin { latency_ms: 5_000, ..Builtin::default() };
    make_agent(&node, Provider::Builtin(slow)).await;
    let e = entity(1);
    let gather = |n: usize| {
        let Command::Post(post) = post_with_turn(e, &format!("{n:03} {}", "x".repeat(50_000))) else { unreachable!() };
        let turn = post.turn.map(|turn| TurnRequest { policy: BusyPolicy::Merge, ..turn });
        Command::Post(Post { turn, ..post })
    };
    for n in 0..60 {
        node.conversation(e, gather(n), CommandContext::default()).await.unwrap();
    }
    make_agent(&node, remote()).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(status(&node, e, 2).await, (TurnStatus::Completed, 1));
    let heard = heard.lock().unwrap();
    let [asked] = &heard[..] else { panic!("{} turns", heard.len()) };
    let bytes: usize = asked.iter().map(String::len).sum();
    assert!((limits::QUESTION_BYTES..limits::QUESTION_BYTES + 100_000).contains(&bytes), "{bytes}");
    let numbers: Vec<&str> = asked.iter().map(|text| &text[..3]).collect();
    let newest: Vec<String> = (60 - asked.len()..60).map(|n| format!("{n:03}")).collect();
    assert_eq!(numbers, newest);
}
