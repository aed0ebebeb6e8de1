//! Every bound, in one place, with its reason (DESIGN invariant I7). Past a bound the caller is told before anything
//! is stored: 429 where the caller itself is too fast, 503 where the node is full.

/// Commands waiting or running in one entity. One caller with many connections fills it first and is told 429.
pub const ENTITY_COMMANDS: usize = 256;
/// Bytes of content of those commands; four of the largest requests. A single larger command is still taken.
pub const ENTITY_BYTES: usize = 16 * 1024 * 1024;
/// Commands waiting or running in the node. At 20 µs each this is 0.1 s of work, so a refusal comes while it helps.
pub const NODE_COMMANDS: usize = 8_192;
/// Bytes of content of those commands. Without it the node's largest requests could take 32 GiB.
pub const NODE_BYTES: usize = 256 * 1024 * 1024;
/// Commands decided into one commit. A trace span takes 128 links; half of that keeps one commit readable.
pub const BATCH_COMMANDS: usize = 64;
/// Bytes of content decided into one commit, after which the next command waits for the next one. ScyllaDB warns
/// about batches above this size. A single larger command still goes alone.
pub const BATCH_BYTES: usize = 128 * 1024;
/// An encoded entity state. What can grow is a keyed row, not state.
pub const STATE_BYTES: usize = 8 * 1024;
/// The key of a keyed row or list entry.
pub const ROW_KEY_BYTES: usize = 128;
/// How long an idempotency key is remembered: 48 hours, as API section 1 publishes.
pub const KEY_KEPT_MILLIS: u64 = 48 * 60 * 60 * 1000;
/// Idempotency keys of one resident entity that are remembered without asking the store.
pub const KEYS_CACHED: usize = 128;
/// An entity is passivated after this long without a command.
pub const PASSIVATE_AFTER_MILLIS: u64 = 120_000;
/// Resident entities; past it the longest idle ones are passivated early. An actor costs about 9 KiB.
pub const RESIDENT_ENTITIES: usize = 100_000;
/// Alarms kept in memory, about 100 bytes each; later ones are read from the store once there is room again.
pub const NEAR_ALARMS: usize = 100_000;
/// Entities being woken at once, so that a node that starts with many overdue alarms still answers.
pub const WAKES: usize = 1_024;
/// How long one command may take from admission to its answer; then the outcome is unknown to its caller.
pub const COMMAND_MILLIS: u64 = 10_000;
/// Turns of one conversation that may wait behind the running one; they are part of its state.
pub const QUEUED_TURNS: usize = 64;
/// Model calls running at once in the node.
pub const RUNNING_TURNS: usize = 256;
/// Channels one contact may have an open conversation on; they are part of its state, at most 180 bytes each.
pub const CONTACT_CHANNELS: usize = 32;
/// Events kept for a subscriber that reads slowly; past it the subscriber reads on from the store.
pub const SUBSCRIBER_EVENTS: usize = 256;
/// Messages of a conversation handed to a model, newest first.
pub const CONTEXT_MESSAGES: usize = 100;
/// Characters of those messages; about 8,000 tokens at four characters each.
pub const CONTEXT_CHARS: usize = 32_000;
/// Rows of the catalog (channels, agents) cached per node.
pub const CATALOG_ROWS: usize = 100_000;
/// Attempts at one turn across failures and restarts, after which it is failed.
pub const TURN_ATTEMPTS: u32 = 5;
/// Attempts at turns that are alive in the node, running or waiting for a place. Each is a task and a commit to come
/// back to; past it messages that ask for another are refused.
pub const ALIVE_TURNS: usize = 10_000;
/// Webhook endpoints of one workspace. All of them are looked at for each event.
pub const WEBHOOK_ENDPOINTS: usize = 100;
/// Bytes of all votes on one review. They are written twice when it is decided, and that must fit a commit.
pub const VOTE_BYTES: usize = 1024 * 1024;
/// Memories of one contact or owner; past it the oldest is forgotten. All of them are read and ranked for a question.
pub const MEMORIES: usize = 1_000;
/// Conversations that memories are drawn from at once in the node. Each may be a model call; nobody waits for it.
pub const DRAWING: usize = 16;
