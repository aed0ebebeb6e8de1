//! Sending commands to a node's entities. A function fails as [`Directory::ask`](crate::directory::Directory::ask),
//! unless it says otherwise.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Node;
use crate::alarms::FORGOTTEN_AFTER_MILLIS;
use crate::attachment::{Attachment, settle};
use crate::catalog;
use crate::contact::Contact;
use crate::conversation::review::{is_unsettled, state_at};
use crate::conversation::{Conversation, ExpireReview, Rejection};
use crate::directory::{Answer, CommandContext, Refusal, Reply};
use crate::id::{Address, AttachmentId, EntityKey, Kind, MessageId};
use crate::memories::Memories;
use crate::message::{Review, ReviewState};
use crate::registry::{self, Registry};
use crate::requests::{Request, TypedReply, typed};
use crate::trace::TraceContext;
use crate::workflows::claims;

/// How long a command waits for the list of webhook receivers.
const LISTENERS_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the deletion of a message waits for the deletion of its files.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

impl Node {
    /// Sends a command to a conversation.
    pub async fn conversation<R: Request<Conversation>>(
        self: &Arc<Self>,
        entity: EntityKey,
        request: R,
        context: CommandContext,
    ) -> TypedReply<Conversation, R> {
        let command = Arc::new(request.command());
        self.know_listeners(entity.workspace).await;
        typed::<_, R>(claims::ask(self, &self.conversations, entity, command, context).await)
    }

    /// A review's state for a reader: as it is stored or, if only its deadline has passed, as the conversation says,
    /// which ends the review if nothing else has ended it ([`is_unsettled`]). A process that owns the conversation is
    /// given some seconds to do that by its own clock.
    pub async fn settled_review(
        self: &Arc<Self>,
        entity: EntityKey,
        message: MessageId,
        review: &Review,
        stored: Option<&ReviewState>,
        trace: Option<TraceContext>,
    ) -> Result<Option<ReviewState>, Refusal<Rejection>> {
        let now = self.now();
        let may_be_ended_here = || self.members.owns(entity) || now.since(review.expires_at) >= FORGOTTEN_AFTER_MILLIS;
        if !is_unsettled(review, stored, now) || !may_be_ended_here() {
            return Ok(stored.cloned());
        }
        match self.conversation(entity, ExpireReview { message }, CommandContext { key: None, trace }).await {
            Ok(Answer::Done(state)) => Ok(Some(*state)),
            Ok(Answer::Repeat(_)) => Ok(stored.cloned()),
            // A conversation that cannot be loaded decides nothing more.
            Err(Refusal::Corrupt(_) | Refusal::TooLarge(_)) => Ok(Some(state_at(review, stored, now))),
            Err(refusal) => Err(refusal),
        }
    }

    /// Sends a command to a contact.
    pub async fn contact<R: Request<Contact>>(
        self: &Arc<Self>,
        entity: EntityKey,
        request: R,
        context: CommandContext,
    ) -> TypedReply<Contact, R> {
        let command = Arc::new(request.command());
        self.know_listeners(entity.workspace).await;
        typed::<_, R>(claims::ask(self, &self.contacts, entity, command, context).await)
    }

    /// Sends a command to a file.
    pub async fn attachment<R: Request<Attachment>>(
        self: &Arc<Self>,
        entity: EntityKey,
        request: R,
        context: CommandContext,
    ) -> TypedReply<Attachment, R> {
        let command = Arc::new(request.command());
        typed::<_, R>(claims::ask(self, &self.attachments, entity, command, context).await)
    }

    /// Sends a command to a subject's memories.
    pub async fn memories<R: Request<Memories>>(
        self: &Arc<Self>,
        entity: EntityKey,
        request: R,
        context: CommandContext,
    ) -> TypedReply<Memories, R> {
        let command = Arc::new(request.command());
        typed::<_, R>(claims::ask(self, &self.memories, entity, command, context).await)
    }

    /// Sends a command to the configuration of a workspace or of the installation. A change of rows that other
    /// processes may have cached is answered once none of them uses the old rows.
    pub async fn registry(
        self: &Arc<Self>,
        entity: EntityKey,
        command: registry::Command,
        context: CommandContext,
    ) -> Reply<Registry> {
        let may_be_known = command.may_be_known();
        let reply = self.registry_stored(entity, command, context).await;
        if may_be_known && reply.is_ok() {
            self.known_everywhere().await;
        }
        reply
    }

    /// Changes or reads configuration, like [`registry`](Self::registry), but returns as soon as the change is stored.
    /// A caller that answers a client awaits [`known_everywhere`](Self::known_everywhere) first.
    pub async fn registry_stored(
        self: &Arc<Self>,
        entity: EntityKey,
        command: registry::Command,
        context: CommandContext,
    ) -> Reply<Registry> {
        let directory = match entity.kind {
            Kind::Installation => &self.installation,
            _ => &self.workspaces,
        };
        claims::ask(self, directory, entity, Arc::new(command), context).await
    }

    /// Waits until every process uses the configuration as stored now. So once a change is answered it is visible
    /// everywhere, even if an earlier request made the change a moment ago.
    pub async fn known_everywhere(&self) {
        if self.members.has_others() {
            // The cached rows of another process are at most this old.
            sleep(catalog::MAX_STALENESS).await;
        }
    }

    /// Has files checked whose message was deleted or erased a moment ago. Before that, each of them was notified with
    /// [`Doubt`](crate::attachment::Command::Doubt), so that no file remains if the process dies in between.
    pub fn settle(&self, workspace: Address, attachments: &[AttachmentId]) {
        for id in attachments {
            self.settling.request(EntityKey::attachment(workspace, id.address));
        }
    }

    /// Has files checked, like [`settle`](Self::settle), and waits for the checks, so that after a deletion the
    /// message's files are deleted. If that takes long, or the caller stops waiting, it continues in the background.
    pub async fn settled(self: &Arc<Self>, workspace: Address, attachments: Vec<AttachmentId>) {
        if attachments.is_empty() {
            return;
        }
        let node = Arc::clone(self);
        let checks = tokio::spawn(async move {
            for id in attachments {
                settle::check_now(&node, EntityKey::attachment(workspace, id.address)).await;
            }
        });
        let _ = timeout(SETTLE_TIMEOUT, checks).await;
    }

    /// Reads the receivers of a workspace's events before a decision depends on them. If the store cannot be read at
    /// once, the decision assumes that there are some.
    async fn know_listeners(&self, workspace: Address) {
        let _ = timeout(LISTENERS_TIMEOUT, self.outbox.endpoints(self, workspace)).await;
    }
}
