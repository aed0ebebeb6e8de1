//! A Postgres of its own for a run, with the peer in front of it.
//!
//! The programs `initdb` and `postgres` must be installed. Postgres is configured as by a team that has read the manual
//! and keeps what it acknowledges: `fsync`, `synchronous_commit` and `full_page_writes` stay on.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::server::{Owned, Server, peer};
use crate::{Error, installed};

/// Where distributions install them, if not on the path.
const VERSIONS: &str = "/usr/lib/postgresql";
/// How long it may take until it listens.
const READY: Duration = Duration::from_secs(30);
/// The settings that differ from the defaults.
const SETTINGS: [&str; 14] = [
    "listen_addresses=",
    "max_connections=100",
    "shared_buffers=1GB",
    "huge_pages=try",
    "wal_buffers=16MB",
    "max_wal_size=8GB",
    "checkpoint_timeout=15min",
    "checkpoint_completion_target=0.9",
    "wal_compression=on",
    "effective_io_concurrency=200",
    "random_page_cost=1.1",
    "jit=off",
    // In the data directory, so that a killed server leaves nothing elsewhere.
    "dynamic_shared_memory_type=mmap",
    "log_min_messages=fatal",
];
/// Its socket, in the data directory.
const SOCKET: &str = ".s.PGSQL.5432";
/// The unprivileged user under which the superuser runs Postgres, since it refuses to run as the superuser.
const NOBODY: u32 = 65_534;

/// A Postgres on the data in `dir`, which is created if needed and removed in the end, with the peer.
pub(crate) fn start_in(peers: &Path, dir: &Path, key: &str) -> Result<Server, Error> {
    let is_superuser = fs::metadata("/proc/self")?.uid() == 0;
    let command = |program: &str| {
        let mut command = Command::new(find(program));
        command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null());
        if is_superuser {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    let data = dir.join("data");
    if !data.exists() {
        fs::create_dir_all(&data)?;
        if is_superuser {
            chown(dir, Some(NOBODY), Some(NOBODY))?;
            chown(&data, Some(NOBODY), Some(NOBODY))?;
        }
        let made = command("initdb").arg("-D").arg(&data).args(["-U", "load", "--auth=trust", "-E", "UTF8"]).status();
        let made = made.map_err(|error| format!("there is no Postgres here (initdb: {error})"))?;
        if !made.success() {
            return Err(format!("initdb made no database: {made}").into());
        }
    }
    // The socket of a server killed a moment ago would still be found and would refuse connections.
    let _ = fs::remove_file(dir.join(SOCKET));
    let since = Instant::now();
    let mut database = None;
    while UnixStream::connect(dir.join(SOCKET)).is_err() {
        if since.elapsed() > READY {
            return Err("Postgres does not listen".into());
        }
        let has_ended = database.as_mut().is_none_or(Owned::has_ended);
        if has_ended {
            let mut postgres = command("postgres");
            postgres.arg("-D").arg(&data).arg("-k").arg(dir);
            for setting in SETTINGS {
                postgres.args(["-c", setting]);
            }
            let child = postgres.stderr(Stdio::null()).spawn()?;
            database = Some(Owned::new(child, None));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut database = database.ok_or("somebody else's Postgres listens there")?;
    database.owns(dir);
    let connection = format!("host={} user=load dbname=postgres", dir.display());
    Ok(peer(peers, &["postgres", "--database", &connection], key)?.with(database))
}

/// A program of Postgres: on the path, or the newest that is installed.
fn find(program: &str) -> PathBuf {
    let installed = fs::read_dir(VERSIONS).into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let mut installed: Vec<PathBuf> = installed.collect();
    installed.sort_by_key(|path| path.parent().and_then(Path::file_name)?.to_str()?.parse::<u32>().ok());
    let newest = || installed.iter().rev().map(|place| place.join(program)).find(|path| path.is_file());
    installed::on_path(program).or_else(newest).unwrap_or_else(|| program.into())
}
