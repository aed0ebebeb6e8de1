//! The process that starts a server, tracks its clients, and stops it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::node::Node;
use crate::{Size, cache, cassandra, docker};

/// How long an unused server waits for the next client. `TERTULIA_BED_LINGER` (seconds) overrides it.
pub const LINGER: Duration = Duration::from_secs(60);
/// How long a keeper waits for the client that started it.
const FIRST_CLIENT: Duration = Duration::from_secs(30);
/// Set in the environment of a keeper: the size of its server.
pub(crate) const KEEP: &str = "TERTULIA_BED_KEEP";
/// Set in the environment of a keeper: its folder.
pub(crate) const KEEP_IN: &str = "TERTULIA_BED_KEEP_IN";
/// The version of the protocol between keepers and clients; another version has a keeper of its own.
const VERSION: u32 = 1;

/// The folder of a keeper and its servers. It is in the folder for temporary files, because the path of a socket must
/// be short, and it contains the user's number, because users must not share it.
pub(crate) fn run_dir(size: Size) -> PathBuf {
    let user = fs::metadata("/proc/self").or_else(|_| fs::metadata(cache::dir())).map_or(0, |of| of.uid());
    let whose = match size {
        // Keyspaces have names that the tests of another checkout may use too, with other tables.
        Size::One => format!("{:08x}", crate::hash(env!("CARGO_MANIFEST_DIR"))),
        // The tests break it, so each process has its own.
        Size::Three => std::process::id().to_string(),
    };
    std::env::temp_dir().join(format!("tertulia-bed-{VERSION}-{user}-{whose}"))
}

/// The nodes that run for the clients.
pub(crate) struct Running {
    pub(crate) nodes: Vec<Node>,
    pub(crate) addresses: Vec<String>,
}

/// The state that all threads of a keeper share.
#[derive(Default)]
struct Shared {
    known: Mutex<Known>,
    changed: Condvar,
}

#[derive(Default)]
struct Known {
    /// Progress for the clients that wait while the server starts.
    notes: Vec<String>,
    /// `None`: it is starting.
    made: Option<Result<Running, String>>,
    clients: usize,
    /// Since when there are no clients, and how long that may last.
    empty_since: Option<Instant>,
    patience: Duration,
    /// No more clients are accepted.
    ending: bool,
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known());
        self.changed.notify_all();
    }
}

/// The test that turns a binary into a keeper, `keeper::keep`: in the root of every test binary that uses this crate.
#[macro_export]
macro_rules! keeper {
    () => {
        mod keeper {
            /// Not a test: runs this binary as the keeper of a server.
            #[test]
            #[ignore = "the test bed starts it"]
            fn keep() {
                $crate::keep();
            }
        }
    };
}

/// If this process was started as a keeper, runs it until it is unused; returns whether it was. Test binaries call it
/// through [`keeper!`](crate::keeper!).
pub fn keep() -> bool {
    let Some(size) = std::env::var(KEEP).ok().as_deref().and_then(Size::named) else { return false };
    let dir = std::env::var_os(KEEP_IN).map_or_else(|| run_dir(size), PathBuf::from);
    let lock = fs::create_dir_all(&dir).and_then(|()| File::create(dir.join("lock")));
    let lock = lock.unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    // Another keeper runs, or is about to end.
    if lock.try_lock().is_err() {
        return true;
    }
    let socket = dir.join("socket");
    // A killed keeper may have left it.
    _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
    let shared = Arc::new(Shared::default());
    shared.change(|known| (known.empty_since, known.patience) = (Some(Instant::now()), FIRST_CLIENT));

    let maker = Arc::clone(&shared);
    let files = dir.join("files");
    // A killed keeper may have left these too.
    _ = fs::remove_dir_all(&files);
    let made_in = files.clone();
    thread::spawn(move || {
        let note = |text: String| maker.change(|known| known.notes.push(text));
        let made = make(size, &made_in, &note);
        maker.change(|known| known.made = Some(made));
    });
    let door = Arc::clone(&shared);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let shared = Arc::clone(&door);
            thread::spawn(move || attend(&shared, client, linger(size)));
        }
    });
    wait_until_unused(&shared);
    _ = fs::remove_file(&socket);
    // Dropping the nodes kills them, which is harmless: their data is discarded.
    drop(shared.known().made.take());
    _ = fs::remove_dir_all(&files);
    if size == Size::Three {
        _ = fs::remove_dir_all(&dir);
    }
    true
}

