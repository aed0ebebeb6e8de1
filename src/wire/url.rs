//! The one rule for every URL that a user gives.
//!
//! Faults visible in the URL itself are refused here, in the request; the addresses of a name are checked when the URL
//! is used, with the same [`is_public`].

pub mod address;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Position, Url};

use crate::json::fields::Value;
use crate::json::report::Report;
pub use crate::wire::url::address::is_public;

/// The longest URL, in characters.
pub const MAX_CHARS: usize = 2_048;
/// The longest URL of a file that is fetched once and then dropped: the signature for an object store alone may be
/// longer than other URLs.
pub const MAX_FILE_CHARS: usize = 8_192;

/// Names with these endings never leave the local network.
const LOCAL_SUFFIXES: [&str; 10] = [
    "localhost",
    "local",
    "internal",
    "home.arpa",
    "lan",
    "localdomain",
    // Endings that are no top-level domains, and that private networks use (RFC 6762, appendix G; ICANN's name
    // collisions).
    "home",
    "corp",
    "intranet",
    "private",
];

/// Ports that no URL may name, by the list of the Fetch standard (whatwg.org, "bad port").
const BLOCKED_PORTS: [u16; 83] = [
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531,
    532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060,
    5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
];

/// Whether a non-public address may be reached anyway (`TERTULIA_EGRESS_ALLOW`).
pub type Allow<'f> = &'f dyn Fn(IpAddr) -> bool;

/// The fault of a URL: a code and a sentence.
pub type UrlFault = (&'static str, String);

/// Checks one URL: absolute http or https, with a host, without user and password, not longer than [`MAX_CHARS`], and
/// not naming a non-public address or host unless `allow` permits the address.
///
/// # Errors
/// `invalid_url` or `blocked_url`.
pub fn check(text: &str, allow: Allow<'_>) -> Result<Url, UrlFault> {
    check_within(MAX_CHARS, text, allow)
}

fn check_within(most: usize, text: &str, allow: Allow<'_>) -> Result<Url, UrlFault> {
    let chars = text.chars().count();
    if chars > most {
        return Err(invalid(&format!("must have at most {most} characters, has {chars}")));
    }
    check_place(text, allow)
}

/// Checks a URL but for its length, which the caller bounds: one from a redirect, or a given one with a query appended.
///
/// # Errors
/// `invalid_url` or `blocked_url`.
pub fn check_place(text: &str, allow: Allow<'_>) -> Result<Url, UrlFault> {
    let authority = authority(text)?;
    if authority.contains('@') {
        return Err(invalid("must not contain a user or password"));
    }
    if let Some(zoned) = authority.strip_prefix('[').and_then(|rest| rest.split_once('%'))
        && zoned.0.parse::<Ipv6Addr>().is_ok()
    {
        return Err(blocked("an address with a zone belongs to the local network"));
    }
    let url = Url::parse(text).map_err(|error| invalid(&format!("is not a URL: {error}")))?;
    match url.host() {
        None => return Err(invalid("must name a host")),
        Some(Host::Ipv4(ip)) => check_address(ip.into(), url.port(), allow)?,
        Some(Host::Ipv6(ip)) => check_address(ip.into(), url.port(), allow)?,
        Some(Host::Domain(name)) => check_name(name, url.port(), allow)?,
    }
    if url[..Position::AfterQuery].parse::<http::Uri>().is_err() {
        return Err(invalid("cannot be sent in a request"));
    }
    Ok(url)
}

/// Checks a URL of a body and reports its fault; returns the given text if there is none.
pub fn read(value: &Value<'_>, report: &mut Report, allow: Allow<'_>) -> Option<String> {
    read_within(MAX_CHARS, value, report, allow)
}

/// Checks the URL of a file, which may be [`MAX_FILE_CHARS`] long, and reports its fault; returns the given text if
/// there is none.
pub fn read_of_file(value: &Value<'_>, report: &mut Report, allow: Allow<'_>) -> Option<String> {
    read_within(MAX_FILE_CHARS, value, report, allow)
}

fn read_within(most: usize, value: &Value<'_>, report: &mut Report, allow: Allow<'_>) -> Option<String> {
    let text = value.string(report, crate::json::fields::Length::ANY)?;
    match check_within(most, &text, allow) {
        Ok(_) => Some(text.into_owned()),
        Err((code, message)) => {
            report.fault(&value.path, code, message);
            None
        }
    }
}

fn invalid(message: &str) -> UrlFault {
    ("invalid_url", message.to_owned())
}

fn blocked(message: &str) -> UrlFault {
    ("blocked_url", message.to_owned())
}

/// The text between `://` and the path. The `url` crate repairs what browsers repair (missing or turned slashes,
/// spaces, line breaks); a URL that is stored and sent by a server must not need that.
fn authority(text: &str) -> Result<&str, UrlFault> {
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(invalid("must not contain spaces, control characters or backslashes"));
    }
    let (scheme, rest) = text.split_once("://").ok_or_else(|| invalid("must be an absolute http or https URL"))?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(invalid("must be an absolute http or https URL"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.starts_with(':') {
        return Err(invalid("must name a host"));
    }
    Ok(authority)
}

/// Whether an address may be reached: it is public, or `allow` permits it.
#[must_use]
pub fn may_reach(ip: IpAddr, allow: Allow<'_>) -> bool {
    let mapped = match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map(IpAddr::V4),
        IpAddr::V4(_) => None,
    };
    is_public(ip) || allow(ip) || mapped.is_some_and(allow)
}

/// `port` is `None` if it is the scheme's default. An allowed network is reachable at any port.
fn check_address(ip: IpAddr, port: Option<u16>, allow: Allow<'_>) -> Result<(), UrlFault> {
    if !may_reach(ip, allow) {
        return Err(blocked(&format!("{ip} is not a public address")));
    }
    if is_public(ip) { check_port(port) } else { Ok(()) }
}

/// Ports of other protocols that would misread a request, mail servers above all: those that browsers do not call
/// either.
fn check_port(port: Option<u16>) -> Result<(), UrlFault> {
    match port {
        Some(port) if BLOCKED_PORTS.contains(&port) => Err(blocked(&format!("port {port} is not a web server's port"))),
        _ => Ok(()),
    }
}

/// `name` is in lower case and ASCII, by the `url` crate.
fn check_name(name: &str, port: Option<u16>, allow: Allow<'_>) -> Result<(), UrlFault> {
    let bare = name.strip_suffix('.').unwrap_or(name);
    if bare.is_empty() || bare.split('.').any(str::is_empty) {
        return Err(invalid("must name a host"));
    }
    let under = |suffix: &str| bare.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let loopback_allowed = || allow(Ipv4Addr::LOCALHOST.into()) || allow(Ipv6Addr::LOCALHOST.into());
    if under("localhost") && loopback_allowed() {
        return Ok(());
    }
    if !bare.contains('.') || LOCAL_SUFFIXES.iter().any(|suffix| under(suffix)) {
        return Err(blocked(&format!("{bare} is a name of the local network")));
    }
    check_port(port)
}

#[cfg(test)]
mod tests;
