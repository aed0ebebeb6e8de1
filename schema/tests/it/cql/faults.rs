//! A proxy between driver and server that drops, delays and forges frames by a seeded plan.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actors::random::Random;

use scylla::errors::{DbError, WriteType};
use scylla::statement::Consistency;
use scylla_proxy::{
    Condition, Node, Proxy, Reaction as _, RequestFrame, RequestOpcode, RequestReaction, RequestRule, ResponseFrame,
    ResponseOpcode, ResponseReaction, ResponseRule, RunningProxy, ShardAwareness, TargetShard,
};
use tokio::sync::mpsc;

/// Longer than the store waits for a commit, so that a commit held this long arrives after its outcome was settled.
const LATE: Duration = Duration::from_millis(3_500);
const SLOW: Duration = Duration::from_millis(150);

/// What may happen to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// A commit never arrives; the server reports a CAS timeout.
    TimedOutBefore,
    /// A commit is applied; the server reports a CAS timeout.
    TimedOutAfter,
    /// A commit never arrives, without an error.
    Lost,
    /// A commit is applied, without an answer.
    Unanswered,
    /// A commit arrives when the store no longer waits for it.
    Late,
    /// A commit takes long.
    Slow,
    /// An overloaded node refuses a commit.
    Overloaded,
    /// The connection breaks instead of a commit.
    BrokenBefore,
    /// The connection breaks instead of an answer.
    BrokenAfter,
    /// A read times out, even one that settles.
    Unread,
}

impl Fault {
    pub(super) const ALL: [Self; 10] = [
        Self::TimedOutBefore,
        Self::TimedOutAfter,
        Self::Lost,
        Self::Unanswered,
        Self::Late,
        Self::Slow,
        Self::Overloaded,
        Self::BrokenBefore,
        Self::BrokenAfter,
        Self::Unread,
    ];

    /// How many of 1,000 frames of its kind it hits. CAS timeouts really happen in a loaded cluster; faults that cost
    /// seconds are rarer.
    fn per_mille(self) -> u64 {
        match self {
            Self::TimedOutBefore | Self::TimedOutAfter => 40,
            Self::Slow | Self::Overloaded => 15,
            Self::BrokenBefore | Self::BrokenAfter => 8,
            Self::Lost | Self::Unanswered | Self::Late => 4,
            Self::Unread => 10,
        }
    }
}

impl Fault {
    /// The frames that it hits.
    fn frames(self) -> Condition {
        match self {
            // Only the result of a conditional statement has this column; the result of a read does not.
            Self::TimedOutAfter | Self::Unanswered | Self::BrokenAfter => Condition::and(
                Condition::ResponseOpcode(ResponseOpcode::Result),
                Condition::BodyContainsCaseSensitive(Box::from(&b"[applied]"[..])),
            ),
            Self::Unread => Condition::RequestOpcode(RequestOpcode::Execute),
            _ => Condition::RequestOpcode(RequestOpcode::Batch),
        }
    }

    fn of_request(self) -> Option<RequestReaction> {
        match self {
            Self::TimedOutBefore => Some(RequestReaction::forge_with_error(cas_timeout())),
            Self::Lost => Some(RequestReaction::drop_frame()),
            Self::Late => Some(RequestReaction::delay(LATE)),
            Self::Slow => Some(RequestReaction::delay(SLOW)),
            Self::Overloaded => Some(RequestReaction::forge_with_error(DbError::Overloaded)),
            Self::BrokenBefore => Some(RequestReaction::drop_connection()),
            Self::Unread => Some(RequestReaction::forge_with_error(read_timeout())),
            Self::TimedOutAfter | Self::Unanswered | Self::BrokenAfter => None,
        }
    }

