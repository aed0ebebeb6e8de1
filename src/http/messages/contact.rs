//! Contact messages. A message on an api channel goes into a conversation with its contact, and the channel's agent
//! answers in the same call.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use actors::attachment::{self, Bound};
use actors::channel::{Channel, ChannelKind};
use actors::clock::Millis;
use actors::contact::{self, OpenConversation, Resolve, ReturnToEarlier, entity_of};
use actors::conversation::{
    Conversation, Details, Opening, Origin, Post, Rejection, RetryTurn, TurnRequest, TurnStatus,
};
use actors::directory::{Answer, Refusal};
use actors::id::{ContactId, ConversationId, EntityKey};
use actors::message::{Attachment, Content, NewMessage};
use actors::store::{KeyHash, StoreError};
use actors::subscriptions::Subscription;
use actors::tasks::shares::OwnPermit;
use axum::response::Response;

use super::media;
use super::{MessageRequest, SubmitError, Submitted, UnparsedMessage};
use crate::http::answer::Replay;
use crate::http::attachments::link;
use crate::http::contacts::contact_not_found;
use crate::http::headers::prefer;
use crate::http::idempotency::{contact_scope, in_progress};
use crate::http::refusal::channel::{channel_disabled, channel_not_found, kind_mismatch};
use crate::http::refusal::conversation::rejected;
use crate::http::refusal::{broken, problem_of};
use crate::http::turns;
use crate::problem::Problem;
use crate::wire::contact_message::{ContactContent, ContactPost};

mod answer;
mod file;
mod turn_capacity;

use answer::Delivered;
use file::Fetching;
use turn_capacity::QueuePosition;
pub(crate) use turn_capacity::WaitQueues;

/// The lock of a message's idempotency key, while the message is stored.
type KeyLock = Arc<OwnPermit<KeyHash>>;

/// The most conversations that one message tries: it tries another if one is closed.
const MAX_ATTEMPTS: usize = 4;

/// Accepts the message, and answers with the agent's reply or with its later location.
pub(super) async fn post(unparsed: UnparsedMessage<'_>, channel: Option<Arc<Channel>>) -> Result<Response, Problem> {
    let (post, mut request) = unparsed.read(ContactPost::read, |_| None);
    if let Some(channel) = channel.as_deref().filter(|channel| channel.kind != ChannelKind::Api) {
        request.report.faults.extend(kind_mismatch("", channel.kind).faults);
    }
    request.report.refuse()?;
    let channel = channel.ok_or_else(channel_not_found)?;
    let contact = entity_of(request.call.caller.address, &post.normalized_identifier);
    let exchange = ContactExchange {
        request: &request,
        channel: &channel,
        contact,
        scope: contact_scope(&channel.incarnation(), contact.id),
        fetching: None,
    };
    let agent = match exchange.agent() {
        Ok(agent) => agent,
        Err(refusal) => return exchange.earlier_or(refusal).await,
    };
    let content = post.content.ok_or_else(|| broken("a contact's message without faults has content"))?;
    if let Some(response) = exchange.forwarded(&content).await? {
        return Ok(response);
    }
    let ContactPost { identifier, contact_name: name, memories, .. } = post;
    let incoming = IncomingMessage { identifier, name, memories, content };
    match &incoming.content {
        ContactContent::Media(media) => exchange.with_file(&incoming, &agent, media).await,
        ContactContent::Text(_) => exchange.without_file(&incoming, &agent).await,
    }
}

/// The message as the contact sent it.
struct IncomingMessage {
    identifier: String,
    name: Option<String>,
    memories: bool,
    content: ContactContent,
}

/// One message of a contact, and its answer.
struct ContactExchange<'a> {
    request: &'a MessageRequest<'a>,
    channel: &'a Channel,
    contact: EntityKey,
    scope: String,
    /// For a message with a file, set once no earlier request with its key is known to be accepted.
    fetching: Option<Fetching<'a>>,
}

