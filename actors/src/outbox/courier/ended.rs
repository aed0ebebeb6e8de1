//! Applies the result of a lane's step: the next event and its time, and which delivery has ended.

use super::Courier;
use crate::clock::Millis;
use crate::outbox::keys::DeliveryKey;
use crate::outbox::lane::{Delivery, End, Lane, Receiver, mark};
use crate::outbox::note::NotSent;
use crate::outbox::port::Sends;
use crate::outbox::receivers::{RECEIVER_DELETED, Unsendable};
use crate::outbox::retry_signal::RetryOf;
use crate::outbox::run::LostEvent;
use crate::outbox::schedule::{Failed, Next, next, set_aside};
use crate::outbox::step::{EndedStep, Lost, Step, Tried, Unsent, Verdict};

impl<M: Sends> Courier<M> {
    /// Applies the result of a lane's step.
    pub(super) async fn apply_step(&mut self, EndedStep { lane, outcome }: EndedStep) {
        let now = self.node.clock.now();
        let step = self.hand_over_first(outcome, now).await;
        let random = u64::from_le_bytes(self.node.entropy.draw()[..8].try_into().unwrap_or_default());
        let Some(run) = self.runs.get_mut(&lane) else { return };
        let since = run.end_step();
        match step {
            // The step did not know of the request, by which the event is sent all the same where that is possible.
            Ok(Step::NotSent(..) | Step::Found { lost: Some(_), .. }) if since == Some(RetryOf::Head) => {}
            Ok(Step::Found { events, upto, lost }) => {
                let tried = run.found(events, upto);
                if let (Some(Lost { why, unsent }), Some(LostEvent { seq, attempts })) = (lost, tried) {
                    let event = NotSent { receiver: lane.receiver, seq, attempts, was: None };
                    self.ended.not_sent(event, why, unsent, now);
                }
            }
            Ok(Step::Later(_)) if since.is_some() => {}
            Ok(Step::Later(at)) => run.park(at),
            Ok(Step::HandsOver) => run.is_handed_over = true,
            // The delivery is dropped, but the lane is searched again for events that other receivers want.
            Ok(Step::NotSent(Unsendable::Deleted, _)) if run.effective_lane(lane).again.is_none() => {
                match lane.receiver {
                    Receiver::Endpoint(_) | Receiver::Channel => run.search_again(),
                    Receiver::Message(_) | Receiver::Callback(_) => run.clear(),
                }
            }
            Ok(Step::NotSent(why, about)) => {
                let why = if let Unsendable::Off(why) = why { why } else { RECEIVER_DELETED };
                let tried_at = run.row.url.take();
                if let (Some(seq), Some(unsent)) = (run.pop(), about) {
                    let unsent = Unsent { url: unsent.url.or(tried_at), ..unsent };
                    let attempts = std::mem::take(&mut run.row.attempts);
                    let was = run.row.was.take();
                    let event = NotSent { receiver: lane.receiver, seq, attempts, was };
                    self.ended.not_sent(event, why, unsent, now);
                }
            }
            Ok(Step::Tried(tried)) => {
                run.answer_requests(since);
                self.apply_attempt(lane, tried, now, random);
            }
            Err(error) => {
                // The event may be damaged for good, so its lane is set aside and delays no other lane.
                let entity = self.entity;
                let receiver = lane.receiver;
                if error.is_transient() {
                    tracing::warn!(?entity, ?receiver, %error, "could not send an event; retrying later");
                } else {
                    tracing::error!(?entity, ?receiver, %error, "a damaged event cannot be sent; retrying later");
                }
                run.park(now.plus(set_aside(&error, random)));
            }
        }
        self.note_later();
    }

    fn apply_attempt(&mut self, lane: Lane, tried: Tried, now: Millis, random: u64) {
        let Some(run) = self.runs.get_mut(&lane) else { return };
        let at = tried.attempt.at;
        run.tried(tried.attempt, mark(&tried.url), tried.lane_intent);
        run.row.url = lane.receiver.endpoint().is_none().then(|| tried.url.clone());
        let end = match tried.verdict {
            Verdict::Arrived => {
                run.row.failing_since = None;
                End::Delivered
            }
            Verdict::Gone => End::Failed,
            // The result is about another URL. The event goes to the receiver's current URL, if any, at once.
            Verdict::Moved => {
                run.row.deferred_until = None;
                return;
            }
            Verdict::Refused { retry_after } => {
                let failing_since = *run.row.failing_since.get_or_insert(at);
                let attempts = run.row.tries;
                let happened = tried.happened;
                if run.retries.any() {
                    return;
                }
                match next(Failed { attempts, happened, failing_since, now, retry_after, random }) {
                    Next::Again { at, deferred_until } => {
                        (run.row.deferred_until, run.row.deferred_by) =
                            (deferred_until, deferred_until.map(|_| mark(&tried.url)));
                        return run.wait_for_schedule(at, tried.lane_intent, now);
                    }
                    Next::GiveUp => End::Failed,
                }
            }
        };
        let Some(seq) = run.pop() else { return };
        let attempts = std::mem::take(&mut run.row.attempts);
        let at = tried.happened;
        let event = tried.event.to_owned();
        let receiver = lane.receiver;
        let url = tried.url;
        self.ended.push(DeliveryKey::new(seq, receiver), Delivery { at, event, receiver, url, end, attempts });
    }
}
