//! The program itself, as a process.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::Kind;

/// The program, not yet started, without any variable of this process's environment that could change its behaviour.
/// `TERTULIA_TEST_PROGRAM` may name the build to use: measurements mean more with a release build.
pub(crate) fn program(data_dir: &Path) -> Command {
    let program = std::env::var_os("TERTULIA_TEST_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_tertulia").into());
    let mut command = Command::new(program);
    command.env_clear().arg("--data-dir").arg(data_dir);
    command.args(["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
    command
}

/// The same, on the store of this run; a directory always gets the same store.
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

/// Fails if the data of a program is not sound, and names the `run`. For a CQL store there is no such check.
pub(crate) fn check_sound(data_dir: &Path, run: &str) {
    if Kind::chosen() == Kind::Cql {
        return;
    }
    let verified = program(data_dir).arg("verify").output().unwrap();
    let words = String::from_utf8_lossy(&verified.stdout);
    assert!(verified.status.success() && words.contains("is sound"), "{run}: {verified:?}");
}

/// A running server; dropping this kills it.
pub(crate) struct Server {
    child: Child,
    /// The lines that it printed, up to and including the ready line.
    pub(crate) printed: Vec<String>,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(data_dir: &Path, env: &[(&str, &str)]) -> Self {
        Self::run(program(data_dir), env)
    }

    /// A server that may have this many files open.
    pub(crate) fn start_with_files(data_dir: &Path, files: u32, env: &[(&str, &str)]) -> Self {
        let program = program(data_dir);
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")]);
        limited.arg(program.get_program()).args(program.get_args()).env_clear();
        Self::run(limited, env)
    }

    /// A server on the store of this run.
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

    /// The status and body of a request on a new connection.
    pub(crate) fn get(&self, path: &str, key: Option<&str>) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let key = key.map_or_else(String::new, |key| format!("X-API-Key: {key}\r\n"));
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n{key}Connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    /// The peak memory of the process, in KiB.
    #[cfg(target_os = "linux")]
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The processor time used so far, in milliseconds.
    #[cfg(target_os = "linux")]
    pub(crate) fn processor_millis(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        // In hundredths of a second: user time and system time.
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum()
    }

    /// Requests a stop.
    pub(crate) fn ask_to_stop(&self) {
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    /// Requests a stop; returns the exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        self.ask_to_stop();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail if the process has already ended, which is fine.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
