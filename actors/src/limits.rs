//! Bounds that more than one file uses, each with its reason (invariant I7 of docs/ARCHITECTURE.md); a bound of a
//! single file is defined in that file. Past a bound the request is refused before anything is stored: with 429 if the
//! caller itself is too fast, with 503 if the node is full.

/// Commands waiting or running in one entity. One caller with many connections fills it first and gets 429: once a
/// command would wait for sixteen commits, a few hundred milliseconds even in a store of several nodes. It is an eighth
/// of those of the node, so that a few such entities leave room for others.
pub const ENTITY_COMMANDS: usize = 1_024;
/// Bytes of content of these commands: four of the largest requests. A single larger command is still accepted.
pub const ENTITY_BYTES: usize = 16 * 1024 * 1024;
/// Commands waiting or running in the node. At 20 µs each this is 0.1 s of work, so a refusal comes while it helps.
pub const NODE_COMMANDS: usize = 8_192;
/// Bytes of content of these commands. Without it the node's largest requests could take 32 GiB.
pub const NODE_BYTES: usize = 256 * 1024 * 1024;
/// Commands decided into one commit. A trace span takes 128 links; half of that keeps one commit readable.
pub(crate) const BATCH_COMMANDS: usize = 64;
/// Bytes of content decided into one commit, after which the next command waits for the next one. ScyllaDB warns
/// about batches above this size. A single larger command still goes alone.
pub const BATCH_BYTES: usize = 128 * 1024;
/// About how many bytes a command, a message or a part of them adds to a commit in addition to its text: ids, times and
/// the store's overhead per record. It also bounds a commit of many small commands.
pub(crate) const COMMAND_BYTES: usize = 200;
/// Bytes of one commit that are known only once its commands are decided: past it the next command waits for the next
/// commit. An acknowledgement is short, but its writes may not be. Together with the largest single command this is
/// below the smallest limit of any store.
pub const DRAFT_BYTES: usize = 1024 * 1024;
/// How long an unused file is kept: 24 hours, as docs/API.md promises.
pub const ORPHAN_KEPT_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// How long a message that has a file may take to arrive before its conversation is asked about it; for one that
/// mentions it at least half of that.
pub const LINKING_MILLIS: u64 = 60 * 60 * 1000;
/// The pause before a file is checked whose message may be about to be deleted; a command takes at most 10 seconds.
pub(crate) const DOUBT_MILLIS: u64 = 60 * 1000;
/// The pause before a file is checked again, or deleting its bytes is retried, if they may still exist.
pub(crate) const SWEEP_AGAIN_MILLIS: u64 = 10 * 60 * 1000;
/// Conversations recorded in a file's state as mentioning it; a file mentioned in this many is kept for ever.
pub(crate) const MENTIONED_IN: usize = 8;
/// Files checked at once; each takes a few reads and a commit.
pub(crate) const SETTLING: usize = 32;
/// Files waiting to be checked; the alarms of further ones ask again.
pub(crate) const SETTLING_WAITING: usize = 1_024;
/// An encoded entity state. Growing data is in keyed rows, not in the state: each part of a state has a bound of its
/// own, and tests hold their sum below this one. Most of it is waiting turns, [`QUEUED_TURNS`] of them, with their
/// agents and the traces of their requests, without which they would begin outside of those traces.
pub const STATE_BYTES: usize = 12 * 1024;
/// The key of a keyed row or list entry.
pub const ROW_KEY_BYTES: usize = 128;
/// How long an idempotency key is remembered: 48 hours, as docs/API.md promises.
pub const KEY_KEPT_MILLIS: u64 = 48 * 60 * 60 * 1000;
/// Idempotency keys of one resident entity that are kept in memory.
pub const KEYS_CACHED: usize = 128;
/// An entity is passivated after this long without a command.
pub const PASSIVATE_AFTER_MILLIS: u64 = 120_000;
/// Actors of one kind of entities, some 7 KiB each; past it the longest idle ones end, and their states are kept. It is
/// three times the commands that can wait in a node.
pub const ACTORS: usize = 25_000;
/// Resident entities of one kind, with an actor or without, about 3 KiB of state each; past it the longest idle ones
/// are evicted early.
pub const RESIDENT_ENTITIES: usize = 100_000;
/// Conversations whose beginning a node caches, for reads of their messages; about 180 bytes each.
pub(crate) const KNOWN_BEGINNINGS: usize = 50_000;
/// Alarms kept in memory, about 100 bytes each; later ones are read from the store once there is room again.
pub(crate) const NEAR_ALARMS: usize = 100_000;
/// Entities being woken at once, so that a node that starts with many overdue alarms still answers.
pub const WAKES: usize = 1_024;
/// How long one command may take from admission to its answer; then the outcome is unknown to its caller.
pub(crate) const COMMAND_MILLIS: u64 = 10_000;
/// How long a turn retries a command that an entity cannot accept now, in milliseconds.
pub(crate) const ASKED_FOR_MILLIS: u64 = 30_000;
/// Turns of one conversation that may wait for the running one; they are part of its state.
pub const QUEUED_TURNS: usize = 64;
/// Messages of one contact on one channel that wait for room among those turns; a further one is refused at once. Each
/// holds its connection, its body and a permit of a long request.
pub const WAITING_FOR_ROOM: usize = 256;
/// The bound of those for all contacts of a workspace together, so that one workspace leaves long requests for others.
pub const WAITING_FOR_ROOM_IN_WORKSPACE: usize = 1_024;
/// Model calls running at once in the node: twice those of a workspace, so that the slow models of one leave half to
/// others.
pub const RUNNING_TURNS: usize = 2 * RUNNING_TURNS_OF_WORKSPACE;
/// Model calls of one workspace running at once; each has a socket and its prompt in memory.
pub const RUNNING_TURNS_OF_WORKSPACE: usize = 256;
/// Turns of one agent running at once unless the agent sets it: a quarter of those of its workspace, so that a slow model
/// leaves permits for others.
pub const AGENT_TURNS: usize = 64;
/// Rounds of tool calls in one turn, after which it fails: a model that never ends costs its owner money.
pub(crate) const TOOL_ROUNDS: u32 = 16;
/// Tool calls in one message of a model. Further calls are ignored: the model repeats them once it has the results of
/// these.
pub const ROUND_CALLS: usize = 8;
/// Bytes of one call's arguments; a model that writes more is malfunctioning.
pub const CALL_BYTES: usize = 64 * 1024;
/// Bytes of one call's result; a longer one is cut. Results are in the conversation and in every later prompt.
pub const RESULT_BYTES: usize = 32 * 1024;
/// Bytes of a tool's answer that are read; a longer one is dropped.
pub const ANSWER_BYTES: usize = 1024 * 1024;
/// How long one call of a tool may take. It holds a turn's permit meanwhile.
pub const TOOL_MILLIS: u64 = 30_000;
/// Errands of one conversation that one run executes; the rest follows.
pub const ERRANDS: usize = 64;
/// Conversations whose errands are run at once.
pub(crate) const RUNNING_ERRANDS: usize = 256;
/// Agents whose turns are counted to make every nth fail; past it the counts restart.
pub(crate) const COUNTED_AGENTS: usize = 10_000;
/// Days of workspaces whose usage sums are cached, some hundred bytes each.
pub(crate) const USED_DAYS: usize = 4_096;
/// Channels of a contact that are part of its state, at most 180 bytes each; the others are in rows.
pub const CONTACT_CHANNELS: usize = 32;
/// Events kept for a subscriber that reads slowly; past it the subscriber continues from the store.
pub const SUBSCRIBER_EVENTS: usize = 256;
/// Bytes of a conversation's events not yet read by its subscribers, as records and as rendered: two of the largest
/// messages. Past it all of its subscribers continue from the store.
pub const SUBSCRIBER_BYTES: usize = 1024 * 1024;
/// Messages of a conversation handed to a model, newest first.
pub(crate) const CONTEXT_MESSAGES: usize = 100;
/// Characters of those messages; about 8,000 tokens at four characters each.
pub(crate) const CONTEXT_CHARS: usize = 32_000;
/// Characters of a tool's result in a later turn's prompt, if the full result does not fit: enough to recognise it, and
/// a small part of the bound of all messages, so that there is room for earlier ones.
pub(crate) const SHORTENED_CHARS: usize = 1_000;
/// About how many bytes of the newest messages are kept in memory for the next turns, of all conversations together.
pub(crate) const RECENT_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of the messages that one turn answers, if a channel collects messages for it; of more, the newest. It is far
/// above what a model reads.
pub const QUESTION_BYTES: usize = 1024 * 1024;
/// Characters of a question that memories are searched with.
pub const QUERY_CHARS: usize = 1_000;
/// Bytes of the key of a row of configuration: the longest id that a client may choose, four times over.
pub(crate) const CATALOG_KEY_BYTES: usize = 256;
/// Rows of the catalog (channels, agents) cached per node.
pub(crate) const CATALOG_ROWS: usize = 100_000;
/// Attempts at one turn across failures and restarts, after which it is failed.
pub const TURN_ATTEMPTS: u32 = 5;
/// Attempts at turns that are alive in the node, running or waiting for a permit. Each is a task and a pending commit;
/// past it messages that ask for another turn are refused.
pub(crate) const ALIVE_TURNS: usize = 10_000;
/// The bound for one workspace: half, so that its slow models leave room for others.
pub const ALIVE_TURNS_OF_WORKSPACE: usize = ALIVE_TURNS / 2;
/// The bound for one agent: a quarter, so that a slow model leaves room for other agents.
pub const ALIVE_TURNS_OF_AGENT: usize = ALIVE_TURNS / 4;
/// Workspaces whose endpoints are kept in memory; past it all are read again.
pub(crate) const ENDPOINT_WORKSPACES: usize = 10_000;
/// Logs being sent from at once in the node, each a task of about 3 KiB. Past it a log's alarm resumes it later.
pub(crate) const COURIERS: usize = 8_192;
/// Lanes of one log worked on at once: as many receivers as one log usually has, and a burst of messages with webhooks.
pub const COURIER_LANES: usize = 64;
/// Bytes of one note of a log's sending progress, about: a sixth of the smallest commit limit of any store, since they
/// are estimated. A delivery counts at least 300, so it is at most 3,500 of them.
pub(crate) const NOTE_BYTES: usize = 1024 * 1024;
/// Events being sent at once in the node, each with its body in memory and a socket; a quarter more for workspaces that
/// have few (`actors/src/outbox/send_permits.rs`).
pub const DELIVERIES: usize = 256;
/// The permits that every workspace has; it gets more only while more than half of all are free. A quarter, so that one
/// workspace's hanging receivers leave room for others.
pub(crate) const DELIVERIES_OF_WORKSPACE: usize = DELIVERIES / 4;
/// Deliveries waiting for a permit of their workspace; past it they come back later. An eighth of the couriers, so that
/// one workspace does not take them all.
pub(crate) const SHARE_WAITING: usize = 1_024;
/// Events sent to one receiver at once before it has answered, so that a hanging one holds few sockets: all endpoints
/// of a workspace together leave room for others among [`DELIVERIES`].
pub const BREAKER_FIRST: usize = 2;
/// The bound once the receiver answers well.
pub const MAX_BREAKER_PERMITS: usize = 32;
/// Deliveries that wait for a permit at one receiver; past it they come back later. An eighth of the couriers.
pub const BREAKER_WAITING: usize = 1_024;
/// In addition to these, URLs of messages at one host that are tried at once and have left nothing unanswered: enough
/// that a few hanging ones delay none, and so few that several such hosts leave room among [`DELIVERIES_OF_WORKSPACE`].
pub(crate) const BREAKER_FRESH: usize = 8;
/// Lanes waiting for such a permit, and those of URLs with unanswered attempts waiting for a usual one; past it they
/// come back later. Together with those that hold one they are fewer than [`COURIER_LANES`], so that other events of
/// their conversation are checked while they wait.
pub(crate) const BREAKER_FEW_WAITING: usize = 16;
/// Beside all those, deliveries that were requested.
pub(crate) const BREAKER_REQUESTED: usize = 1;
/// URLs of one host remembered for unanswered attempts, 16 bytes each; past it the one tried longest ago is forgotten.
pub(crate) const BREAKER_SILENT: usize = 256;
/// Receivers whose health is remembered, about 200 bytes each.
pub(crate) const BREAKERS: usize = 10_000;
/// Webhook endpoints of one workspace. All of them are checked for each event.
pub const WEBHOOK_ENDPOINTS: usize = 100;
/// Bytes of all votes on one review. They are written twice when it is decided, and that must fit a commit.
pub(crate) const VOTE_BYTES: usize = 1024 * 1024;
/// Memories of one contact or owner; past it the oldest is forgotten. All of them are read and ranked for a question.
pub const MEMORIES: usize = 1_000;
/// Model calls to draw memories that run at once in a node; no request waits for them. As many conversations are
/// searched at once for the fixed phrases.
pub(crate) const DRAWING: usize = 16;
/// Conversations that memories are being drawn from or that wait for a permit, each a task of some KiB; past it their
/// alarms resume them.
pub const DRAWING_WAITING: usize = 1_024;
