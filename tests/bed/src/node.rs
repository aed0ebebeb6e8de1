//! A server process that cannot outlive its keeper.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take to accept clients, beside two others on a busy machine.
const READY: Duration = Duration::from_secs(240);
/// The pause between two checks whether it does.
const LOOK: Duration = Duration::from_millis(200);
/// Lines of the log to show when a server ended.
const LAST_WORDS: usize = 15;

/// Runs its arguments, prints their process id, and kills the process once standard input ends: however the keeper
/// ends, the system closes that pipe. The guard ends with its server.
const GUARD: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- >>"$BED_LOG" 2>&1 &
server=$!
echo "$server"
(read -r _ <&3; kill -9 "$server") >/dev/null &
watch=$!
wait "$server"
kill "$watch"
eval "$BED_END"
"#;

/// A server process. Dropping this value ends it.
pub(crate) struct Node {
    command: Vec<String>,
    dir: PathBuf,
    address: SocketAddr,
    /// A shell command to run when the process is gone.
    end: String,
    guard: Option<Child>,
    pid: u32,
}

impl Node {
    /// A process that runs `command` in `dir` and will accept clients at `address`.
    pub(crate) fn new(command: Vec<String>, dir: PathBuf, address: SocketAddr) -> Self {
        Self { command, dir, address, end: String::new(), guard: None, pid: 0 }
    }

    /// The same, with a shell command to run when the process is gone.
    pub(crate) fn and_then(mut self, end: String) -> Self {
        self.end = end;
        self
    }

    /// Starts the process without waiting for it.
    pub(crate) fn spawn(&mut self) -> Result<(), String> {
        self.kill()?;
        let log = self.log();
        let failed = |error: std::io::Error| format!("{}: {error}", self.command[0]);
        File::options().create(true).append(true).open(&log).map_err(failed)?;
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "sh"])
            .args(&self.command)
            .current_dir(&self.dir)
            .env("BED_LOG", &log)
            .env("BED_END", &self.end)
            .env("MALLOC_ARENA_MAX", "4")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A signal to the keeper's group does not reach the guard.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let mut pid = String::new();
        if let Some(output) = guard.stdout.take() {
            BufReader::new(output).read_line(&mut pid).map_err(failed)?;
        }
        self.guard = Some(guard);
        self.pid = pid.trim().parse().map_err(|_| format!("{} was not started: {pid}", self.command[0]))?;
        Ok(())
    }

    /// Waits until the process accepts clients.
    pub(crate) fn wait_until_ready(&mut self) -> Result<(), String> {
        let until = Instant::now() + READY;
        while TcpStream::connect_timeout(&self.address, LOOK).is_err() {
            if !self.lives() {
                return Err(format!("the server at {} ended: {}", self.address, self.last_words()));
            }
            if Instant::now() > until {
                return Err(format!("the server at {} is not ready after {READY:?}", self.address));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Starts the process and waits until it accepts clients.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        self.spawn()?;
        self.wait_until_ready()
    }

    /// Sends a signal, given by name.
    pub(crate) fn signal(&self, name: &str) -> Result<(), String> {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.pid.to_string()]).stderr(Stdio::null()).status();
        match sent {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(format!("there is no process {}", self.pid)),
            Err(error) => Err(format!("kill: {error}")),
        }
    }

    /// Kills the process, and waits until it is gone.
    pub(crate) fn kill(&mut self) -> Result<(), String> {
        let Some(mut guard) = self.guard.take() else { return Ok(()) };
        // This ends the guard's standard input.
        drop(guard.stdin.take());
        guard.wait().map(drop).map_err(|error| error.to_string())
    }

    fn lives(&mut self) -> bool {
        self.guard.as_mut().is_some_and(|guard| guard.try_wait().is_ok_and(|ended| ended.is_none()))
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join(" | ")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A process that cannot be waited for is left alone.
        _ = self.kill();
    }
}
