//! Sending metrics to a receiver, beside the scraped page: every minute, and once at the end.

use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_sdk::Resource;
use prost::Message as _;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::ExportError;
use super::failure_log::FailureLog;
use super::otlp::{self, SCHEMA, scope};
use super::sender::{Failed, Sender, Signal};
use crate::config::otel::Pushing;

/// The running task.
#[derive(Debug)]
pub struct Push {
    finish: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Push {
    /// Sends the result of `collect`, on the schedule of `pushing`.
    ///
    /// # Errors
    /// If the receiver's settings are invalid.
    pub fn start(
        pushing: &Pushing,
        resource: &Resource,
        collect: impl Fn() -> Vec<Metric> + Send + 'static,
    ) -> Result<Self, ExportError> {
        let sender = Sender::new(&pushing.receiver, Signal::Metrics)?;
        let resource = otlp::resource(resource);
        let (finish, finishing) = oneshot::channel();
        let every = pushing.every;
        let within = pushing.timeout;
        let request = move || request(resource.clone(), collect());
        let task = tokio::spawn(run(sender, request, (every, within), finishing));
        Ok(Self { finish, task })
    }

    /// Sends a last time and ends, within this time.
    pub async fn finish(mut self, within: Duration) {
        // It fails if the receiver accepts no metrics, and the task has ended.
        _ = self.finish.send(());
        if timeout(within, &mut self.task).await.is_err() {
            self.task.abort();
            tracing::warn!("the last metrics were not exported before the process ended");
        }
    }
}

fn request(resource: OtlpResource, metrics: Vec<Metric>) -> Bytes {
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, schema_url: SCHEMA.to_owned() }];
    let all = ResourceMetrics { resource: Some(resource), scope_metrics, schema_url: String::new() };
    ExportMetricsServiceRequest { resource_metrics: vec![all] }.encode_to_vec().into()
}

/// How many data points a receiver has rejected although it accepted the request.
fn rejected_points(answer: Bytes) -> u64 {
    let partial = ExportMetricsServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    partial.map_or(0, |partial| u64::try_from(partial.rejected_data_points).unwrap_or(0))
}

async fn run(
    mut sender: Sender,
    request: impl Fn() -> Bytes,
    (every, within): (Duration, Duration),
    mut finishing: oneshot::Receiver<()>,
) {
    let mut due = interval_at(Instant::now() + every, every);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut health = Health::default();
    loop {
        let is_last = tokio::select! {
            _ = due.tick() => false,
            _ = &mut finishing => true,
        };
        let sent = timeout(within, sender.send(request())).await;
        match sent.unwrap_or_else(|_| Err(Failed::late())) {
            Ok(answer) => health.good(rejected_points(answer)),
            Err(Failed::Unknown(error)) if !health.has_accepted => {
                tracing::warn!(
                    error,
                    "the receiver does not accept metrics; they can be scraped and are not exported any more"
                );
                return;
            }
            // They count from the start, so the next ones include these. A receiver that is restarted behind a proxy
            // answers for a moment as one that knows no metrics.
            Err(failed) => health.bad(&failed.error()),
        }
        if is_last {
            return;
        }
    }
}

/// The health of the receiver.
#[derive(Debug, Default)]
struct Health {
    /// It has accepted metrics before.
    has_accepted: bool,
    trouble: FailureLog,
    rejections: FailureLog,
}

impl Health {
    /// The receiver has taken the metrics, and of their data points `rejected` ones it does not keep.
    fn good(&mut self, rejected: u64) {
        self.has_accepted = true;
        if self.trouble.is_over() {
            tracing::info!("metrics export resumed");
        }
        if rejected > 0 && self.rejections.goes_on() {
            tracing::warn!(rejected, "the receiver rejects metrics; requests are not affected");
        }
    }

    fn bad(&mut self, error: &str) {
        if self.trouble.goes_on() {
            tracing::warn!(error, "cannot export metrics; requests are not affected");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{HeaderMap, StatusCode};
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsPartialSuccess;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::LogFormat;
    use crate::config::otel::{Protocol, Receiver};
    use crate::telemetry::tests::Lines;

    /// Far above what any step takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Pushes every millisecond to a receiver that gives these answers, one after the other, and then the last one for
    /// ever. Each export is told to the test.
    async fn pushed(answers: Vec<(StatusCode, Vec<u8>)>) -> (Push, mpsc::Receiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        let (came, exports) = mpsc::channel(8);
        let answers = Arc::new(Mutex::new(answers));
        let answer = async move || {
            // It fails once the test has seen enough.
            _ = came.try_send(());
            let mut answers = answers.lock().unwrap();
            if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() }
        };
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        (push(&endpoint, Duration::from_millis(1)), exports)
    }

    /// Pushes to this receiver.
    fn push(endpoint: &str, every: Duration) -> Push {
        let receiver = Receiver {
            endpoint: endpoint.to_owned(),
            protocol: Protocol::Http,
            headers: HeaderMap::new(),
            gzip: false,
            timeout: PATIENCE,
            certificates: None,
        };
        let pushing = Pushing { receiver, every, timeout: PATIENCE };
        Push::start(&pushing, &Resource::builder_empty().build(), Vec::new).unwrap()
    }

    fn empty(status: u16) -> (StatusCode, Vec<u8>) {
        (StatusCode::from_u16(status).unwrap(), Vec::new())
    }

    #[tokio::test]
    async fn a_receiver_that_has_accepted_metrics_is_never_given_up() {
        let (_push, mut exports) = pushed(vec![empty(200), empty(404), empty(405), empty(200)]).await;
        for nth in 1..=5 {
            assert_eq!(timeout(PATIENCE, exports.recv()).await, Ok(Some(())), "export {nth}");
        }
    }

    #[tokio::test]
    async fn a_receiver_that_knows_no_metrics_is_asked_once_and_named_in_a_warning() {
        let lines = Lines::default();
        let _logged = tracing::subscriber::set_default(lines.subscriber("info", LogFormat::Text));
        let (push, mut exports) = pushed(vec![empty(404)]).await;
        timeout(PATIENCE, push.task).await.expect("it ends").unwrap();
        assert_eq!((exports.recv().await, exports.try_recv().is_err()), (Some(()), true));
        let text = lines.text();
        assert!(text.contains("WARN") && text.contains("the receiver does not accept metrics"), "{text}");
        assert!(text.contains("status 404"), "{text}");
    }

    #[tokio::test]
    async fn rejected_metrics_are_logged_once_for_many_exports() {
        let lines = Lines::default();
        let _logged = tracing::subscriber::set_default(lines.subscriber("info", LogFormat::Text));
        let partial = ExportMetricsPartialSuccess { rejected_data_points: 7, error_message: "no".to_owned() };
        let answer = ExportMetricsServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        let (push, mut exports) = pushed(vec![(StatusCode::OK, answer)]).await;
        for _ in 0..3 {
            timeout(PATIENCE, exports.recv()).await.unwrap();
        }
        push.finish(PATIENCE).await;
        let text = lines.text();
        assert_eq!(text.matches("the receiver rejects metrics").count(), 1, "{text}");
        assert!(text.contains("rejected=7"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn metrics_that_are_not_exported_in_time_at_the_end_are_logged() {
        let lines = Lines::default();
        let _logged = tracing::subscriber::set_default(lines.subscriber("info", LogFormat::Text));
        // Nobody accepts its connections.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let push = push(&format!("http://{}/", listener.local_addr().unwrap()), 60 * PATIENCE);
        push.finish(PATIENCE / 2).await;
        assert!(lines.text().contains("the last metrics were not exported"), "{}", lines.text());
    }
}
