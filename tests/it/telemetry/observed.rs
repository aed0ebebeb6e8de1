//! A server whose log lines and numbers are read.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::ADMIN_KEY;
use crate::support::program::program;

/// A running server; dropping this kills it.
pub(super) struct Observed {
    child: Child,
    pub(super) address: String,
    metrics: String,
    /// Its log, behind the lines until it was ready.
    log: BufReader<ChildStderr>,
    lines: Vec<String>,
}

impl Observed {
    pub(super) fn start(data: &std::path::Path, env: &[(&str, &str)]) -> Self {
        let mut command = program(data);
        command.arg("serve").env("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY).envs(env.iter().copied());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut ready = Value::Null;
        let mut lines = Vec::new();
        while ready["message"] != "ready" {
            let mut line = String::new();
            log.read_line(&mut line).unwrap();
            ready = serde_json::from_str(&line).expect("it ended before it was ready");
            lines.push(line);
        }
        let [address, metrics] =
            ["address", "metrics_address"].map(|address| ready[address].as_str().unwrap().to_owned());
        Self { child, address, metrics, log, lines }
    }

    /// All samples of `/metrics`, summed up by name; those of dropped spans by reason.
    pub(super) fn scrape(&self) -> BTreeMap<String, u64> {
        let mut stream = TcpStream::connect(&self.metrics).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        let mut sums = BTreeMap::new();
        stream.read_to_string(&mut page).unwrap();
        for line in page.lines().filter(|line| line.starts_with("tertulia_") || line.starts_with("http_")) {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = if sample.contains("reason=") { sample } else { sample.split('{').next().unwrap() };
            // Sums of seconds are no counts.
            *sums.entry(name.to_owned()).or_default() += value.parse::<u64>().unwrap_or(0);
        }
        sums
    }

    /// Requests a stop.
    pub(super) fn ask_to_stop(&self) {
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    /// Requests a stop, and waits for it. Returns the lines that it has logged, and how long the stop took.
    pub(super) fn stop(mut self) -> (Vec<String>, Duration) {
        let begun = Instant::now();
        self.ask_to_stop();
        let mut lines = std::mem::take(&mut self.lines);
        lines.extend(self.log.by_ref().lines().map(Result::unwrap));
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        (lines, begun.elapsed())
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        // Both fail if it has ended already, which is fine.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
