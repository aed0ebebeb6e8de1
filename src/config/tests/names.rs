//! Every setting by its name in the environment.

use super::*;
use crate::config::attachments::{AttachmentsPlace, Bucket};

/// A setting's name, a value that is not its default, and the field that it sets, as text.
type Named = (&'static str, &'static str, fn(&Config) -> String);

const S3: [(&str, &str); 4] = [
    ("TERTULIA_ATTACHMENTS", "s3"),
    ("TERTULIA_ATTACHMENTS_S3_BUCKET", "files"),
    ("TERTULIA_ATTACHMENTS_S3_ACCESS_KEY_ID", "somebody"),
    ("TERTULIA_ATTACHMENTS_S3_SECRET_ACCESS_KEY", "something"),
];

/// What else must be given for a value of this setting to be right.
fn beside(name: &str) -> &'static [(&'static str, &'static str)] {
    match name {
        "TERTULIA_STORE" => &[("TERTULIA_CQL_NODES", "db:9042")],
        "TERTULIA_CQL_PASSWORD" => &[("TERTULIA_CQL_USER", "somebody")],
        "TERTULIA_ATTACHMENTS" => &S3[1..],
        "TERTULIA_EMBEDDINGS_MODEL" | "TERTULIA_EMBEDDINGS_API_KEY" => {
            &[("TERTULIA_EMBEDDINGS_URL", "http://127.0.0.1:1/v1")]
        }
        name if name.starts_with("TERTULIA_ATTACHMENTS_S3") => &S3,
        _ => &[],
    }
}

fn bucket(config: &Config, field: impl Fn(&Bucket) -> String) -> String {
    match &config.attachments.place {
        AttachmentsPlace::Bucket(bucket) => field(bucket),
        AttachmentsPlace::Directory(_) => "no bucket".to_owned(),
    }
}

fn embeddings(config: &Config, field: impl Fn(&EmbeddingsConfig) -> String) -> String {
    config.embeddings.as_ref().map(field).unwrap_or_default()
}

fn shown(text: Option<impl ToString>) -> String {
    text.map(|text| text.to_string()).unwrap_or_default()
}

const SERVER: [Named; 6] = [
    ("TERTULIA_LISTEN", "127.0.0.1:1", |config| config.listen.to_string()),
    ("TERTULIA_METRICS_LISTEN", "127.0.0.1:2", |config| config.metrics_listen.to_string()),
    ("TERTULIA_MAX_CONNECTIONS", "3", |config| config.max_connections.to_string()),
    ("TERTULIA_MAX_BODY_BYTES", "2048", |config| config.max_body_bytes.to_string()),
    ("TERTULIA_WAIT_SECONDS", "5", |config| config.wait_budget.as_secs().to_string()),
    ("TERTULIA_RATE_LIMIT", "6", |config| config.rate_limit.to_string()),
];

const STORE: [Named; 14] = [
    ("TERTULIA_STORE", "cql", |config| format!("{:?}", config.store).to_lowercase()),
    ("TERTULIA_DATA_DIR", "/srv/tertulia", |config| config.data_dir.display().to_string()),
    ("TERTULIA_ACCEPT_LOSS", "true", |config| config.accept_loss.to_string()),
    ("TERTULIA_CQL_NODES", "db-1:9042,db-2:9042", |config| config.cql.nodes.join(",")),
    ("TERTULIA_CQL_KEYSPACE", "other", |config| config.cql.keyspace.clone()),
    ("TERTULIA_MIGRATE", "true", |config| config.cql.migrate.to_string()),
    ("TERTULIA_CQL_USER", "ana", |config| shown(config.cql.user.as_ref().map(|(name, _)| name))),
    ("TERTULIA_CQL_PASSWORD", "secret", |config| shown(config.cql.user.as_ref().map(|(_, word)| word.expose()))),
    ("TERTULIA_CQL_TLS", "true", |config| config.cql.tls.to_string()),
    ("TERTULIA_CQL_CA_FILE", "ca.pem", |config| shown(config.cql.ca_file.as_ref().map(|path| path.display()))),
    ("TERTULIA_CQL_DATACENTER", "dc1", |config| shown(config.cql.datacenter.as_ref())),
    ("TERTULIA_CQL_CONSISTENCY", "quorum", |config| format!("{:?}", config.cql.consistency).to_lowercase()),
    ("TERTULIA_CQL_REPLICATION", "dc1:3,dc2:2", |config| {
        let copies = config.cql.replication.iter().map(|(datacenter, copies)| format!("{datacenter}:{copies}"));
        copies.collect::<Vec<_>>().join(",")
    }),
    ("TERTULIA_CLUSTER_ADDRESS", "https://t-1.example", |config| shown(config.cluster_address.as_ref())),
];

