//! Rate, errors and duration of requests, by route, method and status, named by OpenTelemetry's conventions.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actors::clock::Millis;
use actors::metrics::{Counter, Gauge, MetricKind, Requests, Times};
use actors::trace::TraceContext;
use actors::trace::names::{ERROR_TYPE, HTTP_METHOD, HTTP_ROUTE, HTTP_STATUS, SERVER_ACTIVE, SERVER_DURATION};
use dashmap::DashMap;
use http::{Method, StatusCode};

use super::sink::Sink;

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Its client disconnected before.
    ClientLeft,
    /// It was still running when the time of the server's stop was over.
    Stopping,
}

impl Unanswered {
    /// Both, in the order of their indices.
    const ALL: [Self; 2] = [Self::ClientLeft, Self::Stopping];

    /// The error type.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::ClientLeft => "client_left",
            Self::Stopping => "stopping",
        }
    }
}

/// The route of requests that no route answered. It is a label value of the page, on which each series has the same
/// labels; in OTLP there is no route then.
pub const UNMATCHED: &str = "unmatched";
/// The statuses by which requests are counted, ascending. Other statuses count as the first one of their class: HTTP
/// has clients treat an unknown status like that one.
const STATUSES: [(u16, &str); 29] = [
    (100, "100"),
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (204, "204"),
    (206, "206"),
    (300, "300"),
    (304, "304"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (406, "406"),
    (408, "408"),
    (409, "409"),
    (412, "412"),
    (413, "413"),
    (414, "414"),
    (415, "415"),
    (416, "416"),
    (422, "422"),
    (429, "429"),
    (431, "431"),
    (500, "500"),
    (501, "501"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
];
/// These, followed by the requests without an answer.
const PLACES: usize = STATUSES.len() + Unanswered::ALL.len();
/// The statuses shown for a route from its first request on: a rate is visible only from the second value on, so
/// without the 0 the first failures would raise no alert.
const FAILURES: [u16; 2] = [500, 503];

/// The index at which requests of this status are counted.
fn index_of(status: u16) -> usize {
    let found = |status: u16| STATUSES.binary_search_by_key(&status, |(known, _)| *known);
    found(status).or_else(|_| found(status / 100 * 100)).unwrap_or(0)
}

/// The error type of an answer with this status, on its span as in the metric; `None`: the server has not failed.
#[must_use]
pub fn error_type(status: StatusCode) -> Option<&'static str> {
    error_label(STATUSES[index_of(status.as_u16())])
}

fn error_label((code, digits): (u16, &'static str)) -> Option<&'static str> {
    (code >= 500).then_some(digits)
}

/// The requests of a server. Routes are those of the router and methods the standard ones, so the number of series is
/// bounded whatever clients send.
#[derive(Debug, Default)]
pub struct HttpMetrics {
    routes: DashMap<(Arc<str>, &'static str), Arc<Route>>,
    problems: DashMap<&'static str, Counter>,
    active: [Gauge; METHODS.len()],
}

/// The requests of one route by one method.
#[derive(Debug)]
pub struct Route {
    route: Arc<str>,
    method: &'static str,
    took: [OnceLock<Box<Times<Requests>>>; PLACES],
}

impl HttpMetrics {
    /// The instruments of a route; keep them, so that they are looked up once.
    pub fn of(&self, route: &str, method: &'static str) -> Arc<Route> {
        let made = || {
            let route = Route { route: route.into(), method, took: std::array::from_fn(|_| OnceLock::new()) };
            for status in FAILURES {
                route.took[index_of(status)].get_or_init(Box::default);
            }
            Arc::new(route)
        };
        Arc::clone(&self.routes.entry((route.into(), method)).or_insert_with(made))
    }

    /// A request was answered with an error of this code.
    pub fn problem(&self, code: &'static str) {
        match self.problems.get(code) {
            Some(counter) => counter.inc(),
            None => self.problems.entry(code).or_default().inc(),
        }
    }

    /// A request by this method has begun.
    pub fn begun(&self, method: &Method) {
        self.active[method_index(method)].add(1);
    }

    /// A request by this method has ended.
    pub fn ended(&self, method: &Method) {
        self.active[method_index(method)].add(-1);
    }

    /// Writes all of it.
    pub fn write(&self, page: &mut impl Sink) {
        page.metric(SERVER_ACTIVE, "Requests in progress.", MetricKind::Level);
        for (active, method) in self.active.iter().zip(METHODS) {
            page.value(&[(HTTP_METHOD, method)], active.get());
        }
        let name = "tertulia_http_problems_total";
        page.metric(name, "Requests answered with an error, by code.", MetricKind::Counter);
        let mut problems: Vec<_> = self.problems.iter().map(|entry| (*entry.key(), entry.value().get())).collect();
        problems.sort_unstable();
        for (code, count) in problems {
            page.value(&[("code", code)], count);
        }
        page.metric(SERVER_DURATION, "Time from a request's head to its response's head.", MetricKind::Histogram);
        let mut routes: Vec<_> = self.routes.iter().map(|entry| Arc::clone(entry.value())).collect();
        routes.sort_unstable_by(|a, b| (&a.route, a.method).cmp(&(&b.route, b.method)));
        for route in routes {
            route.write(page);
        }
    }
}

impl Route {
    /// The method.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// A request was answered, or has no answer. `of`: its span, if that is recorded.
    pub fn observe(
        &self,
        status: Result<StatusCode, Unanswered>,
        took: Duration,
        of: Option<TraceContext>,
        now: impl FnOnce() -> Millis,
    ) {
        let place = match status {
            Ok(status) => index_of(status.as_u16()),
            Err(why) => STATUSES.len() + why as usize,
        };
        self.took[place].get_or_init(Box::default).observe(took, of, now);
    }

    fn write(&self, page: &mut impl Sink) {
        for (place, took) in self.took.iter().enumerate() {
            let Some(took) = took.get() else { continue };
            let (status, error) = match STATUSES.get(place) {
                Some(status) => (Some((HTTP_STATUS, status.1)), error_label(*status)),
                None => (None, Unanswered::ALL.get(place - STATUSES.len()).map(|why| why.word())),
            };
            let known = [(HTTP_ROUTE, &*self.route), (HTTP_METHOD, self.method)];
            let error = error.map(|error| (ERROR_TYPE, error));
            let labels: Vec<_> = known.into_iter().chain(status).chain(error).collect();
            page.histogram(&labels, &took.snapshot());
        }
    }
}

/// The name of non-standard methods.
pub const OTHER: &str = "_OTHER";

/// The standard methods, and the name of others.
const METHODS: [&str; 10] = ["POST", "GET", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE", "CONNECT", OTHER];

/// The method's place in [`METHODS`].
fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1)
}

/// The method's name among the standard ones.
#[must_use]
pub fn method_name(method: &Method) -> &'static str {
    METHODS[method_index(method)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::page::{Format, Page};

    fn shown(metrics: &HttpMetrics, format: Format) -> String {
        let mut page = Page::new(format);
        metrics.write(&mut page);
        page.finish()
    }

    #[test]
    fn failures_are_shown_before_there_are_any() {
        let metrics = HttpMetrics::default();
        metrics.of("/api/v1/messages", "POST").observe(
            Ok(StatusCode::OK),
            Duration::from_millis(3),
            None,
            || unreachable!(),
        );
        let text = shown(&metrics, Format::Text);
        for status in ["500", "503"] {
            let failures = format!(
                "_count{{http_route=\"/api/v1/messages\",http_request_method=\"POST\",\
                 http_response_status_code=\"{status}\",error_type=\"{status}\"}} 0\n"
            );
            assert!(text.contains(&failures), "{text}");
        }
        assert!(!text.contains("\"400\""), "others come with the first of theirs: {text}");
    }

    #[test]
    fn requests_are_counted_by_route_method_and_status() {
        let metrics = HttpMetrics::default();
        let route = metrics.of("/api/v1/messages/{id}", "GET");
        let of = TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1 };
        route.observe(Ok(StatusCode::OK), Duration::from_millis(3), Some(of), || Millis(5));
        for status in [404, 499, 502] {
            route.observe(Ok(StatusCode::from_u16(status).unwrap()), Duration::from_millis(3), None, || unreachable!());
        }
        for why in Unanswered::ALL {
            route.observe(Err(why), Duration::from_millis(3), None, || unreachable!());
        }
        metrics.problem("message_not_found");
        metrics.problem("message_not_found");
        let text = shown(&metrics, Format::OpenMetrics);
        for labels in [
            "http_response_status_code=\"200\"",
            "http_response_status_code=\"404\"",
            // A status that nothing answers with has no series of its own.
            "http_response_status_code=\"400\"",
            "http_response_status_code=\"502\",error_type=\"502\"",
            "error_type=\"client_left\"",
            "error_type=\"stopping\"",
        ] {
            let series = format!("{{http_route=\"/api/v1/messages/{{id}}\",http_request_method=\"GET\",{labels}}} 1\n");
            assert!(text.contains(&format!("http_server_request_duration_seconds_count{series}")), "{labels}: {text}");
        }
        assert!(text.contains("tertulia_http_problems_total{code=\"message_not_found\"} 2\n"), "{text}");
        assert!(text.contains("le=\"0.005\"} 1 # {trace_id="), "{text}");
        assert_eq!(text.matches("# {trace_id").count(), 1);
    }

    #[test]
    fn every_status_has_its_own_place_or_that_of_its_class() {
        assert!(STATUSES.is_sorted_by_key(|(status, _)| *status));
        for (nth, (status, digits)) in STATUSES.iter().enumerate() {
            assert_eq!((index_of(*status), digits.parse()), (nth, Ok(*status)));
        }
        for status in 100..600 {
            assert_eq!(STATUSES[index_of(status)].0 / 100, status / 100, "{status}");
        }
    }

    #[test]
    fn requests_that_are_being_answered_are_counted_by_method() {
        let metrics = HttpMetrics::default();
        let own = Method::from_bytes(b"BREW").unwrap();
        for method in [&Method::GET, &Method::GET, &own] {
            metrics.begun(method);
        }
        metrics.ended(&Method::GET);
        let text = shown(&metrics, Format::Text);
        for (method, active) in [("GET", 1), (OTHER, 1), ("POST", 0)] {
            let line = format!("http_server_active_requests{{http_request_method=\"{method}\"}} {active}\n");
            assert!(text.contains(&line), "{text}");
        }
    }
}
