//! Parsing the URLs of receivers and of models' endpoints, and the parts of them that may be logged. They were
//! validated when they were stored.

/// The part of a URL that may be logged: path and query may hold secrets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Server<'a> {
    pub(crate) scheme: &'a str,
    pub(crate) host: &'a str,
    pub(crate) port: u32,
}

impl<'a> Server<'a> {
    /// The server of a URL.
    pub(crate) fn of(url: &'a str) -> Self {
        let (scheme, authority) = origin(url).split_once("://").unwrap_or(("https", url));
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let usual = if scheme.eq_ignore_ascii_case("http") { 80 } else { 443 };
        // In an IPv6 address colons are inside brackets.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port.parse().ok()),
            _ => (authority, None),
        };
        Self { scheme, host, port: port.unwrap_or(usual) }
    }
}

/// Scheme, host and port of a URL, as they are written.
pub(crate) fn origin(url: &str) -> &str {
    let path = url.find("://").and_then(|at| url[at + 3..].find(['/', '?', '#']).map(|path| at + 3 + path));
    path.map_or(url, |path| &url[..path])
}

/// Whether two URLs are the same, however they are written: the case of scheme and host, the usual port, an empty path
/// instead of `/`, and a fragment, which is not sent, make no difference.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    // The most likely difference comes first.
    if target(one) != target(other) {
        return false;
    }
    let one = Server::of(one);
    let other = Server::of(other);
    one.port == other.port && one.scheme.eq_ignore_ascii_case(other.scheme) && one.host.eq_ignore_ascii_case(other.host)
}

/// The request target as written: path and query.
fn target(url: &str) -> (&str, &str) {
    let after_origin = &url[origin(url).len()..];
    let sent = after_origin.split_once('#').map_or(after_origin, |(sent, _)| sent);
    let path_len = sent.find('?').unwrap_or(sent.len());
    let (path, query) = sent.split_at(path_len);
    (if path.is_empty() { "/" } else { path }, query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scheme_host_and_port_of_a_url_are_logged() {
        let of = |url| {
            let Server { scheme, host, port } = Server::of(url);
            (scheme, host, port)
        };
        assert_eq!(of("https://hooks.example.com/T01/secret?token=1"), ("https", "hooks.example.com", 443));
        assert_eq!(of("http://example.com?token=secret@else:1"), ("http", "example.com", 80));
        assert_eq!(of("https://user:secret@example.com:8443/a:1"), ("https", "example.com", 8443));
        assert_eq!(of("https://[2001:db8::1]/a"), ("https", "[2001:db8::1]", 443));
        assert_eq!(of("http://[2001:db8::1]:8080"), ("http", "[2001:db8::1]", 8080));
    }

    #[test]
    fn one_place_may_be_written_in_several_ways() {
        for (one, other, same) in [
            ("https://a.com/x?y=1", "https://a.com/x?y=1", true),
            ("HTTPS://A.com/x?y=1", "https://a.com:443/x?y=1#part", true),
            ("http://a.com", "http://a.com:80/#", true),
            ("http://a.com?q", "http://a.com/?q", true),
            ("http://a.com/x", "http://a.com/X", false),
            ("http://a.com/x", "https://a.com/x", false),
            ("http://a.com/x", "http://a.com:81/x", false),
            ("http://a.com/x?a", "http://a.com/x?b", false),
            ("http://a.com/x", "http://b.com/x", false),
        ] {
            assert_eq!(is_same(one, other), same, "{one} {other}");
            assert_eq!(is_same(other, one), same, "{other} {one}");
        }
    }
}
