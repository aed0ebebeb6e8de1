//! The variables that are set, in the form in which people may read them.

use super::Reader;
use crate::config::print::{MASK, hidden, without_userinfo};

/// Every variable that has an effect, except the one that is a setting too.
const NAMES: [&str; 30] = [
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_EXPORTER",
    "OTEL_METRICS_EXPORTER",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_METRIC_EXPORT_TIMEOUT",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
];

/// Each one that is set, without what may be secret in its value.
pub(super) fn shown(reader: &Reader<'_>) -> Vec<(&'static str, String)> {
    NAMES.into_iter().filter_map(|name| Some((name, masked(name, &reader.get(name)?)))).collect()
}

fn masked(name: &str, value: &str) -> String {
    // Headers are tokens and passwords as a rule, and a malformed one may have its secret anywhere.
    if name.ends_with("_HEADERS") {
        return MASK.to_owned();
    }
    let masked = if name.ends_with("_ENDPOINT") { without_userinfo(value) } else { hidden(value) };
    masked.into_owned()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::super::{Otel, unsupported};
    use super::*;

    #[test]
    fn each_variable_that_is_read_is_shown_or_has_no_effect() {
        let asked = RefCell::new(Vec::new());
        let env = |name: &str| {
            asked.borrow_mut().push(name.to_owned());
            // Only this one has an argument.
            (name == "OTEL_TRACES_SAMPLER").then(|| "traceidratio".to_owned())
        };
        let _otel = Otel::read(&env, Some("https://localhost:4318"), &mut Vec::new());
        let mut asked = asked.into_inner();
        // What is shown is asked for last.
        let shown: BTreeSet<_> = asked.split_off(asked.len() - NAMES.len()).into_iter().collect();
        let read: BTreeSet<_> =
            asked.into_iter().filter(|name| !unsupported::names().any(|other| other == name)).collect();
        assert_eq!(shown, read);
    }
}
