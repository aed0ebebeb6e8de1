//! Sending commands to a node's entities. A function fails as [`Directory::ask`](crate::directory::Directory::ask),
//! unless it says otherwise.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Node;
use crate::attachment::{Attachment, settle};
use crate::catalog;
use crate::contact::Contact;
use crate::conversation::Conversation;
use crate::directory::{CommandContext, Reply};
use crate::id::{Address, AttachmentId, EntityKey, Kind};
use crate::memories::Memories;
use crate::registry::{self, Registry};
use crate::requests::{Request, TypedReply, typed};
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