const OUTSIDE: [Named; 12] = [
    ("TERTULIA_EGRESS_ALLOW", "true", |config| config.egress_allow.contains([10, 1, 2, 3].into()).to_string()),
    ("TERTULIA_EGRESS_DNS", "9.9.9.9:53", |config| shown(config.egress_name_servers.first())),
    ("TERTULIA_ATTACHMENTS", "s3", |config| bucket(config, |_| "s3".to_owned())),
    ("TERTULIA_ATTACHMENTS_DIR", "/srv/files", |config| match &config.attachments.place {
        AttachmentsPlace::Directory(path) => path.display().to_string(),
        AttachmentsPlace::Bucket(_) => "a bucket".to_owned(),
    }),
    ("TERTULIA_ATTACHMENTS_S3_BUCKET", "others", |config| bucket(config, |bucket| bucket.name.clone())),
    ("TERTULIA_ATTACHMENTS_S3_REGION", "eu-west-3", |config| bucket(config, |bucket| bucket.region.clone())),
    ("TERTULIA_ATTACHMENTS_S3_ENDPOINT", "http://127.0.0.1:9/", |config| {
        bucket(config, |bucket| shown(bucket.endpoint.as_ref()))
    }),
    ("TERTULIA_ATTACHMENTS_S3_ACCESS_KEY_ID", "ana", |config| {
        bucket(config, |bucket| shown(bucket.credentials.as_ref().map(|(id, _)| id)))
    }),
    ("TERTULIA_ATTACHMENTS_S3_SECRET_ACCESS_KEY", "secret", |config| {
        bucket(config, |bucket| shown(bucket.credentials.as_ref().map(|(_, secret)| secret.expose())))
    }),
    ("TERTULIA_EMBEDDINGS_URL", "http://127.0.0.1:2/v1", |config| embeddings(config, |its| its.url.clone())),
    ("TERTULIA_EMBEDDINGS_MODEL", "m", |config| embeddings(config, |its| its.model.clone())),
    ("TERTULIA_EMBEDDINGS_API_KEY", "secret", |config| {
        embeddings(config, |its| shown(its.api_key.as_ref().map(Secret::expose)))
    }),
];

const WATCHED: [Named; 7] = [
    ("TERTULIA_LOG", "warn", |config| config.log_filter.clone()),
    ("TERTULIA_LOG_FORMAT", "text", |config| format!("{:?}", config.log_format).to_lowercase()),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317/", |config| {
        shown(config.otel.receiver.as_ref().map(|receiver| &receiver.endpoint))
    }),
    ("TERTULIA_REMOTE_TRACES_PER_SECOND", "7", |config| config.remote_traces_per_second.to_string()),
    ("TERTULIA_SLOW_MILLIS", "8", |config| config.slow_request.as_millis().to_string()),
    ("TERTULIA_TASK_LIST", "true", |config| config.task_list.to_string()),
    ("TERTULIA_BOOTSTRAP_API_KEY", KEY, |config| shown(config.bootstrap_api_key.as_ref().map(Secret::expose))),
];

#[test]
fn each_name_sets_what_it_says() {
    let all: Vec<Named> = [&SERVER[..], &STORE, &OUTSIDE, &WATCHED].concat();
    let names: BTreeSet<&str> = all.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, SETTINGS.iter().map(|setting| setting.env).collect());
    for (name, value, field) in all {
        let given = if name == "TERTULIA_EGRESS_ALLOW" { "10.0.0.0/8" } else { value };
        let env = |more: &[(&'static str, &'static str)]| [beside(name), more].concat();
        let after = load(&[], &env(&[(name, given)]), None).unwrap_or_else(|wrong| panic!("{name}: {wrong:?}"));
        assert_eq!(field(&after), value, "{name}");
        if let Ok(before) = load(&[], &env(&[]), None) {
            assert_ne!(field(&before), value, "{name} was so before");
        }
    }
}
