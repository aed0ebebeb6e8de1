//! One connection of a client, with the buffers of its requests and answers.

use std::io::Write as _;
use std::net::SocketAddr;
use std::ops::Range;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::{Error, response};

/// A keep-alive connection that is opened on first use, and reopened after it broke.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    /// The next request; the caller writes it here.
    pub(crate) request: Vec<u8>,
    answer: Vec<u8>,
    body: Range<usize>,
}

impl Connection {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, request: Vec::with_capacity(1024), answer: Vec::with_capacity(4096), body: 0..0 }
    }

    /// Sends the request and reads its answer; returns the answer's status.
    pub(crate) async fn exchange(&mut self) -> std::io::Result<u16> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.address).await?,
        };
        // A connection that breaks here is not put back.
        stream.write_all(&self.request).await?;
        let response = response::read(&mut stream, &mut self.answer).await?;
        self.body = response.body;
        self.stream = Some(stream);
        Ok(response.status)
    }

    /// The body of the last answer.
    pub(crate) fn body(&self) -> &[u8] {
        &self.answer[self.body.clone()]
    }

    /// Sends a request that prepares a run; any status but 2xx ends the run.
    pub(crate) async fn ask(&mut self, key: &str, method: &str, path: &str, body: &Value) -> Result<Value, Error> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.request.clear();
        head(&mut self.request, method, path, self.address, key);
        write!(self.request, "content-length: {}\r\n\r\n{body}", body.len())?;
        self.answered(method, path).await
    }

    /// Sends a prepared request that prepares a run; any status but 2xx ends the run.
    pub(crate) async fn request(&mut self, request: &[u8]) -> Result<Value, Error> {
        self.request.clear();
        self.request.extend_from_slice(request);
        let end = request.iter().position(|byte| *byte == b'\r').unwrap_or(request.len());
        self.answered("", &String::from_utf8_lossy(&request[..end])).await
    }

    /// Reads a page that needs no key and is not part of the API.
    pub(crate) async fn look(&mut self, path: &str) -> Result<Value, Error> {
        Ok(serde_json::from_str(&self.text(path).await?)?)
    }

    /// The same, unparsed.
    pub(crate) async fn text(&mut self, path: &str) -> Result<String, Error> {
        self.request.clear();
        write!(self.request, "GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address)?;
        match self.exchange().await? {
            200 => Ok(String::from_utf8_lossy(self.body()).into_owned()),
            status => Err(format!("GET {path}: {status}").into()),
        }
    }

    async fn answered(&mut self, method: &str, path: &str) -> Result<Value, Error> {
        match self.exchange().await? {
            200..=299 if self.body().is_empty() => Ok(Value::Null),
            200..=299 => Ok(serde_json::from_slice(self.body())?),
            status => Err(format!("{method} {path}: {status} {}", String::from_utf8_lossy(self.body())).into()),
        }
    }
}

pub(crate) async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Writes the lines that every request begins with; `path` is below `/api/v1`.
pub(crate) fn head(out: &mut Vec<u8>, method: &str, path: &str, address: SocketAddr, key: &str) {
    // Writing into a vector does not fail.
    let _ = write!(
        out,
        "{method} /api/v1{path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\n"
    );
}