    fn of_answer(self) -> Option<ResponseReaction> {
        match self {
            Self::TimedOutAfter => Some(ResponseReaction::transform_frame(Arc::new(|answer| {
                ResponseFrame::forged_error(answer.params, cas_timeout(), None).unwrap()
            }))),
            Self::Unanswered => Some(ResponseReaction::drop_frame()),
            Self::BrokenAfter => Some(ResponseReaction::drop_connection()),
            _ => None,
        }
    }
}

fn cas_timeout() -> DbError {
    let consistency = Consistency::LocalSerial;
    let write_type = WriteType::Cas;
    DbError::WriteTimeout { consistency, received: 1, required: 2, write_type }
}

fn read_timeout() -> DbError {
    DbError::ReadTimeout { consistency: Consistency::LocalSerial, received: 1, required: 2, data_present: false }
}

/// True for one frame only, after `before` frames for which it was false.
fn once(of: Condition, before: usize) -> Condition {
    of.and(Condition::not(Condition::TrueForLimitedTimes(before)).and(Condition::TrueForLimitedTimes(1)))
}

/// Frames that a fault hit.
type Touched<F> = Vec<(Fault, mpsc::UnboundedReceiver<(F, Option<TargetShard>)>)>;

/// A running proxy in front of one node, and the faults that it injected.
pub(super) struct FaultyWay {
    proxy: RunningProxy,
    pub(super) address: String,
    requests: Touched<RequestFrame>,
    answers: Touched<ResponseFrame>,
}

impl FaultyWay {
    /// A proxy to the node at `server`, with no faults yet.
    pub(super) async fn to(server: &str) -> Self {
        let real: SocketAddr = server.parse().unwrap();
        // A driver expects every node at the port that it was given, so the address must be the node's own.
        let free = TcpListener::bind((real.ip(), 0)).unwrap().local_addr().unwrap();
        let node = Node::builder().proxy_address(free).real_address(real).shard_awareness(ShardAwareness::Unaware);
        let proxy = Proxy::builder().with_node(node.build()).build().run().await.unwrap();
        Self { proxy, address: free.to_string(), requests: Vec::new(), answers: Vec::new() }
    }

    /// Injects faults by this seed from now on, among so many frames of each kind.
    #[expect(clippy::disallowed_methods, reason = "the proxy reports through unbounded channels; a plan has an end")]
    pub(super) fn begin(&mut self, random: &mut Random, frames: u64) {
        let mut plan: Vec<(u64, Fault)> = Vec::new();
        for fault in Fault::ALL {
            let times = (frames * fault.per_mille()).div_ceil(1_000);
            plan.extend((0..times).map(|_| (random.below(frames), fault)));
        }
        plan.sort();
        let mut requests = Vec::new();
        let mut answers = Vec::new();
        for (at, fault) in plan {
            let at = usize::try_from(at).unwrap();
            if let Some(reaction) = fault.of_request() {
                let (touched, seen) = mpsc::unbounded_channel();
                self.requests.push((fault, seen));
                requests.push(RequestRule(once(fault.frames(), at), reaction.with_feedback_when_performed(touched)));
            } else if let Some(reaction) = fault.of_answer() {
                let (touched, seen) = mpsc::unbounded_channel();
                self.answers.push((fault, seen));
                answers.push(ResponseRule(once(fault.frames(), at), reaction.with_feedback_when_performed(touched)));
            }
        }
        self.proxy.running_nodes[0].change_request_rules(Some(requests));
        self.proxy.running_nodes[0].change_response_rules(Some(answers));
    }

    /// As if the process died right after its next commit: only that commit and `before` other statements arrive.
    pub(super) fn die_after_a_commit(&mut self, before: usize) {
        let statements = Condition::RequestOpcode(RequestOpcode::Execute);
        let later = statements.and(Condition::not(Condition::TrueForLimitedTimes(before)));
        let lost = RequestReaction::forge_with_error(DbError::Overloaded);
        self.proxy.running_nodes[0].change_request_rules(Some(vec![RequestRule(later, lost)]));
    }

