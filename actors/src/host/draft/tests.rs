//! Commits as values: what a draft writes, and what stays in memory until its outcome is known.

use super::*;
use crate::attachment::{Attachment, Begin, Bound, Command, Event, Reply as Answered};
use crate::id::{Address, AttachmentId};
use crate::store::Head;

const NOW: Millis = Millis(1_763_000_000_000);
/// So many commits that no snapshot is due.
const SELDOM: u64 = 100;

fn id() -> AttachmentId {
    AttachmentId::new(NOW, Address([1; 10]))
}

fn entity() -> EntityKey {
    EntityKey::attachment(Address([9; 10]), id().address)
}

fn envelope() -> Envelope<Attachment> {
    Envelope::internal(Arc::new(Command::Begin(Begin(id()))), Span::default())
}

/// The commit of one decision.
fn made(
    known: &EntityCache<Attachment>,
    decision: Decision<Attachment>,
    snapshot_every: u64,
) -> Result<(Commit, InFlight<Attachment>), Answers<Attachment>> {
    let mut draft = Draft::on(known, 1, [[1; 16], [2; 16]]);
    let envelope = envelope();
    let mut reads = ReadSet::default();
    let reply = draft.follow(decision, &envelope, NOW, &mut reads);
    draft.replies.push(reply);
    let batch = Batch { span: Span::default(), envelopes: vec![envelope], taken: std::time::Instant::now() };
    draft.into_commit(entity(), batch, known, snapshot_every)
}

/// The reply is of no matter here.
fn reply() -> Answered {
    Answered::Bound(1)
}

fn change(events: Vec<Event>) -> Decision<Attachment> {
    Decision::Change(Change::new(events, reply()))
}

/// What is known after the first commit of a file.
fn begun() -> EntityCache<Attachment> {
    let (_, in_flight) = made(&EntityCache::default(), change(vec![Event::Begun(id())]), SELDOM).ok().unwrap();
    EntityCache {
        head: Some(Head { seq: 1, commit: 1 }),
        state: in_flight.state,
        last_at: in_flight.last_at,
        alarm: in_flight.alarm,
        commits_since_snapshot: 1,
        ..EntityCache::default()
    }
}

#[test]
fn a_decision_that_changes_nothing_makes_no_commit_and_has_its_answer() {
    let answers = made(&begun(), Decision::Answer(reply()), SELDOM).err().unwrap();
    assert_eq!((answers.batch.envelopes.len(), answers.replies.len()), (1, 1));
    assert!(answers.decides() && !answers.refuses());
}

#[test]
fn a_commit_builds_on_the_known_head_and_its_effects_wait_for_its_outcome() {
    let known = begun();
    let bound = Event::Bound(Bound { conversation: Address([3; 10]), number: 1 });
    let (commit, in_flight) = made(&known, change(vec![bound]), SELDOM).ok().unwrap();
    assert_eq!((commit.expected, commit.id, commit.at), (known.head, CommitId([1; 16]), NOW));
    assert_eq!((commit.records.len(), in_flight.records.len(), in_flight.records[0].seq), (1, 1, 2));
    assert!(in_flight.state.unwrap().bound.is_some());
    assert!(known.state.unwrap().bound.is_none(), "what is known stays as it is");
}

#[test]
fn only_a_commit_that_moves_the_alarm_writes_it() {
    let known = begun();
    let later = known.alarm.map_or(NOW, |at| at.plus(1));
    let (commit, in_flight) = made(&known, change(vec![Event::CheckMoved(Some(later))]), SELDOM).ok().unwrap();
    assert_eq!(commit.alarm, Some(AlarmChange { previous: known.alarm, next: Some(later) }));
    assert_eq!(in_flight.alarm, Some(later));
    let (commit, in_flight) = made(&known, change(vec![Event::CheckMoved(known.alarm)]), SELDOM).ok().unwrap();
    assert_eq!((commit.alarm, in_flight.alarm), (None, known.alarm));
}

#[test]
fn a_changed_alarm_is_written_even_if_nothing_else_changes() {
    let stored = Some(NOW.plus(7));
    let known = EntityCache { alarm: stored, ..begun() };
    let (commit, in_flight) = made(&known, Decision::Answer(reply()), SELDOM).ok().unwrap();
    assert_eq!(commit.alarm.unwrap().previous, stored);
    assert_eq!(commit.alarm.unwrap().next, in_flight.alarm);
    assert!(commit.records.is_empty());
}

#[test]
fn a_commit_carries_the_state_when_a_snapshot_is_due_and_else_not() {
    let known = begun();
    for (every, is_due) in [(1, true), (2, true), (3, false)] {
        let (commit, in_flight) = made(&known, change(vec![Event::CheckMoved(None)]), every).ok().unwrap();
        assert_eq!((commit.state.is_some(), in_flight.has_snapshot), (is_due, is_due), "every {every}");
    }
}

/// An older one may have what is redacted.
#[test]
fn a_redaction_brings_the_state_with_it() {
    let redacted = Record { seq: 1, at: NOW, trace: None, event: Event::Begun(id()) };
    let change = Change { redactions: vec![redacted], ..Change::new(Vec::new(), reply()) };
    let (commit, in_flight) = made(&begun(), Decision::Change(change), SELDOM).ok().unwrap();
    assert_eq!(commit.redactions.len(), 1);
    assert!(commit.state.is_some() && in_flight.has_snapshot);
}
