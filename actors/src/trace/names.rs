//! Names of spans and their attributes, in one place.
//!
//! Names follow OpenTelemetry's semantic conventions: version 1.44, and for generative AI version 0.1.0 of conventions
//! of their own (HTTP and database are stable, all others in development). Others begin with `tertulia.`. Each is
//! described in `docs/TELEMETRY.md`; a test compares.

use crate::id::Kind;

// Spans.

/// A command's wait in its entity's mailbox.
pub const WAIT: &str = "wait";
/// The load of an entity, as far as a command waited for it.
pub(crate) const LOAD: &str = "load";
/// A commit, from its submission to the store's answer.
pub(crate) const COMMIT: &str = "commit";
/// An attempt at a turn; the agent's id follows.
pub(crate) const INVOKE_AGENT: &str = "invoke_agent";
/// A call of a model; the model's name follows.
pub(crate) const CHAT: &str = "chat";
/// A call of a tool that a model requested; the tool's name follows.
pub(crate) const EXECUTE_TOOL: &str = "execute_tool";
/// An attempt to send an event to a receiver; the event's type follows.
pub(crate) const DELIVER: &str = "deliver";
/// A call of the embeddings endpoint; the model's name follows.
pub(crate) const EMBEDDINGS: &str = "embeddings";
/// The fetch of a file that a contact sent as a URL.
pub const FETCH: &str = "fetch media";
/// The writing of an attachment to the bucket.
pub const WRITE: &str = "write attachment";
/// The reading of an attachment from the bucket.
pub const READ: &str = "read attachment";
/// A request forwarded to the server that owns its conversation, until its answer.
pub const FORWARD: &str = "forward";

/// Commands of an entity that were decided together.
#[must_use]
pub fn process(kind: Kind) -> &'static str {
    match kind {
        Kind::Installation => "process installation",
        Kind::Workspace => "process workspace",
        Kind::Contact => "process contact",
        Kind::Memories => "process memories",
        Kind::Conversation => "process conversation",
        Kind::Attachment => "process attachment",
    }
}

/// An entity woken for due work.
#[must_use]
pub fn alarm(kind: Kind) -> &'static str {
    match kind {
        Kind::Installation => "alarm installation",
        Kind::Workspace => "alarm workspace",
        Kind::Contact => "alarm contact",
        Kind::Memories => "alarm memories",
        Kind::Conversation => "alarm conversation",
        Kind::Attachment => "alarm attachment",
    }
}

// Attributes.

/// The method of a request, if it is a standard one.
pub const HTTP_METHOD: &str = "http.request.method";
/// The method as received, if it is not a standard one.
pub const HTTP_METHOD_ORIGINAL: &str = "http.request.method_original";
/// The route pattern of a request's path.
pub const HTTP_ROUTE: &str = "http.route";
/// The status of the answer.
pub const HTTP_STATUS: &str = "http.response.status_code";
/// How often a request was sent again.
pub(crate) const HTTP_RESENT: &str = "http.request.resend_count";
/// The path of a request; never its query.
pub const URL_PATH: &str = "url.path";
/// The scheme of a request, made or answered.
pub const URL_SCHEME: &str = "url.scheme";
/// The request's id, given by the client or by the server.
pub const REQUEST_ID: &str = "tertulia.request.id";
/// The code of the error in a request's answer.
pub const PROBLEM: &str = "tertulia.problem.code";
/// Why an unsampled request is recorded: one of few words.
pub const KEPT: &str = "tertulia.kept";

