//! A node whose receivers a test controls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use actors::channel::{Channel, ChannelKind, conversation_of};
use actors::clock::{Clock, Millis};
use actors::codec;
use actors::conversation::review::Response;
use actors::conversation::{BusyPolicy, Command, Conversation, Opening, Origin, Post};
use actors::directory::CommandContext;
use actors::id::{Address, ContactId, ConversationId, EndpointId, EntityKey, MessageId};
use actors::message::{Content, Json, NewMessage};
use actors::node::Node;
use actors::outbox::keys::{parse_ended_key, parse_pending_key};
use actors::outbox::pending::{self, DeliveryState};
use actors::outbox::{Answer, Deliverer, DeliveryRequest, Happened, Undelivered};
use actors::ports::Ports;
use actors::requests::Request;
use actors::store::{KeyRange, Order, Scan, Store};
use actors::tables::{CHANNELS, ENDED, PENDING, WEBHOOK_ENDPOINTS};
use actors::trace::recording_tracer::RecordingTracer;
use actors::trace::{Traces, current};
use actors::webhook::{Format, WebhookEndpoint};
use futures_util::future::BoxFuture;

use crate::support::*;

/// The URL of endpoint 1.
pub(crate) const ONE: &str = "https://example.com/1";
/// The URL of endpoint 2.
pub(crate) const TWO: &str = "https://example.com/2";

/// What a receiver does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Answer(u16),
    AskForTime(u64),
    /// Accepts after so many milliseconds.
    Slow(u64),
    /// Answers with this status after so many milliseconds, and may ask for a delay.
    Late(u64, u16, Option<u64>),
    Hang,
    Refuse,
}

/// A request that has arrived at a receiver.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) at: Millis,
    pub(crate) request: DeliveryRequest,
    /// The status of its answer.
    pub(crate) status: Option<u16>,
}

impl Arrived {
    pub(crate) fn seq(&self) -> u64 {
        self.request.id.number
    }

    pub(crate) fn name(&self) -> &'static str {
        match &self.request.event {
            Happened::Conversation(record) => record.event.name().unwrap(),
            Happened::Contact { record, .. } => record.event.name().unwrap(),
        }
    }
}

/// All receivers.
pub(crate) struct Sink {
    pub(crate) clock: Arc<TokioClock>,
    moods: Mutex<HashMap<String, Mood>>,
    arrived: Mutex<Vec<Arrived>>,
}

impl Sink {
    pub(crate) fn mood(&self, url: &str, mood: Mood) {
        self.moods.lock().unwrap().insert(url.to_owned(), mood);
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    /// The requests to `url`, accepted or not.
    pub(crate) fn at(&self, url: &str) -> Vec<Arrived> {
        self.arrived().into_iter().filter(|arrived| arrived.request.url == url).collect()
    }

    /// The sequences that `url` accepted.
    pub(crate) fn taken(&self, url: &str) -> Vec<u64> {
        let taken = |arrived: &Arrived| arrived.status.is_some_and(|status| (200..300).contains(&status));
        self.at(url).iter().filter(|arrived| taken(arrived)).map(Arrived::seq).collect()
    }
}

/// A local type, for which the port can be implemented.
struct Way(Arc<Sink>);

impl Deliverer for Way {
    fn deliver(&self, request: DeliveryRequest) -> BoxFuture<'_, Result<Answer, Undelivered>> {
        Box::pin(async move {
            assert!(!request.secrets.is_empty(), "nothing leaves unsigned");
            assert!(request.trace.is_some() && request.trace == current::get(), "log lines name the attempt's trace");
            let mood = self.0.moods.lock().unwrap().get(&request.url).copied().unwrap_or(Mood::Answer(200));
            let outcome = match mood {
                Mood::Answer(status) => Ok(Answer { status, error: None, retry_after_millis: None }),
                Mood::AskForTime(millis) => Ok(Answer { status: 503, error: None, retry_after_millis: Some(millis) }),
                Mood::Slow(millis) => {
                    tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
                    Ok(Answer { status: 200, error: None, retry_after_millis: None })
                }
                Mood::Late(millis, status, retry_after_millis) => {
                    tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
                    Ok(Answer { status, error: None, retry_after_millis })
                }
                Mood::Hang => std::future::pending().await,
                Mood::Refuse => Err(Undelivered::Other("refused")),
            };
            let at = self.0.clock.now();
            let status = outcome.ok().map(|answer| answer.status);
            self.0.arrived.lock().unwrap().push(Arrived { at, request, status });
            outcome
        })
    }
}

