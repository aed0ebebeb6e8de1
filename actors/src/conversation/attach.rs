//! The files that the conversation's messages have or mention. [`attachment`](crate::attachment) explains why this is
//! decided here.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::writing::{Decided, Halt, Writing};
use super::{Event, Rejection, Reply, State};
use crate::codec;
use crate::id::{Address, MessageId};
use crate::machine::{Decision, Need, ReadSet, Undecided};
use crate::message::{Content, Message};
use crate::store::RowWrite;
use crate::tables::{ATTACHED, MENTIONED};

/// The key of a file's row.
#[must_use]
pub(crate) fn file_key(attachment: Address) -> Bytes {
    Bytes::copy_from_slice(&attachment.0)
}

/// The key of a message's mention of a file.
#[must_use]
pub(crate) fn mention_key(attachment: Address, seq: u64) -> Bytes {
    [&attachment.0[..], &seq.to_be_bytes()].concat().into()
}

/// The file of a row of either list.
#[must_use]
pub(crate) fn file_of(key: &[u8]) -> Option<Address> {
    key.first_chunk().copied().map(Address)
}

/// The result of a file's binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
    /// The binding's number.
    #[n(0)]
    pub number: u32,
    /// The message that has the file; `None`: none has it by this number or an earlier one, and none ever will.
    #[n(1)]
    pub message: Option<MessageId>,
}

/// The reads that a message with this content needs.
pub(super) fn needs(content: &Content) -> impl Iterator<Item = Need> + '_ {
    content.attachments.iter().map(|file| Need::Row(ATTACHED, file_key(file.id.address)))
}

fn claim(attachment: Address, reads: &ReadSet) -> Result<Option<Claim>, Undecided> {
    reads.stored(ATTACHED, file_key(attachment))
}

/// Checks that a message can have its files.
pub(super) fn check(content: &Content, reads: &ReadSet) -> Result<(), Halt> {
    for file in &content.attachments {
        match claim(file.id.address, reads)? {
            Some(Claim { message: Some(_), .. }) => return Err(Rejection::AttachmentLinked(file.id).into()),
            Some(Claim { number, .. }) if file.claim.is_none_or(|claim| claim <= number) => {
                return Err(Rejection::AttachmentLost(file.id).into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// The rows of a message that has or mentions files.
pub(super) fn rows(message: &Message) -> impl Iterator<Item = RowWrite> + '_ {
    let attached = message.content.attachments.iter().map(|file| {
        let claim = Claim { number: file.claim.unwrap_or_default(), message: Some(message.id) };
        RowWrite::put(ATTACHED, file_key(file.id.address), codec::encode(&claim))
    });
    attached.chain(mentions(message))
}

/// The rows of the files that a message mentions.
pub(super) fn mentions(message: &Message) -> impl Iterator<Item = RowWrite> + '_ {
    let seq = message.id.number;
    let mentioned = message.content.mentions.iter().flatten();
    mentioned.map(move |file| RowWrite::put(MENTIONED, mention_key(file.address, seq), Bytes::new()))
}

/// A request for the message that has a file by this binding. If none has, none ever will.
#[derive(Clone, Copy, Debug)]
pub struct Disclaim {
    /// The file.
    pub attachment: Address,
    /// The number of its binding.
    pub number: u32,
}

/// Returns the message that has it; if none has, ensures that none ever will.
pub(super) fn disclaim(state: Option<&State>, disclaim: Disclaim, mut writing: Writing<'_>) -> Decided {
    let Disclaim { attachment, number } = disclaim;
    if state.is_none() {
        // A message with files is posted to a conversation that was opened before its files were bound to it.
        return Ok(Decision::Answer(Reply::Attached(None)));
    }
    match claim(attachment, writing.reads)? {
        Some(Claim { message: Some(message), .. }) => Ok(Decision::Answer(Reply::Attached(Some(message)))),
        Some(claim) if claim.number >= number => Ok(Decision::Answer(Reply::Attached(None))),
        _ => {
            writing.put(ATTACHED, file_key(attachment), &Claim { number, message: None });
            writing.event(Event::AttachmentDisclaimed { attachment, number });
            Ok(writing.done(Reply::Attached(None)))
        }
    }
}
