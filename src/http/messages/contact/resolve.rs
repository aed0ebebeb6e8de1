//! The contact of a message, and the conversation into which the message goes.

use actors::contact::{OpenConversation, Resolve, ReturnToEarlier};
use actors::conversation::Conversation;
use actors::directory::Answer;
use actors::id::{ContactId, ConversationId};
use actors::store::StoreError;

use super::ContactExchange;
use super::earlier::EarlierMessage;
use crate::http::contacts::contact_not_found;
use crate::http::refusal::{broken, problem_of};
use crate::problem::Problem;

/// The result of resolving a request's contact.
pub(super) enum ResolvedContact {
    /// The contact and its open conversation.
    Open(ContactId, OpenConversation),
    /// An earlier request with the same key has stored its message, in an earlier conversation.
    Earlier(EarlierMessage),
}

/// What happens where the contact with this identifier was erased.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum IfErased {
    /// Another contact with the identifier begins.
    BeginAnother,
    /// Nothing: the request may have been answered in the life of the erased contact.
    Stop,
}

impl ContactExchange<'_> {
    /// The contact and its conversation. The conversation knows the keys of the requests that it accepted, but not
    /// those of earlier conversations.
    pub(super) async fn find_or_begin(
        &self,
        identifier: &str,
        name: Option<&String>,
    ) -> Result<ResolvedContact, Problem> {
        // A request that may have been answered in a former, erased life of the contact begins no new life.
        let if_erased = if self.request.keyed.is_none() { IfErased::BeginAnother } else { IfErased::Stop };
        let found = self.resolve(identifier, name, None, if_erased).await?;
        if found.as_ref().is_none_or(|(_, open)| open.generation > 1)
            && let Some(before) = self.find_earlier().await?
        {
            return Ok(ResolvedContact::Earlier(before));
        }
        let found = match found {
            Some(found) => Some(found),
            None => self.resolve(identifier, name, None, IfErased::BeginAnother).await?,
        };
        let (contact, open) = found.ok_or_else(|| broken("a contact that may revive is resolved"))?;
        Ok(ResolvedContact::Open(contact, open))
    }

    /// The contact and its conversation; `None`: the contact was erased, and no other one may begin.
    pub(super) async fn resolve(
        &self,
        identifier: &str,
        name: Option<&String>,
        closed: Option<ConversationId>,
        if_erased: IfErased,
    ) -> Result<Option<(ContactId, OpenConversation)>, Problem> {
        let resolve = Resolve {
            identifier: identifier.to_owned(),
            name: name.cloned(),
            channel: self.channel.incarnation().into_owned(),
            closed,
            revives: if_erased == IfErased::BeginAnother,
        };
        // No key: the same person always resolves to the same contact.
        let command_context = self.request.call.without_key();
        let resolved = self.request.call.node().contact(self.contact, resolve, command_context).await;
        resolved.and_then(Answer::unkeyed).map_err(|refusal| problem_of(refusal, |_| contact_not_found()))
    }

    /// The newest earlier conversation that a client has reopened. Before a message goes there, the contact records
    /// it, so that later requests look up their keys there too.
    pub(super) async fn reopened(&self, last: &OpenConversation) -> Result<Option<ConversationId>, Problem> {
        for id in last.earlier_of_this_life() {
            match self.request.call.node().state::<Conversation>(self.conversation(id)).await {
                Ok(state) if state.as_ref().is_some_and(|state| !state.closed) => {
                    self.record_reopening(last).await?;
                    return Ok(Some(id));
                }
                // A conversation that cannot be read cannot accept the message either.
                Ok(_) | Err(StoreError::Corrupt(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    async fn record_reopening(&self, last: &OpenConversation) -> Result<(), Problem> {
        if last.returned_to_earlier.is_some() {
            return Ok(());
        }
        let back = ReturnToEarlier { channel: last.channel.clone() };
        let noted = self.request.call.node().contact(self.contact, back, self.request.call.without_key()).await;
        noted.and_then(Answer::unkeyed).map_err(|refusal| problem_of(refusal, |_| contact_not_found()))
    }
}
