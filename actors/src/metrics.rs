//! A node's metrics: counters, gauges and timings, always on, whether or not requests are traced.
//!
//! [`Metrics`] is the table of instruments. A new one is a line there, `node.metrics.<name>.inc()` (or `add`, `set`,
//! `observe`) where it happens, and a line in `docs/TELEMETRY.md`; the front door exports the table without knowing its
//! lines. A store's counters are in [`StoreMetrics`], which the store keeps and the node exports. Current values need
//! no counter: they are read on demand as [`NodeStatus`](crate::node::census::NodeStatus), for `/metrics` and `GET
//! /admin/runtime`.
//!
//! Labels are enums, or one of a list of words, so there can be no series for each conversation, key or URL.

mod instrument;
mod times;

pub use instrument::{
    Buckets, By, Counter, Gauge, Histogram, Label, LabelPair, Lateness, Long, Metric, MetricKind, Rare, Requests,
    Sample, Short, Sizes, Snapshot,
};
pub use times::{Exemplar, Times};

use crate::id::Kind;

/// A metric's name and meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its Prometheus name, or that of OpenTelemetry's conventions; durations are in seconds.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Its kind.
    pub kind: MetricKind,
}

/// Takes a metric with all its samples.
pub type Visitor<'a> = dyn FnMut(Described, &[(Vec<LabelPair>, Sample)]) + 'a;

