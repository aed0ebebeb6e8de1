//! Apache Cassandra, fetched with Maven: the jars suffice, no installation is needed.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::keeper::Running;
use crate::node::Node;
use crate::{Size, cache};

const VERSION: &str = "5.0.9";
/// The only version of Java that Cassandra and its arguments below are tested with here.
const JAVA: &str = "17";
const CONFIGURATION: &str = include_str!("cassandra/cassandra.yaml");
const JVM_ARGS: &str = include_str!("cassandra/jvm.args");
const LOGBACK: &str = include_str!("cassandra/logback.xml");
const POM: &str = include_str!("cassandra/pom.xml");
/// The heap of a single node, for the tables of a run of tests, and of each of three nodes, for those of a few tests.
const HEAPS: [&str; 2] = ["768M", "512M"];
/// Each node has a third of the ring.
const TOKENS: [i64; 3] = [i64::MIN, -3_074_457_345_618_258_603, 3_074_457_345_618_258_602];
/// The port for clients of a cluster: a driver assumes that every node has the same port.
const PORT: u16 = 9042;
/// The port that nodes of a cluster use among themselves.
const STORAGE_PORT: u16 = 7000;

/// Starts one node or three in `files`, after fetching the jars if they are missing.
pub(crate) fn start(size: Size, files: &Path, note: &dyn Fn(String)) -> Result<Running, String> {
    let java = java()?;
    let jars = jars(note)?;
    let hosts = match size {
        Size::One => vec![free_ports()?],
        Size::Three => free_hosts()?,
    };
    let addresses: Vec<String> = hosts.iter().map(|(address, _)| address.to_string()).collect();
    note(format!("starting Apache Cassandra {VERSION} at {}", addresses.join(", ")));
    let seed = format!("{}:{}", hosts[0].0.ip(), hosts[0].1);
    let heap = HEAPS[usize::from(size == Size::Three)];
    let mut nodes = Vec::new();
    for (n, (address, storage_port)) in hosts.iter().enumerate() {
        let dir = files.join(format!("node{n}"));
        let written = configure(&dir, *address, *storage_port, TOKENS[n], &seed, heap);
        written.map_err(|error| format!("{}: {error}", dir.display()))?;
        let mut node = Node::new(command(&java, &jars, &dir)?, dir, *address);
        node.spawn()?;
        nodes.push(node);
    }
    for node in &mut nodes {
        node.wait_until_ready()?;
    }
    Ok(Running { nodes, addresses })
}

/// A `java` of the right version.
fn java() -> Result<PathBuf, String> {
    let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    let installed = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten().map(|jdk| jdk.path());
    let installed = installed.filter(|jdk| jdk.to_string_lossy().contains(JAVA)).map(|jdk| jdk.join("bin/java"));
    let tried: Vec<PathBuf> = home.into_iter().chain([PathBuf::from("java")]).chain(installed).collect();
    let right = tried.iter().find(|java| {
        let asked = Command::new(java).arg("-version").stdin(Stdio::null()).output();
        let words = asked.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap_or_default();
        words.contains(&format!("version \"{JAVA}."))
    });
    right.cloned().ok_or_else(|| format!("there is no Java {JAVA} in JAVA_HOME, on the path or in /usr/lib/jvm"))
}

/// The folder of all jars.
fn jars(note: &dyn Fn(String)) -> Result<PathBuf, String> {
    cache::kept(&format!("cassandra-{VERSION}"), |place| {
        note(format!("fetching Apache Cassandra {VERSION} with Maven into {}", cache::dir().display()));
        let pom = place.join("pom.xml");
        fs::write(&pom, POM.replace("@VERSION@", VERSION)).map_err(|error| format!("{}: {error}", pom.display()))?;
        let maven = Command::new("mvn")
            .args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=lib", "-f"])
            .arg(&pom)
            .stdin(Stdio::null())
            .output();
        let maven = maven.map_err(|error| format!("mvn: {error}"))?;
        let lib = place.join("lib");
        if !maven.status.success() || !lib.is_dir() {
            let words = String::from_utf8_lossy(&maven.stdout).into_owned();
            return Err(format!("mvn: {}", words.lines().next().unwrap_or("it fetched nothing")));
        }
        Ok(lib)
    })
}

/// One address of this machine, with free ports.
fn free_ports() -> Result<(SocketAddr, u16), String> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let ports = listen().and_then(|one| Ok((one.local_addr()?, listen()?.local_addr()?.port())));
    ports.map_err(|error| error.to_string())
}

/// Three addresses of this machine with free ports.
fn free_hosts() -> Result<Vec<(SocketAddr, u16)>, String> {
    let own = std::process::id();
    for n in 0..64 {
        let [_, _, high, low] = own.wrapping_add(n).to_be_bytes();
        let hosts = (1..=3).map(|last| Ipv4Addr::new(127, 64 | (high >> 2), low, last)).collect::<Vec<_>>();
        let free = |host: &Ipv4Addr| [PORT, STORAGE_PORT].iter().all(|port| TcpListener::bind((*host, *port)).is_ok());
        if hosts.iter().all(free) {
            return Ok(hosts.into_iter().map(|host| (SocketAddr::from((host, PORT)), STORAGE_PORT)).collect());
        }
    }
    Err("this machine has no loopback addresses for a cluster".to_owned())
}

fn configure(
    dir: &Path,
    address: SocketAddr,
    storage_port: u16,
    token: i64,
    seed: &str,
    heap: &str,
) -> std::io::Result<()> {
    fs::create_dir_all(dir.join("conf"))?;
    let filled = CONFIGURATION
        .replace("@TOKEN@", &token.to_string())
        .replace("@HOST@", &address.ip().to_string())
        .replace("@STORAGE_PORT@", &storage_port.to_string())
        .replace("@PORT@", &address.port().to_string())
        .replace("@SEEDS@", seed);
    fs::write(dir.join("conf/cassandra.yaml"), filled)?;
    fs::write(dir.join("conf/logback.xml"), LOGBACK)?;
    fs::write(dir.join("jvm.args"), JVM_ARGS.replace("@HEAP@", heap))
}

fn command(java: &Path, jars: &Path, dir: &Path) -> Result<Vec<String>, String> {
    let names = fs::read_dir(jars).map_err(|error| format!("{}: {error}", jars.display()))?;
    let mut names = names.flatten().map(|entry| entry.path());
    let agent = names.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("jamm-")));
    let agent = agent.ok_or_else(|| format!("{} holds no jamm; remove it to fetch it again", jars.display()))?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Ok(vec![
        text(java),
        format!("@{}", text(&dir.join("jvm.args"))),
        format!("-javaagent:{}", text(&agent)),
        format!("-Dcassandra.storagedir={}", text(&dir.join("data"))),
        "-cp".to_owned(),
        format!("{}:{}/*", text(&dir.join("conf")), text(jars)),
        "org.apache.cassandra.service.CassandraDaemon".to_owned(),
    ])
}
