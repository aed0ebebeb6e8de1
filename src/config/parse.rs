//! Parsing settings. An error is a phrase that names the allowed values.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;

use super::{LogFormat, Secret, StoreKind};
use crate::http::headers::auth::MAX_KEY_BYTES;
use crate::wire::digits::digits;

/// Shortest bootstrap key: 32 characters of even a small alphabet cannot be guessed.
const MIN_API_KEY_CHARS: usize = 32;

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "an IP address and a port, such as 127.0.0.1:8080 or [::]:8080".to_owned())
}

pub(super) fn addresses(text: &str) -> Result<Vec<SocketAddr>, String> {
    let addresses = text.split(',').map(str::trim).filter(|address| !address.is_empty());
    addresses
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| "IP addresses with ports, comma-separated, such as 9.9.9.9:53,[2620:fe::fe]:53".to_owned())
}

pub(super) fn number(text: &str, allowed: RangeInclusive<u64>) -> Result<u64, String> {
    digits(text)
        .filter(|number| allowed.contains(number))
        .ok_or_else(|| format!("a whole number from {} to {}", allowed.start(), allowed.end()))
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

pub(super) fn store(text: &str) -> Result<StoreKind, String> {
    match text {
        "embedded" => Ok(StoreKind::Embedded),
        "cql" => Ok(StoreKind::Cql),
        _ => Err("embedded or cql".to_owned()),
    }
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') { Err("a directory".to_owned()) } else { Ok(PathBuf::from(text)) }
}

pub(super) fn nodes(text: &str) -> Result<Vec<String>, String> {
    let nodes: Vec<String> =
        text.split(',').map(str::trim).filter(|node| !node.is_empty()).map(str::to_owned).collect();
    if nodes.iter().all(|node| is_node(node)) {
        Ok(nodes)
    } else {
        Err("host:port of each node, comma-separated, such as db-1:9042,[2001:db8::2]:9042".to_owned())
    }
}

fn is_node(node: &str) -> bool {
    let Some((host, port)) = node.rsplit_once(':') else { return false };
    let host_is_fine = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
    };
    host_is_fine && number(port, 1..=65_535).is_ok()
}

pub(super) fn keyspace(text: &str) -> Result<String, String> {
    let is_name = text.len() <= 48
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_name { Ok(text.to_owned()) } else { Err("a letter, then letters, digits and _, at most 48".to_owned()) }
}

pub(super) fn filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    // The parser takes a misspelt level as the name of a target and enables everything there.
    let levels_are_known = text.split(',').map(str::trim).all(|directive| {
        directive.contains(['=', '[']) || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(directive))
    });
    if levels_are_known && EnvFilter::try_new(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err(format!("a level ({}) or target=level, comma-separated", LEVELS.join(", ")))
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        _ => Err("json or text".to_owned()),
    }
}

pub(super) fn endpoint(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Some(text.to_owned())),
        _ => Err("an http or https URL, such as http://localhost:4317".to_owned()),
    }
}

/// The longest accepted origin of a URL; a name has at most 253 characters.
const MAX_ORIGIN_BYTES: usize = 300;

/// Scheme, host and port, in the form for other servers.
pub(super) fn origin(text: &str) -> Result<Option<Arc<str>>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let url = endpoint(text).ok().flatten().and_then(|text| url::Url::parse(&text).ok());
    let is_bare = |url: &url::Url| {
        let has_user = !url.username().is_empty() || url.password().is_some();
        url.path() == "/" && url.query().is_none() && url.fragment().is_none() && !has_user
    };
    match url.filter(is_bare).map(|url| url.origin().ascii_serialization()) {
        Some(origin) if origin.len() <= MAX_ORIGIN_BYTES => Ok(Some(origin.into())),
        _ => Err("scheme, host and port of an http or https URL, such as http://10.0.0.7:8080".to_owned()),
    }
}

pub(super) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 255 { Err("a name of 1 to 255 bytes".to_owned()) } else { Ok(text.to_owned()) }
}

pub(super) fn token(text: &str) -> Result<Option<Secret>, String> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok((!text.is_empty()).then(|| Secret(text.to_owned())))
    } else {
        Err("visible ASCII characters, or empty".to_owned())
    }
}

pub(super) fn api_key(text: &str) -> Result<Option<Secret>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let is_key =
        (MIN_API_KEY_CHARS..=MAX_KEY_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_key {
        Ok(Some(Secret(text.to_owned())))
    } else {
        Err(format!("{MIN_API_KEY_CHARS} to {MAX_KEY_BYTES} visible ASCII characters; the value is not shown"))
    }
}
