//! A Restate server for a run, and the handler that it calls.
//!
//! The server's program must be installed; the handler is built (`benches/peers/restate`). Everything stays on the
//! loopback address. What the server acknowledges is in its log, which is synced first: that is its default, and the
//! settings state it.

use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::runtime;

use crate::Error;
use crate::connection::Connection;
use crate::dialect::{Dialect, Parts, lines, with_length};
use crate::installed;
use crate::server::{self, Server};

/// Names the server's program, where it is not on the path.
const PROGRAM: &str = "RESTATE_SERVER";
const MISSING: &str = "there is no Restate here: `npm install @restatedev/restate-server@1.7.12`, then have \
                       RESTATE_SERVER name the program in node_modules/@restatedev/restate-server-linux-x64/bin";
/// The settings that differ from the defaults, and the defaults that the comparison rests on.
const SETTINGS: &str = r#"
roles = ["http-ingress", "admin", "worker", "log-server", "metadata-server"]
node-name = "peer"
cluster-name = "load"
auto-provision = true
bind-ip = "127.0.0.1"
listen-mode = "tcp"
use-random-ports = true
# Every partition has a log and a processor of its own, and the machine two cores.
default-num-partitions = 2
disable-telemetry = true
log-format = "compact"
log-disable-ansi-codes = true
# The lines that say where it listens.
log-filter = "warn,restate_core::network::net_util=info,restate_ingress_http=info"

[worker.invoker]
# A call brings the object's last sequence, not its messages.
eager-state-size-limit = "64 B"

[admin]
disable-web-ui = true

[log-server]
# Its default: no acknowledgement before the log is on the disk.
rocksdb-disable-wal-fsync = false
"#;
/// A file in the data directory: the handler's address, once the server knows it.
const HANDLER: &str = "handler";

/// A Restate on the data in `dir`, which is created if needed and removed in the end, with the handler.
pub(crate) fn start_in(handler: &Path, dir: &Path) -> Result<Server, Error> {
    let program = program()?;
    fs::create_dir_all(dir)?;
    let settings = dir.join("restate.toml");
    fs::write(&settings, SETTINGS)?;
    // Calls that were in flight at the kill return to the address where they began, so the handler listens there again.
    let known = fs::read_to_string(dir.join(HANDLER)).ok();
    let mut command = Command::new(handler);
    command.arg(known.as_deref().unwrap_or("127.0.0.1:0"));
    let (handler, address) = server::spawn(command, None, server::address_in)?;
    let mut command = Command::new(program);
    command.arg("--no-logo").arg("--config-file").arg(&settings).arg("--base-dir").arg(dir.join("data"));
    command.stderr(Stdio::null());
    let mut ports = [None, None];
    let (server, [ingress, admin]) = server::spawn(command, Some(dir.to_owned()), move |line| {
        for (port, name) in ports.iter_mut().zip(["http-ingress-server", "admin-api-server"]) {
            *port = port.or_else(|| listens(line, name));
        }
        Some([ports[0]?, ports[1]?])
    })?;
    if known.is_none() {
        register(admin, address)?;
        fs::write(dir.join(HANDLER), address.to_string())?;
    }
    Ok(Server::new(ingress, server, Arc::new(Restate { ingress })).with(handler))
}

/// The server's program. npm puts a script on the path that starts the program and ends without it, so a script is
/// refused.
pub(crate) fn program() -> Result<PathBuf, Error> {
    let program = installed::find(PROGRAM, "restate-server").ok_or(MISSING)?;
    let mut first = [0; 2];
    fs::File::open(&program)?.read_exact(&mut first)?;
    if &first == b"#!" { Err(format!("{} is a script; {MISSING}", program.display()).into()) } else { Ok(program) }
}

/// The address of one of its servers, if the line names it.
fn listens(line: &str, name: &str) -> Option<SocketAddr> {
    let (_, line) = line.split_once(&format!("server_name={name} "))?;
    let (_, port) = line.split_once("server.port=")?;
    let digits = port.split(|c: char| !c.is_ascii_digit()).next()?;
    Some(([127, 0, 0, 1], digits.parse().ok()?).into())
}

/// Registers the handler at the server.
fn register(admin: SocketAddr, handler: SocketAddr) -> Result<(), Error> {
    let mut request = lines("POST", "/deployments", admin, "");
    request.extend(with_length(&json!({ "uri": format!("http://{handler}") }).to_string()));
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Connection::new(admin).request(&request)).map(drop)
}

/// Calls of the virtual object through the ingress.
struct Restate {
    ingress: SocketAddr,
}

impl Restate {
    fn call(&self, conversation: &str, handler: &str) -> Vec<u8> {
        lines("POST", &format!("/Conversation/{conversation}/{handler}"), self.ingress, "")
    }
}

impl Dialect for Restate {
    fn open(&self, nth: u32) -> Vec<u8> {
        // An object exists as soon as it has state.
        let mut request = self.call(&name(nth), "append");
        request.extend(with_length(r#"{"content":{"content":"Hello"}}"#));
        request
    }

    fn opened(&self, nth: u32, _: &Value) -> Option<String> {
        Some(name(nth))
    }

    fn append(&self, conversation: &str, text: &str) -> Parts {
        // As long as the other servers' bodies; the handler does not use the conversation in it.
        let body = format!(
            r#"{{"content":{{"content":"{text}","role":"user","sender_id":"customer-17"}},"conversation_id":"{conversation}"}}"#
        );
        let around = ["idempotency-key: ", "\r\n"];
        Parts { before: self.call(conversation, "append"), around, after: with_length(&body) }
    }

    fn kept(&self, answer: &Value) -> Option<Value> {
        answer["id"].is_string().then(|| answer.clone())
    }

    fn find(&self, conversation: &str, kept: &Value) -> Option<Vec<u8>> {
        // The id of an invocation comes from its key: after a lost append, a repeated one would get the same id.
        let mut request = self.call(conversation, "find");
        request.extend(with_length(&kept["seq"].to_string()));
        Some(request)
    }
}

fn name(nth: u32) -> String {
    format!("conv_{nth:026}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_each_server_is_found_in_its_line() {
        let line = "INFO server: restate_core::network::net_util: Server listening server_name=admin-api-server \
                    server.address=\"127.0.0.1\" server.port=37921";
        assert_eq!(listens(line, "admin-api-server"), Some(([127, 0, 0, 1], 37921).into()));
        assert_eq!(listens(line, "http-ingress-server"), None);
    }
}
