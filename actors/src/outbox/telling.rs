//! What is told of an attempt: its span, and the trace that its log lines and its request name.

use super::lane::Receiver;
use super::port::{Parcel, Receipt};
use super::receivers::Subject;
use super::state::{DeliveryKey, ended_key};
use crate::id::DeliveryId;
use crate::node::Node;
use crate::trace::{Span, SpanKind, TraceContext, names};

/// An attempt that is being told of; the span ends when it is dropped.
pub(super) struct Telling {
    span: Span,
    /// Its place in a trace, recorded or not.
    pub(super) place: TraceContext,
}

impl Telling {
    /// The `nth` attempt to send `parcel` to `receiver` begins.
    pub(super) fn begin(node: &Node, parcel: &Parcel, subject: &Subject, receiver: Receiver, nth: u32) -> Self {
        // A trace of its own, since it may be made days after what it tells of.
        let mut span = node.root_span(names::DELIVER, SpanKind::Client, parcel.trace.into_iter().collect());
        if span.is_recorded() {
            span.name(|| format!("{} {}", names::DELIVER, subject.event));
            span.set(names::EVENT_ID, parcel.id.to_string());
            let key = DeliveryKey::new(parcel.id.number, receiver);
            span.set(names::DELIVERY_ID, DeliveryId(ended_key(subject.at, parcel.entity, key)).to_string());
            span.set(names::DELIVERY_ATTEMPT, nth);
            if nth > 1 {
                span.set(names::HTTP_RESENT, nth - 1);
            }
            span.set(names::RECEIVER, receiver.word());
            if let Some(endpoint) = receiver.endpoint() {
                span.set(names::ENDPOINT_ID, endpoint.to_string());
            }
            span.set(names::HTTP_METHOD, parcel.method.clone());
            let server = Server::of(&parcel.url);
            span.set(names::URL_SCHEME, server.scheme.to_owned());
            span.set(names::SERVER, server.host.to_owned());
            span.set(names::SERVER_PORT, server.port);
        }
        let place = span.context_or(parcel.trace).unwrap_or_else(|| TraceContext::unrecorded(&node.entropy));
        Self { span, place }
    }

    /// This came of it.
    pub(super) fn end(mut self, receipt: &Receipt) {
        if let Some(status) = receipt.status {
            self.span.set(names::HTTP_STATUS, u32::from(status));
        }
        if let Some(error) = receipt.error.as_ref().filter(|_| self.span.is_recorded()) {
            self.span.fail(error.clone());
        }
    }
}

/// What may be told of a URL: path and query may hold what only its owner knows.
#[derive(Debug, PartialEq, Eq)]
struct Server<'a> {
    scheme: &'a str,
    host: &'a str,
    port: u32,
}

impl<'a> Server<'a> {
    /// That of a URL which was checked when it came in.
    fn of(url: &'a str) -> Self {
        let (scheme, authority) = origin(url).split_once("://").unwrap_or(("https", url));
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let usual = if scheme.eq_ignore_ascii_case("http") { 80 } else { 443 };
        // In an IPv6 address colons stand between brackets.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port.parse().ok()),
            _ => (authority, None),
        };
        Self { scheme, host, port: port.unwrap_or(usual) }
    }
}

/// Scheme, host and port of a URL that was checked when it came in.
pub(super) fn origin(url: &str) -> &str {
    let path = url.find("://").and_then(|at| url[at + 3..].find(['/', '?', '#']).map(|path| at + 3 + path));
    path.map_or(url, |path| &url[..path])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_url_only_the_server_is_told() {
        let of = |url| {
            let Server { scheme, host, port } = Server::of(url);
            (scheme, host, port)
        };
        assert_eq!(of("https://hooks.example.com/T01/secret?token=1"), ("https", "hooks.example.com", 443));
        assert_eq!(of("http://example.com?token=secret@else:1"), ("http", "example.com", 80));
        assert_eq!(of("https://user:secret@example.com:8443/a:1"), ("https", "example.com", 8443));
        assert_eq!(of("https://[2001:db8::1]/a"), ("https", "[2001:db8::1]", 443));
        assert_eq!(of("http://[2001:db8::1]:8080"), ("http", "[2001:db8::1]", 8080));
    }
}
