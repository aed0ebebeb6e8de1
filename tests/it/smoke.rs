//! The program itself, over sockets and on a disk.
#![cfg(unix)]

use std::path::Path;
use std::process::Command;

use crate::attachments::files_below;
use crate::support::ADMIN_KEY;
use crate::support::client::Client;
use crate::support::program::{Server, program};
use crate::support::until::seen_here;

#[test]
fn a_server_starts_answers_stops_and_starts_again_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    assert_eq!(server.printed.len(), 2, "{:?}", server.printed);
    let key = server.printed[0].rsplit(' ').next().unwrap().to_owned();
    assert!(server.printed[0].contains("API key") && key.starts_with("tert_"));
    assert_eq!(server.get("/healthz", None), (200, r#"{"status":"ok"}"#.to_owned()));
    assert_eq!(server.get("/readyz", None).0, 200);
    assert_eq!(server.get("/api/v1/channels", None).0, 401);
    assert_eq!(server.get("/api/v1/channels/demo", Some(&key)).0, 200);

    let second = program(&data).arg("serve").output().unwrap();
    let words = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(words.contains(&format!("in use by process {}", server.pid())), "{words}");

    assert_eq!(server.terminate(), Some(0));
    let again = Server::start(&data, &[("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY)]);
    assert_eq!(again.printed.len(), 1, "{:?}", again.printed);
    assert_eq!(again.get("/api/v1/channels/demo", Some(&key)).0, 200);
    assert_eq!(again.get("/api/v1/channels/demo", Some(ADMIN_KEY)).0, 401);
    assert_eq!(again.terminate(), Some(0));
}

#[test]
fn requests_during_a_shutdown_are_refused_until_running_ones_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY)]);
    let mut client = Client::connect(&server.address).unwrap();
    let slow = r#"{"builtin": {"behaviour": "echo", "latencyMs": 4000}}"#;
    assert_eq!(client.send("PATCH", "/api/v1/agents/echo", None, slow).unwrap().status, 200);
    let channel = "/api/v1/channels/demo-api/messages";
    let body = r#"{"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "hello"}}}"#;
    let mut waits = Client::connect(&server.address).unwrap();
    let answer = std::thread::spawn(move || waits.send("POST", channel, None, body).unwrap());
    seen_here(|| {
        let conversations = client.send("GET", "/api/v1/conversations", None, "").unwrap().json();
        (!conversations["data"].as_array().unwrap().is_empty()).then_some(())
    });
    server.ask_to_stop();
    seen_here(|| (server.get("/readyz", None).0 == 503).then_some(()));
    assert_eq!(server.get("/healthz", None).0, 200);
    // A connection that is accepted in the first moment is still served.
    let problem = seen_here(|| {
        let (status, problem) = server.get("/api/v1/channels/demo", Some(ADMIN_KEY));
        (status == 503).then_some(problem)
    });
    assert!(problem.contains(r#""code":"stopping""#), "{problem}");
    let mut late = Client::connect(&server.address).unwrap();
    let refused = late.send("POST", channel, None, body).unwrap().json();
    assert_eq!((&refused["code"], &refused["success"]), (&"stopping".into(), &false.into()));
    assert!(late.send("POST", channel, None, body).is_err(), "its connection ends with the answer");
    let answer = answer.join().unwrap();
    assert_eq!((answer.status, answer.json()["turn"]["status"].as_str()), (200, Some("completed")));
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn clients_that_only_connect_take_no_file_descriptor_from_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let env = [("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY)];
    let server = Server::start_with_files(&dir.path().join("data"), 256, &env);
    let mut client = Client::connect(&server.address).unwrap();
    let body = format!(r#"{{"content": {{"content": "{}"}}}}"#, "x".repeat(250 * 1024));
    let mut post = || client.send("POST", "/api/v1/messages", None, &body).unwrap().status;
    assert_eq!(post(), 200);
    let idle: Vec<_> = (0..300).map(|_| std::net::TcpStream::connect(&server.address).unwrap()).collect();
    // Twice as much as the store keeps in memory, so it creates files.
    for _ in 0..256 {
        assert_eq!(post(), 200);
    }
    drop(idle);
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn an_address_in_use_ends_the_start_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tertulia"));
    command.env_clear().arg("--data-dir").arg(dir.path().join("data"));
    command.args(["serve", "--metrics-listen", "127.0.0.1:0", "--listen", &address]);
    let ended = command.output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let reason = reason(&String::from_utf8(ended.stderr).unwrap());
    assert!(reason.contains(&format!("--listen {address}: cannot listen")), "{reason}");
    assert!(ended.stdout.is_empty());
}

/// Why a server has ended by its log, which has nothing but objects of JSON.
fn reason(log: &str) -> String {
    let object = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    let lines: Vec<serde_json::Value> = log.lines().map(object).collect();
    let last = lines.last().expect("a line");
    assert_eq!((&last["level"], &last["message"]), (&"ERROR".into(), &"the server cannot go on".into()), "{log}");
    last["error"].as_str().unwrap().to_owned()
}

/// A file where the data directory should be, in a directory of its own.
fn file_for_data() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    std::fs::write(&file, "").unwrap();
    (dir, file)
}

#[test]
fn the_filter_of_a_log_never_hides_why_the_server_ends() {
    let (_dir, file) = file_for_data();
    for filter in ["off", "tertulia::http=debug"] {
        let ended = program(&file).arg("serve").env("TERTULIA_LOG", filter).output().unwrap();
        let reason = reason(&String::from_utf8(ended.stderr).unwrap());
        assert!(reason.contains("--data-dir"), "{filter}: {reason}");
    }
}

#[test]
fn a_log_for_people_ends_with_the_reason_in_a_line_of_words() {
    let (_dir, file) = file_for_data();
    let ended = program(&file).arg("serve").env("TERTULIA_LOG_FORMAT", "text").output().unwrap();
    let words = String::from_utf8(ended.stderr).unwrap();
    let last = words.lines().last().unwrap_or_default();
    assert!(last.starts_with("tertulia: --data-dir (TERTULIA_DATA_DIR)"), "{words}");
}

#[test]
fn a_wrong_data_directory_is_named_with_the_allowed_values() {
    let (_dir, file) = file_for_data();
    let (code, _, log) = run(&file, &["serve"]);
    assert_eq!(code, Some(1));
    let reason = reason(&log);
    assert!(reason.contains(&format!("--data-dir (TERTULIA_DATA_DIR) is {file:?}; allowed: a directory")), "{reason}");
}

/// Runs a command until it exits; returns exit code, standard output, standard error.
fn run(data_dir: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = program(data_dir).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn keys_are_made_listed_and_revoked_while_no_server_runs() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let create = ["keys", "create", "--name", "ci", "--scopes", "admin,messages:read", "--principal-type", "user"];
    let (code, _, words) = run(&data, &create);
    assert!(code == Some(1) && words.contains("contains no store"), "{words}");
    assert!(!data.exists());

    let server = Server::start(&data, &[("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY)]);
    let (code, _, words) = run(&data, &create);
    assert!(code == Some(1) && words.contains(&format!("in use by process {}", server.pid())), "{words}");
    assert_eq!(server.terminate(), Some(0));

    let (code, key, _) = run(&data, &create);
    assert_eq!((code, key.lines().count()), (Some(0), 1));
    let (_, listed, _) = run(&data, &["keys", "list"]);
    let line = listed.lines().find(|line| line.ends_with("\tci")).unwrap();
    assert!(line.contains("\tdefault\tadmin,messages:read\tuser:key_") && !listed.contains(key.trim()), "{listed}");
    let id = line.split('\t').next().unwrap();

    let server = Server::start(&data, &[]);
    assert_eq!(server.get("/api/v1/api-keys", Some(key.trim())).0, 200);
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(run(&data, &["keys", "revoke", id]).0, Some(0));
    assert_eq!(run(&data, &["keys", "revoke", id]).0, Some(1));
    let server = Server::start(&data, &[]);
    assert_eq!(server.get("/api/v1/api-keys", Some(key.trim())).0, 401);
    assert_eq!(server.get("/api/v1/api-keys", Some(ADMIN_KEY)).0, 200);
    assert_eq!(server.terminate(), Some(0));

    #[cfg(target_os = "linux")]
    {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(program(&data).args(create).stdout(full).status().unwrap().code(), Some(1));
        assert!(!run(&data, &["keys", "list"]).1.contains("\tci\n"), "what nobody has seen is no key");
    }

    for (wrong, named) in [("--scopes=root", "root"), ("--workspace=nowhere", "nowhere")] {
        let mut args = vec!["keys", "create", "--name", "x", wrong];
        if !wrong.starts_with("--scopes") {
            args.push("--scopes=admin");
        }
        let (code, _, words) = run(&data, &args);
        assert!(code == Some(1) && words.contains(named), "{words}");
    }
}

#[test]
fn verify_tells_a_sound_store_from_a_damaged_one_by_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    assert_eq!(run(&data, &["verify"]).0, Some(1));
    assert_eq!(Server::start(&data, &[]).terminate(), Some(0));
    let (code, words, _) = run(&data, &["verify"]);
    assert!(code == Some(0) && words.contains("is sound"), "{words}");
    std::fs::remove_file(data.join("HEAD")).unwrap();
    let (code, _, words) = run(&data, &["verify"]);
    assert!(code == Some(1) && words.contains("HEAD file is missing"), "{words}");
}

#[test]
fn verify_and_a_download_tell_an_attachment_that_is_not_what_was_uploaded() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY)]);
    let mut client = Client::connect(&server.address).unwrap();
    let made = client.send("POST", "/api/v1/attachments?filename=a.json", None, "\"0123456789\"").unwrap();
    assert_eq!(made.status, 201);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(server.terminate(), Some(0));
    let (code, words, _) = run(&data, &["verify"]);
    assert!(code == Some(0) && words.contains("1 attachments"), "{words}");

    let [file] = &files_below(&data.join("attachments"))[..] else { panic!("one file") };
    let file = data.join("attachments").join(file);
    let damages: [(&str, &dyn Fn()); 3] = [
        ("differs from what was written", &|| std::fs::write(&file, "\"0123456780\"").unwrap()),
        ("differs from what was written", &|| std::fs::write(&file, "\"01234").unwrap()),
        ("no such object", &|| std::fs::remove_file(&file).unwrap()),
    ];
    for (told, damage) in damages {
        damage();
        let (code, _, words) = run(&data, &["verify"]);
        assert!(code == Some(1) && words.contains("1 faults") && words.contains(&id), "{words}");
        assert!(words.contains(told), "{words}");
        let server = Server::start(&data, &[]);
        let mut client = Client::connect(&server.address).unwrap();
        let got = client.send("GET", &format!("/api/v1/attachments/{id}/content"), None, "").unwrap();
        assert_eq!(got.status, 500, "{told}");
    }
}
