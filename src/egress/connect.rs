//! The one place where a socket is opened for a user's URL.

use std::net::{IpAddr, Ipv6Addr};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::time::timeout;
use tower::Service;

use super::names::{self, Names};
use super::progress::Observed;
use super::{Fault, Guard};

/// Looking up, connecting and the TLS handshake together; a slower receiver counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Connecting alone, shared by the addresses of a name, so that one dead address does not use up the time of all.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens connections, to admitted addresses only.
#[derive(Clone)]
pub(super) struct Connector {
    https: HttpsConnector<HttpConnector<Names>>,
    guard: Guard,
}

impl Connector {
    pub(super) fn new(guard: Guard, names: Names, tls: ClientConfig) -> Self {
        let mut http = HttpConnector::new_with_resolver(names);
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(SOCKET_TIMEOUT));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Self { https: https.wrap_connector(http), guard }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Observed>;
    type Error = Fault;
    type Future = BoxFuture<'static, Result<Self::Response, Fault>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.https.poll_ready(context).map_err(|error| Fault::of_connecting(&*error))
    }

    /// A host that is an address never reaches [`Names`], so it is checked here.
    fn call(&mut self, uri: Uri) -> Self::Future {
        match literal(&uri) {
            Some(ip) if !self.guard.admits(ip) => {
                let refused = Fault::Blocked(format!("{ip} is not a public address"));
                return Box::pin(std::future::ready(Err(refused)));
            }
            _ => {}
        }
        // If a kept connection becomes free meanwhile, the rest of this runs in the background.
        let connecting = names::within(names::caller(), self.https.call(uri));
        Box::pin(async move {
            match timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(Ok(stream)) => Ok(TokioIo::new(Observed::new(stream))),
                Ok(Err(error)) => Err(Fault::of_connecting(&*error)),
                Err(_) => Err(Fault::Connect("no connection within the time limit".to_owned())),
            }
        })
    }
}

/// The address that a URI names instead of a host.
fn literal(uri: &Uri) -> Option<IpAddr> {
    let host = uri.host()?;
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
}