/// Makes a struct of instruments, and the code that visits all of them. The first line of a field's text is the help
/// text for Prometheus.
macro_rules! table {
    (
        $(#[$meta:meta])*
        pub struct $table:ident {
            $( #[doc = $help:literal] $(#[doc = $more:literal])* pub $field:ident: $kind:ty = $name:literal, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub struct $table {
            $( #[doc = $help] $(#[doc = $more])* pub $field: $kind, )*
        }

        impl $table {
            /// Hands out every metric in the order of the table.
            pub fn visit(&self, visitor: &mut Visitor<'_>) {
                $({
                    let mut samples = Vec::new();
                    self.$field.read(&mut |labels, sample| samples.push((labels, sample)));
                    visitor(Described { name: $name, help: $help.trim_ascii(), kind: <$kind>::KIND }, &samples);
                })*
            }
        }
    };
}

/// Makes a label of an enum.
macro_rules! label {
    (
        $(#[$meta:meta])*
        pub enum $label:ident = $name:literal { $( $(#[$each:meta])* $variant:ident = $value:literal, )* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $label { $( $(#[$each])* $variant, )* }

        impl Label for $label {
            const NAME: &'static str = $name;
            const VALUES: &'static [&'static str] = &[$($value),*];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

impl Label for Kind {
    const NAME: &'static str = "entity";
    const VALUES: &'static [&'static str] =
        &["installation", "workspace", "contact", "conversation", "attachment", "memories"];

    fn index(self) -> usize {
        match self {
            Self::Installation => 0,
            Self::Workspace => 1,
            Self::Contact => 2,
            Self::Conversation => 3,
            Self::Attachment => 4,
            Self::Memories => 5,
        }
    }
}

label! {
    /// Why a command was refused before anything was stored.
    pub enum RefusalReason = "reason" {
        /// Too many commands wait for the entity.
        Backlog = "backlog",
        /// The node has too many pending commands.
        Overloaded = "overloaded",
        /// The node is stopping.
        Draining = "draining",
        /// The store was unavailable, or the data that it needs is damaged.
        Unavailable = "unavailable",
    }
}

label! {
    /// How an attempt at a turn ended.
    pub enum TurnEnd = "outcome" {
        /// With a reply.
        Completed = "completed",
        /// Without one.
        Failed = "failed",
        /// Its outcome was no longer wanted, or could not be delivered.
        Dropped = "dropped",
    }
}

label! {
    /// What a model is called for.
    pub enum ModelOperation = "gen_ai.operation.name" {
        /// The next message.
        Chat = "chat",
        /// What texts mean, as vectors.
        Embeddings = "embeddings",
    }
}

label! {
    /// Whose protocol a model is called by.
    pub enum ModelProvider = "gen_ai.provider.name" {
        /// This program's own agents.
        Builtin = "tertulia",
        /// Every endpoint with the chat-completions protocol.
        OpenAi = "openai",
    }
}

/// Why a model call failed: one word of the codes of failures, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelError(usize);

impl ModelError {
    /// The error with the code of a failure; `None`: the call did not fail.
    #[must_use]
    pub fn of(code: Option<&str>) -> Self {
        let found = Self::VALUES.iter().position(|known| *known == code.unwrap_or_default());
        Self(found.unwrap_or(Self::VALUES.len() - 1))
    }
}

impl Label for ModelError {
    const NAME: &'static str = "error.type";
    const VALUES: &'static [&'static str] = &[
        "",
        "bad_request",
        "builtin_failure",
        "connect_failed",
        "content_filtered",
        "empty_reply",
        "first_token_timeout",
        "invalid_answer",
        "invalid_api_key",
        "invalid_base_url",
        "invalid_reply",
        "not_json",
        "provider_unavailable",
        "rate_limited",
        "reported_error",
        "stalled",
        "timeout",
        "too_large",
        "unauthorized",
        "unavailable",
        "unexpected_redirect",
        "upstream_error",
        "_OTHER",
    ];

    fn index(self) -> usize {
        self.0
    }
}

/// Model calls, by purpose, provider and error.
pub type ModelCalls = By<ModelOperation, By<ModelProvider, By<ModelError, Rare<Times<Long>>>>>;

label! {
    /// The direction of tokens.
    pub enum TokenType = "type" {
        /// To the model.
        Input = "input",
        /// From the model.
        Output = "output",
    }
}

label! {
    /// How a commit ended.
    pub enum CommitEnd = "outcome" {
        /// Durable.
        Committed = "committed",
        /// Another process committed first.
        Conflict = "conflict",
        /// The outcome is not known yet.
        Indeterminate = "indeterminate",
        /// Not applied.
        Failed = "failed",
    }
}

label! {
    /// How an attempt to send an event ended.
    pub enum AttemptEnd = "outcome" {
        /// The receiver accepted it.
        Delivered = "delivered",
        /// The receiver did not accept it, or did not answer.
        Refused = "refused",
        /// The receiver wants nothing any more.
        Gone = "gone",
    }
}

label! {
    /// The outcome of a request whose entity another process owns.
    pub enum ForwardEnd = "outcome" {
        /// The other process answered it.
        Sent = "sent",
        /// This process answered it after all.
        FellBack = "fell_back",
        /// The effect in the other process is unknown.
        Unknown = "unknown",
    }
}

table! {
    /// The metrics of a node.
    pub struct Metrics {
        /// Time from admission of a command until its batch starts.
        pub mailbox_wait: By<Kind, Times<Short>> = "tertulia_mailbox_wait_seconds",
        /// Commands decided together.
        pub batch_commands: Histogram<Sizes> = "tertulia_batch_commands",
        /// Time from handing a commit to the store until its outcome is known.
        pub commit: By<CommitEnd, Times<Short>> = "tertulia_commit_seconds",
        /// Commands refused before anything was stored.
        pub turned_away: By<RefusalReason, Counter> = "tertulia_commands_turned_away_total",
        /// Requests whose conversation another server owns.
        pub forwarded: By<ForwardEnd, Counter> = "tertulia_requests_forwarded_total",
        /// Entities loaded into memory.
        pub activations: By<Kind, Counter> = "tertulia_activations_total",
        /// Failed loads of entities.
        pub activations_failed: Counter = "tertulia_activations_failed_total",
        /// Delay between an entity's alarm and its wake-up.
        pub alarm_lateness: Times<Lateness> = "tertulia_alarm_lateness_seconds",
        /// Time from the start of a turn's attempt until its outcome is known.
        pub turn: By<TurnEnd, Times<Long>> = "tertulia_turn_seconds",
        /// Time of a model call, with its one retry.
        pub model_calls: ModelCalls = "gen_ai.client.inference.duration",
        /// Time of a call of the embeddings endpoint.
        pub embeddings: ModelCalls = "gen_ai.client.embeddings.duration",
        /// Time until the first chunk of a model's answer.
        pub first_token: Times<Long> = "tertulia_time_to_first_token_seconds",
        /// Time of an attempt to send an event to a receiver.
        pub webhook_attempts: By<AttemptEnd, Times<Long>> = "tertulia_webhook_attempt_seconds",
        /// Deliveries of events that were given up.
        pub webhooks_failed: Counter = "tertulia_webhook_deliveries_failed_total",
        /// Tokens that models have read and written.
        pub tokens: By<TokenType, Counter> = "tertulia_tokens_total",
    }
}

table! {
    /// The metrics of a store. It leaves at zero what it does not have.
    pub struct StoreMetrics {
        /// Commits waiting for the store.
        pub queued_commits: Gauge = "tertulia_store_queued_commits",
        /// Bytes of the commits waiting for the store.
        pub queued_bytes: Gauge = "tertulia_store_queued_bytes",
        /// Commits made durable together.
        pub batch_commits: Histogram<Sizes> = "tertulia_store_batch_commits",
        /// Time to make a batch durable: write and sync, or all that was sent to the cluster for it.
        pub sync: Times<Short> = "tertulia_store_sync_seconds",
        /// Retries of commits and reads on the store.
        pub retries: Counter = "tertulia_store_retries_total",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_metric_is_shown_with_its_help_and_every_value_of_its_label() {
        let metrics = Metrics::default();
        metrics.turned_away.of(RefusalReason::Overloaded).add(2);
        metrics.turn.of(TurnEnd::Failed).observe(Duration::from_secs(2), None, || unreachable!());
        let mut seen = Vec::new();
        metrics.visit(&mut |described, samples| {
            assert!(described.help.ends_with('.') && !described.help.starts_with(' '), "{described:?}");
            let is_total = described.name.ends_with("_total");
            assert_eq!(is_total, described.kind == MetricKind::Counter, "{described:?}");
            seen.push((described.name, samples.to_vec()));
        });
        let of = |name: &str| &seen.iter().find(|(seen, _)| *seen == name).unwrap().1;
        let overloaded = (vec![("reason", "overloaded")], Sample::Counter(2));
        assert!(of("tertulia_commands_turned_away_total").contains(&overloaded));
        let Sample::Histogram(failed) = &of("tertulia_turn_seconds")[1].1 else { panic!("a histogram") };
        assert_eq!(failed.count(), 1);
    }

    #[test]
    fn a_model_call_is_shown_with_its_error_as_soon_as_there_is_one() {
        let metrics = Metrics::default();
        for code in [None, Some("rate_limited"), Some("of another version"), Some("of a third one")] {
            let calls = metrics.model_calls.of(ModelOperation::Chat).of(ModelProvider::OpenAi);
            calls.of(ModelError::of(code)).used().observe(Duration::from_secs(2), None, || unreachable!());
        }
        let mut samples = Vec::new();
        metrics.model_calls.read(&mut |labels, sample| {
            let Sample::Histogram(took) = sample else { panic!("a histogram") };
            samples.push((labels, took.count()));
        });
        let known = [("gen_ai.operation.name", "chat"), ("gen_ai.provider.name", "openai")];
        let failed = |error| [&known[..], &[("error.type", error)]].concat();
        assert_eq!(samples, [(known.to_vec(), 1), (failed("rate_limited"), 1), (failed("_OTHER"), 2)]);
    }
}
