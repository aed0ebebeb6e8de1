//! Rate, errors and duration of requests, by route, method and class of status.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use actors::metrics::{Counter, Gauge, Histogram, MetricKind, Short};
use dashmap::DashMap;
use http::{Method, StatusCode};

use super::exemplar::Exemplar;
use super::sink::Sink;

/// What no route answered.
pub const UNMATCHED: &str = "unmatched";
/// Classes of status, and what the client did not wait for.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "aborted"];
/// The place of [`CLASSES`] for requests that failed here.
const FAILED: usize = 4;
/// That for requests whose client left.
const ABORTED: usize = 5;

/// The requests of a server. Routes are those of the router and methods those that HTTP knows, so the number of series
/// is bounded whatever clients send.
#[derive(Debug, Default)]
pub struct HttpMetrics {
    routes: DashMap<(Arc<str>, &'static str), Arc<Route>>,
    problems: DashMap<&'static str, Counter>,
    active: Gauge,
}

/// The requests of one route by one method.
#[derive(Debug)]
pub struct Route {
    route: Arc<str>,
    method: &'static str,
    classes: [OnceLock<Box<Timed>>; CLASSES.len()],
}

/// How long requests took, and one that stands for each bucket.
#[derive(Debug, Default)]
struct Timed {
    took: Histogram<Short>,
    exemplars: Mutex<Vec<Option<Exemplar>>>,
}

impl HttpMetrics {
    /// The instruments of a route; keep them, so that they are looked up once.
    pub fn of(&self, route: &str, method: &'static str) -> Arc<Route> {
        let made = || {
            let route = Route { route: route.into(), method, classes: Default::default() };
            // A rate is seen only from the second value on: without the 0 the first failures would raise no alert.
            route.classes[FAILED].get_or_init(Box::default);
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

    /// A request has begun.
    pub fn begun(&self) {
        self.active.add(1);
    }

    /// A request has ended.
    pub fn ended(&self) {
        self.active.add(-1);
    }

    /// Writes all of it.
    pub fn write(&self, page: &mut impl Sink) {
        page.metric("http_server_active_requests", "Requests that are being answered.", MetricKind::Gauge);
        page.value(&[], self.active.get());
        let name = "tertulia_http_problems_total";
        page.metric(name, "Requests answered with an error, by its code.", MetricKind::Counter);
        let mut problems: Vec<_> = self.problems.iter().map(|entry| (*entry.key(), entry.value().get())).collect();
        problems.sort_unstable();
        for (code, count) in problems {
            page.value(&[("code", code)], count);
        }
        let name = "http_server_request_duration_seconds";
        page.metric(name, "Time from a request's head until its answer's head.", MetricKind::Histogram);
        let mut routes: Vec<_> = self.routes.iter().map(|entry| Arc::clone(entry.value())).collect();
        routes.sort_unstable_by(|a, b| (&a.route, a.method).cmp(&(&b.route, b.method)));
        for route in routes {
            route.write(page);
        }
    }
}

impl Route {
    /// The method that these are for.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// A request was answered, or (`None`) its client left before. `exemplar`: it is recorded, so a trace can be shown.
    pub fn observe(&self, status: Option<StatusCode>, took: Duration, exemplar: impl FnOnce() -> Option<Exemplar>) {
        let class = status.map_or(ABORTED, |status| usize::from(status.as_u16() / 100).clamp(1, 5) - 1);
        let timed = self.classes[class].get_or_init(Box::default);
        let bucket = timed.took.observe(took);
        if let Some(exemplar) = exemplar() {
            timed.keep(bucket, exemplar);
        }
    }

    fn write(&self, page: &mut impl Sink) {
        for (class, timed) in CLASSES.iter().zip(&self.classes) {
            let Some(timed) = timed.get() else { continue };
            let labels = [("http_route", &*self.route), ("http_request_method", self.method), ("status", class)];
            let exemplars = timed.exemplars.lock().unwrap_or_else(PoisonError::into_inner).clone();
            page.histogram(&labels, &timed.took.snapshot(), &exemplars);
        }
    }
}

impl Timed {
    /// The newest one stands for its bucket; where somebody else is at it, theirs does.
    fn keep(&self, bucket: usize, exemplar: Exemplar) {
        let Ok(mut exemplars) = self.exemplars.try_lock() else { return };
        if exemplars.len() <= bucket {
            exemplars.resize(bucket + 1, None);
        }
        exemplars[bucket] = Some(exemplar);
    }
}

/// What methods are called that HTTP does not know.
pub const OTHER: &str = "_OTHER";

/// The method's name, of as many as HTTP knows.
#[must_use]
pub fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::PUT => "PUT",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::page::{Format, Page};

    #[test]
    fn failures_are_shown_before_there_are_any() {
        let metrics = HttpMetrics::default();
        metrics.of("/api/v1/messages", "POST").observe(Some(StatusCode::OK), Duration::from_millis(3), || None);
        let mut page = Page::new(Format::Text);
        metrics.write(&mut page);
        let text = page.finish();
        let failures = "http_server_request_duration_seconds_count{http_route=\"/api/v1/messages\",http_request_method=\"POST\",status=\"5xx\"} 0\n";
        assert!(text.contains(failures), "{text}");
        assert!(!text.contains("4xx"), "others come with the first of theirs: {text}");
    }

    #[test]
    fn requests_are_counted_by_route_method_and_class() {
        let metrics = HttpMetrics::default();
        let route = metrics.of("/api/v1/messages/{id}", "GET");
        let exemplar = Exemplar { trace_id: [1; 16], span_id: [2; 8], value: 0.003, at_millis: 5 };
        route.observe(Some(StatusCode::OK), Duration::from_millis(3), || Some(exemplar));
        route.observe(Some(StatusCode::NOT_FOUND), Duration::from_millis(3), || None);
        metrics.of("/api/v1/messages/{id}", "GET").observe(None, Duration::from_millis(3), || None);
        metrics.problem("message_not_found");
        metrics.problem("message_not_found");
        let mut page = Page::new(Format::OpenMetrics);
        metrics.write(&mut page);
        let text = page.finish();
        let series = |class: &str| {
            format!("{{http_route=\"/api/v1/messages/{{id}}\",http_request_method=\"GET\",status=\"{class}\"}} 1\n")
        };
        for class in ["2xx", "4xx", "aborted"] {
            assert!(text.contains(&format!("http_server_request_duration_seconds_count{}", series(class))), "{text}");
        }
        assert!(text.contains("tertulia_http_problems_total{code=\"message_not_found\"} 2\n"), "{text}");
        assert!(text.contains(&format!("le=\"0.005\"}} 1 {exemplar}\n")), "{text}");
        assert_eq!(text.matches("# {trace_id").count(), 1);
    }
}