/// The result of resolving a request's contact.
enum ResolvedContact {
    /// The contact and its open conversation.
    Open(ContactId, OpenConversation),
    /// An earlier request with the same key has stored its message, in an earlier conversation.
    Earlier(EarlierMessage),
}

/// What an earlier request with the same key stored, and where.
struct EarlierMessage {
    entity: EntityKey,
    submitted: Submitted,
}

/// What became of the request's message.
enum StoreOutcome {
    /// Stored by this request; with the events that follow.
    New(Box<Delivered>, Subscription),
    /// Stored by an earlier request with the same key.
    Earlier(EarlierMessage),
    /// Not stored, because as many turns wait as may. With the events that follow.
    AtCapacity(Subscription),
}

impl ContactExchange<'_> {
    /// Forwards the request to the server that owns the contact's first conversation here, whichever is open now: so
    /// one server gets all messages of one contact on one channel, without a read of the store.
    async fn forwarded(&self, content: &ContactContent) -> Result<Option<Response>, Problem> {
        // The answer may take minutes, and without a key its outcome could not be found out.
        if self.request.keyed.is_none() {
            return Ok(None);
        }
        let fetches = match content {
            ContactContent::Media(_) => media::LIMITS.within,
            ContactContent::Text(_) => Duration::ZERO,
        };
        self.request.forwarded(self.generation(1), self.budget(prefer(&self.request.call.headers)) + fetches).await
    }

    /// The contact's conversation of this generation on the channel, used or not.
    fn generation(&self, n: u32) -> EntityKey {
        contact::conversation_of(self.contact, &self.channel.incarnation(), n)
    }

    fn conversation(&self, id: ConversationId) -> EntityKey {
        EntityKey::conversation(self.contact.workspace, id.address)
    }

    /// This exchange on the channel as it is now.
    fn with_channel<'b>(&'b self, channel: &'b Channel) -> ContactExchange<'b> {
        let scope = contact_scope(&channel.incarnation(), self.contact.id);
        ContactExchange { channel, scope, ..*self }
    }

    /// The channel's agent, if the channel takes messages.
    fn agent(&self) -> Result<String, Problem> {
        if !self.channel.enabled {
            return Err(channel_disabled());
        }
        let nobody = || Problem::conflict("channel_has_no_agent", "this channel has no agent to answer");
        self.channel.agent.clone().ok_or_else(nobody)
    }

    /// Refuses a turn that this agent could not run soon.
    fn admit(&self, agent: &str) -> Result<(), Problem> {
        turns::admit(self.request.call, agent)
    }

    /// A refused request may have been accepted before: returns that answer, else `refusal`.
    async fn earlier_or(&self, refusal: Problem) -> Result<Response, Problem> {
        self.earlier().await?.ok_or(refusal)
    }

    /// The answer of an earlier request with the same key.
    async fn earlier(&self) -> Result<Option<Response>, Problem> {
        match self.find_earlier().await? {
            Some(before) => self.repeat(&before, Duration::ZERO).await.map(Some),
            None => Ok(None),
        }
    }

    /// The effect of an earlier request with the same key, in any of the contact's conversations.
    async fn find_earlier(&self) -> Result<Option<EarlierMessage>, Problem> {
        if self.request.keyed.is_none() {
            return Ok(None);
        }
        let node = self.request.call.node();
        let last = contact::last_on(node, self.contact, &self.channel.incarnation()).await?;
        let Some(open) = last else { return Ok(None) };
        let mut earlier = open.earlier.iter();
        let mut began = open.id.at;
        // Set at a conversation that began longer ago than keys are kept: how many earlier ones may still have the key.
        let mut left = None;
        for generation in (1..=open.generation).rev() {
            let entity = self.generation(generation);
            let command_context = self.request.command_context(&self.scope);
            if let Some(submitted) = self.request.earlier(entity, command_context).await?.submitted()? {
                return Ok(Some(EarlierMessage { entity, submitted }));
            }
            left = match left {
                Some(left) => Some(left - 1),
                // Earlier conversations were closed when this one began, so their keys are at least as old, except
                // where a client has reopened one.
                None if node.now().since(began) >= actors::limits::KEY_KEPT_MILLIS => Some(open.reach_back()),
                None => None,
            };
            if generation == 1 || left == Some(0) {
                break;
            }
            if left.is_none() {
                began = match earlier.next() {
                    Some(id) => id.at,
                    None => self.began(self.generation(generation - 1)).await?,
                };
            }
        }
        Ok(None)
    }

    /// When a conversation began; now, where it was assigned and never used.
    async fn began(&self, entity: EntityKey) -> Result<Millis, Problem> {
        let node = self.request.call.node();
        Ok(node.created_at(entity).await?.unwrap_or_else(|| node.now()))
    }

    /// Stores the message once there is capacity for its turn, unless an earlier request did, and waits for the turn.
    async fn deliver(
        &self,
        incoming: &IncomingMessage,
        agent: &str,
        file: Option<&attachment::State>,
    ) -> Result<Response, Problem> {
        if let Err(refusal) = self.admit(agent) {
            return self.earlier_or(refusal).await;
        }
        let mut bound = None;
        let mut position = None;
        let mut channel: Option<Arc<Channel>> = None;
        loop {
            // After a wait for capacity the channel may have another agent.
            let later = channel.as_deref().map(|channel| self.with_channel(channel));
            let exchange = later.as_ref().unwrap_or(self);
            let agent = if later.is_some() { Cow::Owned(exchange.agent()?) } else { Cow::Borrowed(agent) };
            let stored = {
                let lock = self.lock_key().await?;
                exchange.store(incoming, &agent, file, &mut bound, lock.as_ref()).await?
            };
            let waited = position.as_ref().map_or(Duration::ZERO, QueuePosition::waited);
            let (first, now) = match stored {
                StoreOutcome::New(delivered, events) => {
                    drop(position);
                    return self.answer(Delivered { waited, ..*delivered }, events).await;
                }
                StoreOutcome::Earlier(before) => {
                    drop(position);
                    return self.repeat(&before, waited).await;
                }
                // A request with the same key may be stored meanwhile.
                StoreOutcome::AtCapacity(events) => Box::pin(self.wait_for_capacity(position, events)).await?,
            };
            position = Some(first);
            channel = Some(now);
        }
    }

    /// Waits until no other request with this key is looking for its message or storing it. A closed conversation may
    /// be reopened by a client, so of two requests that do both at a time each could find a conversation open in which
    /// the other one did not look.
    ///
    /// # Errors
    /// 409 `idempotency_in_progress` after the time in which a command is answered.
    async fn lock_key(&self) -> Result<Option<KeyLock>, Problem> {
        let Some(keyed) = &self.request.keyed else { return Ok(None) };
        let lock = self.request.call.app.lock_message_key(keyed.used(&self.scope).hash).await;
        lock.map(|lock| Some(Arc::new(lock))).ok_or_else(in_progress)
    }

    /// Posts to a conversation. The command is carried out even if the client hangs up meanwhile, so a task of its own
    /// keeps the lock until it is answered: a retry would look for the message before it is stored.
    async fn submit(&self, entity: EntityKey, post: Post, lock: Option<&KeyLock>) -> Result<Submitted, SubmitError> {
        let command_context = self.request.command_context(&self.scope);
        let Some(lock) = lock.cloned() else { return self.request.submit(entity, post, command_context).await };
        let node = Arc::clone(self.request.call.node());
        let posting = tokio::spawn(async move {
            let _lock = lock;
            node.conversation(entity, post, command_context).await
        });
        let answer = posting.await.map_err(|_| broken("a post that has begun is answered"))?;
        self.request.submitted(entity, answer.map_err(SubmitError::Refused)?).await
    }

    /// Resolves contact and conversation, and appends the message. `bound`: the previous binding of its file, by an
    /// attempt that was refused.
    async fn store(
        &self,
        incoming: &IncomingMessage,
        agent: &str,
        file: Option<&attachment::State>,
        bound: &mut Option<Bound>,
        lock: Option<&KeyLock>,
    ) -> Result<StoreOutcome, Problem> {
        let IncomingMessage { identifier, name, .. } = incoming;
        let node = self.request.call.node();
        let (mut contact, mut open) = match self.find_or_begin(identifier, name.as_ref()).await? {
            ResolvedContact::Open(contact, open) => (contact, open),
            ResolvedContact::Earlier(before) => return Ok(StoreOutcome::Earlier(before)),
        };
        let mut conversation = open.id;
        for _ in 0..MAX_ATTEMPTS {
            let entity = self.conversation(conversation);
            let attachments = self.attachments(file, conversation, bound).await?;
            let post = self.message_with_turn(incoming, agent, (contact, conversation), attachments);
            let events = node.subscribe(entity);
            match self.submit(entity, post, lock).await {
                Ok(submitted) if submitted.replay == Replay::Repeated => {
                    return Ok(StoreOutcome::Earlier(EarlierMessage { entity, submitted }));
                }
                Ok(submitted) => {
                    let message = submitted.message()?.clone();
                    let turn = *submitted.turn.ok_or_else(|| broken("a contact's message has a turn"))?;
                    let replay = Replay::First;
                    let retries_turn = false;
                    let waited = Duration::ZERO;
                    let delivered =
                        Delivered { entity, contact, conversation, message, turn, replay, retries_turn, waited };
                    return Ok(StoreOutcome::New(Box::new(delivered), events));
                }
                Err(SubmitError::Refused(Refusal::Rejected(Rejection::TooManyTurns))) => {
                    return Ok(StoreOutcome::AtCapacity(events));
                }
                Err(SubmitError::Refused(Refusal::Rejected(Rejection::Closed))) => {
                    let reopened = if conversation == open.id { self.reopened(&open).await? } else { None };
                    if reopened.is_none() {
                        let again = self.resolve(identifier, name.as_ref(), Some(open.id), true).await?;
                        (contact, open) = again.ok_or_else(|| broken("a contact that may revive is resolved"))?;
                    }
                    conversation = reopened.unwrap_or(open.id);
                    // An earlier attempt of the same request may have been accepted in the closed conversation, or in a
                    // later one.
                    if let Some(before) = self.find_earlier().await? {
                        return Ok(StoreOutcome::Earlier(before));
                    }
                }
                Err(error) => return Err(error.into_problem(rejected)),
            }
        }
        Err(Problem::conflict(
            "conversation_closed",
            "the conversation was closed repeatedly while the request was being stored",
        ))
    }

    /// The message's file as an attachment, bound to a conversation. `bound`: its previous binding, to this or another
    /// conversation that refused the message.
    async fn attachments(
        &self,
        file: Option<&attachment::State>,
        conversation: ConversationId,
        bound: &mut Option<Bound>,
    ) -> Result<Vec<Attachment>, Problem> {
        let Some(file) = file else { return Ok(Vec::new()) };
        let now = match *bound {
            Some(bound) if bound.conversation == conversation.address => bound,
            instead_of => link::bind_new(self.request, file, conversation.address, instead_of).await?,
        };
        *bound = Some(now);
        Ok(file.attachment(Some(now.number)).into_iter().collect())
    }

    /// The message for a conversation of the contact, which the message may open, with the turn that answers it.
    fn message_with_turn(
        &self,
        incoming: &IncomingMessage,
        agent: &str,
        (contact, conversation): (ContactId, ConversationId),
        attachments: Vec<Attachment>,
    ) -> Post {
        let content = incoming.content.clone().into_content(contact.to_string(), attachments);
        let content = Arc::new(Content { memories: incoming.memories, ..content });
        Post {
            opening: Some(self.opening(conversation, contact, agent)),
            expected: Some(conversation),
            messages: vec![NewMessage { content, parent: None, review_millis: None }],
            turn: Some(TurnRequest { agent: agent.to_owned(), policy: self.channel.busy_policy }),
        }
    }

    /// The newest earlier conversation that a client has reopened. Before a message goes there, the contact records
    /// it, so that later requests look up their keys there too.
    async fn reopened(&self, last: &OpenConversation) -> Result<Option<ConversationId>, Problem> {
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

    /// The contact and its conversation. The conversation knows the keys of the requests that it accepted, but not
    /// those of earlier conversations.
    async fn find_or_begin(&self, identifier: &str, name: Option<&String>) -> Result<ResolvedContact, Problem> {
        // A request that may have been answered in a former, erased life of the contact begins no new life.
        let is_new = self.request.keyed.is_none();
        let found = self.resolve(identifier, name, None, is_new).await?;
        if found.as_ref().is_none_or(|(_, open)| open.generation > 1)
            && let Some(before) = self.find_earlier().await?
        {
            return Ok(ResolvedContact::Earlier(before));
        }
        let found = match found {
            Some(found) => Some(found),
            None => self.resolve(identifier, name, None, true).await?,
        };
        let (contact, open) = found.ok_or_else(|| broken("a contact that may revive is resolved"))?;
        Ok(ResolvedContact::Open(contact, open))
    }

    /// The contact and its conversation; `None`: the contact was erased, and no other one may begin.
    async fn resolve(
        &self,
        identifier: &str,
        name: Option<&String>,
        closed: Option<ConversationId>,
        revives: bool,
    ) -> Result<Option<(ContactId, OpenConversation)>, Problem> {
        let resolve = Resolve {
            identifier: identifier.to_owned(),
            name: name.cloned(),
            channel: self.channel.incarnation().into_owned(),
            closed,
            revives,
        };
        // No key: the same person always resolves to the same contact.
        let command_context = self.request.call.without_key();
        let resolved = self.request.call.node().contact(self.contact, resolve, command_context).await;
        resolved.and_then(Answer::unkeyed).map_err(|refusal| problem_of(refusal, |_| contact_not_found()))
    }

    fn opening(&self, id: ConversationId, contact: ContactId, agent: &str) -> Opening {
        let channel = self.channel.incarnation().into_owned();
        let origin = Origin::Api { channel, contact, agent: agent.to_owned() };
        Opening { id, origin, owner: None, details: Details::default() }
    }

    /// Answers a retry: joins the turn, or retries a failed one. The message is not appended again. A request that
    /// waited while another one fetched its file, or for capacity as `waited` says, is no retry, and gets the turn's
    /// state since then.
    async fn repeat(&self, before: &EarlierMessage, waited: Duration) -> Result<Response, Problem> {
        let node = self.request.call.node();
        let entity = before.entity;
        let origin = node.origin(entity).await?;
        let Some(Origin::Api { contact, .. }) = origin.as_deref() else {
            return Err(broken("a contact's message is in a conversation with a contact"));
        };
        let contact = *contact;
        let message = before.submitted.message()?.clone();
        let number = message.turn.ok_or_else(|| broken("a contact's message has a turn"))?.number;
        let events = node.subscribe(entity);
        let turn = node.turn(entity, number).await?;
        let mut turn = turn.ok_or_else(|| broken("the turn of a message exists"))?;
        let mut retries_turn = false;
        if turn.status == TurnStatus::Failed && self.fetching.is_none() && waited.is_zero() {
            self.admit(self.channel.agent.as_ref().unwrap_or(&turn.agent))?;
            let command_context = self.request.call.without_key();
            let again = RetryTurn { number, agent: self.channel.agent.clone() };
            turn = match node.conversation(entity, again, command_context).await.and_then(Answer::unkeyed) {
                Ok(turn) => {
                    retries_turn = true;
                    *turn
                }
                // Another retry has ended the turn meanwhile.
                Err(Refusal::Rejected(Rejection::TurnNotPossible(_))) => {
                    let turn = node.turn(entity, number).await?;
                    turn.ok_or_else(|| broken("the turn of a message exists"))?
                }
                Err(refusal) => return Err(problem_of(refusal, rejected)),
            };
        }
        let conversation = message.conversation;
        let replay = Replay::Repeated;
        let delivered = Delivered { entity, contact, conversation, message, turn, replay, retries_turn, waited };
        self.answer(delivered, events).await
    }
}
