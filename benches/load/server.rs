//! Servers in processes of their own, so that their CPU times can be told apart.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::dialect::{Api, Dialect};
use crate::sink::Protocol;
use crate::{Error, proc_stat};

/// How long a server may take until it prints its address.
const READY: Duration = Duration::from_secs(120);
/// Lines that are searched for the address.
const LINES: usize = 100;

/// A process and its data; dropping this value ends both.
pub(crate) struct Owned {
    child: Child,
    /// Removed in the end, if this program created it.
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
        // The process may have ended by itself, and its data is no longer needed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(data) = &self.data {
            let _ = fs::remove_dir_all(data);
        }
    }
}

/// A running server; dropping this value ends it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// The address of the real server's metrics.
    pub(crate) metrics: Option<SocketAddr>,
    /// Whether it syncs data to the disk before it answers: then the kernel's write-back is its doing.
    pub(crate) syncs: bool,
    /// The form of its append requests.
    pub(crate) dialect: Arc<dyn Dialect>,
    process: Owned,
    /// A second process that it needs: a database, or the handler that it calls.
    beside: Option<Owned>,
}

impl Server {
    /// A server that listens at this address.
    pub(crate) fn new(address: SocketAddr, process: Owned, dialect: Arc<dyn Dialect>) -> Self {
        Self { address, metrics: None, syncs: true, dialect, process, beside: None }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// CPU time of the server, of the process beside it, and of that one's children.
    pub(crate) fn cpu(&self) -> Result<Duration, Error> {
        let own = proc_stat::process(self.pid())?;
        match &self.beside {
            Some(beside) => Ok(own + proc_stat::family(beside.child.id())?),
            None => Ok(own),
        }
    }

    /// The same with a process that it needs.
    pub(crate) fn with(self, beside: Owned) -> Self {
        Self { beside: Some(beside), ..self }
    }

    /// The same for a server that stores nothing on a disk.
    pub(crate) fn without_disk(self) -> Self {
        Self { syncs: false, ..self }
    }

    /// Fails when the server has ended.
    pub(crate) fn alive(&mut self) -> Result<(), Error> {
        match self.process.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("the server ended in the run: {status}").into()),
        }
    }

    /// Kills the server and the process beside it without notice (SIGKILL), and leaves the data.
    pub(crate) fn kill(mut self) -> Result<(), Error> {
        // The process beside it first: the server may still pass on what that one has acknowledged.
        for owned in self.beside.iter_mut().chain([&mut self.process]) {
            owned.data = None;
            owned.child.kill()?;
        }
        for owned in self.beside.iter_mut().chain([&mut self.process]) {
            owned.child.wait()?;
        }
        Ok(())
    }
}

/// The no-op server: this program again.
pub(crate) fn noop(key: &str) -> Result<Server, Error> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("noop-server");
    Ok(start(command, key, None)?.without_disk())
}

/// The receiver that discards traces: this program again.
pub(crate) fn sink(protocol: Protocol) -> Result<Server, Error> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([
        "sink",
        match protocol {
            Protocol::Http => "http",
            Protocol::Grpc => "grpc",
        },
    ]);
    Ok(start(command, "", None)?.without_disk())
}

/// The path of a new data directory, on the disk to be measured.
pub(crate) fn data_dir() -> Result<PathBuf, Error> {
    // Not the system's temporary directory: it is often in memory, where a durable write costs nothing.
    static MADE: AtomicU32 = AtomicU32::new(0);
    let nth = MADE.fetch_add(1, Ordering::Relaxed);
    Ok(release_dir()?.join(format!("load-data-{}-{nth}", std::process::id())))
}

/// The real server on an empty store, with these environment variables.
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

/// The real server on data that may exist; it is removed in the end.
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
    // The server prints only the address of its API, so the metrics' port is chosen here; the system does not reuse it
    // so soon.
    let metrics = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new(program);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", &metrics.to_string(), "--data-dir"])
        .arg(data);
    command.env("TERTULIA_LOG", "warn").envs(env.iter().map(|(name, value)| (name, value)));
    let server = start(command, key, made)?;
    Ok(Server { metrics: Some(metrics), ..server })
}

/// A peer in front of a database.
pub(crate) fn peer(program: &Path, arguments: &[&str], key: &str) -> Result<Server, Error> {
    let mut command = Command::new(program);
    command.args(arguments);
    start(command, key, None)
}

/// The real server on an existing keyspace.
pub(crate) fn tertulia_on_cql(program: &Path, nodes: &[String], keyspace: &str, key: &str) -> Result<Server, Error> {
    let mut command = Command::new(program);
    command.args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--store", "cql"]);
    command.args(["--cql-nodes", &nodes.join(",")]).env("TERTULIA_CQL_KEYSPACE", keyspace);
    command.env("TERTULIA_LOG", "warn");
    start(command, key, None)
}

/// Builds a program of the workspace and returns its path.
pub(crate) fn build(package: &str, program: &str) -> Result<PathBuf, Error> {
    build_at("..", package, program)
}

/// Builds a program whose package, of the same name, is a workspace of its own in `folder`.
pub(crate) fn build_apart(folder: &str, program: &str) -> Result<PathBuf, Error> {
    build_at(folder, program, program)
}

fn build_at(folder: &str, package: &str, program: &str) -> Result<PathBuf, Error> {
    let release = release_dir()?;
    let target = release.parent().ok_or("this program is not in a target directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--package", package, "--bin", program, "--manifest-path"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("Cargo.toml"));
    command.arg("--target-dir").arg(target);
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

/// Starts a server that speaks the API and prints its address.
fn start(mut command: Command, key: &str, data: Option<PathBuf>) -> Result<Server, Error> {
    command.env(benches::KEY, key);
    let (process, address) = spawn(command, data, address_in)?;
    Ok(Server::new(address, process, Arc::new(Api::new(address, key))))
}

/// Starts a program and waits until `ready` finds something in its output.
pub(crate) fn spawn<T: Send + 'static>(
    mut command: Command,
    data: Option<PathBuf>,
    ready: impl FnMut(&str) -> Option<T> + Send + 'static,
) -> Result<(Owned, T), Error> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take();
    // From here on dropping the value ends the process, whatever goes wrong.
    let owned = Owned::new(child, data);
    let stdout = stdout.ok_or("the server has no standard output")?;
    let (found, what) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let mut ready = ready;
        if let Some(what) = lines.by_ref().take(LINES).find_map(|line| ready(&line)) {
            // After the timeout the receiver is gone.
            let _ = found.send(what);
        }
        // The server would stop at a full pipe.
        lines.for_each(drop);
    });
    let what = what.recv_timeout(READY).map_err(|_| "the server did not say where it listens")?;
    Ok((owned, what))
}

/// The address that a line names, alone or in a URL.
pub(crate) fn address_in(line: &str) -> Option<SocketAddr> {
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
