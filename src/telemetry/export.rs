//! The thread that sends spans. It has its own runtime, so that encoding never delays a request, and a dead, slow or
//! faulty receiver costs only the spans.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::Resource;
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::ExportError;
use super::clock_anchor::ClockAnchor;
use super::failure_log::FailureLog;
use super::otlp::Encoder;
use super::sender::{Failed, Sender, Signal};
use super::span_queue::SpanQueue;
use crate::config::otel::Receiver;

/// After a refused batch nothing is sent for this long, then for twice as long, and so on.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Up to this.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How often a batch is retried that may be accepted later.
const MAX_RETRIES: u32 = 3;
/// The pause before the first retry, unless the receiver asks for another; then twice as long, and so on.
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(100);
/// A receiver that asks for a longer pause loses the batch, so that others do not wait behind it.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// The running thread.
#[derive(Debug)]
pub struct Export {
    finish: mpsc::Sender<oneshot::Sender<()>>,
}

impl Export {
    /// Starts sending the queue.
    ///
    /// # Errors
    /// If the receiver's settings are invalid, or there is no thread.
    pub fn start(receiver: &Receiver, resource: &Resource, waiting: Arc<SpanQueue>) -> Result<Self, ExportError> {
        let (finish, finishing) = mpsc::channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let sender = {
            // Its connections belong to the runtime in which it is created.
            let _entered = runtime.enter();
            Sender::new(receiver, Signal::Traces)?
        };
        let sending = Sending { sender, encoder: Encoder::new(resource), clocks: ClockAnchor::now() };
        std::thread::Builder::new()
            .name("telemetry".to_owned())
            .spawn(move || runtime.block_on(run(&waiting, sending, finishing)))?;
        Ok(Self { finish })
    }

    /// Sends the rest of the queue and ends, within this time.
    pub async fn finish(self, within: Duration) {
        let (done, finished) = oneshot::channel();
        let finishing = async {
            if self.finish.send(done).await.is_ok() {
                // It fails if the thread has ended already.
                drop(finished.await);
            }
        };
        if timeout(within, finishing).await.is_err() {
            tracing::warn!("some spans were not exported before the process ended");
        }
    }
}

/// The state of sending.
struct Sending {
    sender: Sender,
    encoder: Encoder,
    clocks: ClockAnchor,
}

impl Sending {
    /// Sends the oldest queued spans, as many as a request has room for. `None` if there are none; else how many they
    /// were, and how many of them the receiver has rejected, or why it accepted none.
    async fn batch(&mut self, waiting: &SpanQueue) -> Option<(u64, Result<u64, String>)> {
        let mut batch = waiting.take();
        let taken = batch.len();
        if taken == 0 {
            return None;
        }
        self.clocks = self.clocks.still();
        let request = self.encoder.request(&mut batch, self.clocks);
        let spans = (taken - batch.len()) as u64;
        if !batch.is_empty() {
            waiting.put_back(batch);
        }
        let sent = timeout(waiting.batching().timeout, self.send_with_retries(request)).await;
        Some((spans, sent.unwrap_or_else(|_| Err(Failed::late().error()))))
    }

    async fn send_with_retries(&mut self, request: Bytes) -> Result<u64, String> {
        let mut pause = FIRST_RETRY_PAUSE;
        let mut left = MAX_RETRIES;
        loop {
            match self.sender.send(request.clone()).await {
                Ok(answer) => return Ok(rejected_spans(answer)),
                Err(Failed::Later(_, after)) if left > 0 && after.is_none_or(|after| after <= MAX_RETRY_PAUSE) => {
                    sleep(after.unwrap_or(pause)).await;
                }
                Err(failed) => return Err(failed.error()),
            }
            (pause, left) = (pause * 2, left - 1);
        }
    }
}

/// How many spans a receiver has rejected although it accepted the request.
fn rejected_spans(answer: Bytes) -> u64 {
    let partial = ExportTraceServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0))
}

/// Sends batches until it is asked to finish or every sender is dropped.
async fn run(waiting: &SpanQueue, mut sending: Sending, mut finishing: mpsc::Receiver<oneshot::Sender<()>>) {
    let mut health = Health::default();
    loop {
        let finish = tokio::select! {
            biased;
            finish = finishing.recv() => Some(finish),
            () = async { sleep(health.pause).await; waiting.ready().await } => None,
        };
        while let Some((spans, sent)) = sending.batch(waiting).await {
            match sent {
                Ok(rejected) => {
                    let rejected = rejected.min(spans);
                    waiting.counts().exported.add(spans - rejected);
                    waiting.counts().refused.add(rejected);
                    health.good(rejected);
                }
                Err(error) => {
                    waiting.counts().refused.add(spans);
                    health.bad(&error, waiting);
                    break;
                }
            }
        }
        if let Some(finish) = finish {
            // The caller may have stopped waiting.
            finish.map(|done| done.send(()));
            return;
        }
    }
}

/// The health of the receiver.
#[derive(Debug, Default)]
struct Health {
    /// The current pause.
    pause: Duration,
    trouble: FailureLog,
    /// A receiver may reject some spans of every other batch, so that is never over.
    rejections: FailureLog,
}

impl Health {
    /// The receiver has taken a batch, and of its spans `rejected` ones it does not keep.
    fn good(&mut self, rejected: u64) {
        if self.trouble.is_over() {
            tracing::info!("trace export resumed");
        }
        if rejected > 0 && self.rejections.goes_on() {
            tracing::warn!(rejected, "the receiver rejects spans; requests are not affected");
        }
        self.pause = Duration::ZERO;
    }

    fn bad(&mut self, error: &str, waiting: &SpanQueue) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, MAX_PAUSE);
        if self.trouble.goes_on() {
            let counts = waiting.counts();
            let lost = counts.refused.get() + counts.overflowed.get();
            tracing::warn!(error, spans_lost = lost, "cannot export traces; requests are not affected");
        }
    }
}