/// The system that queues messages: this program.
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// The operation on a message.
pub(crate) const MESSAGING_OPERATION: &str = "messaging.operation.name";
/// The kind of that operation.
pub(crate) const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// The mailbox of the messages, as a kind of entity.
pub(crate) const MESSAGING_DESTINATION: &str = "messaging.destination.name";
/// The id of a message: the first one of a request, or the one that the span accepted.
pub const MESSAGE_ID: &str = "messaging.message.id";
/// The conversation of that message.
pub(crate) const MESSAGE_CONVERSATION: &str = "messaging.message.conversation_id";
/// How many messages were accepted together; only if there were several.
pub const MESSAGES: &str = "tertulia.message.count";
/// How many commands were decided together; only if there were several.
pub(crate) const BATCH_COUNT: &str = "messaging.batch.message_count";
/// The store.
pub(crate) const DB_SYSTEM: &str = "db.system.name";
/// The operation of the store.
pub(crate) const DB_OPERATION: &str = "db.operation.name";
/// Records, rows, keys and list entries in a commit; only if there are several.
pub(crate) const DB_BATCH_SIZE: &str = "db.operation.batch.size";
/// The name of the data in the store.
pub(crate) const DB_NAMESPACE: &str = "db.namespace";
/// How many servers of the store must agree.
pub(crate) const CONSISTENCY: &str = "cassandra.consistency.level";
/// The operation of an agent, a model or a tool.
pub(crate) const GEN_AI_OPERATION: &str = "gen_ai.operation.name";
/// The model's provider.
pub(crate) const GEN_AI_PROVIDER: &str = "gen_ai.provider.name";
/// The conversation that the agent answers in.
pub(crate) const GEN_AI_CONVERSATION: &str = "gen_ai.conversation.id";
/// The agent's id.
pub(crate) const GEN_AI_AGENT: &str = "gen_ai.agent.id";
/// The agent's name.
pub(crate) const GEN_AI_AGENT_NAME: &str = "gen_ai.agent.name";
/// The requested model.
pub(crate) const GEN_AI_MODEL: &str = "gen_ai.request.model";
/// The model that answered.
pub(crate) const GEN_AI_ANSWERED_BY: &str = "gen_ai.response.model";
/// Why the model ended its answer, as a list of one word.
pub(crate) const GEN_AI_FINISHED: &str = "gen_ai.response.finish_reasons";
/// Seconds until the first chunk of a streamed answer.
pub(crate) const GEN_AI_FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";
/// Tokens that a model read.
pub(crate) const GEN_AI_INPUT: &str = "gen_ai.usage.input_tokens";
/// Tokens that a model wrote.
pub(crate) const GEN_AI_OUTPUT: &str = "gen_ai.usage.output_tokens";
/// The tool that is called.
pub(crate) const GEN_AI_TOOL: &str = "gen_ai.tool.name";
/// The call's id, as the conversation shows it.
pub(crate) const GEN_AI_CALL: &str = "gen_ai.tool.call.id";
/// The turn's id.
pub(crate) const TURN_ID: &str = "tertulia.turn.id";
/// Milliseconds that a turn waited for a permit to run.
pub(crate) const TURN_WAITED_MS: &str = "tertulia.turn.waited_ms";
/// The event that is sent.
pub(crate) const EVENT_ID: &str = "tertulia.event.id";
/// The delivery that an attempt belongs to.
pub(crate) const DELIVERY_ID: &str = "tertulia.delivery.id";
/// Which attempt it is, from 1.
pub(crate) const DELIVERY_ATTEMPT: &str = "tertulia.delivery.attempt";
/// The kind of receiver: `endpoint`, `channel`, `message` or `callback`.
pub(crate) const RECEIVER: &str = "tertulia.delivery.receiver";
/// The webhook endpoint that gets it.
pub(crate) const ENDPOINT_ID: &str = "tertulia.endpoint.id";
/// The host of a call.
pub const SERVER: &str = "server.address";
/// Its port.
pub(crate) const SERVER_PORT: &str = "server.port";
/// The kind of an error, one of a few words.
pub const ERROR_TYPE: &str = "error.type";
/// The client-visible id of the entity.
pub(crate) const ENTITY_ID: &str = "tertulia.entity.id";
/// How something ended.
pub(crate) const OUTCOME: &str = "tertulia.outcome";
/// Commits that were made durable together.
pub(crate) const STORE_BATCH: &str = "tertulia.store.batch_commits";
/// Milliseconds that making them durable took.
pub(crate) const STORE_SYNC_MS: &str = "tertulia.store.sync_ms";
/// Records after the newest snapshot that were read when an entity was loaded.
pub(crate) const LOAD_RECORDS: &str = "tertulia.load.records";
/// Times a commit was sent to the store.
pub(crate) const STORE_ATTEMPTS: &str = "tertulia.store.attempts";
/// How late an alarm rang, in milliseconds.
pub(crate) const LATE_MS: &str = "tertulia.alarm.late_ms";

/// The value of [`MESSAGING_SYSTEM`].
pub const SYSTEM: &str = "tertulia";

// Metrics named by the conventions; all others have their Prometheus names, next to the entity that they count.

/// The prefix of the names of metrics about answered requests.
pub const HTTP_SERVER: &str = "http.server.";
/// The duration of requests.
pub const SERVER_DURATION: &str = "http.server.request.duration";
/// Requests that are being answered.
pub const SERVER_ACTIVE: &str = "http.server.active_requests";
