//! OpenTelemetry's variables that this program ignores. If one is set, a line at the start says so.

use super::Reader;

/// Names without effect, whatever their value.
const NAMES: [&str; 21] = [
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_INSECURE",
    "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
    "OTEL_EXPORTER_OTLP_METRICS_INSECURE",
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LOG_LEVEL",
    "OTEL_CONFIG_FILE",
    "OTEL_EXPERIMENTAL_CONFIG_FILE",
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS",
];
/// Names of fixed choices, with the choice.
const CHOICES: [(&str, &str); 4] = [
    ("OTEL_PROPAGATORS", "tracecontext"),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "cumulative"),
    ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "explicit_bucket_histogram"),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "trace_based"),
];

/// Those of both.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().chain(CHOICES.map(|(name, _)| name))
}

/// Reports each one that is set, without its value, which may be secret.
pub(super) fn tell(reader: &mut Reader<'_>) {
    for name in NAMES.into_iter().filter(|name| reader.get(name).is_some()).collect::<Vec<_>>() {
        reader.tell(format!("{name} is set; it has no effect here"));
    }
    for (name, only) in CHOICES {
        if let Some(value) = reader.get(name).filter(|value| !value.eq_ignore_ascii_case(only)) {
            reader.complain(name, &value, &format!("it has no effect here: the value is always {only}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;
    use super::*;

    #[test]
    fn each_setting_without_effect_is_reported_once() {
        let env: Vec<_> = NAMES.map(|name| (name, "7")).into_iter().collect();
        let complaints = read(&env, Some("http://localhost:4318")).complaints;
        assert_eq!(complaints.len(), NAMES.len(), "{complaints:?}");
        for (name, only) in CHOICES {
            assert_eq!(read(&[(name, &only.to_uppercase())], None).complaints, [""; 0], "{name}");
            let complaints = read(&[(name, "another")], None).complaints;
            let told = format!("{name} is \"another\"; it has no effect here: the value is always {only}");
            assert_eq!(complaints, [told]);
        }
    }

    #[test]
    fn the_page_names_what_has_no_effect() {
        let page = include_str!("../../../docs/TELEMETRY.md");
        for name in names() {
            let of_all = name.replace("_TRACES_", "_").replace("OTLP_METRICS_CLIENT", "OTLP_CLIENT");
            let of_all = of_all.replace("OTLP_METRICS_INSECURE", "OTLP_INSECURE");
            assert!(page.contains(&format!("`{of_all}`")), "{of_all}");
        }
    }
}
