//! The retry schedule of failed deliveries.

use crate::clock::Millis;
use crate::store::StoreError;

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
/// The first pauses between attempts.
const FIRST_PAUSES_MILLIS: [u64; 6] = [5 * SECOND, 30 * SECOND, 120 * SECOND, 600 * SECOND, HOUR, 4 * HOUR];
/// The pause after those.
const LATER_PAUSE_MILLIS: u64 = 8 * HOUR;
/// How long attempts continue at a receiver where nothing arrives.
const GIVE_UP_AFTER_MILLIS: u64 = 72 * HOUR;
/// The shortest pause before the last attempt.
const MIN_PAUSE_BEFORE_LAST_MILLIS: u64 = HOUR;
/// The shortest `Retry-After` that is respected.
const MIN_RETRY_AFTER_MILLIS: u64 = SECOND;
/// The longest `Retry-After` that is respected.
const MAX_RETRY_AFTER_MILLIS: u64 = LATER_PAUSE_MILLIS;
/// After so many attempts at an event, `Retry-After` can only lengthen the scheduled pause, so that a receiver that
/// always says "at once" is not tried all day.
const RETRY_AFTER_SHORTENS_UNTIL_ATTEMPT: u32 = FIRST_PAUSES_MILLIS.len() as u32;
/// The most that is added to a `Retry-After`.
const RETRY_AFTER_JITTER_MILLIS: u64 = 10 * SECOND;

/// The pause of a lane after a failed read of the store.
const UNREADABLE_PAUSE_MILLIS: u64 = 5 * SECOND;
/// The pause of a lane whose data is damaged: that hardly improves soon, and each read costs a commit and a log line.
const DAMAGED_PAUSE_MILLIS: u64 = 600 * SECOND;

/// The data of a failed attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed {
    /// How many attempts at this event were made, including this one; from 1.
    pub(crate) attempts: u32,
    /// When the event happened.
    pub(crate) happened: Millis,
    /// Since when nothing has arrived at the receiver.
    pub(crate) failing_since: Millis,
    /// The time.
    pub(crate) now: Millis,
    /// The receiver's `Retry-After`.
    pub(crate) retry_after: Option<u64>,
    /// Random jitter, so that lanes that failed together do not come back together.
    pub(crate) random: u64,
}

/// The result of a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next attempt, and how long the receiver's `Retry-After` forbids one.
    Again {
        /// When the next attempt is made.
        at: Millis,
        /// Not before this, whatever happens.
        deferred_until: Option<Millis>,
    },
    /// It is given up.
    GiveUp,
}

/// The pause is the receiver's `Retry-After` plus up to a twentieth. Without one, or if it is shorter than the schedule
/// after the first few attempts, the pause is the scheduled one plus up to a fifth.
///
/// An event is given up 72 hours after it happened or after its receiver began to fail, whichever is later: so each is
/// tried at least once, a receiver that comes back within that time misses nothing, and events waiting for an event
/// that was given up do not begin their own 72 hours.
pub(crate) fn next(failed: Failed) -> Next {
    let planned =
        FIRST_PAUSES_MILLIS.get(failed.attempts.saturating_sub(1) as usize).copied().unwrap_or(LATER_PAUSE_MILLIS);
    let wanted = failed.retry_after.map(|millis| millis.clamp(MIN_RETRY_AFTER_MILLIS, MAX_RETRY_AFTER_MILLIS));
    let deferred_until = wanted.map(|wanted| failed.now.plus(wanted));
    let (pause, jitter) = match wanted {
        Some(wanted) if failed.attempts <= RETRY_AFTER_SHORTENS_UNTIL_ATTEMPT || wanted > planned => {
            (wanted, (wanted / 20).min(RETRY_AFTER_JITTER_MILLIS))
        }
        _ => (planned, planned / 5),
    };
    let at = failed.now.plus(pause + failed.random % jitter);
    let end = failed.happened.max(failed.failing_since).plus(GIVE_UP_AFTER_MILLIS);
    if at <= end {
        return Next::Again { at, deferred_until };
    }
    // The last attempt is made at the end of that time, unless it would follow this one too soon to show anything new.
    let last = end.max(deferred_until.unwrap_or_default());
    if failed.now >= end || last.since(failed.now) < MIN_PAUSE_BEFORE_LAST_MILLIS {
        return Next::GiveUp;
    }
    Next::Again { at: last, deferred_until }
}

