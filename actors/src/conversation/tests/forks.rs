//! Copies, part by part.

use super::*;
use crate::conversation::fork::{Copying, Original};

/// The answer to the request for a copy shows the time of its progress.
#[test]
fn a_copys_progress_has_the_time_that_the_conversation_was_updated() {
    let mut sim = nothing();
    let source = ConversationId::new(NOW, Address([9; 10]));
    sim.run(&Command::Fork(Forking { opening: opening(), of: Forked { source, upto: 300 } })).unwrap();
    for (from, next, messages) in [(1, Some(101), 0), (101, Some(201), 2), (201, Some(300), 1), (300, None, 0)] {
        sim.now = sim.now.plus(1_000);
        let original = |n| Original { number: from + n, parent: None, content: Some(Arc::new(content("x"))) };
        let originals = (0..messages).map(original).collect();
        sim.run(&Command::Copy(Copying { from, next, originals })).unwrap();
        let state = sim.state.as_ref().unwrap();
        let fork = state.fork.unwrap();
        assert_eq!(fork.at, state.updated_at, "the part from {from}");
        assert_eq!(Some(fork.at).filter(|_| fork.copied > 0), state.last_message_at, "the part from {from}");
    }
}