    /// As if the process died before its next commit: no commit arrives, but `before` other statements do.
    pub(super) fn die_before_a_commit(&mut self, before: usize) {
        let statements = Condition::RequestOpcode(RequestOpcode::Execute);
        let later = statements.and(Condition::not(Condition::TrueForLimitedTimes(before)));
        let lost = || RequestReaction::forge_with_error(DbError::Overloaded);
        let commits = Condition::RequestOpcode(RequestOpcode::Batch);
        let rules = vec![RequestRule(later, lost()), RequestRule(commits, lost())];
        self.proxy.running_nodes[0].change_request_rules(Some(rules));
    }

    /// From now on no commit arrives. Its outcome is unknown (`is_doubtful`), or it is refused for lack of nodes.
    pub(super) fn lose_commits(&mut self, is_doubtful: bool) {
        let consistency = Consistency::LocalSerial;
        let required = 2;
        let alive = 1;
        let unavailable = DbError::Unavailable { consistency, required, alive };
        let lost = RequestReaction::forge_with_error(if is_doubtful { cas_timeout() } else { unavailable });
        let commits = Condition::RequestOpcode(RequestOpcode::Batch);
        self.proxy.running_nodes[0].change_request_rules(Some(vec![RequestRule(commits, lost)]));
    }

    /// From now on every prepared statement that contains these bytes fails with a read timeout; commits are batches
    /// and pass.
    pub(super) fn unreadable(&mut self, bytes: &[u8]) {
        let reads = Condition::RequestOpcode(RequestOpcode::Execute);
        let these = reads.and(Condition::BodyContainsCaseSensitive(bytes.into()));
        let lost = RequestReaction::forge_with_error(read_timeout());
        self.proxy.running_nodes[0].change_request_rules(Some(vec![RequestRule(these, lost)]));
    }

    /// From now on no prepared statement that contains these bytes arrives.
    pub(super) fn hang(&mut self, bytes: &[u8]) {
        let reads = Condition::RequestOpcode(RequestOpcode::Execute);
        let these = reads.and(Condition::BodyContainsCaseSensitive(bytes.into()));
        self.proxy.running_nodes[0].change_request_rules(Some(vec![RequestRule(these, RequestReaction::drop_frame())]));
    }

    /// From now on every commit is delayed.
    pub(super) fn slow_commits(&mut self) {
        let slow = RequestRule(Condition::RequestOpcode(RequestOpcode::Batch), RequestReaction::delay(Self::WHILE));
        self.proxy.running_nodes[0].change_request_rules(Some(vec![slow]));
    }

    /// From now on a statement that contains these words is delayed; the returned function waits until one is.
    #[expect(clippy::disallowed_methods, reason = "the proxy reports through unbounded channels; a test has an end")]
    pub(super) fn slow(&mut self, words: &str) -> impl AsyncFnMut() {
        let (touched, mut seen) = mpsc::unbounded_channel();
        let statements = Condition::RequestOpcode(RequestOpcode::Query);
        let these = statements.and(Condition::BodyContainsCaseSensitive(words.as_bytes().into()));
        let slow = RequestReaction::delay(Self::WHILE).with_feedback_when_performed(touched);
        self.proxy.running_nodes[0].change_request_rules(Some(vec![RequestRule(these, slow)]));
        async move || drop(seen.recv().await.unwrap())
    }

    /// Shorter than the store's wait for an answer.
    const WHILE: Duration = Duration::from_millis(1_500);

    /// Injects no faults from now on.
    pub(super) fn end(&mut self) {
        self.proxy.turn_off_rules();
    }

    /// How often each fault happened.
    pub(super) fn done(&self) -> BTreeMap<Fault, usize> {
        let mut done = BTreeMap::new();
        self.requests.iter().for_each(|(fault, seen)| *done.entry(*fault).or_default() += seen.len());
        self.answers.iter().for_each(|(fault, seen)| *done.entry(*fault).or_default() += seen.len());
        done
    }
}
