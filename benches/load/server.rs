//! Servers as processes of their own, so that each one's CPU time is its own.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::sink::Protocol;
use crate::{Error, proc_stat};

/// How long a server may take to say where it listens.
const READY: Duration = Duration::from_secs(120);
/// Lines that are read in search of the address.
const LINES: usize = 100;

/// A process and its data; both end with this value.
pub(crate) struct Owned {
    child: Child,
    /// Removed in the end, where this program made it.
    data: Option<PathBuf>,
}

impl Owned {
    pub(crate) fn new(child: Child, data: Option<PathBuf>) -> Self {
        Self { child, data }
    }

    /// Has this data removed in the end.
    pub(crate) fn owns(&mut self, data: &Path) {
        self.data = Some(data.to_owned());
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // It may have ended by itself, and its data is of no use to anybody.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(data) = &self.data {
            let _ = fs::remove_dir_all(data);
        }
    }
}

/// A running server; it ends with this value.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// Where the real server tells of itself.
    pub(crate) metrics: Option<SocketAddr>,
    process: Owned,
    /// What it keeps its data in, where that is a program of its own.
    database: Option<Owned>,
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// CPU time of the server, with that of its database and of the processes that this one has.
    pub(crate) fn cpu(&self) -> Result<Duration, Error> {
        let own = proc_stat::process(self.pid())?;
        match &self.database {
            Some(database) => Ok(own + proc_stat::family(database.child.id())?),
            None => Ok(own),
        }
    }

    /// The same with the database that it keeps its data in.
    pub(crate) fn with(self, database: Owned) -> Self {
        Self { database: Some(database), ..self }
    }

    /// Fails when the server has ended.
    pub(crate) fn alive(&mut self) -> Result<(), Error> {
        match self.process.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("the server ended in the run: {status}").into()),
        }
    }

    /// Kills the server and its database, which can do nothing about it (SIGKILL), and leaves the data.
    pub(crate) fn kill(mut self) -> Result<(), Error> {
        // The database first: what it has acknowledged by then, the server may still tell.
        for owned in self.database.iter_mut().chain([&mut self.process]) {
            owned.data = None;
            owned.child.kill()?;
            owned.child.wait()?;
        }
        Ok(())
    }
}

/// The server that does nothing: this program again.
pub(crate) fn noop(key: &str) -> Result<Server, Error> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("noop-server");
    start(command, key, None)
}

/// The receiver that throws traces away: this program again.
pub(crate) fn sink(protocol: Protocol) -> Result<Server, Error> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([
        "sink",
        match protocol {
            Protocol::Http => "http",
            Protocol::Grpc => "grpc",
        },
    ]);
    start(command, "", None)
}

/// A directory for data that is not there yet, on the disk that is to be measured.
pub(crate) fn data_dir() -> Result<PathBuf, Error> {
    // Not the system's temporary directory: it is often in memory, where a durable write costs nothing.
    static MADE: AtomicU32 = AtomicU32::new(0);
    let nth = MADE.fetch_add(1, Ordering::Relaxed);
    Ok(release_dir()?.join(format!("load-data-{}-{nth}", std::process::id())))
}

/// The real server on an empty store, with these environment variables too.
pub(crate) fn tertulia(
    program: &Path,
    given: Option<&Path>,
    key: &str,
    env: &[(String, String)],
) -> Result<Server, Error> {
    let (data, made) = match given {
        Some(dir) => (dir.to_owned(), None),
        None => {
            let dir = data_dir()?;
            (dir.clone(), Some(dir))
        }
    };
    fs::create_dir_all(&data)?;
    if fs::read_dir(&data)?.next().is_some() {
        return Err(format!("the data directory {} is not empty", data.display()).into());
    }
    start_on(program, &data, env, key, made)
}

/// The real server on data that may be there; removed in the end.
pub(crate) fn tertulia_in(program: &Path, data: &Path, key: &str) -> Result<Server, Error> {
    fs::create_dir_all(data)?;
    start_on(program, data, &[], key, Some(data.to_owned()))
}

fn start_on(
    program: &Path,
    data: &Path,
    env: &[(String, String)],
    key: &str,
    made: Option<PathBuf>,
) -> Result<Server, Error> {
    // The server names only where its API is, so a port is chosen for it; the system gives it to nobody else so soon.
    let metrics = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new(program);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", &metrics.to_string(), "--data-dir"])
        .arg(data);
    command.env("TERTULIA_LOG", "warn").envs(env.iter().map(|(name, value)| (name, value)));
    let server = start(command, key, made)?;
    Ok(Server { metrics: Some(metrics), ..server })
}

/// A peer that stands in front of a database.
pub(crate) fn peer(program: &Path, arguments: &[&str], key: &str) -> Result<Server, Error> {
    let mut command = Command::new(program);
    command.args(arguments);
    start(command, key, None)
}

/// The real server on a keyspace that is there.
pub(crate) fn tertulia_on_cql(program: &Path, nodes: &[String], keyspace: &str, key: &str) -> Result<Server, Error> {
    let mut command = Command::new(program);
    command.args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--store", "cql"]);
    command.args(["--cql-nodes", &nodes.join(",")]).env("TERTULIA_CQL_KEYSPACE", keyspace);
    command.env("TERTULIA_LOG", "warn");
    start(command, key, None)
}

/// Builds a program of the workspace and returns its path.
pub(crate) fn build(package: &str, program: &str) -> Result<PathBuf, Error> {
    let release = release_dir()?;
    let target = release.parent().ok_or("this program is not in a target directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--package", package, "--bin", program, "--manifest-path"]);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).arg("--target-dir").arg(target);
    let status = command.status()?;
    if !status.success() {
        return Err(format!("{program} was not built: {status}").into());
    }
    Ok(release.join(program))
}

/// Where release builds are, seen from this program.
fn release_dir() -> Result<PathBuf, Error> {
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(Path::parent).ok_or("this program is not in a target directory")?;
    Ok(target.join("release"))
}

fn start(mut command: Command, key: &str, data: Option<PathBuf>) -> Result<Server, Error> {
    let mut child = command.env(benches::KEY, key).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take();
    // From here on the process ends with the value, whatever goes wrong.
    let mut server = Server {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        metrics: None,
        process: Owned::new(child, data),
        database: None,
    };
    let stdout = stdout.ok_or("the server has no standard output")?;
    let (found, address) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        if let Some(address) = lines.by_ref().take(LINES).find_map(|line| address_in(&line)) {
            // Nobody waits for it any more when the time was over.
            let _ = found.send(address);
        }
        // A pipe that nobody empties would stop the server.
        lines.for_each(drop);
    });
    server.address = address.recv_timeout(READY).map_err(|_| "the server did not say where it listens")?;
    Ok(server)
}

/// The address that a line names, alone or in a URL.
fn address_in(line: &str) -> Option<SocketAddr> {
    let words =
        line.split(|char: char| char.is_whitespace() || matches!(char, '/' | '"' | ',' | ';' | '(' | ')' | '='));
    words.filter_map(|word| word.trim_end_matches('.').parse().ok()).find(|address: &SocketAddr| address.port() != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_any_wording() {
        for line in [
            "listening on http://127.0.0.1:8080",
            "tertulia is ready: http://127.0.0.1:8080/docs, metrics on http://127.0.0.1:9464",
            "127.0.0.1:8080",
            "Listening on 127.0.0.1:8080.",
        ] {
            assert_eq!(address_in(line), Some(([127, 0, 0, 1], 8080).into()), "{line}");
        }
        assert_eq!(address_in("opening ./data with 127.0.0.1:0"), None);
    }
}
