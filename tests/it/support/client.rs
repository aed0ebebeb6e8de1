//! A blocking HTTP/1.1 client for tests of the program itself: one connection, JSON only.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::support::ADMIN_KEY;

/// A keep-alive connection.
pub(crate) struct Client(BufReader<TcpStream>);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) replayed: bool,
    /// The trace and span of the request, from the answer's header.
    pub(crate) traceparent: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Client {
    /// Connects. A server counts as dead if it is silent for longer than it may wait for an agent.
    pub(crate) fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(90)))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request with the admin key and reads the whole answer; an error if the connection breaks before.
    pub(crate) fn send(&mut self, method: &str, path: &str, key: Option<&str>, body: &str) -> io::Result<Reply> {
        self.send_as(ADMIN_KEY, method, path, key, body)
    }

    /// The same with another API key.
    pub(crate) fn send_as(
        &mut self,
        api_key: &str,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> io::Result<Reply> {
        let key = key.map_or_else(String::new, |key| format!("Idempotency-Key: {key}\r\n"));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nX-API-Key: {api_key}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{key}\r\n",
            body.len()
        );
        self.0.get_mut().write_all(format!("{head}{body}").as_bytes())?;
        self.read()
    }

    fn read(&mut self) -> io::Result<Reply> {
        let broken = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let first = self.line()?;
        let status = first.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
        let mut length = None;
        let mut replayed = false;
        let mut traceparent = String::new();
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().ok(),
                Some(("idempotent-replayed", value)) => replayed = value == "true",
                Some(("traceparent", value)) => value.clone_into(&mut traceparent),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length.ok_or_else(broken)?];
        self.0.read_exact(&mut body)?;
        Ok(Reply { status, body, replayed, traceparent })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// All entries of a list, page by page.
pub(crate) fn all(client: &mut Client, path: &str) -> Vec<Value> {
    let mut data = Vec::new();
    let mut cursor = String::new();
    loop {
        let joint = if path.contains('?') { '&' } else { '?' };
        let page = client.send("GET", &format!("{path}{joint}limit=200{cursor}"), None, "").unwrap();
        assert_eq!(page.status, 200, "{path}");
        let page = page.json();
        data.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return data,
        }
    }
}
