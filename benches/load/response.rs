//! Responses, read as cheaply as a generator needs: the status, and where the next one begins.

use std::io::{Error, ErrorKind};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// The longest response that is read; the real ones are about 1 KiB.
const LONGEST: usize = 256 * 1024;

/// A response's status and the place of its body in the buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: std::ops::Range<usize>,
}

/// Reads one response into `buffer`, replacing what was there. Between responses nothing may be left over, as a
/// client with one request in flight gets exactly one.
pub(crate) async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Response, Error> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        match parse(buffer)? {
            Some(response) if buffer.len() == response.body.end => return Ok(response),
            Some(response) if buffer.len() > response.body.end => return Err(invalid("more than one response")),
            _ if buffer.len() > LONGEST => return Err(invalid("a response too long")),
            _ => {}
        }
    }
}

/// The response whose head is whole; its body may still be on the way.
fn parse(bytes: &[u8]) -> Result<Option<Response>, Error> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| invalid("a head that is no text"))?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| invalid("no status line"))?;
    let mut headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, value)| value.trim().parse::<usize>().ok());
    let length = length.ok_or_else(|| invalid("a response without its length"))?;
    let start = end + 4;
    Ok(Some(Response { status, body: start..start.saturating_add(length) }))
}

fn invalid(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_known_as_soon_as_its_head_is_whole() {
        let whole = b"HTTP/1.1 201 Created\r\nDate: today\r\nContent-Length: 2\r\n\r\n{}";
        let expected = Response { status: 201, body: whole.len() - 2..whole.len() };
        assert_eq!(parse(whole).unwrap(), Some(expected));
        assert_eq!(parse(&whole[..whole.len() - 4]).unwrap(), None);
        for broken in [&b"SSH-2.0\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"] {
            assert!(parse(broken).is_err());
        }
    }
}
