//! The program itself, over sockets and on a disk.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{ADMIN_KEY, Kind};

/// The program, not yet run, with nothing of this process's environment that could change what it does. Of which build
/// it is, `TERTULIA_TEST_PROGRAM` may say: what is measured is worth more of one for release.
pub(crate) fn program(data_dir: &Path) -> Command {
    let program = std::env::var_os("TERTULIA_TEST_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_tertulia").into());
    let mut command = Command::new(program);
    command.env_clear().arg("--data-dir").arg(data_dir);
    command.args(["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
    command
}

/// The same, on the store that this run of the tests is about: for a directory that is always the same one.
pub(crate) fn program_on_store(data_dir: &Path) -> Command {
    let mut command = program(data_dir);
    if Kind::chosen() == Kind::Cql {
        let server = bed::server().expect("TERTULIA_TEST_STORE asks for a CQL server");
        let name = blake3::hash(data_dir.to_string_lossy().as_bytes()).to_hex();
        command.args(["--store", "cql", "--migrate", "--cql-nodes", &server.nodes().join(",")]);
        command.env("TERTULIA_CQL_KEYSPACE", format!("program_{}", &name[..16]));
    }
    command
}

/// Fails where what a program left is not sound, and says which `run` it was. A CQL store has nobody who could say so.
pub(crate) fn check_sound(data_dir: &Path, run: &str) {
    if Kind::chosen() == Kind::Cql {
        return;
    }
    let verified = program(data_dir).arg("verify").output().unwrap();
    let words = String::from_utf8_lossy(&verified.stdout);
    assert!(verified.status.success() && words.contains("is sound"), "{run}: {verified:?}");
}

/// A running server; killed where a test forgets it.
pub(crate) struct Server {
    child: Child,
    /// What it printed up to the ready line, that included.
    printed: Vec<String>,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(data_dir: &Path, env: &[(&str, &str)]) -> Self {
        Self::run(program(data_dir), env)
    }

    /// On the store that this run of the tests is about.
    pub(crate) fn start_on_store(data_dir: &Path, env: &[(&str, &str)]) -> Self {
        Self::run(program_on_store(data_dir), env)
    }

    fn run(mut command: Command, env: &[(&str, &str)]) -> Self {
        command.arg("serve").envs(env.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut printed = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            printed.push(line.unwrap());
            if let Some(address) = printed.last().unwrap().strip_prefix("tertulia is ready on http://") {
                return Self { address: address.to_owned(), child, printed };
            }
        }
        panic!("it ended before it was ready: {printed:?}, {:?}", child.wait());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The status and body of a request over a connection of its own.
    fn get(&self, path: &str, key: Option<&str>) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let key = key.map_or_else(String::new, |key| format!("X-API-Key: {key}\r\n"));
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n{key}Connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    /// The most memory that it has held so far, in KiB.
    #[cfg(target_os = "linux")]
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The processor time that it has used so far, in milliseconds.
    #[cfg(target_os = "linux")]
    pub(crate) fn processor_millis(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        // In hundredths of a second: in programs, and in the system for them.
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum()
    }

    /// Asks it to stop; its exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail where it has ended already, which is what is wanted.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

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
    assert!(words.contains(&format!("in use by process {}", server.child.id())), "{words}");

    assert_eq!(server.terminate(), Some(0));
    let again = Server::start(&data, &[("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY)]);
    assert_eq!(again.printed.len(), 1, "{:?}", again.printed);
    assert_eq!(again.get("/api/v1/channels/demo", Some(&key)).0, 200);
    assert_eq!(again.get("/api/v1/channels/demo", Some(ADMIN_KEY)).0, 401);
    assert_eq!(again.terminate(), Some(0));
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
    let words = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(words.contains(&format!("{address} cannot be listened on")), "{words}");
    assert!(ended.stdout.is_empty());
}

/// Runs a command to its end: exit code, standard output, standard error.
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
    assert!(code == Some(1) && words.contains("holds no store"), "{words}");
    assert!(!data.exists());

    let server = Server::start(&data, &[("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY)]);
    let (code, _, words) = run(&data, &create);
    assert!(code == Some(1) && words.contains(&format!("in use by process {}", server.child.id())), "{words}");
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
