//! The thread that sends spans. It has a runtime of its own, so that encoding never delays a request, and whatever the
//! receiver does (nothing, slowly, wrongly) costs the spans and nothing else.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol as OtlpProtocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig,
    WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::convert::{self, Moment};
use super::trouble::Trouble;
use super::waiting::{Ended, Waiting};
use crate::config::otel::{Protocol, Receiver};

/// The name of the instrumentation.
pub const SCOPE: &str = env!("CARGO_PKG_NAME");
/// After a batch that was not taken nothing is sent for this long, then for twice as long, and so on.
const PAUSE: Duration = Duration::from_secs(1);
/// Up to this.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The exporter refused its settings.
    #[error("traces cannot be exported: {0}")]
    Build(#[from] ExporterBuildError),
    /// The HTTP client could not be made.
    #[error("traces cannot be exported: the HTTP client cannot be made: {0}")]
    Client(#[from] reqwest::Error),
    /// The receiver's address is none that gRPC knows.
    #[error("metrics cannot be exported: {0}")]
    Channel(#[from] tonic::transport::Error),
    /// There is no TLS.
    #[error("traces cannot be exported: TLS cannot be configured: {0}")]
    Tls(#[from] rustls::Error),
    /// There is no thread for it.
    #[error("traces cannot be exported: {0}")]
    Thread(#[from] io::Error),
}

/// The running thread.
#[derive(Debug)]
pub struct Export {
    finish: mpsc::Sender<oneshot::Sender<()>>,
}

impl Export {
    /// Starts sending what waits.
    ///
    /// # Errors
    /// Where the receiver's settings make no sense, or there is no thread.
    pub fn start(receiver: &Receiver, resource: Resource, waiting: Arc<Waiting>) -> Result<Self, ExportError> {
        let (finish, finishing) = mpsc::channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let exporter = {
            // Its connections belong to the runtime that it is made in.
            let _entered = runtime.enter();
            exporter(receiver, &resource, waiting.batching().timeout)?
        };
        let scope = InstrumentationScope::builder(SCOPE).with_version(env!("CARGO_PKG_VERSION")).build();
        let clocks = Cell::new(Moment::now());
        let send = async move |spans: Vec<Ended>| {
            let now = clocks.get().still();
            clocks.set(now);
            let spans = spans.into_iter().map(|span| convert::span(span, now, &scope)).collect();
            exporter.export(spans).await.map_err(|error| error.to_string())
        };
        std::thread::Builder::new()
            .name("telemetry".to_owned())
            .spawn(move || runtime.block_on(run(&waiting, send, finishing)))?;
        Ok(Self { finish })
    }

    /// Sends what waits and ends, within this time.
    pub async fn finish(self, within: Duration) {
        let (done, finished) = oneshot::channel();
        let finishing = async {
            if self.finish.send(done).await.is_ok() {
                // It fails where the thread has ended already.
                drop(finished.await);
            }
        };
        if timeout(within, finishing).await.is_err() {
            tracing::warn!("some spans were not exported before the end");
        }
    }
}

fn exporter(receiver: &Receiver, resource: &Resource, within: Duration) -> Result<SpanExporter, ExportError> {
    let retry = RetryPolicy::recommended();
    let mut exporter = match receiver.protocol {
        Protocol::Grpc => {
            SpanExporter::builder().with_tonic().with_endpoint(&receiver.endpoint).with_retry_policy(retry).build()?
        }
        Protocol::Http => SpanExporter::builder()
            .with_http()
            .with_http_client(client(within)?)
            .with_protocol(OtlpProtocol::HttpBinary)
            .with_endpoint(&receiver.endpoint)
            .with_retry_policy(retry)
            .build()?,
    };
    exporter.set_resource(resource);
    Ok(exporter)
}

pub(super) fn client(within: Duration) -> Result<reqwest::Client, ExportError> {
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(crate::tls::client()?)
        .timeout(within)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .build()?)
}

/// Sends batches until it is told to finish, or nobody can tell it any more.
async fn run(
    waiting: &Waiting,
    send: impl AsyncFn(Vec<Ended>) -> Result<(), String>,
    mut finishing: mpsc::Receiver<oneshot::Sender<()>>,
) {
    let mut health = Health::default();
    loop {
        let finish = tokio::select! {
            biased;
            finish = finishing.recv() => Some(finish),
            () = async { sleep(health.pause).await; waiting.ready().await } => None,
        };
        loop {
            let batch = waiting.take();
            if batch.is_empty() {
                break;
            }
            let spans = batch.len() as u64;
            let sent = timeout(waiting.batching().timeout, send(batch)).await;
            match sent.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
                Ok(()) => {
                    waiting.counts().exported.add(spans);
                    health.good();
                }
                Err(error) => {
                    waiting.counts().refused.add(spans);
                    health.bad(&error, waiting);
                    break;
                }
            }
        }
        if let Some(finish) = finish {
            // Whoever asked may have stopped waiting.
            finish.map(|done| done.send(()));
            return;
        }
    }
}

/// How the receiver is doing.
#[derive(Debug, Default)]
struct Health {
    /// How long nothing is sent.
    pause: Duration,
    trouble: Trouble,
}

impl Health {
    fn good(&mut self) {
        if self.trouble.is_over() {
            tracing::info!("traces are exported again");
        }
        self.pause = Duration::ZERO;
    }

    fn bad(&mut self, error: &str, waiting: &Waiting) {
        self.pause = (self.pause * 2).clamp(PAUSE, PAUSE_MAX);
        if self.trouble.goes_on() {
            let counts = waiting.counts();
            let lost = counts.refused.get() + counts.overflowed.get();
            tracing::warn!(error, spans_lost = lost, "traces cannot be exported; requests are not affected");
        }
    }
}
