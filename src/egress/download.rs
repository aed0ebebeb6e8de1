//! Fetching a file.

use std::time::Duration;

use actors::id::Address;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::{Egress, Fault, exchange, uri};

/// The bounds of a download.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first look-up to the last byte, redirects and all.
    pub within: Duration,
    /// Bytes of the body.
    pub bytes: u64,
    /// Redirects that are followed.
    pub redirects: u32,
}

/// A file being received. Dropping it ends its connection.
#[derive(Debug)]
pub struct Download {
    body: Incoming,
    status: StatusCode,
    headers: HeaderMap,
    url: Url,
    received: u64,
    at_most: u64,
    deadline: Instant,
}

impl Egress {
    /// Begins to fetch the file at `url` for a workspace, following redirects; each is checked like the first URL.
    ///
    /// # Errors
    /// [`Fault`], also for an answer without success.
    pub async fn get(&self, workspace: Address, url: &str, limits: Limits) -> Result<Download, Fault> {
        let deadline = Instant::now() + limits.within;
        let mut url = self.guard.check_place(url)?;
        let mut left = limits.redirects;
        loop {
            let mut request = Request::new(Full::default());
            *request.uri_mut() = uri(&url)?;
            request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("*/*"));
            request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            let response = exchange(&self.fresh, workspace, request, deadline).await?;
            let Some(target) = redirect(&response) else { return Download::begin(response, url, limits, deadline) };
            left = left.checked_sub(1).ok_or(Fault::Redirect("too many redirects"))?;
            // A forbidden URL counts as an attempt to reach the inside.
            url = self.guard.check_place(target.of(&url)?.as_str()).map_err(|fault| match fault {
                Fault::InvalidUrl(why) => Fault::Blocked(format!("redirected to a URL that {why}")),
                fault => fault,
            })?;
        }
    }
}

/// The target of a redirect.
struct Target(Option<HeaderValue>);

impl Target {
    fn of(self, base: &Url) -> Result<Url, Fault> {
        let location = self.0.ok_or(Fault::Redirect("it has no Location"))?;
        let location = str::from_utf8(location.as_bytes()).map_err(|_| Fault::Redirect("its Location is not text"))?;
        base.join(location).map_err(|_| Fault::Redirect("its Location is not a URL"))
    }
}

fn redirect(response: &Response<Incoming>) -> Option<Target> {
    matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308)
        .then(|| Target(response.headers().get(header::LOCATION).cloned()))
}

impl Download {
    fn begin(response: Response<Incoming>, url: Url, limits: Limits, deadline: Instant) -> Result<Self, Fault> {
        let (head, body) = response.into_parts();
        // A part was not requested, and is not the file; nor is an empty answer.
        let file = head.status.is_success()
            && !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT);
        if !file {
            return Err(Fault::Status(head.status));
        }
        // A file that declares itself too large need not arrive. One that declares too little is counted.
        if body.size_hint().lower() > limits.bytes {
            return Err(Fault::TooLarge(limits.bytes));
        }
        let status = head.status;
        let headers = head.headers;
        Ok(Self { body, status, headers, url, received: 0, at_most: limits.bytes, deadline })
    }

    /// The final URL of the file.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The status of its answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers of its answer.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`Fault::TooLarge`], [`Fault::Timeout`], [`Fault::Broken`], or [`Fault::Empty`] where no byte ever came.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let frame = match timeout_at(self.deadline, self.body.frame()).await {
                Err(_) => return Err(Fault::Timeout),
                Ok(None) if self.received == 0 => return Err(Fault::Empty),
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => frame.map_err(|error| Fault::of(&error))?,
            };
            // Trailers say nothing here.
            let Ok(data) = frame.into_data() else { continue };
            self.received += data.len() as u64;
            if self.received > self.at_most {
                return Err(Fault::TooLarge(self.at_most));
            }
            return Ok(Some(data));
        }
    }
}
