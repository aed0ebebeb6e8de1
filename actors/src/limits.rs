//! Bounds that more than one file uses, each with its reason (invariant I7 of docs/ARCHITECTURE.md); a bound of a
//! single file is defined in that file. Past a bound the request is refused before anything is stored: with 429 if the
//! caller itself is too fast, with 503 if the node is full.

/// Commands waiting or running in one entity. One caller with many connections fills it first and is told 429.
pub const ENTITY_COMMANDS: usize = 256;
/// Bytes of content of those commands; four of the largest requests. A single larger command is still taken.
pub const ENTITY_BYTES: usize = 16 * 1024 * 1024;
/// Commands waiting or running in the node. At 20 µs each this is 0.1 s of work, so a refusal comes while it helps.
pub const NODE_COMMANDS: usize = 8_192;
/// Bytes of content of those commands. Without it the node's largest requests could take 32 GiB.
pub const NODE_BYTES: usize = 256 * 1024 * 1024;
/// Commands decided into one commit. A trace span takes 128 links; half of that keeps one commit readable.
pub(crate) const BATCH_COMMANDS: usize = 64;
/// Bytes of content decided into one commit, after which the next command waits for the next one. ScyllaDB warns
/// about batches above this size. A single larger command still goes alone.
pub const BATCH_BYTES: usize = 128 * 1024;
/// About how many bytes a command, a message or a part of them adds to a commit beside its words: ids, times and what
/// the store puts around a record. That little ones weigh something keeps a commit of many of them small too.
pub(crate) const COMMAND_BYTES: usize = 200;
/// Bytes of one commit, as far as they are known only once its commands are decided: past it the next command waits for
/// the next commit. An acknowledgement is short, and what it writes may not be. With the largest single command that is
/// below what the store takes that takes least.
pub const DRAFT_BYTES: usize = 1024 * 1024;
/// How long an unused file is kept: 24 hours, as docs/API.md promises.
pub const ORPHAN_KEPT_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// How long a message that wants a file may take to arrive before anybody asks whether it did; for one that mentions it
/// half of that, at least.
pub const LINKING_MILLIS: u64 = 60 * 60 * 1000;
/// After which a file whose message may be about to be deleted is looked at; a command takes 10 seconds at most.
pub(crate) const DOUBT_MILLIS: u64 = 60 * 1000;
/// After which bytes that were to go, and are not known to be gone, are taken away again.
pub(crate) const SWEEP_AGAIN_MILLIS: u64 = 10 * 60 * 1000;
/// Conversations that are remembered to mention a file, part of its state; a file mentioned in so many is kept for
/// ever.
pub(crate) const MENTIONED_IN: usize = 8;
/// Files that are looked at at once; each takes a few reads and a commit.
pub(crate) const SETTLING: usize = 32;
/// Files that wait to be looked at; further ones are asked for again by their alarms.
pub(crate) const SETTLING_WAITING: usize = 1_024;
/// An encoded entity state. What can grow is a keyed row, not state: each part of a state has a bound of its own, and
/// tests hold all of them together below this one. Most of it is waiting turns, [`QUEUED_TURNS`] of them, with the
/// agents they wait for and with the traces that asked for them, without which they would begin outside of those.
pub const STATE_BYTES: usize = 12 * 1024;
/// The key of a keyed row or list entry.
pub const ROW_KEY_BYTES: usize = 128;
/// How long an idempotency key is remembered: 48 hours, as docs/API.md promises.
pub const KEY_KEPT_MILLIS: u64 = 48 * 60 * 60 * 1000;
/// Idempotency keys of one resident entity that are remembered without asking the store.
pub const KEYS_CACHED: usize = 128;
/// An entity is passivated after this long without a command.
pub const PASSIVATE_AFTER_MILLIS: u64 = 120_000;
/// Actors of one kind of entities, some 7 KiB each; past it the longest idle ones leave, and what they know stays. It
/// is three times as many as commands can wait for in a node.
pub const ACTORS: usize = 25_000;
/// Resident entities of one kind, with an actor or without, whose state takes about 3 KiB each; past it the longest
/// idle ones leave memory early.
pub const RESIDENT_ENTITIES: usize = 100_000;
/// Conversations whose beginning a node caches, for reads of their messages; about 180 bytes each.
pub(crate) const KNOWN_BEGINNINGS: usize = 50_000;
/// Alarms kept in memory, about 100 bytes each; later ones are read from the store once there is room again.
pub(crate) const NEAR_ALARMS: usize = 100_000;
/// Entities being woken at once, so that a node that starts with many overdue alarms still answers.
pub const WAKES: usize = 1_024;
/// How long one command may take from admission to its answer; then the outcome is unknown to its caller.
pub(crate) const COMMAND_MILLIS: u64 = 10_000;
/// How long a turn goes on asking an entity for something that cannot be had now, in milliseconds.
pub(crate) const ASKED_FOR_MILLIS: u64 = 30_000;
/// Turns of one conversation that may wait behind the running one; they are part of its state.
pub const QUEUED_TURNS: usize = 64;
/// Model calls running at once in the node.
pub const RUNNING_TURNS: usize = 256;
/// Turns of one agent running at once where it does not say: a quarter of the permits, so that a slow model leaves
/// the others theirs.
pub const AGENT_TURNS: usize = 64;
/// Rounds of tool calls in one turn, after which it fails: a model that never comes to an end costs its owner money.
pub(crate) const TOOL_ROUNDS: u32 = 16;
/// Tools that one message of a model may call. Further calls are as if they had not been made: the model makes them
/// again once it has the results of these.
pub const ROUND_CALLS: usize = 8;
/// Bytes of one call's arguments; a model that writes more has lost its way.
pub const CALL_BYTES: usize = 64 * 1024;
/// Bytes of one call's result; what is longer is cut. Results stand in the conversation and in every later prompt.
pub const RESULT_BYTES: usize = 32 * 1024;
/// Bytes of a tool's answer that are read; of one that is longer nothing is kept.
pub const ANSWER_BYTES: usize = 1024 * 1024;
/// How long one call of a tool may take. It holds a turn's permit meanwhile.
pub const TOOL_MILLIS: u64 = 30_000;
/// Errands of one conversation that are run in one go; the rest follows.
pub const ERRANDS: usize = 64;
/// Conversations whose errands are run at once.
pub(crate) const RUNNING_ERRANDS: usize = 256;
/// Agents whose turns are counted to make every so-manyth fail; past it the counts begin anew.
pub(crate) const COUNTED_AGENTS: usize = 10_000;
/// Days of workspaces whose usage is kept summed up, some hundred bytes each.
pub(crate) const USED_DAYS: usize = 4_096;
/// Channels of a contact that are part of its state, at most 180 bytes each; the others stand in rows.
pub const CONTACT_CHANNELS: usize = 32;
/// Events kept for a subscriber that reads slowly; past it the subscriber reads on from the store.
pub const SUBSCRIBER_EVENTS: usize = 256;
/// Bytes of a conversation's events that its subscribers have not come to, as they are and as they are passed on: two
/// of the largest messages. Past it all of its subscribers read on from the store.
pub const SUBSCRIBER_BYTES: usize = 1024 * 1024;
/// Messages of a conversation handed to a model, newest first.
pub(crate) const CONTEXT_MESSAGES: usize = 100;
/// Characters of those messages; about 8,000 tokens at four characters each.
pub(crate) const CONTEXT_CHARS: usize = 32_000;
/// Characters of a result of a tool that a later turn's model is handed where the whole of it does not fit: enough to
/// know what it was, and a small part of what all messages have, so that there is room for what came before.
pub(crate) const SHORTENED_CHARS: usize = 1_000;
/// About how many bytes of what was said last stay in memory for the next turns, of all conversations together.
pub(crate) const RECENT_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of what one turn answers, where a channel lets messages gather for it; of more than that the newest. It is far
/// above what a model reads.
pub const QUESTION_BYTES: usize = 1024 * 1024;
/// Characters of a question that memories are looked for with.
pub const QUERY_CHARS: usize = 1_000;
/// Bytes of the key of a row of configuration: the longest id that a client may choose, four times over.
pub(crate) const CATALOG_KEY_BYTES: usize = 256;
/// Rows of the catalog (channels, agents) cached per node.
pub(crate) const CATALOG_ROWS: usize = 100_000;
/// Attempts at one turn across failures and restarts, after which it is failed.
pub const TURN_ATTEMPTS: u32 = 5;
/// Attempts at turns that are alive in the node, running or waiting for a permit. Each is a task and a commit to come
/// back to; past it messages that ask for another are refused.
pub(crate) const ALIVE_TURNS: usize = 10_000;
/// The same of one agent: a quarter, so that one whose model is slow leaves the others theirs.
pub const ALIVE_TURNS_OF_AGENT: usize = ALIVE_TURNS / 4;
/// Workspaces whose endpoints are kept in memory; past it all are read again.
pub(crate) const ENDPOINT_WORKSPACES: usize = 10_000;
/// Logs being sent from at once in the node, each a task of about 3 KiB. Past it a log's alarm comes back to it.
pub const COURIERS: usize = 8_192;
/// Lanes of one log moved at once: as many receivers as one log usually has, and a burst of messages with hooks.
pub const COURIER_LANES: usize = 64;
/// Bytes of one note of how far the sending of a log has come, about: a sixth of what the store that takes least takes
/// in one commit, since they are guessed. A delivery counts 300 at least, so it is 3,500 of them at most.
pub(crate) const NOTE_BYTES: usize = 1024 * 1024;
/// Events being sent at once in the node, each with its body in memory and a socket; a quarter more for workspaces that
/// have few (`actors/src/outbox/share.rs`).
pub const DELIVERIES: usize = 256;
/// The same that a workspace has for sure, and more only while more than half of all are free. A quarter, so that
/// receivers of one that hang leave room for others'.
pub(crate) const DELIVERIES_OF_WORKSPACE: usize = DELIVERIES / 4;
/// Deliveries that wait for a permit of their workspace's; past it they come back later. An eighth of the couriers,
/// so that one workspace does not take them all.
pub(crate) const SHARE_WAITING: usize = 1_024;
/// Events sent to one receiver at once before it has answered, so that one that hangs holds few sockets: as many as a
/// workspace may have endpoints leave room for others among [`DELIVERIES`].
pub const GATE_FIRST: usize = 2;
/// The same once it answers well.
pub const GATE_MOST: usize = 32;
/// Deliveries that wait for a permit at one receiver; past it they come back later. An eighth of the couriers.
pub const GATE_WAITING: usize = 1_024;
/// Beside those, URLs of messages at one host that are asked at once and have left nothing unanswered: enough that a
/// few that hang keep none waiting, and so few that several such hosts leave room among [`DELIVERIES_OF_WORKSPACE`].
pub(crate) const GATE_FRESH: usize = 8;
/// Those that wait for such a permit, and URLs that have left something unanswered and wait for a usual one; past it
/// they come back later. With those that have one they are fewer than [`COURIER_LANES`], so that what else happens in
/// their conversation is looked at while they wait.
pub(crate) const GATE_FEW_WAITING: usize = 16;
/// Beside all those, deliveries that were requested.
pub(crate) const GATE_ASKED: usize = 1;
/// URLs of one host that are remembered because they left something unanswered, 16 bytes each; past it the one that was
/// asked longest ago is forgotten.
pub(crate) const GATE_SILENT: usize = 256;
/// Receivers whose health is remembered, about 200 bytes each.
pub(crate) const GATES: usize = 10_000;
/// Webhook endpoints of one workspace. All of them are looked at for each event.
pub const WEBHOOK_ENDPOINTS: usize = 100;
/// Bytes of all votes on one review. They are written twice when it is decided, and that must fit a commit.
pub(crate) const VOTE_BYTES: usize = 1024 * 1024;
/// Memories of one contact or owner; past it the oldest is forgotten. All of them are read and ranked for a question.
pub const MEMORIES: usize = 1_000;
/// Calls of models to draw memories that run at once in a node; no request waits for them. As many conversations are
/// searched at once for the fixed phrases.
pub(crate) const DRAWING: usize = 16;
/// Conversations that memories are being drawn from or that wait for a place, each a task of some KiB; past it their
/// alarms come back to them.
pub const DRAWING_WAITING: usize = 1_024;
