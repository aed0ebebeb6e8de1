use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::sources::SETTINGS;
use super::*;

mod names;

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Loads from what is written here and nothing else; the file is always `t.toml`.
fn load(args: &[&str], env: &[(&str, &str)], file: Option<&str>) -> Result<Config, Vec<String>> {
    use clap::Parser as _;
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: ConfigArgs,
    }
    let file_args = file.map(|_| ["--config", "t.toml"]).into_iter().flatten();
    let cli = Cli::try_parse_from(["tertulia"].into_iter().chain(args.iter().copied()).chain(file_args)).unwrap();
    let env: BTreeMap<_, _> = env.iter().copied().collect();
    let env = |name: &str| env.get(name).map(|value| (*value).to_owned());
    let read = |path: &Path| match file {
        Some(text) if path == Path::new("t.toml") => Ok(text.to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    Config::load(&cli.args, &env, &read).map_err(|error| error.0.iter().map(ToString::to_string).collect())
}

fn refused(args: &[&str], env: &[(&str, &str)], file: Option<&str>) -> Vec<String> {
    load(args, env, file).unwrap_err()
}

#[test]
fn no_body_is_let_in_that_no_commit_could_take() {
    let most = schema::embedded::COMMIT_BYTES - 2 * actors::limits::DRAFT_BYTES;
    let with = |bytes: usize| load(&[], &[("TERTULIA_MAX_BODY_BYTES", &bytes.to_string())], None);
    assert_eq!(with(most).unwrap().max_body_bytes, most);
    assert!(with(most + 1).is_err());
}

#[test]
fn without_any_setting_the_defaults_of_the_contract_hold() {
    let config = load(&[], &[], None).unwrap();
    assert_eq!(config.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.metrics_listen, "127.0.0.1:9464".parse().unwrap());
    assert_eq!((config.store, config.data_dir.as_path()), (StoreKind::Embedded, Path::new("./data")));
    assert_eq!((config.max_body_bytes, config.rate_limit), (4 * 1024 * 1024, 6_000_000));
    assert_eq!(config.wait_budget, Duration::from_secs(60));
    assert_eq!((config.log_filter.as_str(), config.log_format), ("info", LogFormat::Json));
    assert!(config.egress_allow.is_empty() && config.cql.nodes.is_empty() && config.cluster_address.is_none());
    assert!(config.bootstrap_api_key.is_none() && config.otel.receiver.is_none());
    assert!(!config.accept_loss && !config.cql.migrate);
}

#[test]
fn a_flag_goes_before_the_environment_and_the_environment_before_the_file() {
    let file = Some("[server]\nlisten = '127.0.0.1:3'\nmetrics_listen = '127.0.0.1:3'\nwait_seconds = 3");
    let env = [("TERTULIA_LISTEN", "127.0.0.1:2"), ("TERTULIA_METRICS_LISTEN", "127.0.0.1:2")];
    let config = load(&["--listen", "127.0.0.1:1"], &env, file).unwrap();
    assert_eq!((config.listen.port(), config.metrics_listen.port()), (1, 2));
    assert_eq!(config.wait_budget, Duration::from_secs(3));
}

#[test]
fn an_empty_value_counts_as_absent() {
    let config = load(&[], &[("TERTULIA_LISTEN", ""), ("TERTULIA_CONFIG", " ")], Some("[log]\nfilter = ''")).unwrap();
    assert_eq!((config.listen.port(), config.log_filter.as_str()), (8080, "info"));
    let flags = ["--listen", "", "--metrics-listen", " ", "--data-dir="];
    let config = load(&flags, &[("TERTULIA_METRICS_LISTEN", "127.0.0.1:2")], None).unwrap();
    assert_eq!((config.listen.port(), config.metrics_listen.port()), (8080, 2));
    assert_eq!(config.data_dir, Path::new("./data"));
}

#[test]
fn a_file_may_be_named_in_the_environment() {
    let named = load(&[], &[("TERTULIA_CONFIG", "missing.toml")], None);
    let lines = named.unwrap_err();
    assert!(lines[0].starts_with("TERTULIA_CONFIG is \"missing.toml\"; allowed: a readable file"), "{lines:?}");
}

#[test]
fn every_setting_can_be_given_in_the_environment() {
    let env = [
        ("TERTULIA_STORE", "cql"),
        ("TERTULIA_CQL_NODES", "db-1:9042, [::1]:9043"),
        ("TERTULIA_CQL_KEYSPACE", "other"),
        ("TERTULIA_DATA_DIR", "/var/lib/t"),
        ("TERTULIA_CLUSTER_ADDRESS", "HTTPS://T-1.example:443/"),
        ("TERTULIA_EGRESS_ALLOW", "10.0.0.0/8,::1"),
        ("TERTULIA_LOG", "warn,tertulia::http=debug"),
        ("TERTULIA_LOG_FORMAT", "text"),
        ("TERTULIA_BOOTSTRAP_API_KEY", KEY),
        ("TERTULIA_ACCEPT_LOSS", "1"),
        ("TERTULIA_MIGRATE", "true"),
        ("TERTULIA_RATE_LIMIT", "0100"),
        ("TERTULIA_WAIT_SECONDS", "5"),
        ("TERTULIA_MAX_BODY_BYTES", "2048"),
        ("TERTULIA_MAX_CONNECTIONS", "9"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317"),
    ];
    let config = load(&[], &env, None).unwrap();
    assert_eq!(
        (config.store, config.cql.nodes.as_slice()),
        (StoreKind::Cql, &["db-1:9042", "[::1]:9043"].map(String::from)[..])
    );
    assert_eq!((config.cql.keyspace.as_str(), config.data_dir.as_path()), ("other", Path::new("/var/lib/t")));
    assert_eq!(config.cluster_address.as_deref(), Some("https://t-1.example"));
    assert!(config.egress_allow.contains("10.1.2.3".parse().unwrap()));
    assert_eq!((config.log_filter.as_str(), config.log_format), ("warn,tertulia::http=debug", LogFormat::Text));
    assert_eq!(config.bootstrap_api_key.as_ref().map(Secret::expose), Some(KEY));
    assert!(config.accept_loss && config.cql.migrate);
    assert_eq!((config.rate_limit, config.max_body_bytes, config.max_connections), (100, 2048, 9));
    assert_eq!(config.otel.receiver.unwrap().endpoint, "http://localhost:4317/");
}

#[test]
fn a_wrong_value_is_named_as_it_was_given_with_what_is_allowed() {
    let file = Some("[server]\nwait_seconds = 0");
    let lines = refused(&["--store", "sqlite"], &[("TERTULIA_LISTEN", "localhost")], file);
    assert_eq!(
        lines,
        [
            "TERTULIA_LISTEN is \"localhost\"; allowed: an IP address and a port, such as 127.0.0.1:8080 or [::]:8080",
            "server.wait_seconds in t.toml is \"0\"; allowed: a whole number from 1 to 300",
            "--store is \"sqlite\"; allowed: embedded or cql",
        ]
    );
}

#[test]
fn every_value_out_of_its_bounds_is_refused() {
    for (name, values) in [
        ("TERTULIA_LISTEN", &["8080", ":8080", "127.0.0.1", "127.0.0.1:65536"][..]),
        ("TERTULIA_MAX_CONNECTIONS", &["0", "-1", "+1", "1000001", "many"]),
        ("TERTULIA_MAX_BODY_BYTES", &["1023", "14680065"]),
        ("TERTULIA_RATE_LIMIT", &["0", "4294967296", "99999999999999999999999"]),
        ("TERTULIA_CQL_NODES", &["db", "db:0", ":9042", "db:9042;x", "a b:9042", "[::z]:9042"]),
        ("TERTULIA_CQL_KEYSPACE", &["1a", "a-b", "a;drop"]),
        (
            "TERTULIA_CLUSTER_ADDRESS",
            &["10.0.0.7:8080", "t-1", "ftp://t-1", "http://t-1/api", "http://t-1?a", "http://t-1/#a"],
        ),
        ("TERTULIA_EGRESS_ALLOW", &["10.0.0.1/8", "everything"]),
        ("TERTULIA_EGRESS_DNS", &["9.9.9.9", "dns.example:53", "9.9.9.9:53;1.1.1.1:53"]),
        ("TERTULIA_LOG", &["loud", "info,loud", "tertulia=loud"]),
        ("TERTULIA_LOG_FORMAT", &["xml"]),
        ("TERTULIA_MIGRATE", &["yes please"]),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &["localhost:4317", "ftp://x"]),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &["localhost:4317", "ftp://x"]),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &["localhost:4317", "ftp://x"]),
    ] {
        for value in values {
            let lines = refused(&[], &[(name, value)], None);
            assert!(lines.len() == 1 && lines[0].starts_with(&format!("{name} is {value:?}")), "{lines:?}");
        }
    }
}

