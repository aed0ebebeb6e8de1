//! The progress of redacting a log in steps: a conversation's, or a contact's own.

use crate::id::EntityKey;
use crate::machine::ReadSet;
use crate::store::{SeqRange, StoreError};

/// Events that one step goes through. Their old form is read and a new one is written, with a row for some.
pub(crate) const EVENTS_PER_STEP: u64 = 64;

/// How far the redaction of a log has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The first event that was not handled yet; `None`: all were.
    pub(crate) next: Option<u64>,
    /// The first event that was skipped because it could not be redacted: the redaction is not done before that event
    /// is. `None`: none was skipped.
    pub(crate) first_unread: Option<u64>,
}

impl Progress {
    /// The events of the next step, up to the event `last`. After all others, those from `first_unread` on.
    pub(crate) fn step(self, last: u64) -> Option<SeqRange> {
        self.next.or(self.first_unread).map(|next| SeqRange::new(next, last.min(next + EVENTS_PER_STEP - 1)))
    }
}

/// Unreadable events of one step: those that were still redacted, and those that could not be, or have rows that could
/// not be deleted.
#[derive(Debug, Default)]
pub(crate) struct UnreadEvents {
    /// The first of them, with its error.
    first: Option<(u64, StoreError)>,
    redacted: u64,
    kept: u64,
    /// The first that was not redacted.
    first_kept: Option<u64>,
}

impl UnreadEvents {
    /// Notes an unreadable event. Returns whether it can be rewritten: its bytes were read, although they do not
    /// decode. The store rewrites nothing that it cannot read itself.
    pub(crate) fn note(&mut self, seq: u64, error: StoreError, reads: &ReadSet) -> bool {
        let is_readable = reads.event(seq).is_ok();
        self.redacted += u64::from(is_readable);
        self.kept += u64::from(!is_readable);
        self.first_kept = self.first_kept.or(Some(seq).filter(|_| !is_readable));
        self.first.get_or_insert((seq, error));
        is_readable
    }

    /// Notes an event with rows that cannot be read, and so cannot be deleted.
    pub(crate) fn keep(&mut self, seq: u64, error: StoreError) {
        self.kept += u64::from(self.first_kept != Some(seq));
        self.first_kept = self.first_kept.or(Some(seq));
        self.first.get_or_insert((seq, error));
    }

    /// The progress after the step over the events of `step`, of a log to be redacted up to `last`; it was `before`.
    /// `None`: all events were handled, and the step has redacted none of those that remain.
    pub(crate) fn advanced(&self, step: SeqRange, last: u64, before: Progress) -> Option<Progress> {
        let next = Some(step.last + 1).filter(|next| *next <= last);
        let first_unread = match before {
            Progress { next: Some(_), first_unread } => first_unread.or(self.first_kept),
            Progress { next: None, .. } if self.first_kept == Some(step.first) => return None,
            Progress { next: None, .. } => self.first_kept,
        };
        Some(Progress { next, first_unread })
    }

    /// Logs them, in one line.
    pub(crate) fn log(&self, entity: EntityKey) {
        let Self { first: Some((seq, error)), redacted, kept, .. } = self else { return };
        tracing::error!(?entity, seq, %error, redacted, kept, "events to be erased cannot be read");
    }
}