/// A node, its receivers and its store.
pub(crate) struct Fixture<S> {
    pub(crate) node: Arc<Node>,
    pub(crate) sink: Arc<Sink>,
    pub(crate) store: Arc<S>,
    pub(crate) clock: Arc<TokioClock>,
}

impl<S: Store> Fixture<S> {
    pub(crate) fn on(store: S) -> Self {
        Self::by(store, Traces::default())
    }

    fn by(store: S, traces: Traces) -> Self {
        let store = Arc::new(store);
        let clock = TokioClock::start();
        let sink = Arc::new(Sink { clock: Arc::clone(&clock), moods: Mutex::default(), arrived: Mutex::default() });
        let ports = Ports { traces, ..ways(&sink) };
        let node = Node::start(store.clone(), clock.clone(), entropy(), ports);
        Self { node, sink, store, clock }
    }

    /// The same, with its spans recorded.
    pub(crate) fn traced(store: S) -> (Self, Arc<RecordingTracer>) {
        Self::traced_by(store, RecordingTracer::default())
    }

    /// The same, by this tracer.
    pub(crate) fn traced_by(store: S, tracer: RecordingTracer) -> (Self, Arc<RecordingTracer>) {
        let kept = Arc::new(tracer);
        (Self::by(store, Traces::to(kept.clone())), kept)
    }

    /// Another process on the same store, beside this one.
    pub(crate) fn beside(&self) -> Self {
        let sink = Arc::clone(&self.sink);
        let store = Arc::clone(&self.store);
        let clock = Arc::clone(&self.clock);
        Self { node: start(&store, &clock, &sink), sink, store, clock }
    }

    /// Starts another process on the same store, which knows only what is stored.
    pub(crate) fn restart(&mut self) {
        self.node = start(&self.store, &self.clock, &self.sink);
    }

    pub(crate) async fn endpoint(&self, n: u8, change: impl FnOnce(&mut WebhookEndpoint)) -> WebhookEndpoint {
        let now = self.clock.now();
        let mut endpoint = WebhookEndpoint {
            id: EndpointId::new(now, Address([n; 10])),
            url: format!("https://example.com/{n}"),
            events: vec!["*".to_owned()],
            channel: None,
            format: Format::Standard,
            disabled: None,
            secret: format!("whsec_{n}"),
            retired_secret: None,
            routed_at: None,
            retired_earlier: None,
            since: now,
            updated_at: None,
        };
        change(&mut endpoint);
        self.store_endpoint(&endpoint).await;
        endpoint
    }

    pub(crate) async fn store_endpoint(&self, endpoint: &WebhookEndpoint) {
        put(&self.node, WEBHOOK_ENDPOINTS, endpoint.id.to_string().as_bytes(), codec::encode(endpoint)).await;
    }

    /// Creates or changes a human channel.
    pub(crate) async fn channel(&self, id: &str, webhook_url: Option<&str>) {
        self.channel_of(ChannelKind::Human, id, webhook_url).await;
    }

    /// The same for an api channel.
    pub(crate) async fn api_channel(&self, id: &str, webhook_url: Option<&str>) {
        self.channel_of(ChannelKind::Api, id, webhook_url).await;
    }

    async fn channel_of(&self, kind: ChannelKind, id: &str, webhook_url: Option<&str>) {
        let now = self.clock.now();
        let channel = Channel {
            id: id.to_owned(),
            name: id.to_owned(),
            kind,
            agent: None,
            busy_policy: BusyPolicy::Queue,
            enabled: true,
            webhook_url: webhook_url.map(str::to_owned),
            webhook_secret: "whsec_channel".to_owned(),
            review_defaults: None,
            review_seconds: None,
            created_at: NOW,
            updated_at: (now > NOW).then_some(now),
            retired_secret: None,
            routed_at: None,
            retired_earlier: None,
            life: None,
        };
        put(&self.node, CHANNELS, id.as_bytes(), codec::encode(&channel)).await;
    }

