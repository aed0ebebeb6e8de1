//! The program itself, as a process.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::Kind;

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
    pub(crate) printed: Vec<String>,
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
    pub(crate) fn get(&self, path: &str, key: Option<&str>) -> (u16, String) {
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

    /// Asks it to stop.
    pub(crate) fn ask_to_stop(&self) {
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    /// Asks it to stop; its exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        self.ask_to_stop();
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
