//! Reading another server's response body up to a limit. Bytes are counted as they arrive, because `Content-Length`
//! cannot be trusted.

use bytes::{Bytes, BytesMut};
use reqwest::Response;

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It exceeds the limit.
    TooLarge,
    /// It broke off.
    Broken,
}

/// The body, if it has at most `at_most` bytes.
///
/// # Errors
/// [`Unread`].
pub(crate) async fn body(mut response: Response, at_most: usize) -> Result<Bytes, Unread> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| Unread::Broken)? {
        if body.len() + chunk.len() > at_most {
            return Err(Unread::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}
