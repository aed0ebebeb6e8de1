//! Every statement, prepared once.
//!
//! Names of markers are names of columns, so that values are bound by name where there are many.

use scylla::client::session::Session;
use scylla::errors::PrepareError;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::unprepared::Statement;

use super::session::{Profiles, Quorum};

/// How long an idempotency key is kept, in seconds.
const KEY_TTL: u64 = actors::limits::KEY_KEPT_MILLIS / 1000;

/// How a statement is run.
#[derive(Clone, Copy)]
enum Run {
    /// As part of a conditional batch.
    Conditional,
    /// As a read at serial consistency.
    Serial,
    /// As a condition that is never met, any number of times.
    Settled,
    /// Alone, and more than once if necessary.
    Plain,
}

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident: $run:ident, $text:expr;)*) => {
        /// The prepared statements of a session.
        #[derive(Debug)]
        pub(super) struct Statements {
            $($(#[$doc])* pub(super) $name: PreparedStatement,)*
        }

        impl Statements {
            /// Prepares every statement on the tables of `keyspace`.
            pub(super) async fn prepare(
                session: &Session,
                keyspace: &str,
                profiles: &Profiles,
                quorum: Quorum,
            ) -> Result<Self, PrepareError> {
                let prepare = async |text: String, run: Run| {
                    let mut statement = Statement::new(text.replace("KS.", &format!("\"{keyspace}\".")));
                    let profile = match run {
                        Run::Conditional | Run::Serial => &profiles.conditional,
                        Run::Settled => &profiles.settled,
                        Run::Plain => &profiles.plain,
                    };
                    statement.set_execution_profile_handle(Some(profile.clone().into_handle()));
                    if matches!(run, Run::Serial) {
                        statement.set_consistency(quorum.serial_read());
                    }
                    statement.set_is_idempotent(matches!(run, Run::Plain | Run::Settled));
                    session.prepare(statement).await
                };
                $(let $name = prepare(($text).to_owned(), Run::$run).await?;)*
                Ok(Self {
                    $($name,)*
                })
            }
        }
    };
}

statements! {
    /// Opens a bucket.
    open: Conditional, "INSERT INTO KS.entity (entity, bucket, kind, n, k, seq, commit, id, stamp, closed, listed, \
        records, bytes, base_seq, base_commit, state, state_seq, state_commit, alarm, alarm_slot, alarm_id) \
        VALUES (:entity, :bucket, 0, 0, 0x00, :seq, :commit, :id, :stamp, :closed, :listed, :records, :bytes, \
        :base_seq, :base_commit, :state, :state_seq, :state_commit, :alarm, :alarm_slot, :alarm_id) IF NOT EXISTS";
    /// Moves a head.
    advance: Conditional, "UPDATE KS.entity SET seq = :seq, commit = :commit, id = :id, stamp = :stamp, \
        closed = :closed, listed = :listed, records = :records, bytes = :bytes, state = :state, \
        state_seq = :state_seq, state_commit = :state_commit, alarm = :alarm, alarm_slot = :alarm_slot, \
        alarm_id = :alarm_id WHERE entity = :entity AND bucket = :bucket AND kind = 0 AND n = 0 AND k = 0x00 \
        IF seq = :was_seq AND commit = :was_commit AND closed = false";
    /// A commit's own row.
    put_commit: Conditional, "INSERT INTO KS.entity (entity, bucket, kind, n, k, id, stamp, at, payload, chunks, \
        chunk_id, lists, revision) VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)";
    /// Redacts a commit's records.
    redact: Conditional, "UPDATE KS.entity SET payload = ?, chunks = ?, chunk_id = ?, lists = ?, revision = ? \
        WHERE entity = ? AND bucket = ? AND kind = 1 AND n = ? AND k = ? IF revision = ?";
    /// Removes the lists that a commit changed long ago.
    forget_lists: Conditional, "UPDATE KS.entity SET lists = null WHERE entity = ? AND bucket = ? AND kind = 1 \
        AND n = ? AND k = ? IF revision = ?";
    /// An idempotency key.
    put_key: Conditional, format!("INSERT INTO KS.entity (entity, bucket, kind, n, k, fingerprint, first, last, at) \
        VALUES (?, ?, 2, 0, ?, ?, ?, ?, ?) USING TTL {KEY_TTL}");
    /// A keyed row.
    put_row: Conditional, "INSERT INTO KS.entity (entity, bucket, kind, n, k, value) VALUES (?, ?, 3, ?, ?, ?)";

    /// A bucket's head.
    head: Plain, "SELECT seq, commit, id, stamp, closed, listed, records, bytes, base_seq, base_commit, state, \
        state_seq, state_commit, alarm, alarm_slot, alarm_id FROM KS.entity \
        WHERE entity = ? AND bucket = ? AND kind = 0 AND n = 0 AND k = 0x00";
    /// A bucket's head, after proposals in flight were settled: a majority then has all of them. No row has a negative
    /// sequence, so this is never applied, and returns the values that its condition names. A read at serial
    /// consistency would not suffice: on Apache Cassandra it returns as soon as one replica shows a commit, while
    /// others have not received it yet.
    settled_whole: Settled, "UPDATE KS.entity SET revision = 0 WHERE entity = ? AND bucket = ? AND kind = 0 AND n = 0 \
        AND k = 0x00 IF seq = -1 AND commit = -1 AND id = 0x00 AND stamp = -1 AND closed = true AND listed = true \
        AND records = -1 AND bytes = -1 AND base_seq = -1 AND base_commit = -1 AND state = 0x00 AND state_seq = -1 \
        AND state_commit = -1 AND alarm = -1 AND alarm_slot = -1 AND alarm_id = 0x00";
    /// A bucket's head without the state, after proposals in flight were settled, as `settled_whole`.
    settled: Settled, "UPDATE KS.entity SET revision = 0 WHERE entity = ? AND bucket = ? AND kind = 0 AND n = 0 \
        AND k = 0x00 IF seq = -1 AND commit = -1 AND id = 0x00 AND stamp = -1 AND closed = true AND listed = true \
        AND records = -1 AND bytes = -1 AND base_seq = -1 AND base_commit = -1 AND state_seq = -1 \
        AND state_commit = -1 AND alarm = -1 AND alarm_slot = -1 AND alarm_id = 0x00";
    /// Whether a bucket is closed, and nothing else of its head.
    closed: Plain, "SELECT closed FROM KS.entity WHERE entity = ? AND bucket = ? AND kind = 0 AND n = 0 AND k = 0x00";
    /// When a bucket got its last commit, whether that closed it, and the mark of an emptied one.
    closing: Plain, "SELECT stamp, closed, revision FROM KS.entity WHERE entity = ? AND bucket = ? AND kind = 0 \
        AND n = 0 AND k = 0x00";
    /// Deletes all keyed rows of a bucket.
    empty_rows: Plain, "DELETE FROM KS.entity USING TIMESTAMP ? WHERE entity = ? AND bucket = ? AND kind = 3";
    /// Removes the state in a bucket's head, and marks the bucket as emptied.
    empty_head: Plain, "UPDATE KS.entity USING TIMESTAMP ? SET state = null, revision = 1 WHERE entity = ? \
        AND bucket = ? AND kind = 0 AND n = 0 AND k = 0x00";
    /// The state in a bucket's head.
    state: Plain, "SELECT state FROM KS.entity WHERE entity = ? AND bucket = ? AND kind = 0 AND n = 0 AND k = 0x00";
    /// The id of a commit; also decides proposals in flight.
    commit_id: Serial, "SELECT id FROM KS.entity WHERE entity = ? AND bucket = ? AND kind = 1 AND n = ? \
        AND k = ?";
    /// The lists that a commit changes.
    lists: Plain, "SELECT stamp, at, lists FROM KS.entity WHERE entity = ? AND bucket = ? AND kind = 1 AND n = ? \
        AND k = ?";
    /// A bucket's head, and a key in it.
    key: Plain, "SELECT kind, closed, fingerprint, first, last, at FROM KS.entity WHERE entity = ? AND bucket = ? \
        AND (kind, n, k) IN ((0, 0, 0x00), (2, 0, ?))";
    /// A bucket's head, and a keyed row in it.
    row: Plain, "SELECT kind, closed, value FROM KS.entity WHERE entity = ? AND bucket = ? \
        AND (kind, n, k) IN ((0, 0, 0x00), (3, ?, ?))";
    /// Keyed rows of a bucket.
    rows_asc: Plain, "SELECT k, value FROM KS.entity WHERE entity = ? AND bucket = ? AND (kind, n, k) >= (3, ?, ?) \
        AND (kind, n, k) < (3, ?, ?) ORDER BY kind ASC, n ASC, k ASC LIMIT ?";
    /// Keyed rows of a bucket, greatest first.
    rows_desc: Plain, "SELECT k, value FROM KS.entity WHERE entity = ? AND bucket = ? AND (kind, n, k) >= (3, ?, ?) \
        AND (kind, n, k) < (3, ?, ?) ORDER BY kind DESC, n DESC, k DESC LIMIT ?";
    /// Commits of a bucket.
    log_asc: Plain, "SELECT n, k, id, payload, chunks, chunk_id, revision FROM KS.entity WHERE entity = ? AND bucket = ? \
        AND (kind, n, k) >= (1, ?, ?) AND (kind, n, k) < (1, ?, ?) ORDER BY kind ASC, n ASC, k ASC LIMIT ?";
    /// Commits of a bucket, newest first.
    log_desc: Plain, "SELECT n, k, id, payload, chunks, chunk_id, revision FROM KS.entity WHERE entity = ? AND bucket = ? \
        AND (kind, n, k) >= (1, ?, ?) AND (kind, n, k) < (1, ?, ?) ORDER BY kind DESC, n DESC, k DESC LIMIT ?";
    /// Positions of commits of a bucket.
    log_place: Plain, "SELECT n, k FROM KS.entity WHERE entity = ? AND bucket = ? \
        AND (kind, n, k) >= (1, ?, ?) AND (kind, n, k) < (1, ?, ?) ORDER BY kind ASC, n ASC, k ASC LIMIT ?";
    /// All keys of a bucket.
    bucket_keys: Plain, "SELECT k, fingerprint, first, last, at FROM KS.entity WHERE entity = ? AND bucket = ? \
        AND kind = 2 AND n = 0 AND k > ? LIMIT ?";
    /// Keys of closed buckets.
    old_keys: Plain, "SELECT hash, fingerprint, first, last, at FROM KS.entity_key WHERE entity = ? AND part = ? \
        AND hash > ? LIMIT ?";
    /// The first table from a number on that has rows in a bucket.
    row_table: Plain, "SELECT n FROM KS.entity WHERE entity = ? AND bucket = ? AND (kind, n, k) >= (3, ?, ?) \
        AND (kind, n, k) < (?, 0, ?) ORDER BY kind ASC, n ASC, k ASC LIMIT ?";
    /// The first buckets of all.
    partitions: Plain, "SELECT DISTINCT entity, bucket FROM KS.entity LIMIT ?";
    /// Buckets after one, in the order of the ring.
    partitions_after: Plain, "SELECT DISTINCT entity, bucket FROM KS.entity \
        WHERE token(entity, bucket) > token(?, ?) LIMIT ?";
    /// All keyed rows of a bucket.
    bucket_rows: Plain, "SELECT n, k, value FROM KS.entity WHERE entity = ? AND bucket = ? \
        AND (kind, n, k) > (3, ?, ?) LIMIT ?";
    /// The names of all keyed rows of a bucket.
    bucket_row_names: Plain, "SELECT n, k FROM KS.entity WHERE entity = ? AND bucket = ? \
        AND (kind, n, k) > (3, -1, 0x)";

    /// The newest bucket that may exist.
    newest_bucket: Plain, "SELECT bucket FROM KS.entity_bucket WHERE entity = ? \
        ORDER BY base_seq DESC, bucket DESC LIMIT 1";
    /// Buckets that begin before a sequence, latest first.
    buckets_before: Plain, "SELECT bucket, base_commit FROM KS.entity_bucket WHERE entity = ? AND base_seq < ? \
        ORDER BY base_seq DESC, bucket DESC LIMIT ?";
    /// Records where a bucket begins.
    put_bucket: Plain, "INSERT INTO KS.entity_bucket (entity, base_seq, bucket, base_commit) VALUES (?, ?, ?, ?)";
    /// A key of a closed bucket.
    old_key: Plain, "SELECT fingerprint, first, last, at FROM KS.entity_key WHERE entity = ? AND part = ? AND hash = ?";
    /// Keeps a key of a closed bucket.
    put_old_key: Plain, "INSERT INTO KS.entity_key (entity, part, hash, fingerprint, first, last, at) \
        VALUES (?, ?, ?, ?, ?, ?, ?) USING TTL ? AND TIMESTAMP ?";
    /// A keyed row of closed buckets.
    old_row: Plain, "SELECT value FROM KS.entity_row WHERE entity = ? AND list = ? AND key = ?";
    /// Which of these keys have a row of closed buckets.
    old_rows_among: Plain, "SELECT key FROM KS.entity_row WHERE entity = ? AND list = ? AND key IN ?";
    /// Keyed rows of closed buckets.
    old_rows_asc: Plain, "SELECT key, value FROM KS.entity_row WHERE entity = ? AND list = ? AND key >= ? AND key < ? \
        ORDER BY key ASC LIMIT ?";
    /// Keyed rows of closed buckets, greatest first.
    old_rows_desc: Plain, "SELECT key, value FROM KS.entity_row WHERE entity = ? AND list = ? AND key >= ? AND key < ? \
        ORDER BY key DESC LIMIT ?";
    /// Keeps a keyed row of a closed bucket.
    put_old_row: Plain, "INSERT INTO KS.entity_row (entity, list, key, value) VALUES (?, ?, ?, ?) USING TIMESTAMP ?";
    /// Deletes a keyed row of closed buckets.
    delete_old_row: Plain, "DELETE FROM KS.entity_row USING TIMESTAMP ? WHERE entity = ? AND list = ? AND key = ?";

    /// Keeps a part of large records.
    put_chunk: Plain, "INSERT INTO KS.chunk (entity, id, n, data) VALUES (?, ?, ?, ?)";
    /// A part of large records.
    chunk: Plain, "SELECT data FROM KS.chunk WHERE entity = ? AND id = ? AND n = ?";
    /// Deletes large records that no commit refers to.
    delete_chunks: Plain, "DELETE FROM KS.chunk WHERE entity = ? AND id = ?";

    /// Puts a list entry.
    put_entry: Plain, "INSERT INTO KS.list_entry (workspace, list, part, key, value) VALUES (?, ?, ?, ?, ?) \
        USING TIMESTAMP ?";
    /// Deletes a list entry.
    delete_entry: Plain, "DELETE FROM KS.list_entry USING TIMESTAMP ? WHERE workspace = ? AND list = ? AND part = ? \
        AND key = ?";
    /// Entries of a part of a list.
    entries_asc: Plain, "SELECT key, value FROM KS.list_entry WHERE workspace = ? AND list = ? AND part = ? \
        AND key >= ? AND key < ? ORDER BY key ASC LIMIT ?";
    /// Entries of a part of a list, greatest first.
    entries_desc: Plain, "SELECT key, value FROM KS.list_entry WHERE workspace = ? AND list = ? AND part = ? \
        AND key >= ? AND key < ? ORDER BY key DESC LIMIT ?";
    /// Records a part of a list.
    put_part: Plain, "INSERT INTO KS.list_part (workspace, list, part) VALUES (?, ?, ?)";
    /// Parts of a list.
    parts_asc: Plain, "SELECT part FROM KS.list_part WHERE workspace = ? AND list = ? AND part >= ? AND part <= ? \
        ORDER BY part ASC LIMIT ?";
    /// Parts of a list, latest first.
    parts_desc: Plain, "SELECT part FROM KS.list_part WHERE workspace = ? AND list = ? AND part >= ? AND part <= ? \
        ORDER BY part DESC LIMIT ?";

    /// Puts a row of the due index.
    put_due: Plain, "INSERT INTO KS.due (shard, slot, at, entity, kind, id) VALUES (?, ?, ?, ?, ?, ?)";
    /// Deletes a row of the due index.
    delete_due: Plain, "DELETE FROM KS.due WHERE shard = ? AND slot = ? AND at = ? AND entity = ? AND kind = ? \
        AND id = ?";
    /// Rows of a slot from a position on.
    due: Plain, "SELECT at, entity, kind, id FROM KS.due WHERE shard = ? AND slot = ? \
        AND (at, entity, kind, id) > (?, ?, ?, ?) AND (at) <= (?) LIMIT ?";
    /// Deletes a slot.
    delete_slot: Plain, "DELETE FROM KS.due WHERE shard = ? AND slot = ?";
    /// Records a slot.
    put_slot: Plain, "INSERT INTO KS.due_slot (shard, slot) VALUES (?, ?)";
    /// Slots of a shard.
    slots: Plain, "SELECT slot FROM KS.due_slot WHERE shard = ? AND slot <= ? LIMIT ?";
    /// Forgets a slot.
    forget_slot: Plain, "DELETE FROM KS.due_slot WHERE shard = ? AND slot = ?";

    /// Records a process's heartbeat.
    put_node: Plain, "INSERT INTO KS.node (part, id, beat, address) VALUES (0, ?, ?, ?)";
    /// Recent heartbeats.
    nodes: Plain, "SELECT id, beat, address FROM KS.node WHERE part = 0";
    /// Deletes a process's heartbeat.
    delete_node: Plain, "DELETE FROM KS.node WHERE part = 0 AND id = ?";
}
