//! A whole request through the router, without a socket, over a store that costs nothing.

use std::io;
use std::sync::Arc;

use actors::clock::{Entropy, SystemClock};
use actors::node::Node;
use actors::ports::Ports;
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use tertulia::app::{App, ExternalClients};
use tertulia::bootstrap;
use tertulia::config::{Config, ConfigArgs};
use tertulia::egress::Egress;
use tertulia::files::FileStore;
use tower::ServiceExt as _;

use super::forgetful::Forgetful;
use super::running::runtime;
use super::{Once, WORDS};
use crate::Error;

const KEY: &str = "micro-0123456789abcdef0123456789abcdef";
const AUTHORIZATION: &str = "Bearer micro-0123456789abcdef0123456789abcdef";

/// `POST /api/v1/messages` with a key of its own, from the parsed head to the last byte of the answer.
pub(super) fn request() -> Result<Once, Error> {
    let runtime = runtime()?;
    let router = runtime.block_on(async {
        let config = Config::load(&ConfigArgs::default(), &|_| None, &|_| Err(io::ErrorKind::NotFound.into()))?;
        let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
        let outside = ExternalClients {
            egress: Egress::new(config.egress_allow.clone(), &config.egress_name_servers)?,
            files: FileStore::directory(dir)?,
        };
        let ports = Ports { files: Arc::new(outside.files.clone()), ..Ports::default() };
        let store = Arc::new(Forgetful::default());
        let node = Node::start(store, Arc::new(SystemClock), Entropy::seeded([7; 32]), ports);
        let announce = |_: &str| -> io::Result<()> { unreachable!("the key is configured") };
        let pepper = bootstrap::run(&node, Some(KEY), announce).await?;
        Ok::<_, Error>(tertulia::http::router(App::new(node, pepper, outside, &config)))
    })?;
    let open = r#"{"content":{"content":"Hello"},"conversation_id":null}"#;
    let (status, answer) = runtime.block_on(ask(&router, open.to_owned(), 0))?;
    let opened: serde_json::Value = serde_json::from_slice(&answer)?;
    let id = opened[0]["conversation_id"].as_str().ok_or_else(|| format!("no conversation was opened: {status}"))?;
    let body = format!(
        r#"{{"content":{{"content":"{WORDS}","role":"user","sender_id":"customer-17"}},"conversation_id":"{id}"}}"#
    );
    let mut nth = 0;
    Ok(Box::new(move || {
        nth += 1;
        let answer = runtime.block_on(ask(&router, body.clone(), nth));
        assert!(matches!(answer, Ok((StatusCode::OK, _))), "{answer:?}");
    }))
}

/// One request; returns its answer to the last byte.
async fn ask(router: &Router, body: String, nth: u64) -> Result<(StatusCode, Bytes), Error> {
    let request = Request::post("/api/v1/messages")
        .header(header::HOST, "127.0.0.1:8080")
        .header(header::AUTHORIZATION, AUTHORIZATION)
        .header(header::CONTENT_TYPE, "application/json")
        .header("idempotency-key", format!("micro-{nth:016}"))
        .body(Body::from(body))?;
    let (head, body) = router.clone().oneshot(request).await?.into_parts();
    Ok((head.status, body.collect().await?.to_bytes()))
}
