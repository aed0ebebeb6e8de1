//! Sending metrics to a receiver, beside the scraped page: every minute, and once at the end.

use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
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
        }
    }
}

fn request(resource: OtlpResource, metrics: Vec<Metric>) -> Bytes {
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, schema_url: SCHEMA.to_owned() }];
    let all = ResourceMetrics { resource: Some(resource), scope_metrics, schema_url: String::new() };
    ExportMetricsServiceRequest { resource_metrics: vec![all] }.encode_to_vec().into()
}

async fn run(
    mut sender: Sender,
    request: impl Fn() -> Bytes,
    (every, within): (Duration, Duration),
    mut finishing: oneshot::Receiver<()>,
) {
    let mut due = interval_at(Instant::now() + every, every);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trouble = FailureLog::default();
    loop {
        let is_last = tokio::select! {
            _ = due.tick() => false,
            _ = &mut finishing => true,
        };
        let sent = timeout(within, sender.send(request())).await;
        match sent.unwrap_or_else(|_| Err(Failed::late())) {
            Ok(_) if trouble.is_over() => tracing::info!("metrics export resumed"),
            Ok(_) => {}
            Err(Failed::Unknown(_)) => {
                tracing::info!("the receiver of traces accepts no metrics; they can be scraped but are not sent");
                return;
            }
            // They count from the start, so the next ones include these.
            Err(Failed::Later(error, _) | Failed::Never(error)) => {
                if trouble.goes_on() {
                    tracing::warn!(error, "cannot export metrics; requests are not affected");
                }
            }
        }
        if is_last {
            return;
        }
    }
}
