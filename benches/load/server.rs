//! Servers as processes of their own, so that each one's CPU time is its own.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::{Error, noop};

/// How long a server may take to say where it listens.
const READY: Duration = Duration::from_secs(30);
/// Lines that are read in search of the address.
const LINES: usize = 100;

/// A running server; it ends with this value.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
    /// Removed in the end, where this program made it.
    data: Option<PathBuf>,
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails when the server has ended.
    pub(crate) fn alive(&mut self) -> Result<(), Error> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("the server ended in the run: {status}").into()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, and its data is of no use to anybody.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(data) = &self.data {
            let _ = fs::remove_dir_all(data);
        }
    }
}

/// The server that does nothing: this program again.
pub(crate) fn noop(key: &str) -> Result<Server, Error> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("noop-server");
    start(command, key, None)
}

/// The real server on an empty store.
pub(crate) fn tertulia(program: &Path, data_dir: Option<&Path>, key: &str) -> Result<Server, Error> {
    let (data, made) = match data_dir {
        Some(dir) => (dir.to_owned(), None),
        None => {
            // Not the system's temporary directory: it is often in memory, where a durable write costs nothing.
            let dir = release_dir()?.join(format!("load-data-{}", std::process::id()));
            (dir.clone(), Some(dir))
        }
    };
    fs::create_dir_all(&data)?;
    if fs::read_dir(&data)?.next().is_some() {
        return Err(format!("the data directory {} is not empty", data.display()).into());
    }
    let mut command = Command::new(program);
    command.args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
    command.env("TERTULIA_LOG", "warn");
    start(command, key, made)
}

/// The real server on a keyspace that is there.
pub(crate) fn tertulia_on_cql(program: &Path, nodes: &[String], keyspace: &str, key: &str) -> Result<Server, Error> {
    let mut command = Command::new(program);
    command.args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--store", "cql"]);
    command.args(["--cql-nodes", &nodes.join(",")]).env("TERTULIA_CQL_KEYSPACE", keyspace);
    command.env("TERTULIA_LOG", "warn");
    start(command, key, None)
}

/// Builds the real server and returns its path.
pub(crate) fn build() -> Result<PathBuf, Error> {
    let release = release_dir()?;
    let target = release.parent().ok_or("this program is not in a target directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--package", "tertulia", "--bin", "tertulia", "--manifest-path"]);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).arg("--target-dir").arg(target);
    let status = command.status()?;
    if !status.success() {
        return Err(format!("the server was not built: {status}").into());
    }
    Ok(release.join("tertulia"))
}

/// Where release builds are, seen from this program.
fn release_dir() -> Result<PathBuf, Error> {
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(Path::parent).ok_or("this program is not in a target directory")?;
    Ok(target.join("release"))
}

fn start(mut command: Command, key: &str, data: Option<PathBuf>) -> Result<Server, Error> {
    let mut child = command.env(noop::KEY, key).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take();
    // From here on the process ends with the value, whatever goes wrong.
    let mut server = Server { address: SocketAddr::from(([127, 0, 0, 1], 0)), child, data };
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
