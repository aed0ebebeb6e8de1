//! `Accept` (RFC 9110, 12.5.1), for resources with two forms.

use http::{HeaderMap, header};

use super::prefer::split_unquoted;

/// A client's weights of the two forms of a resource, from 0 to 1.
#[derive(Debug, Default)]
struct Weights {
    special: f32,
    /// The usual form's weight by the precision of its name: by itself, as `application/*`, as `*/*`.
    usual: [Option<f32>; 3],
}

impl Weights {
    fn of(headers: &HeaderMap, special: &str, usual: &str) -> Self {
        let mut weights = Self::default();
        let (family, _) = usual.split_once('/').unwrap_or((usual, ""));
        for value in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
            for range in split_unquoted(value, ',') {
                let mut parts = split_unquoted(range, ';').map(str::trim);
                let name = parts.next().unwrap_or_default().to_ascii_lowercase();
                let weight = parts.find_map(weight).unwrap_or(1.0);
                let usual = match name.as_str() {
                    name if name == special => {
                        weights.special = weights.special.max(weight);
                        continue;
                    }
                    name if name == usual => &mut weights.usual[0],
                    "*/*" => &mut weights.usual[2],
                    name if name.strip_suffix("/*") == Some(family) => &mut weights.usual[1],
                    _ => continue,
                };
                *usual = Some(usual.unwrap_or_default().max(weight));
            }
        }
        weights
    }
}

/// The weight in a parameter, if it is a readable one.
fn weight(parameter: &str) -> Option<f32> {
    let (name, value) = parameter.split_once('=')?;
    let value: f32 = value.trim().parse().ok().filter(|value: &f32| value.is_finite())?;
    name.trim_end().eq_ignore_ascii_case("q").then(|| value.clamp(0.0, 1.0))
}

/// Whether a client wants the special one of two forms: it must be named, with a weight above 0 that is at least that
/// of the usual form.
fn prefers(headers: &HeaderMap, special: &str, usual: &str) -> bool {
    let Weights { special, usual } = Weights::of(headers, special, usual);
    let usual = usual.into_iter().flatten().next().unwrap_or_default();
    special > 0.0 && special >= usual
}

/// Whether a client wants an event log as a stream (`text/event-stream`) rather than as JSON.
#[must_use]
pub fn prefers_event_stream(headers: &HeaderMap) -> bool {
    prefers(headers, "text/event-stream", "application/json")
}

/// Whether a client wants metrics as `OpenMetrics` rather than as Prometheus' own text.
#[must_use]
pub fn prefers_openmetrics(headers: &HeaderMap) -> bool {
    prefers(headers, "application/openmetrics-text", "text/plain")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_stream_needs_an_accept_weight_no_lower_than_that_of_json() {
        for (values, streams) in [
            (&[][..], false),
            (&["*/*"], false),
            (&["text/*"], false),
            (&["application/json"], false),
            (&["text/event-stream"], true),
            (&["Text/Event-Stream ; Q=0.1"], true),
            (&["text/event-stream;q=0"], false),
            (&["text/event-stream;q=0.000, */*"], false),
            (&["text/event-stream, */*"], true),
            (&["*/*", "text/event-stream"], true),
            (&["text/event-stream, */*;q=0.1"], true),
            (&["text/event-stream;q=0.5, */*"], false),
            (&["text/event-stream;q=0.5, */*;q=0.5"], true),
            (&["text/event-stream;q=0.5, application/json"], false),
            (&["application/json;q=0.5, text/event-stream;q=0.9"], true),
            (&["application/json;q=0.9, text/event-stream;q=0.5"], false),
            (&["application/json, text/event-stream"], true),
            // The most exact name of JSON decides its weight.
            (&["text/event-stream;q=0.5, application/json;q=0.1, */*"], true),
            (&["text/event-stream;q=0.5, application/*;q=0.8, */*;q=0.1"], false),
            (&["text/event-stream;a=\"x, application/json\";q=0.5"], true),
            (&["text/event-stream;q=often, */*;q=nan"], true),
            (&["text/event-stream-like"], false),
        ] {
            let given = values.iter().map(|value| (header::ACCEPT, HeaderValue::from_static(value)));
            let headers = HeaderMap::from_iter(given);
            assert_eq!(prefers_event_stream(&headers), streams, "{values:?}");
        }
    }

    #[test]
    fn openmetrics_needs_an_accept_weight_no_lower_than_that_of_text() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let old = "text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=1.0.0;q=0.3";
        let refused = "application/openmetrics-text;q=0, */*";
        let cases = [(prometheus, true), (old, false), (refused, false), ("*/*", false), ("text/*", false)];
        for (accept, wanted) in cases {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(prefers_openmetrics(&headers), wanted, "{accept}");
        }
    }
}
