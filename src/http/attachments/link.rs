//! Linking files to messages. [`actors::attachment`] explains which entity decides what, and why.

use actors::attachment::{Bind, Bound, Command, Rejection, State, settle};
use actors::conversation::Opening;
use actors::directory::{Answer, Refusal};
use actors::id::{Address, AttachmentId, EntityKey, MessageId};
use actors::message;
use actors::tasks::shares::{OwnPermit, Shares};

use super::find;
use crate::http::call::Call;
use crate::http::messages::MessageRequest;
use crate::http::refusal::conversation::rejected;
use crate::http::refusal::{broken, problem_of};
use crate::json::path::Path;
use crate::problem::{Fault, Problem};

/// How often binding is retried for a file whose binding has just moved.
const MAX_ATTEMPTS: usize = 4;

/// The files that a body names.
pub(in crate::http) struct NamedFiles {
    /// Those that exist, in the order of the body.
    pub(in crate::http) found: Vec<State>,
    /// A fault for each of the others.
    pub(in crate::http) missing: Vec<Fault>,
}

/// The files that a body names.
pub(in crate::http) async fn named(call: &Call, ids: &[(Path, String)]) -> Result<NamedFiles, Problem> {
    let mut found = Vec::with_capacity(ids.len());
    let mut missing = Vec::new();
    for (path, id) in ids {
        match find(call, id).await? {
            Some(file) => found.push(file),
            None => missing.push(Fault::new(
                path.pointer(),
                "attachment_not_found",
                "names no attachment of this workspace",
            )),
        }
    }
    Ok(NamedFiles { found, missing })
}

/// The message that has a file, even if the file's record does not name it yet.
pub(super) async fn message_of(call: &Call, file: &State) -> Result<Option<MessageId>, Problem> {
    let (None, Some(bound)) = (file.message, file.bound) else { return Ok(file.message) };
    let conversation = call.caller.conversation(bound.conversation);
    Ok(call.node().attached_by(conversation, file.id.address).await?)
}

/// Files being linked to a message, in the order of the message.
pub(in crate::http) struct Linking<'a> {
    call: &'a Call,
    conversation: Address,
    files: Vec<State>,
    claims: Vec<u32>,
    _locks: Vec<OwnPermit<EntityKey>>,
}

/// Locks files once earlier requests of this process that link one of them are done, so that of two concurrent ones one
/// succeeds. Correctness, that no file gets two messages, does not depend on it.
async fn lock(locks: &Shares<EntityKey>, mut files: Vec<EntityKey>) -> Vec<OwnPermit<EntityKey>> {
    // All requests lock in the same order, so that there is no deadlock.
    files.sort_unstable();
    files.dedup();
    let mut held = Vec::with_capacity(files.len());
    for file in files {
        held.push(locks.enter(file).await);
    }
    held
}

impl<'a> Linking<'a> {
    /// Binds the files to the conversation of the new message, without its idempotency key: binding does not use that
    /// up.
    ///
    /// # Errors
    /// 409 if a message of another conversation has one of them, 429 and 503 if nothing was stored.
    pub(in crate::http) async fn begin(call: &'a Call, opening: &Opening, files: Vec<State>) -> Result<Self, Problem> {
        let entities = files.iter().map(|file| call.caller.attachment(file.id.address)).collect();
        let locks = lock(call.app.link_locks(), entities).await;
        if !files.is_empty() {
            // Only an existing conversation can disclaim a binding.
            let entity = call.caller.conversation(opening.id.address);
            let opened = call.node().conversation(entity, opening.clone(), call.without_key()).await;
            opened.map_err(|refusal| problem_of(refusal, rejected))?;
        }
        let conversation = opening.id.address;
        let mut linking = Self { call, conversation, files, claims: Vec::new(), _locks: locks };
        for (at, file) in linking.files.clone().iter().enumerate() {
            let claim = linking.bind((at, file), None).await?;
            linking.claims.push(claim);
        }
        Ok(linking)
    }

    /// The files in the form of the message.
    pub(in crate::http) fn attachments(&self) -> Vec<message::Attachment> {
        let files = self.files.iter().zip(&self.claims);
        files.filter_map(|(file, claim)| file.attachment(Some(*claim))).collect()
    }

    /// Binds a file again whose binding was disclaimed meanwhile, by a check of its use or by a request that links it
    /// elsewhere.
    ///
    /// # Errors
    /// As [`Linking::begin`].
    pub(in crate::http) async fn again(&mut self, id: AttachmentId) -> Result<(), Problem> {
        let at = self.files.iter().position(|file| file.id == id);
        let at = at.ok_or_else(|| broken("a message loses only files that it has"))?;
        let file = self.files[at].clone();
        let number = self.claims[at];
        let lost = Bound { conversation: self.conversation, number };
        self.claims[at] = self.bind((at, &file), Some(lost)).await?;
        Ok(())
    }

