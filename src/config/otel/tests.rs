use super::*;

#[test]
fn metrics_go_where_traces_go_by_default() {
    let endpoint = Some("http://localhost:4318");
    let env = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=seven, authorization=Bearer%20a"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-tenant=eight,%,=b,c=%0a"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
    ];
    let Otel { metrics, complaints, .. } = read(&env, endpoint);
    let pushing = metrics.unwrap();
    assert_eq!(pushing.receiver.endpoint, "http://localhost:4318/v1/metrics");
    let headers = &pushing.receiver.headers;
    assert_eq!(
        (&headers["x-tenant"], &headers["authorization"]),
        (&"eight".parse().unwrap(), &"Bearer a".parse().unwrap())
    );
    assert_eq!((pushing.every, headers.len(), complaints.len()), (Duration::from_secs(5), 2, 1));
    assert!(!format!("{pushing:?}").contains("Bearer"), "headers may be secret");
    let off = [("OTEL_METRICS_EXPORTER", "none")];
    let Otel { metrics, receiver, .. } = read(&off, endpoint);
    assert!(metrics.is_none() && receiver.is_some());
}

pub(super) fn read(env: &[(&str, &str)], endpoint: Option<&str>) -> Otel {
    let env = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let mut wrong = Vec::new();
    let otel = Otel::read(&env, endpoint, &mut wrong);
    assert_eq!(wrong, []);
    otel
}

fn receiver(env: &[(&str, &str)], endpoint: Option<&str>) -> Option<(String, Protocol)> {
    read(env, endpoint).receiver.map(|receiver| (receiver.endpoint, receiver.protocol))
}

#[test]
fn without_an_endpoint_nothing_is_exported() {
    assert_eq!(receiver(&[], None), None);
    for off in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
        assert_eq!(receiver(&[off], Some("http://localhost:4317")), None, "{off:?}");
    }
    let console = read(&[("OTEL_TRACES_EXPORTER", "console")], Some("http://localhost:4317"));
    assert_eq!((console.receiver, console.complaints.len()), (None, 1));
}

#[test]
fn the_path_of_the_signal_is_added_to_the_general_endpoint_only() {
    let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://otel.example/in/traces");
    for (env, endpoint, expected) in [
        (&[http][..], "http://localhost:4318", "http://localhost:4318/v1/traces"),
        (&[http], "http://localhost:4318/", "http://localhost:4318/v1/traces"),
        (&[http], "https://otel.example/otlp", "https://otel.example/otlp/v1/traces"),
        (&[http, whole], "http://localhost:4318", "https://otel.example/in/traces"),
        (&[], "http://localhost:9999", "http://localhost:9999/v1/traces"),
    ] {
        assert_eq!(receiver(env, Some(endpoint)), Some((expected.to_owned(), Protocol::Http)));
    }
}

#[test]
fn compression_and_patience_of_a_signal_go_before_those_of_all() {
    let env = [
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "700"),
    ];
    let Otel { receiver, metrics, complaints, .. } = read(&env, Some("http://localhost:4318"));
    let traces = receiver.unwrap();
    let metrics = metrics.unwrap().receiver;
    assert_eq!((traces.gzip, traces.timeout), (false, Duration::from_secs(3)));
    assert_eq!((metrics.gzip, metrics.timeout), (true, Duration::from_millis(700)));
    assert!(complaints.is_empty());
    let zstd = read(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")], Some("http://localhost:4318"));
    assert_eq!((zstd.receiver.map(|receiver| receiver.gzip), zstd.complaints.len()), (Some(false), 1));
}

