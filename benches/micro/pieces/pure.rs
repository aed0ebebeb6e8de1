//! Pieces without waits or calls: decisions and encodings.

use std::hint::black_box;

use actors::codec;
use actors::conversation::{self, Conversation, Event};
use actors::machine::{Decision, DecisionContext, Machine as _, ReadSet, Record};
use actors::outbox::Listeners;
use actors::store::NodeId;

use super::{NOW, Once, conversation, entity, opening, post, record};
use crate::Error;

/// Decides an append and applies it to the state.
pub(super) fn decide() -> Result<Once, Error> {
    let created = Event::ConversationCreated {
        id: conversation(),
        origin: opening().origin,
        owner: None,
        details: opening().details,
        forked: None,
    };
    let mut state = conversation::State::begun(&Record { seq: 1, at: NOW, trace: None, event: created });
    let command = post(conversation());
    let mut reads = ReadSet::default();
    reads.set_listeners(Listeners::none());
    let mut next_seq = 2;
    Ok(Box::new(move || {
        let context = DecisionContext {
            entity: entity(),
            now: NOW,
            place: NOW,
            next_seq,
            random: [7; 16],
            node: NodeId([1; 16]),
            key: None,
            trace: None,
            alarm: None,
        };
        let Ok(Decision::Change(change)) = Conversation::decide(state.as_ref(), &command, &context, &reads) else {
            unreachable!("an open conversation takes a message");
        };
        for event in change.events {
            Conversation::apply(&mut state, &Record { seq: next_seq, at: NOW, trace: None, event });
            next_seq += 1;
        }
        black_box(change.reply);
    }))
}

/// Encodes a record.
pub(super) fn encode() -> Result<Once, Error> {
    let record = record();
    Ok(Box::new(move || {
        black_box(codec::encode_record(black_box(&record)));
    }))
}

/// Decodes a record.
pub(super) fn decode() -> Result<Once, Error> {
    let bytes = codec::encode_record(&record());
    codec::decode_record::<Event>(2, &bytes)?;
    Ok(Box::new(move || {
        let _ = black_box(codec::decode_record::<Event>(2, black_box(&bytes)));
    }))
}