/// For how many milliseconds a lane rests whose step ended with this error: up to a fifth more than the pause, by
/// `random`. It counts as no attempt.
pub(crate) fn set_aside(error: &StoreError, random: u64) -> u64 {
    let pause = match error {
        StoreError::Unavailable(_) | StoreError::Indeterminate(_) => UNREADABLE_PAUSE_MILLIS,
        StoreError::Corrupt(_) | StoreError::TooLarge { .. } => DAMAGED_PAUSE_MILLIS,
    };
    pause + random % (pause / 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: Millis = Millis(1_000_000);

    fn failed(attempts: u32, now: Millis) -> Failed {
        Failed { attempts, happened: BEGAN, failing_since: BEGAN, now, retry_after: None, random: 0 }
    }

    fn again(next: Next) -> Millis {
        match next {
            Next::Again { at, .. } => at,
            Next::GiveUp => panic!("given up"),
        }
    }

    #[test]
    fn an_absent_receiver_is_tried_as_published_for_72_hours() {
        let mut now = BEGAN;
        let mut attempts = 1;
        let mut pauses = Vec::new();
        while let Next::Again { at, .. } = next(failed(attempts, now)) {
            pauses.push(at.since(now) / SECOND);
            (now, attempts) = (at, attempts + 1);
        }
        assert_eq!(pauses[..6], [5, 30, 120, 600, 3_600, 14_400]);
        let (last, eights) = pauses[6..].split_last().unwrap();
        assert!(eights.iter().all(|pause| *pause == 28_800) && *last <= 28_800, "{pauses:?}");
        assert_eq!(now.since(BEGAN), GIVE_UP_AFTER_MILLIS, "the last one after 72 hours");
        assert!(attempts as usize <= super::super::lane::ATTEMPTS_KEPT);
    }

    #[test]
    fn jitter_adds_up_to_a_fifth_and_never_makes_an_attempt_early() {
        for (attempts, pause) in [(1, 5 * SECOND), (3, 120 * SECOND), (9, LATER_PAUSE_MILLIS)] {
            for random in [0, 1, 999, 123_456_789, u64::MAX] {
                let at = again(next(Failed { random, ..failed(attempts, BEGAN) }));
                assert!((pause..pause + pause / 5).contains(&at.since(BEGAN)), "{attempts} {random}");
            }
        }
    }

    #[test]
    fn retry_after_of_a_receiver_is_honoured_within_bounds() {
        let requested = |millis| next(Failed { retry_after: Some(millis), ..failed(1, BEGAN) });
        assert_eq!(again(requested(60 * SECOND)).since(BEGAN), 60 * SECOND);
        assert_eq!(again(requested(2 * SECOND)).since(BEGAN), 2 * SECOND, "sooner than the schedule too");
        let late = next(Failed { retry_after: Some(SECOND), ..failed(9, BEGAN) });
        assert_eq!(again(late).since(BEGAN), LATER_PAUSE_MILLIS, "but not again and again");
        let later = next(Failed { retry_after: Some(8 * HOUR), ..failed(6, BEGAN) });
        assert_eq!(again(later).since(BEGAN), 8 * HOUR, "more time it may always ask for");
        for (millis, least) in [(0, SECOND), (1, SECOND), (u64::MAX, 8 * HOUR)] {
            assert_eq!(again(requested(millis)).since(BEGAN), least);
        }
        for wanted in [SECOND, 60 * SECOND, HOUR, 8 * HOUR] {
            let failed = Failed { retry_after: Some(wanted), random: u64::MAX, ..failed(1, BEGAN) };
            let more = again(next(failed)).since(BEGAN) - wanted;
            assert!(more < (wanted / 20).min(10 * SECOND), "{wanted} {more}");
        }
        let Next::Again { deferred_until, .. } = requested(60 * SECOND) else { panic!("given up") };
        assert_eq!(deferred_until, Some(BEGAN.plus(60 * SECOND)));
    }

    /// It is not tried for another 72 hours.
    #[test]
    fn an_event_behind_a_dead_receiver_is_tried_at_least_once() {
        let end = BEGAN.plus(GIVE_UP_AFTER_MILLIS);
        assert_eq!(next(failed(1, end)), Next::GiveUp, "as old as the failing itself");
        let later = Failed { happened: BEGAN.plus(HOUR), ..failed(1, end) };
        assert_eq!(again(next(later)).since(end), 5 * SECOND, "an hour younger");
        let asks = Failed { retry_after: Some(2 * HOUR), ..failed(9, Millis(end.0 - HOUR)) };
        assert_eq!(again(next(asks)).since(end), HOUR, "time that was asked for is given");
        assert_eq!(next(Failed { retry_after: Some(2 * HOUR), ..failed(9, end) }), Next::GiveUp, "once");
        let downtime = Failed { failing_since: end, ..failed(1, end) };
        assert_eq!(again(next(downtime)).since(end), 5 * SECOND, "it was this side that was away");
    }

    #[test]
    fn damage_is_looked_at_less_often_than_an_unavailable_store() {
        for random in [0, 123_456_789, u64::MAX] {
            let unavailable = set_aside(&StoreError::Unavailable("away".into()), random);
            let damaged = set_aside(&StoreError::Corrupt("damaged".into()), random);
            assert!((5 * SECOND..6 * SECOND).contains(&unavailable), "{unavailable}");
            assert!((600 * SECOND..720 * SECOND).contains(&damaged), "{damaged}");
        }
    }
}
