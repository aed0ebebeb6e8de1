//! A bucket of an S3-compatible store.

use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{HttpClient, HttpConnector};
use object_store::{BackoffConfig, ClientOptions, Error, RetryConfig};

use crate::config::{Bucket, Secret};
use crate::http_client;

/// How long a failed request is retried, and the longest pause before a retry: a longer outage of the bucket is
/// reported, and background work is retried later.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Opens a bucket, without a request yet.
pub(super) fn open(bucket: &Bucket) -> Result<AmazonS3, Error> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&bucket.name)
        .with_region(&bucket.region)
        .with_retry(RetryConfig {
            backoff: BackoffConfig { max_backoff: MAX_PAUSE, ..BackoffConfig::default() },
            retry_timeout: RETRY_TIMEOUT,
            ..RetryConfig::default()
        })
        .with_http_connector(Connector);
    if let Some(endpoint) = &bucket.endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
    }
    if let Some((id, secret)) = &bucket.credentials {
        builder = builder.with_access_key_id(id).with_secret_access_key(Secret::expose(secret));
    }
    builder.build()
}

/// The URL of a bucket's store.
pub(super) fn server(bucket: &Bucket) -> String {
    bucket.endpoint.clone().unwrap_or_else(|| format!("https://s3.{}.amazonaws.com", bucket.region))
}

/// Connects with this program's TLS: the store's own client would look for a provider of the whole process.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> Result<HttpClient, Error> {
        let failed = |source| Error::Generic { store: "S3", source };
        // Without retries: the store's library has its own policy.
        let client = http_client::client().map_err(|error| failed(error.into()))?;
        let client =
            client.http1_only().connect_timeout(super::CONNECT_TIMEOUT).read_timeout(super::READ_TIMEOUT).build();
        client.map(HttpClient::new).map_err(|error| failed(error.into()))
    }
}