    pub(crate) async fn say(&self, n: u64, text: &str) {
        self.ask(entity(n), post(entity(n), text)).await;
    }

    /// A message of a contact on an api channel.
    pub(crate) async fn say_on(&self, channel: &str, n: u64, text: &str) {
        let origin = Origin::Api {
            channel: channel.to_owned(),
            contact: ContactId::new(NOW, Address([n as u8; 10])),
            agent: "bot".to_owned(),
        };
        let Command::Post(said) = post(entity(n), text) else { unreachable!() };
        let opening = Some(Opening { origin, ..opening(entity(n)) });
        self.ask(entity(n), Post { opening, ..said }).await;
    }

    pub(crate) async fn ask(&self, entity: EntityKey, request: impl Request<Conversation>) {
        self.node.conversation(entity, request, CommandContext::default()).await.unwrap();
    }

    /// A message on a human channel; returns its id.
    pub(crate) async fn post_to(&self, channel: &str, content: Content) -> MessageId {
        let entity = conversation_of(WORKSPACE, channel, 0);
        let opening = Opening {
            id: ConversationId::new(self.clock.now(), entity.id),
            origin: Origin::Human { channel: channel.to_owned() },
            ..opening(entity)
        };
        let message = NewMessage { content: Arc::new(content), parent: None, review_millis: None };
        let post = Post { opening: Some(opening), expected: None, messages: vec![message], turn: None };
        let posted = self.node.conversation(entity, Command::Post(post), CommandContext::default()).await.unwrap();
        messages(posted)[0].id
    }

    /// Every delivery that has ended, in the order of their events.
    pub(crate) async fn ended(&self) -> Vec<DeliveryState> {
        let rows =
            self.store.view(WORKSPACE, ENDED, Scan::new(KeyRange::default(), Order::Asc, 100_000)).await.unwrap();
        let mut all = Vec::new();
        for row in rows {
            let (_, entity, key) = parse_ended_key(WORKSPACE, &row.key).unwrap();
            all.push(pending::ended(&self.node, entity, key).await.unwrap().expect("a list entry has its row"));
        }
        all
    }

    /// Every pending delivery.
    pub(crate) async fn pending(&self) -> Vec<DeliveryState> {
        let rows =
            self.store.view(WORKSPACE, PENDING, Scan::new(KeyRange::default(), Order::Asc, 100_000)).await.unwrap();
        let mut all = Vec::new();
        for row in rows {
            let key = parse_pending_key(WORKSPACE, &row.key).unwrap();
            let found = pending::pending(&self.node, key, Order::Asc, None, 1_000).await.unwrap();
            assert_eq!(found.upto, None);
            all.extend(found.deliveries.into_iter().map(|(_, delivery)| delivery));
        }
        all
    }

    /// Asserts that nothing is left to be sent or noted.
    pub(crate) async fn assert_sent(&self) {
        assert_eq!(self.pending().await, []);
        assert_eq!((self.node.outbox().active(), self.node.outbox().in_flight()), (0, 0));
    }

    /// The same, and that no alarm is left.
    pub(crate) async fn assert_settled(&self) {
        self.assert_sent().await;
        assert_eq!(self.store.due(None, Millis(u64::MAX), 10).await.unwrap().alarms, []);
    }
}

fn start<S: Store>(store: &Arc<S>, clock: &Arc<TokioClock>, sink: &Arc<Sink>) -> Arc<Node> {
    let (store, clock): (Arc<S>, Arc<TokioClock>) = (Arc::clone(store), Arc::clone(clock));
    Node::start(store, clock, entropy(), ways(sink))
}

fn ways(sink: &Arc<Sink>) -> Ports {
    Ports { deliverer: Arc::new(Way(Arc::clone(sink))), ..Ports::default() }
}

/// Ana's approval of a message's review.
pub(super) fn approved(message: MessageId) -> Command {
    Command::Respond(Response {
        message,
        response: Json::from_checked("{\"selectedOption\":\"approve\"}"),
        alike: None,
        feedback: None,
        principal: user("ana"),
    })
}
