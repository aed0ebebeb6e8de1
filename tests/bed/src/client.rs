//! The side of a test: asks the keeper for a server, and starts a keeper if there is none.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::keeper::{KEEP, KEEP_IN, run_dir};
use crate::{Size, say};

/// Nodes that run already.
const GIVEN: &str = "TERTULIA_TEST_CQL_NODES";
/// The test that turns a test binary into a keeper; each binary that uses this crate has it.
const KEEPER_TEST: &str = "keeper::keep";
/// How long a new keeper may take until it accepts connections, including the end of a previous one.
const KEEPER_STARTS: Duration = Duration::from_secs(30);
/// The pause between two checks while waiting.
const LOOK: Duration = Duration::from_millis(50);

/// Why there is no server: the attempts, and what each of them lacks.
#[derive(Clone, Debug)]
pub struct NoServer(pub String);

/// A running CQL server, held until this process ends.
#[derive(Debug)]
pub struct Server {
    nodes: Vec<String>,
    /// `None`: the nodes run already.
    keeper: Option<Mutex<BufReader<UnixStream>>>,
}

/// One node for any use. `None`: there is none, and the calling test is reported as skipped.
///
/// # Panics
/// Where `CI` is set and there is none.
pub fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Result<Server, NoServer>> = OnceLock::new();
    or_skip(SERVER.get_or_init(|| match std::env::var(GIVEN) {
        Ok(nodes) if !nodes.is_empty() => {
            Ok(Server { nodes: nodes.split(',').map(|node| node.trim().to_owned()).collect(), keeper: None })
        }
        _ => ask(Size::One),
    }))
}

/// Three nodes whose processes the test may pause and kill; one test at a time. `None`: see [`server`].
///
/// # Panics
/// Where `CI` is set and there is none.
pub fn cluster() -> Option<&'static Server> {
    static CLUSTER: OnceLock<Result<Server, NoServer>> = OnceLock::new();
    or_skip(CLUSTER.get_or_init(|| ask(Size::Three)))
}

fn or_skip(made: &'static Result<Server, NoServer>) -> Option<&'static Server> {
    match made {
        Ok(server) => Some(server),
        Err(NoServer(why)) => {
            let thread = thread::current();
            let test = thread.name().unwrap_or("a test");
            assert!(std::env::var_os("CI").is_none(), "{test} needs a CQL server, and there is none: {why}");
            say(&format!("skipped: {test}: no CQL server: {why}"));
            None
        }
    }
}

impl Server {
    /// `host:port` of each node.
    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }

    /// Pauses a node's process, as a machine that hangs.
    pub fn pause(&self, node: usize) {
        self.order("pause", node);
    }

    /// Resumes a paused node.
    pub fn resume(&self, node: usize) {
        self.order("resume", node);
    }

    /// Kills a node's process.
    pub fn kill(&self, node: usize) {
        self.order("kill", node);
    }

    /// Restarts a killed node with its data on disk; returns once it accepts clients.
    pub fn start(&self, node: usize) {
        self.order("start", node);
    }

    fn order(&self, what: &str, node: usize) {
        let keeper = self.keeper.as_ref().expect("the nodes are this run's own");
        let mut keeper = keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = keeper.get_mut().write_all(format!("{what} {node}\n").as_bytes());
        let answer = sent.and_then(|()| read_line(&mut *keeper)).expect("the keeper lives");
        assert_eq!(answer, "done", "{what} {node}");
    }
}

/// Asks the keeper, and retries if a keeper ends at that moment.
fn ask(size: Size) -> Result<Server, NoServer> {
    let failed = |error: io::Error| NoServer(format!("the keeper cannot be spoken to: {error}"));
    for _ in 0..3 {
        let mut keeper = BufReader::new(connect(size).map_err(failed)?);
        loop {
            let line = read_line(&mut keeper).map_err(failed)?;
            match line.split_once(' ') {
                Some(("note", note)) => say(note),
                Some(("ready", nodes)) => {
                    let nodes = nodes.split(',').map(str::to_owned).collect();
                    return Ok(Server { nodes, keeper: Some(Mutex::new(keeper)) });
                }
                Some(("none", why)) => return Err(NoServer(why.to_owned())),
                // The keeper is ending; the next one will answer.
                _ => break,
            }
        }
    }
    Err(NoServer("keepers end before they answer".to_owned()))
}

/// A line without its line end; empty at the end of the input.
fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    line.truncate(line.trim_end().len());
    Ok(line)
}

/// A connection to the keeper of this size; starts a keeper if there is none.
fn connect(size: Size) -> io::Result<UnixStream> {
    let dir = run_dir(size);
    fs::create_dir_all(&dir)?;
    let socket = dir.join("socket");
    let until = Instant::now() + KEEPER_STARTS;
    let mut started: Option<Child> = None;
    loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => {}
        }
        let running = match &mut started {
            Some(child) => child.try_wait()?.is_none(),
            None => false,
        };
        // A keeper that finds another one ends at once: then the other one is about to listen, or to end.
        if !running {
            started = Some(start_keeper(size, &dir)?);
        }
        thread::sleep(LOOK);
    }
}

/// This very program again, as a keeper, in a process group of its own, so that an interrupt of the tests does not
/// reach it.
fn start_keeper(size: Size, dir: &Path) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(dir.join("keeper.log"))?;
    Command::new(std::env::current_exe()?)
        .args([KEEPER_TEST, "--exact", "--ignored", "--nocapture"])
        .env(KEEP, size.name())
        .env(KEEP_IN, dir)
        .env_remove("RUST_TEST_THREADS")
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
}