#[test]
fn a_secret_is_never_printed() {
    let short = "hunter2";
    let in_file = format!("[bootstrap]\napi_key = '{short}'");
    let misspelt = format!("[bootstrap]\napi_kye = '{short}'");
    let broken = format!("[bootstrap]\napi_key = '{short}");
    let of_another_type = format!("[bootstrap]\napi_key = ['{short}']");
    for lines in [
        refused(&[], &[("TERTULIA_BOOTSTRAP_API_KEY", short)], None),
        refused(&[], &[], Some(&in_file)),
        refused(&[], &[], Some(&misspelt)),
        refused(&[], &[], Some(&broken)),
        refused(&[], &[], Some(&of_another_type)),
    ] {
        assert_eq!(lines.len(), 1);
        assert!(!lines[0].contains(short), "{lines:?}");
    }
    let config = load(&[], &[("TERTULIA_BOOTSTRAP_API_KEY", KEY)], None).unwrap();
    assert!(!format!("{config:?}").contains(KEY));
    assert!(!config.effective().contains(KEY));
    assert!(config.effective().contains("api_key = \"***\"  # from TERTULIA_BOOTSTRAP_API_KEY"));
}

#[test]
fn a_password_in_a_url_is_a_secret_too() {
    let url = "http://user:hunter2@127.0.0.1:4317/a?b";
    let config = load(&[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", url)], None).unwrap();
    assert!(config.effective().contains("\"http://***@127.0.0.1:4317/a?b\""), "{}", config.effective());
    for (wrong, told) in [
        ("ftp://user:hunter2@a.example", "ftp://***@a.example"),
        ("http://user:hun/ter2@a.example", "http://***@a.example"),
        ("user:hunter2@a.example:4317", "***@a.example:4317"),
    ] {
        let lines = refused(&[], &[("TERTULIA_EMBEDDINGS_URL", wrong)], None);
        assert!(lines[0].starts_with(&format!("TERTULIA_EMBEDDINGS_URL is {told:?};")), "{lines:?}");
    }
    // A list that was written as in the environment.
    let lines = refused(&[], &[], Some("[cql]\nnodes = 'cassandra:hunter2@db-1:9042'"));
    assert!(lines[0].starts_with("cql.nodes in t.toml is \"***@db-1:9042\"; allowed: an array"), "{lines:?}");
    // Others are told this one, so it holds no secret at all.
    let lines = refused(&["--cluster-address", "http://user:hunter2@10.0.0.7:8080"], &[], None);
    assert!(lines[0].starts_with("--cluster-address is \"http://***@10.0.0.7:8080\"; allowed: scheme,"), "{lines:?}");
}

#[test]
fn a_missing_required_setting_is_named_too() {
    let lines = refused(&[], &[("TERTULIA_CQL_PASSWORD", "secret")], None);
    assert_eq!(lines, ["TERTULIA_CQL_USER is \"\"; allowed: the user name, required with the password"]);
}

#[test]
fn a_file_may_hold_nothing_unknown_and_nothing_of_another_type() {
    let file = "port = 1\n[server]\nlistne = 'x'\nlisten = 8080\n[cql]\nnodes = [1]\n[cql.keyspace]\na = 1";
    let lines = refused(&[], &[], Some(file));
    let starts = lines.iter().map(|line| line.split("; allowed").next().unwrap()).collect::<BTreeSet<_>>();
    for start in [
        "port in t.toml is not a known setting",
        "server.listne in t.toml is not a known setting",
        "server.listen in t.toml is \"8080\"",
        "cql.nodes in t.toml is \"array\"",
    ] {
        assert!(starts.contains(start), "{start}: {lines:?}");
    }
    assert_eq!(lines.len(), 5, "{lines:?}");
}

#[test]
fn broken_toml_is_reported_with_its_line() {
    let lines = refused(&[], &[], Some("[server]\nlisten = "));
    assert!(lines.len() == 1 && lines[0].starts_with("t.toml, line 2; allowed: TOML"), "{lines:?}");
}

#[test]
fn settings_that_do_not_fit_together_are_refused() {
    let lines = refused(&["--store", "cql", "--metrics-listen", "127.0.0.1:8080"], &[], None);
    assert!(lines[0].starts_with("--cql-nodes or TERTULIA_CQL_NODES; allowed: host:port"), "{lines:?}");
    assert!(
        lines[1].starts_with("--metrics-listen is \"127.0.0.1:8080\"; allowed: an address or port other than"),
        "{lines:?}"
    );
    assert!(load(&["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"], &[], None).is_ok());
}

#[test]
fn printed_settings_load_to_the_same_settings() {
    let env = [
        ("TERTULIA_EGRESS_ALLOW", "10.0.0.0/8, ::1"),
        ("TERTULIA_DATA_DIR", "C:\\a \"b\""),
        ("TERTULIA_MAX_BODY_BYTES", "0002048"),
        ("TERTULIA_REMOTE_TRACES_PER_SECOND", "00"),
        ("TERTULIA_MIGRATE", "1"),
    ];
    let first = load(&["--listen", "0.0.0.0:80"], &env, None).unwrap();
    let printed = first.effective();
    assert!(printed.contains("listen = \"0.0.0.0:80\"  # from --listen"), "{printed}");
    assert!(printed.contains("remote_traces_per_second = 0  #"), "{printed}");
    let second = load(&[], &[], Some(&printed)).unwrap();
    assert_eq!(
        (first.listen, first.cql.migrate, first.max_body_bytes),
        (second.listen, second.cql.migrate, second.max_body_bytes)
    );
    assert_eq!((first.egress_allow, first.data_dir), (second.egress_allow, second.data_dir));
    assert_eq!(load(&[], &[], None).unwrap().effective(), DEFAULTS);
}

#[test]
fn the_printed_configuration_has_the_telemetry_of_the_environment() {
    let env = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://user:hunter2@10.0.0.7:4318/v1/traces"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hunter2"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "hunter2=="),
        ("OTEL_TRACES_SAMPLER", "always_off"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon\n"),
        ("OTEL_LOG_LEVEL", "debug"),
    ];
    let config = load(&[], &env, None).unwrap();
    let printed = config.effective();
    let behind = printed.strip_prefix(DEFAULTS).unwrap();
    assert_eq!(
        behind.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>(),
        [
            "# Other variables of the environment that are set:",
            "# OTEL_EXPORTER_OTLP_TRACES_ENDPOINT = \"http://***@10.0.0.7:4318/v1/traces\"",
            "# OTEL_EXPORTER_OTLP_HEADERS = \"***\"",
            "# OTEL_EXPORTER_OTLP_METRICS_HEADERS = \"***\"",
            "# OTEL_TRACES_SAMPLER = \"always_off\"",
            "# OTEL_BSP_SCHEDULE_DELAY = \"soon\"",
            "# OTEL_RESOURCE_ATTRIBUTES = \"deployment.environment.name=test\"",
            "# Variables that are not understood, or have no effect:",
            "# OTEL_BSP_SCHEDULE_DELAY is \"soon\"; a whole number from 0 is needed; 1000 is used",
            "# OTEL_LOG_LEVEL is set; it has no effect here",
        ]
    );
    assert!(load(&[], &[], Some(&printed)).is_ok(), "it is a configuration file still");
}

#[test]
fn the_defaults_explain_exactly_the_settings_there_are() {
    for setting in SETTINGS {
        let (section, name) = setting.key.split_once('.').unwrap();
        let (_, settings) = DEFAULTS.split_once(&format!("[{section}]\n")).unwrap();
        let at = settings.find(&format!("\n{name} = ")).unwrap_or_else(|| panic!("{} has no default", setting.key));
        let explained = &settings[..at];
        let names = &explained[explained.rfind('\n').unwrap_or_default()..];
        assert!(names.contains(setting.env), "{} is explained without {}", setting.key, setting.env);
        assert!(setting.flag.is_none_or(|flag| names.contains(flag)), "{} is explained without its flag", setting.key);
    }
    let values = DEFAULTS.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")).count();
    assert_eq!(values, SETTINGS.len());
}

#[test]
fn the_help_names_the_environment_and_the_default_of_each_flag() {
    let defaults = load(&[], &[], None).unwrap();
    let command = <ConfigArgs as clap::Args>::augment_args(clap::Command::new("tertulia"));
    for setting in SETTINGS {
        let Some(flag) = setting.flag else { continue };
        let arg = command.get_arguments().find(|arg| arg.get_long() == flag.strip_prefix("--")).unwrap();
        let help = arg.get_help().unwrap().to_string();
        assert!(help.contains(&format!("[env: {}]", setting.env)), "{flag}: {help}");
        let default = &defaults.settings.get(setting.key).unwrap().text;
        let needs_none = default.is_empty() || default == "false";
        assert!(needs_none || help.contains(&format!("[default: {default}]")), "{flag}: {help}");
    }
}