/// How long an unused server of this size waits.
fn linger(size: Size) -> Duration {
    if size == Size::Three {
        // No other process can ask for it.
        return Duration::ZERO;
    }
    let asked = std::env::var("TERTULIA_BED_LINGER").ok().and_then(|seconds| seconds.parse().ok());
    asked.map_or(LINGER, Duration::from_secs)
}

fn wait_until_unused(shared: &Shared) {
    let mut known = shared.known();
    loop {
        let left = known.empty_since.map(|since| known.patience.checked_sub(since.elapsed()));
        known = match left {
            None => shared.changed.wait(known).unwrap_or_else(PoisonError::into_inner),
            Some(Some(left)) => shared.changed.wait_timeout(known, left).unwrap_or_else(PoisonError::into_inner).0,
            Some(None) => break,
        };
    }
    known.ending = true;
}

/// The first kind of server that is available.
fn make(size: Size, files: &std::path::Path, note: &dyn Fn(String)) -> Result<Running, String> {
    let docker = match size {
        Size::One => docker::start(note),
        Size::Three => Err("clusters are made of Cassandra".to_owned()),
    };
    docker.or_else(|no_docker| {
        let made = cassandra::start(size, files, note);
        made.map_err(|no_cassandra| format!("docker: {no_docker}; Cassandra: {no_cassandra}"))
    })
}

/// Serves one client until it disconnects.
fn attend(shared: &Shared, client: UnixStream, linger: Duration) {
    {
        let mut known = shared.known();
        if known.ending {
            return;
        }
        known.clients += 1;
        known.empty_since = None;
    }
    // An error means that the client has disconnected, as does the end of its input.
    _ = converse(shared, client);
    shared.change(|known| {
        known.clients -= 1;
        (known.empty_since, known.patience) = ((known.clients == 0).then(Instant::now), linger);
    });
}

fn converse(shared: &Shared, mut client: UnixStream) -> io::Result<()> {
    greet(shared, &mut client)?;
    for line in BufReader::new(client.try_clone()?).lines() {
        let answer = obey(shared, &line?).map_or_else(|why| why, |()| "done".to_owned());
        client.write_all(format!("{}\n", answer.replace('\n', " ")).as_bytes())?;
    }
    Ok(())
}

/// Tells a client the addresses, and reports progress while the server starts.
fn greet(shared: &Shared, client: &mut UnixStream) -> io::Result<()> {
    let mut told = 0;
    let mut known = shared.known();
    loop {
        let notes: Vec<String> = known.notes[told..].iter().map(|note| format!("note {note}\n")).collect();
        told = known.notes.len();
        let answer = known.made.as_ref().map(|made| match made {
            Ok(running) => format!("ready {}\n", running.addresses.join(",")),
            Err(why) => format!("none {}\n", why.replace('\n', " ")),
        });
        drop(known);
        client.write_all(notes.concat().as_bytes())?;
        if let Some(answer) = answer {
            return client.write_all(answer.as_bytes());
        }
        known = shared.known();
        if known.made.is_none() && known.notes.len() == told {
            known = shared.changed.wait(known).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn obey(shared: &Shared, line: &str) -> Result<(), String> {
    let (what, number) = line.split_once(' ').ok_or("an order is a word and a number")?;
    let number: usize = number.parse().map_err(|_| "a node is a number")?;
    let mut known = shared.known();
    let Some(Ok(running)) = &mut known.made else { return Err("nothing runs".to_owned()) };
    let node = running.nodes.get_mut(number).ok_or("there is no such node")?;
    match what {
        "pause" => node.signal("STOP"),
        "resume" => node.signal("CONT"),
        "kill" => node.kill(),
        "start" => node.start(),
        _ => Err(format!("there is no order {what}")),
    }
}
