//! ScyllaDB in a container.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use crate::keeper::Running;
use crate::node::Node;

/// The minimum version for production; tablets and RF 3 matter only there, one node is enough here.
const IMAGE: &str = "scylladb/scylla:2026.2";

/// One node on a free port of this machine.
pub(crate) fn start(note: &dyn Fn(String)) -> Result<Running, String> {
    let docker = |args: &[&str]| -> Result<(), String> {
        let ran = Command::new("docker").args(args).stdin(Stdio::null()).output();
        let ran = ran.map_err(|error| format!("docker: {error}"))?;
        let words = String::from_utf8_lossy(&ran.stderr);
        if ran.status.success() { Ok(()) } else { Err(words.lines().last().unwrap_or("it failed").trim().to_owned()) }
    };
    docker(&["version", "--format", "{{.Server.Version}}"])?;
    if docker(&["image", "inspect", IMAGE]).is_err() {
        note(format!("pulling {IMAGE}"));
        docker(&["pull", "--quiet", IMAGE])?;
    }
    let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free().map_err(|error| error.to_string())?;
    note(format!("starting {IMAGE} at {address}"));
    let name = format!("tertulia-bed-{}", std::process::id());
    // Killing the client does not end its container.
    let mut node = Node::new(command(&name, address.port()), std::env::temp_dir(), address)
        .and_then(format!("docker rm -f {name} >/dev/null 2>&1"));
    node.start()?;
    Ok(Running { nodes: vec![node], addresses: vec![address.to_string()] })
}

/// The port is the same inside and outside, so that a driver can use the address that the node reports.
fn command(name: &str, port: u16) -> Vec<String> {
    let words = format!(
        "docker run --rm --name {name} -p 127.0.0.1:{port}:{port} {IMAGE} --smp 1 --memory 1G --overprovisioned 1 \
         --developer-mode 1 --rpc-address 0.0.0.0 --broadcast-rpc-address 127.0.0.1 --native-transport-port {port}"
    );
    words.split_whitespace().map(str::to_owned).collect()
}