#[test]
fn the_port_of_grpc_means_grpc_where_no_protocol_is_named() {
    let local = "http://localhost:4317";
    let grpc = Some(("http://localhost:4317/".to_owned(), Protocol::Grpc));
    assert_eq!(receiver(&[], Some(local)), grpc);
    assert_eq!(receiver(&[("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")], Some(local)), grpc);
    let named = [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
    assert_eq!(receiver(&named, Some(local)).map(|found| found.1), Some(Protocol::Http));
    let unknown = read(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")], Some(local));
    assert_eq!((unknown.receiver.map(|r| r.protocol), unknown.complaints.len()), (Some(Protocol::Grpc), 1));
}

#[test]
fn samplers_are_those_of_opentelemetry() {
    for (name, arg, root, parent_based) in [
        ("always_on", "", Root::Always, false),
        ("always_off", "", Root::Never, false),
        ("traceidratio", "0.25", Root::Ratio(0.25), false),
        ("traceidratio", "", Root::Ratio(1.0), false),
        ("parentbased_always_on", "", Root::Always, true),
        ("parentbased_always_off", "", Root::Never, true),
        ("parentbased_traceidratio", "0.01", Root::Ratio(0.01), true),
    ] {
        let otel = read(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", arg)], None);
        assert_eq!((otel.sampler, otel.complaints.len()), (Sampler { root, parent_based }, 0), "{name}");
        let said = otel.sampler.to_string();
        assert_eq!(said.split(' ').next(), Some(name), "it is told in the same words");
    }
    assert_eq!(read(&[], None).sampler, Sampler { root: Root::Always, parent_based: true });
}

#[test]
fn an_invalid_value_is_reported_and_the_default_used() {
    let otel = read(
        &[
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
            ("OTEL_BSP_SCHEDULE_DELAY", "250"),
        ],
        Some("http://localhost:4318"),
    );
    let told = [
        "OTEL_TRACES_SAMPLER is \"jaeger_remote\"; parentbased_always_on is used",
        "OTEL_BSP_MAX_QUEUE_SIZE is \"many\"; a whole number from 1 is needed; 32768 is used",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE is \"0\"; a whole number from 1 is needed; 1024 is used",
    ];
    assert_eq!(otel.complaints, told);
    assert_eq!((otel.batching.queue, otel.batching.batch), (QUEUED_SPANS, SPANS_PER_BATCH));
    assert_eq!(otel.batching.delay, Duration::from_millis(250));
    let ratio = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")];
    assert_eq!(read(&ratio, None).sampler.root, Root::Ratio(1.0));
}

#[test]
fn a_report_of_an_invalid_value_says_what_is_used_instead() {
    for (name, value, told) in [
        ("OTEL_TRACES_EXPORTER", "console", "only otlp and none are supported; none is used"),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/json",
            "only grpc and http/protobuf are supported; http/protobuf is used",
        ),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "zstd", "only gzip and none are supported; none is used"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "a whole number from 0 is needed; 10000 is used"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "-5", "a whole number from 1 is needed; 60000 is used"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "99999999", "16777216 is the maximum here and is used"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "40000", "32768 is the maximum here and is used"),
    ] {
        let complaints = read(&[(name, value)], Some("http://localhost:4318")).complaints;
        assert_eq!(complaints, [format!("{name} is {value:?}; {told}")]);
    }
    let both = [("OTEL_METRICS_EXPORTER", "prometheus,otlp")];
    let told = "OTEL_METRICS_EXPORTER is \"prometheus\"; only otlp and none are supported; otlp is used";
    assert_eq!(read(&both, Some("http://localhost:4318")).complaints, [told]);
    let own = [("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"), ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zstd")];
    let told = "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION is \"zstd\"; only gzip and none are supported; gzip is used";
    assert_eq!(read(&own, Some("http://localhost:4318")).complaints, [told]);
    let unlimited = [("OTEL_EXPORTER_OTLP_TIMEOUT", "0"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "10s")];
    let told = "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT is \"10s\"; a whole number from 0 is needed; no limit is used";
    assert_eq!(read(&unlimited, Some("http://localhost:4318")).complaints, [told]);
    // Only the queue is small, so nobody has asked for larger batches.
    let small = read(&[("OTEL_BSP_MAX_QUEUE_SIZE", "100")], None);
    assert_eq!((small.batching.batch, small.complaints.len()), (100, 0));
}

#[test]
fn words_are_known_however_they_are_written() {
    let env = [
        ("OTEL_TRACES_SAMPLER", "ParentBased_TraceIdRatio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
        ("OTEL_TRACES_EXPORTER", "OTLP"),
        ("OTEL_METRICS_EXPORTER", "None"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "GRPC"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "GZip"),
        ("OTEL_SDK_DISABLED", "False"),
    ];
    let otel = read(&env, Some("http://localhost:4318"));
    assert_eq!(otel.sampler, Sampler { root: Root::Ratio(0.5), parent_based: true });
    assert!(otel.metrics.is_none() && otel.complaints.is_empty(), "{:?}", otel.complaints);
    assert_eq!(otel.receiver.map(|receiver| (receiver.protocol, receiver.gzip)), Some((Protocol::Grpc, true)));
    let told = read(&[("OTEL_TRACES_SAMPLER", "ParentBased_Jaeger_Remote")], None).complaints;
    assert_eq!(told, ["OTEL_TRACES_SAMPLER is \"ParentBased_Jaeger_Remote\"; parentbased_always_on is used"]);
}

#[test]
fn another_value_than_true_or_false_disables_nothing_and_is_logged() {
    let otel = read(&[("OTEL_SDK_DISABLED", "1")], Some("http://localhost:4318"));
    assert!(otel.receiver.is_some() && otel.metrics.is_some());
    assert_eq!(otel.complaints, ["OTEL_SDK_DISABLED is \"1\"; only true and false are supported; false is used"]);
}

#[test]
fn resource_attributes_are_decoded_and_the_service_name_overrides_them() {
    let said = |env: &[(&str, &str)]| read(env, None);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "team=a%2Cb%3D%C3%A9, %73ervice.name=one,");
    assert_eq!(said(&[attributes]).attributes, [pair("team", "a,b=é"), pair("service.name", "one")]);
    let named = said(&[attributes, ("OTEL_SERVICE_NAME", "two")]);
    assert_eq!(named.attributes, [pair("team", "a,b=é"), pair("service.name", "two")]);
    for none in ["team", "=a", "a=b,c=%ff"] {
        let otel = said(&[("OTEL_RESOURCE_ATTRIBUTES", none)]);
        assert_eq!((otel.attributes.len(), otel.complaints.len()), (0, 1), "{none}");
    }
}

#[test]
fn a_timeout_of_zero_is_none_and_a_huge_one_does_not_overflow() {
    let names = ["OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_BSP_EXPORT_TIMEOUT", "OTEL_METRIC_EXPORT_TIMEOUT"];
    for value in ["0", "18446744073709551615"] {
        let otel = read(&names.map(|name| (name, value)), Some("http://localhost:4318"));
        let pushing = otel.metrics.unwrap();
        let found = [otel.receiver.unwrap().timeout, otel.batching.timeout, pushing.timeout];
        assert_eq!((found, otel.complaints.len()), ([NO_LIMIT; 3], 0));
    }
    let own = [("OTEL_EXPORTER_OTLP_TIMEOUT", "700"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0")];
    let otel = read(&own, Some("http://localhost:4318"));
    assert_eq!(otel.receiver.unwrap().timeout, NO_LIMIT);
    assert_eq!(otel.metrics.unwrap().receiver.timeout, Duration::from_millis(700));
}

#[test]
fn the_certificates_of_a_signal_go_before_those_of_all() {
    let all = ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/all.pem");
    let otel = read(&[all, ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "/own.pem")], Some("https://otel.example"));
    let found = [otel.receiver.unwrap(), otel.metrics.unwrap().receiver].map(|receiver| receiver.certificates);
    assert_eq!(found, [Some("/all.pem".into()), Some("/own.pem".into())]);
}
