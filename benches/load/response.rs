//! Responses, read as cheaply as a generator needs: the status, and where the next response begins.

use std::io::{Error, ErrorKind};
use std::ops::Range;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// The longest response that can be read; the real ones are about 1 KiB.
const LONGEST: usize = 256 * 1024;

/// The end of the only chunk of a body, and of the body.
const LAST: &[u8] = b"\r\n0\r\n\r\n";

/// A response's status, and the position of its body in the buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Range<usize>,
    /// The length of the whole response.
    whole: usize,
}

/// Reads one response into `buffer`, replacing its content. Nothing may be left over between responses, because a
/// client with one request in flight gets exactly one.
pub(crate) async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Response, Error> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        match parse(buffer)? {
            Some(response) if buffer.len() == response.whole => return Ok(response),
            Some(response) if buffer.len() > response.whole => return Err(invalid("more than one response")),
            _ if buffer.len() > LONGEST => return Err(invalid("a response too long")),
            _ => {}
        }
    }
}

/// The response, once its head is complete; its body may be incomplete.
fn parse(bytes: &[u8]) -> Result<Option<Response>, Error> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| invalid("a head that is no text"))?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| invalid("no status line"))?;
    let headers = || head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let header =
        |name: &str| headers().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
    let start = end + 4;
    if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        return Ok(chunk(bytes, start)?.map(|body| Response { status, whole: body.end + LAST.len(), body }));
    }
    let length = header("content-length").and_then(|value| value.parse::<usize>().ok());
    let end = start.saturating_add(length.ok_or_else(|| invalid("a response without its length"))?);
    Ok(Some(Response { status, body: start..end, whole: end }))
}

/// The only chunk of a body, once it is complete.
fn chunk(bytes: &[u8], start: usize) -> Result<Option<Range<usize>>, Error> {
    let rest = &bytes[start..];
    let Some(line) = rest.windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
    let size = std::str::from_utf8(&rest[..line]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
    let size = size.ok_or_else(|| invalid("a chunk without its size"))?;
    let body = start + line + 2..(start + line + 2).saturating_add(size);
    match bytes.get(body.end..) {
        Some(rest) if rest.len() >= LAST.len() && !rest.starts_with(LAST) => Err(invalid("a response in pieces")),
        Some(rest) if rest.len() >= LAST.len() => Ok(Some(body)),
        _ => Ok(None),
    }
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
        let expected = Response { status: 201, body: whole.len() - 2..whole.len(), whole: whole.len() };
        assert_eq!(parse(whole).unwrap(), Some(expected));
        assert_eq!(parse(&whole[..whole.len() - 4]).unwrap(), None);
        for broken in [&b"SSH-2.0\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\n\r\n"] {
            assert!(parse(broken).is_err());
        }
    }

    #[test]
    fn a_body_in_one_chunk_is_read_too() {
        let whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        let body = whole.len() - 9..whole.len() - 7;
        assert_eq!(parse(whole).unwrap(), Some(Response { status: 200, body, whole: whole.len() }));
        for end in whole.len() - 12..whole.len() {
            assert_eq!(parse(&whole[..end]).unwrap(), None, "{end}");
        }
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        for broken in [&b"x\r\n"[..], b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"] {
            assert!(parse(&[head, broken].concat()).is_err());
        }
    }
}
