//! A Synapse for a run: a server for conversations by the Matrix protocol, whose sends are idempotent by a key in their
//! path.
//! Its program must be installed. It is configured to do nothing but store messages, as fast as it can: no rate limits,
//! no presence, no search, no push. Its database is SQLite, in the mode that Synapse chooses: a write-ahead log that is
//! synced with every transaction.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::runtime;

use crate::Error;
use crate::connection::Connection;
use crate::dialect::{Dialect, Parts, lines, with_length};
use crate::installed;
use crate::server::{self, Server};

/// Names the program, where it is not on the path.
const PROGRAM: &str = "SYNAPSE_HOMESERVER";
const MISSING: &str = "there is no Synapse here: `pip install matrix-synapse==1.163.2` in an environment of its own, \
                       then have SYNAPSE_HOMESERVER name its bin/synapse_homeserver";
/// A run has at most so many rooms, because Synapse takes long to create one.
pub(crate) const ROOMS: u32 = 200;
/// `DIR` stands for the data directory. The settings end with those of the database.
const SETTINGS: &str = r#"
server_name: localhost
report_stats: false
signing_key_path: DIR/signing.key
log_config: DIR/log.yaml
media_store_path: DIR/media
trusted_key_servers: []
federation_domain_whitelist: []
listeners: [{port: 0, type: http, bind_addresses: [127.0.0.1], resources: [{names: [client]}]}]
enable_registration: true
enable_registration_without_verification: true
registration_shared_secret: of-this-run-alone
macaroon_secret_key: of-this-run-alone
form_secret: of-this-run-alone
rc_message: &never {per_second: 1000000, burst_count: 1000000}
rc_room_creation: *never
rc_registration: *never
rc_login: {address: *never, account: *never, failed_attempts: *never}
rc_joins: {local: *never, remote: *never}
presence: {enabled: false}
push: {enabled: false}
stats: {enabled: false}
user_directory: {enabled: false}
enable_search: false
caches: {global_factor: 2.0}
database: {name: sqlite3, args: {database: DIR/homeserver.db}}
"#;
const LOG: &str = r#"
version: 1
formatters: {plain: {format: "%(message)s"}}
handlers: {out: {class: logging.StreamHandler, stream: "ext://sys.stdout", formatter: plain}}
# The line that says where it listens.
loggers: {synapse.app: {level: INFO}}
root: {level: WARNING, handlers: [out]}
"#;
/// The key that signs its events; it speaks to no other server.
const SIGNING_KEY: &str = "ed25519 load AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";
/// The user that sends everything; the keys of sends are scoped to the device.
const USER: &str = "load";
const PASSWORD: &str = "of-this-run-alone";
const CLIENT: &str = "/_matrix/client/v3";

/// A Synapse on the data in `dir`, which is created if needed and removed in the end.
pub(crate) fn start_in(dir: &Path) -> Result<Server, Error> {
    let program = installed::find(PROGRAM, "synapse_homeserver").ok_or(MISSING)?;
    let is_new = !dir.exists();
    fs::create_dir_all(dir)?;
    let settings = dir.join("homeserver.yaml");
    let dir_name = dir.to_str().ok_or("the data directory is no text")?;
    fs::write(&settings, SETTINGS.replace("DIR", dir_name))?;
    fs::write(dir.join("log.yaml"), LOG)?;
    fs::write(dir.join("signing.key"), SIGNING_KEY)?;
    let mut command = Command::new(program);
    command.arg("--config-path").arg(&settings).current_dir(dir).stderr(Stdio::null());
    let (process, address) = server::spawn(command, Some(dir.to_owned()), listens)?;
    let token = token(address, is_new)?;
    Ok(Server::new(address, process, Arc::new(Synapse { address, authorization: authorization(&token) })))
}

/// Its address, if the line names it.
fn listens(line: &str) -> Option<SocketAddr> {
    let (_, port) = line.split_once("now listening on TCP port ")?;
    Some(([127, 0, 0, 1], port.trim().parse().ok()?).into())
}

/// The token of the user's requests: of a new user, or of the existing one.
fn token(address: SocketAddr, is_new: bool) -> Result<String, Error> {
    let (path, body) = if is_new {
        let auth = json!({"type": "m.login.dummy"});
        ("register", json!({"username": USER, "password": PASSWORD, "device_id": USER, "auth": auth}))
    } else {
        let who = json!({"type": "m.id.user", "user": USER});
        ("login", json!({"type": "m.login.password", "identifier": who, "password": PASSWORD, "device_id": USER}))
    };
    let mut request = lines("POST", &format!("{CLIENT}/{path}"), address, "");
    request.extend(with_length(&body.to_string()));
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(Connection::new(address).request(&request))?;
    let token = answer["access_token"].as_str();
    Ok(token.ok_or("Synapse gave its user no token")?.to_owned())
}

fn authorization(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

/// The client API of Matrix.
struct Synapse {
    address: SocketAddr,
    /// The header line.
    authorization: String,
}

impl Dialect for Synapse {
    fn open(&self, _: u32) -> Vec<u8> {
        let mut request = lines("POST", &format!("{CLIENT}/createRoom"), self.address, &self.authorization);
        request.extend(with_length(r#"{"preset":"private_chat"}"#));
        request
    }

    fn opened(&self, _: u32, answer: &Value) -> Option<String> {
        Some(answer["room_id"].as_str()?.to_owned())
    }

    fn append(&self, conversation: &str, text: &str) -> Parts {
        // Custom fields bring the body to the length of the other servers' bodies.
        let body = format!(
            r#"{{"msgtype":"m.text","body":"{text}","org.example.kind":"support","org.example.role":"user","org.example.sender":"customer-17"}}"#
        );
        let before = format!("PUT {CLIENT}/rooms/{conversation}/send/m.room.message/").into_bytes();
        let mut after =
            format!(" HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n{}", self.address, self.authorization)
                .into_bytes();
        after.extend(with_length(&body));
        Parts { before, around: ["", ""], after }
    }

    fn kept(&self, answer: &Value) -> Option<Value> {
        answer["event_id"].is_string().then(|| answer["event_id"].clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listening_address_is_read_from_the_servers_log() {
        assert_eq!(listens("Synapse now listening on TCP port 43593"), Some(([127, 0, 0, 1], 43593).into()));
        assert_eq!(listens("Set file limit to: 20000"), None);
    }

    #[test]
    fn a_send_has_its_key_in_its_path_and_a_body_of_about_300_bytes() {
        let address = ([127, 0, 0, 1], 80).into();
        let synapse = Synapse { address, authorization: authorization("t") };
        let Parts { before, after, .. } = synapse.append("!room", crate::scenario::append::WORDS);
        let request = String::from_utf8([before, b"key".to_vec(), after].concat()).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("PUT /_matrix/client/v3/rooms/!room/send/m.room.message/key HTTP/1.1\r\n"), "{head}");
        assert!((270..330).contains(&body.len()), "{} bytes", body.len());
    }
}
