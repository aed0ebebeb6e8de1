//! Sending metrics to a receiver, beside the page that they are scraped from: every minute, and once in the end.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;
use prost::Message as _;
use reqwest::{StatusCode, header};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::export::{ExportError, SCOPE, client};
use super::trouble::Trouble;
use crate::config::otel::{Protocol, Pushing};

/// The running task.
#[derive(Debug)]
pub struct Push {
    finish: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Push {
    /// Sends what `collect` finds, as `pushing` says.
    ///
    /// # Errors
    /// Where the receiver's settings make no sense.
    pub fn start(
        pushing: &Pushing,
        resource: &Resource,
        collect: impl Fn() -> Vec<Metric> + Send + 'static,
    ) -> Result<Self, ExportError> {
        let sender = Sender::new(pushing)?;
        let resource = OtlpResource {
            attributes: ResourceAttributesWithSchema::from(resource).attributes.0,
            ..OtlpResource::default()
        };
        let (finish, finishing) = oneshot::channel();
        let (every, within) = (pushing.every, pushing.timeout);
        let request = move || request(resource.clone(), collect());
        let task = tokio::spawn(run(sender, request, (every, within), finishing));
        Ok(Self { finish, task })
    }

    /// Sends a last time and ends, within this time.
    pub async fn finish(mut self, within: Duration) {
        // It fails where the receiver takes no metrics, and the task has ended.
        _ = self.finish.send(());
        if timeout(within, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

fn request(resource: OtlpResource, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let scope = InstrumentationScope {
        name: SCOPE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics, schema_url: String::new() }];
    let all = ResourceMetrics { resource: Some(resource), scope_metrics, schema_url: String::new() };
    ExportMetricsServiceRequest { resource_metrics: vec![all] }
}

async fn run(
    mut sender: Sender,
    request: impl Fn() -> ExportMetricsServiceRequest,
    (every, within): (Duration, Duration),
    mut finishing: oneshot::Receiver<()>,
) {
    let mut due = interval_at(Instant::now() + every, every);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trouble = Trouble::default();
    loop {
        let is_last = tokio::select! {
            _ = due.tick() => false,
            _ = &mut finishing => true,
        };
        let sent = timeout(within, sender.send(request())).await;
        match sent.unwrap_or_else(|_| Err(Failed::Now("no answer in time".to_owned()))) {
            Ok(()) if trouble.is_over() => tracing::info!("metrics are exported again"),
            Ok(()) => {}
            Err(Failed::Always) => {
                tracing::info!("the receiver of traces takes no metrics; they are scraped and not sent");
                return;
            }
            Err(Failed::Now(error)) if trouble.goes_on() => {
                tracing::warn!(error, "metrics cannot be exported; requests are not affected");
            }
            Err(Failed::Now(_)) => {}
        }
        if is_last {
            return;
        }
    }
}

/// Why metrics were not taken.
enum Failed {
    /// Whoever is there does not know what they are.
    Always,
    /// The next ones may be.
    Now(String),
}

/// The way to the receiver.
enum Sender {
    Http { client: reqwest::Client, url: String, headers: header::HeaderMap },
    Grpc { client: MetricsServiceClient<Channel>, headers: header::HeaderMap },
}

impl Sender {
    fn new(pushing: &Pushing) -> Result<Self, ExportError> {
        let headers = pushing.headers.clone();
        match pushing.receiver.protocol {
            Protocol::Http => {
                Ok(Self::Http { client: client(pushing.timeout)?, url: pushing.receiver.endpoint.clone(), headers })
            }
            Protocol::Grpc => {
                let mut endpoint = Endpoint::from_shared(pushing.receiver.endpoint.clone())?;
                if pushing.receiver.endpoint.starts_with("https") {
                    endpoint = endpoint.tls_config(ClientTlsConfig::new().with_enabled_roots())?;
                }
                Ok(Self::Grpc { client: MetricsServiceClient::new(endpoint.connect_lazy()), headers })
            }
        }
    }

    async fn send(&mut self, metrics: ExportMetricsServiceRequest) -> Result<(), Failed> {
        match self {
            Self::Http { client, url, headers } => {
                let request = client.post(url.as_str()).headers(headers.clone());
                let request = request.header(header::CONTENT_TYPE, "application/x-protobuf");
                let answer = request.body(metrics.encode_to_vec()).send().await;
                match answer.map_err(|error| Failed::Now(error.without_url().to_string()))?.status() {
                    status if status.is_success() => Ok(()),
                    StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Err(Failed::Always),
                    status => Err(Failed::Now(format!("status {}", status.as_u16()))),
                }
            }
            Self::Grpc { client, headers } => {
                let mut request = tonic::Request::new(metrics);
                *request.metadata_mut() = MetadataMap::from_headers(headers.clone());
                match client.export(request).await {
                    Ok(_) => Ok(()),
                    Err(status) if status.code() == tonic::Code::Unimplemented => Err(Failed::Always),
                    Err(status) => Err(Failed::Now(status.code().to_string())),
                }
            }
        }
    }
}