    /// Binds the file that the message names at this index; returns the number of the binding.
    async fn bind(&self, (at, file): (usize, &State), mut instead_of: Option<Bound>) -> Result<u32, Problem> {
        let entity = self.call.caller.attachment(file.id.address);
        for _ in 0..MAX_ATTEMPTS {
            let bind = Bind { conversation: self.conversation, instead_of };
            let bound = self.call.node().attachment(entity, bind, self.call.without_key()).await;
            match bound.and_then(Answer::unkeyed) {
                Ok(number) => return Ok(number),
                Err(Refusal::Rejected(Rejection::Elsewhere(bound))) => {
                    let message = settle::disclaim(self.call.node(), entity, bound).await;
                    if message.map_err(|refusal| problem_of(refusal, rejected))?.is_some() {
                        return Err(already_linked(file.id));
                    }
                    instead_of = Some(bound);
                }
                Err(refusal) => {
                    return Err(problem_of(refusal, |rejection| match rejection {
                        Rejection::Linked(_) => already_linked(file.id),
                        Rejection::NotFound => deleted_meanwhile(file.id, format!("/attachmentIds/{at}")),
                        _ => broken("a binding is refused because of another one, or for want of the file"),
                    }));
                }
            }
        }
        Err(already_linked(file.id))
    }
}

/// Binds a file that no other request knows yet to a conversation, perhaps after another one refused its message.
///
/// # Errors
/// 429 and 503 if nothing was stored.
pub(in crate::http) async fn bind_new(
    request: &MessageRequest<'_>,
    file: &State,
    conversation: Address,
    instead_of: Option<Bound>,
) -> Result<Bound, Problem> {
    let bind = Bind { conversation, instead_of };
    let entity = request.call.caller.attachment(file.id.address);
    let command_context = request.call.without_key();
    let bound = request.call.node().attachment(entity, bind, command_context).await.and_then(Answer::unkeyed);
    let number = bound.map_err(|refusal| problem_of(refusal, |_| broken("a new file can be bound")))?;
    Ok(Bound { conversation, number })
}

/// Notes that messages of a conversation are about to mention these files.
///
/// # Errors
/// 400 if one of them was deleted meanwhile, 429 and 503 if nothing was stored.
pub(in crate::http) async fn mention(
    call: &Call,
    conversation: Address,
    files: &[(AttachmentId, Path)],
) -> Result<(), Problem> {
    for (id, path) in files {
        // On the heap: nearly no message mentions a file, and all of them would reserve space.
        let answer = Box::pin(call.node().attachment(
            call.caller.attachment(id.address),
            Command::Mention(conversation),
            call.without_key(),
        ))
        .await;
        answer.map_err(|refusal| problem_of(refusal, |_| deleted_meanwhile(*id, path.pointer())))?;
    }
    Ok(())
}

/// Ensures that files are checked soon even if this process dies now: their message is about to be deleted.
///
/// # Errors
/// 429 and 503 if nothing was stored.
pub(in crate::http) async fn doubt(call: &Call, content: &message::Content) -> Result<Vec<AttachmentId>, Problem> {
    let had = content.attachments.iter().map(|file| file.id);
    let files: Vec<_> = had.chain(content.mentions.iter().flatten().copied()).collect();
    for id in &files {
        match call.node().attachment(call.caller.attachment(id.address), Command::Doubt, call.without_key()).await {
            Ok(_) | Err(Refusal::Rejected(_)) => {}
            Err(refusal) => return Err(problem_of(refusal, |_| broken("a rejected doubt is passed over"))),
        }
    }
    Ok(files)
}

/// 409: another message has it.
pub(in crate::http) fn already_linked(id: AttachmentId) -> Problem {
    let detail = format!("the attachment {id} belongs to another message");
    Problem::conflict("attachment_already_linked", detail).with("attachmentId", id.to_string())
}

/// 400: it was deleted since the request was read.
fn deleted_meanwhile(id: AttachmentId, pointer: String) -> Problem {
    Problem::fault(pointer, "attachment_not_found", format!("{id} is no longer an attachment of this workspace"))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_file_waits_for_requests_that_link_it_and_for_no_other() {
        let workspace = Address([1; 10]);
        let [one, other] = [1, 2].map(|first| {
            // Both end in the same byte.
            let mut address = [7; 10];
            address[0] = first;
            EntityKey::attachment(workspace, Address(address))
        });
        let elsewhere = EntityKey { workspace: Address([2; 10]), ..one };
        let locks = Shares::of(1);
        let held = lock(&locks, vec![one, one]).now_or_never();
        assert!(held.is_some());
        assert!(lock(&locks, vec![other, elsewhere]).now_or_never().is_some());
        let mut both = Box::pin(lock(&locks, vec![other, one]));
        assert!((&mut both).now_or_never().is_none());
        drop(held);
        assert!(both.now_or_never().is_some());
    }
}
