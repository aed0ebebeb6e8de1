//! `Accept` (RFC 9110, 12.5.1), where there are two forms to choose from.

use http::{HeaderMap, header};

use super::prefer::split_unquoted;

/// How well a client likes the two forms of an event log, from 0 to 1.
#[derive(Debug, Default)]
struct Weights {
    stream: f32,
    /// JSON's weight by how exactly it is named: by itself, as `application/*`, as `*/*`.
    json: [Option<f32>; 3],
}

impl Weights {
    fn of(headers: &HeaderMap) -> Self {
        let mut weights = Self::default();
        for value in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
            for range in split_unquoted(value, ',') {
                let mut parts = split_unquoted(range, ';').map(str::trim);
                let name = parts.next().unwrap_or_default().to_ascii_lowercase();
                let weight = parts.find_map(weight).unwrap_or(1.0);
                let json = match name.as_str() {
                    "text/event-stream" => {
                        weights.stream = weights.stream.max(weight);
                        continue;
                    }
                    "application/json" => &mut weights.json[0],
                    "application/*" => &mut weights.json[1],
                    "*/*" => &mut weights.json[2],
                    _ => continue,
                };
                *json = Some(json.unwrap_or_default().max(weight));
            }
        }
        weights
    }
}

/// The weight that a parameter is, if it is one that can be read.
fn weight(parameter: &str) -> Option<f32> {
    let (name, value) = parameter.split_once('=')?;
    let value: f32 = value.trim().parse().ok().filter(|value: &f32| value.is_finite())?;
    name.trim_end().eq_ignore_ascii_case("q").then(|| value.clamp(0.0, 1.0))
}

/// Whether a client wants an event log as a stream rather than as JSON. Only who names `text/event-stream` does, and
/// not with the weight 0; where both are liked as well as each other it is what was named for.
#[must_use]
pub fn prefers_event_stream(headers: &HeaderMap) -> bool {
    let Weights { stream, json } = Weights::of(headers);
    let json = json.into_iter().flatten().next().unwrap_or_default();
    stream > 0.0 && stream >= json
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_stream_goes_to_whoever_names_it_and_likes_it_no_less_than_json() {
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
            // The most exact name of JSON says how well it is liked.
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
}
