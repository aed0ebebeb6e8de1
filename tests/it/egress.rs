//! What users' URLs reach, and what they never reach: over real sockets, with a name server of the tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actors::id::Address;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use tertulia::egress::{Egress, Fault, Limits, Outgoing, Reply};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::support::dns::Dns;
use crate::support::origin::{Origin, Part, bare, ok};

mod everywhere;
mod kept;
pub(crate) mod notations;

/// Enough time for anything on one machine.
const PLENTY: Duration = Duration::from_secs(20);
const LIMITS: Limits = Limits { within: PLENTY, bytes: 1 << 20, redirects: 3 };

/// The workspace of most calls.
const WORKSPACE: Address = Address([1; 10]);

fn egress(allow: &str, name_servers: &[SocketAddr]) -> Egress {
    Egress::new(allow.parse().unwrap(), name_servers).unwrap()
}

/// A request of this workspace.
fn outgoing(workspace: Address, url: &str) -> Outgoing<'_> {
    let body = Bytes::from_static(b"{}");
    Outgoing { workspace, method: Method::POST, url, headers: HeaderMap::new(), body }
}

async fn post(egress: &Egress, url: &str) -> Result<Reply, Fault> {
    egress.send(outgoing(WORKSPACE, url), PLENTY).await
}

/// Fetches a whole file.
async fn get(egress: &Egress, url: &str, limits: Limits) -> Result<Vec<u8>, Fault> {
    let mut download = egress.get(WORKSPACE, url, limits).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = download.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The table: URLs that are refused before a socket is opened, each with a placeholder for the canary's port.
fn forbidden() -> Vec<String> {
    let v4 = notations::PRIVATE_V4.iter().flat_map(|ip| notations::of_v4(*ip));
    let v6 = notations::PRIVATE_V6.iter().map(|ip| format!("[{ip}]"));
    let names = notations::LOCAL_NAMES.iter().map(|name| (*name).to_owned());
    let hosts: Vec<String> = v4.chain(v6).chain(names).collect();
    let http = hosts.iter().map(|host| format!("http://{host}:PORT/x"));
    let https = hosts.iter().step_by(5).map(|host| format!("https://{host}:PORT/x"));
    let tricks = notations::TRICKS.iter().map(|url| (*url).to_owned());
    http.chain(https).chain(tricks).collect()
}

#[tokio::test]
async fn no_notation_of_a_private_address_opens_a_connection() {
    let canaries = [
        Origin::canary(Ipv4Addr::LOCALHOST.into()).await,
        Origin::canary(Ipv4Addr::UNSPECIFIED.into()).await,
        Origin::canary(Ipv6Addr::LOCALHOST.into()).await,
    ];
    // This name server sends every client inside; no name of the table may even reach it.
    let dns = Dns::serve(|_| vec![Ipv4Addr::LOCALHOST.into()]).await;
    let egress = egress("", &[dns.address]);
    let table = forbidden();
    assert!(table.len() >= 300, "{} URLs", table.len());
    for canary in &canaries {
        for url in &table {
            let url = url.replace("PORT", &canary.address.port().to_string());
            let refused = |fault: Fault| matches!(fault, Fault::Blocked(_) | Fault::InvalidUrl(_));
            assert!(post(&egress, &url).await.is_err_and(refused), "POST {url}");
            assert!(get(&egress, &url, LIMITS).await.is_err_and(refused), "GET {url}");
        }
        assert_eq!(canary.connections(), 0);
    }
    assert_eq!(dns.asked(), 0);
}

#[tokio::test]
async fn a_name_with_a_private_address_is_refused_whatever_its_others_are() {
    let canaries = [Origin::canary(Ipv4Addr::LOCALHOST.into()).await, Origin::canary(Ipv6Addr::LOCALHOST.into()).await];
    let private = notations::addresses();
    let answers = private.clone();
    let dns = Dns::serve(move |name| {
        let mut labels = name.split('.');
        let company = labels.next().unwrap();
        let index = labels.next().unwrap();
        let private = answers[index.parse::<usize>().unwrap()];
        let public: [IpAddr; 2] = [Ipv4Addr::new(8, 8, 8, 8).into(), "2001:4860:4860::8888".parse().unwrap()];
        match company {
            "alone" => vec![private],
            "first" => vec![private, public[0], public[1]],
            _ => vec![public[0], public[1], private],
        }
    })
    .await;
    let egress = egress("", &[dns.address]);
    for (index, address) in private.iter().enumerate() {
        for company in ["alone", "first", "last"] {
            for canary in &canaries {
                let url = format!("http://{company}.{index}.example.com:{}/", canary.address.port());
                let refused = post(&egress, &url).await;
                assert!(matches!(refused, Err(Fault::Blocked(_))), "{address} {company}: {refused:?}");
            }
        }
    }
    assert!(dns.asked() > 0);
    assert!(canaries.iter().all(|canary| canary.connections() == 0));
}

#[tokio::test]
async fn a_connection_goes_to_an_address_of_the_answer_that_was_judged() {
    // 127.0.0.2 plays the public internet, 127.0.0.1 the inside; the answers for a name switch between them.
    let outside: IpAddr = Ipv4Addr::new(127, 0, 0, 2).into();
    let inside: IpAddr = Ipv4Addr::LOCALHOST.into();
    let canary = Origin::canary(inside).await;
    let public = Origin::serve_at(SocketAddr::new(outside, canary.address.port()), |_| {
        vec![Part::Bytes(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec())]
    })
    .await;
    let looked_up = AtomicUsize::new(0);
    // Each lookup is two queries, one for each family: the first lookup gets the truth, later ones do not.
    let dns = Dns::serve(move |_| match looked_up.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => vec![outside],
        _ => vec![inside],
    })
    .await;
    let egress = egress("127.0.0.2/32", &[dns.address]);
    let url = format!("http://rebinding.example.com:{}/", canary.address.port());

    assert_eq!(post(&egress, &url).await.unwrap().status, 200);
    assert_eq!((dns.asked(), public.connections()), (2, 1), "one look-up for one connection");
    for _ in 0..5 {
        assert!(matches!(post(&egress, &url).await, Err(Fault::Blocked(_))));
    }
    assert_eq!((public.connections(), canary.connections()), (1, 0));
}

#[tokio::test]
async fn every_redirect_is_judged_as_the_first_url_was() {
    let canary = Origin::canary(Ipv6Addr::LOCALHOST.into()).await;
    let port = canary.address.port();
    let dns = Dns::serve(|_| vec![Ipv6Addr::LOCALHOST.into()]).await;
    let targets = [
        format!("http://[::1]:{port}/"),
        format!("//[::1]:{port}/"),
        format!("http://[0:0:0:0:0:0:0:1]:{port}/"),
        format!("http://inside.example.com:{port}/"),
        format!("http://user@127.0.0.1:{port}/"),
        format!("\\\\[::1]:{port}\\"),
        "http://10.0.0.1/".to_owned(),
        "http://2852039166/latest/meta-data".to_owned(),
        "http://nas.lan/".to_owned(),
        "http://127.0.0.2/".to_owned(),
        "http://8.8.8.8:25/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.1/".to_owned(),
        "ftp://example.com/".to_owned(),
        "data:text/plain,x".to_owned(),
        "javascript:1".to_owned(),
    ];
    let locations = targets.clone();
    let origin = Origin::serve(move |heard| {
        let index: usize = heard.path()[1..].parse().unwrap();
        bare(302, &format!("Location: {}\r\n", locations[index]))
    })
    .await;
    let egress = egress("127.0.0.1/32", &[dns.address]);
    for (index, target) in targets.iter().enumerate() {
        let url = origin.url(&format!("/{index}"));
        let refused = get(&egress, &url, LIMITS).await;
        assert!(matches!(refused, Err(Fault::Blocked(_))), "{target}: {refused:?}");
        // A webhook gets the redirect as its answer, and is not followed.
        assert_eq!(post(&egress, &url).await.unwrap().status, 302, "{target}");
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn three_redirects_are_followed_and_a_fourth_is_not() {
    let origin = Origin::serve(|heard| match heard.path() {
        "/0" => ok("text/plain", b"here"),
        "/signed" => bare(302, &format!("Location: /0?signature={}\r\n", "s".repeat(5_000))),
        path if path.starts_with("/0?") => ok("text/plain", b"here"),
        "/nowhere" => bare(301, ""),
        "/garbled" => bare(301, "Location: http://[\r\n"),
        "/not-modified" => bare(304, ""),
        path => {
            let left: u32 = path[1..].parse().unwrap();
            bare([301, 302, 303, 307, 308][left as usize % 5], &format!("Location: {}\r\n", left - 1))
        }
    })
    .await;
    let egress = egress("127.0.0.0/8", &[]);
    assert_eq!(get(&egress, &origin.url("/3"), LIMITS).await.unwrap(), b"here");
    assert_eq!(get(&egress, &origin.url("/signed"), LIMITS).await.unwrap(), b"here", "signed places are long");
    for path in ["/4", "/nowhere", "/garbled"] {
        let refused = get(&egress, &origin.url(path), LIMITS).await;
        assert!(matches!(refused, Err(Fault::Redirect(_))), "{path}: {refused:?}");
    }
    let refused = get(&egress, &origin.url("/not-modified"), LIMITS).await;
    assert_eq!(refused, Err(Fault::Status(StatusCode::NOT_MODIFIED)));
}

#[tokio::test]
async fn bytes_are_counted_whatever_content_length_promised() {
    let chunked = |count| {
        vec![Part::Bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()), Part::Zeros(count)]
    };
    let claimed = |length: u64, body: &[u8], then| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        vec![Part::Bytes([head.as_bytes(), body].concat()), then]
    };
    let origin = Origin::serve(move |heard| match heard.path() {
        "/fits" => chunked(LIMITS.bytes),
        "/one-more" => chunked(LIMITS.bytes + 1),
        "/endless" => chunked(u64::MAX),
        "/says-too-much" => claimed(u64::MAX / 2, b"x", Part::Silence),
        "/says-more-than-comes" => claimed(1000, b"x", Part::Close),
        "/says-less" => claimed(1, b"xyz", Part::Close),
        "/until-closed" => vec![Part::Bytes(b"HTTP/1.1 200 OK\r\n\r\nabc".to_vec()), Part::Close],
        path => unreachable!("{path}"),
    })
    .await;
    let egress = egress("127.0.0.0/8", &[]);
    let fetch = async |path: &str| get(&egress, &origin.url(path), LIMITS).await;
    assert_eq!(fetch("/fits").await.unwrap().len() as u64, LIMITS.bytes);
    for path in ["/one-more", "/endless", "/says-too-much"] {
        assert_eq!(fetch(path).await, Err(Fault::TooLarge(LIMITS.bytes)), "{path}");
    }
    assert!(matches!(fetch("/says-more-than-comes").await, Err(Fault::Broken(_))));
    assert_eq!(fetch("/says-less").await.unwrap(), b"x");
    assert_eq!(fetch("/until-closed").await.unwrap(), b"abc");
}

#[tokio::test]
async fn a_stalled_response_times_out_at_every_stage() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
    let origin = Origin::serve(move |heard| match heard.path() {
        "/no-answer" => vec![Part::Silence],
        "/half-a-head" => vec![Part::Bytes(head[..20].to_vec()), Part::Silence],
        "/half-a-body" => vec![Part::Bytes([&head[..], b"x"].concat()), Part::Silence],
        path => unreachable!("{path}"),
    })
    .await;
    let egress = egress("127.0.0.0/8", &[]);
    let short = Limits { within: Duration::from_millis(300), ..LIMITS };
    for path in ["/no-answer", "/half-a-head", "/half-a-body"] {
        assert_eq!(get(&egress, &origin.url(path), short).await, Err(Fault::Timeout), "{path}");
    }
    let url = origin.url("/no-answer");
    let put = Outgoing { method: Method::PUT, ..outgoing(WORKSPACE, &url) };
    assert_eq!(egress.send(put, short.within).await.unwrap_err(), Fault::Timeout);
    // The head is the answer; the wait for the body is shorter.
    assert_eq!(post(&egress, &origin.url("/half-a-body")).await.unwrap().excerpt, "x");
}

#[tokio::test]
async fn each_kind_of_egress_failure_has_its_fault() {
    let origin = Origin::serve(|heard| match heard.path() {
        "/closes" => vec![Part::Close],
        "/speaks-otherwise" => vec![Part::Bytes(b"220 mail.example ESMTP\r\n".to_vec()), Part::Close],
        "/large-head" => {
            vec![Part::Bytes([b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat()), Part::Close]
        }
        path => unreachable!("{path}"),
    })
    .await;
    let dns = Dns::serve(|_| Vec::new()).await;
    let egress = egress("127.0.0.0/8", &[dns.address]);
    for path in ["/closes", "/speaks-otherwise", "/large-head"] {
        let fault = post(&egress, &origin.url(path)).await.unwrap_err();
        assert!(matches!(fault, Fault::Broken(_)), "{path}: {fault:?}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fault = post(&egress, &format!("http://{closed}/")).await.unwrap_err();
    assert!(matches!(fault, Fault::Connect(_)), "{fault:?}");
    let mail = Origin::greeting(b"220 mail.example ESMTP\r\n").await;
    let fault = post(&egress, &format!("https://{}/", mail.address)).await.unwrap_err();
    assert!(matches!(fault, Fault::Tls(_)), "{fault:?}");
    let fault = post(&egress, "http://nobody.example.com/").await.unwrap_err();
    assert!(matches!(fault, Fault::Resolve(_)), "{fault:?}");
}

#[tokio::test]
async fn a_kept_connection_serves_the_next_call_and_a_long_answer_costs_its_own() {
    let origin = Origin::serve(|heard| match heard.path() {
        "/long" => ok("text/plain", &[b'x'; 100_000]),
        _ => bare(204, "Retry-After: 7\r\n"),
    })
    .await;
    let egress = egress("127.0.0.0/8", &[]);
    for _ in 0..3 {
        let reply = post(&egress, &origin.url("/hook?a=b#fragment")).await.unwrap();
        assert_eq!((reply.status.as_u16(), &reply.headers["retry-after"]), (204, &"7".parse().unwrap()));
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(post(&egress, &origin.url("/long")).await.unwrap().excerpt.len(), 16 * 1024);
    assert_eq!(post(&egress, &origin.url("/hook")).await.unwrap().status, 204);
    assert_eq!(origin.connections(), 2);
    let heard = &origin.requests()[0];
    assert_eq!(heard.line, "POST /hook?a=b HTTP/1.1");
    assert!(heard.head.contains("user-agent: tertulia/") && !heard.head.contains("accept-encoding"), "{}", heard.head);
    assert_eq!(heard.body, b"{}");
}

#[tokio::test]
async fn an_allowed_network_is_reached_by_address_and_by_name_at_any_port() {
    let origin = Origin::serve(|_| ok("text/plain", b"x")).await;
    let port = origin.address.port();
    let dns = Dns::serve(|_| vec![Ipv4Addr::LOCALHOST.into()]).await;
    let egress = egress("127.0.0.1", &[dns.address]);
    for host in
        ["127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "localhost", "a.localhost.", "x.example.com"]
    {
        assert_eq!(get(&egress, &format!("http://{host}:{port}/"), LIMITS).await.unwrap(), b"x", "{host}");
    }
    // An address that leads there only through a gateway is another network.
    for host in ["127.0.0.2", "[64:ff9b::7f00:1]", "[::1]", "[2002:7f00:1::]"] {
        let refused = get(&egress, &format!("http://{host}:{port}/"), LIMITS).await;
        assert!(matches!(refused, Err(Fault::Blocked(_))), "{host}: {refused:?}");
    }
}

#[tokio::test]
async fn no_compressed_answer_is_asked_for_and_none_is_unpacked() {
    let packed = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03";
    let origin = Origin::serve(move |_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", packed.len());
        vec![Part::Bytes([head.as_bytes(), packed].concat())]
    })
    .await;
    let egress = egress("127.0.0.0/8", &[]);
    assert_eq!(get(&egress, &origin.url("/"), LIMITS).await.unwrap(), packed);
    assert!(origin.requests()[0].head.contains("accept-encoding: identity"));
}

#[tokio::test]
async fn a_host_with_an_underscore_in_its_name_is_found() {
    let origin = Origin::serve(|_| ok("text/plain", b"here")).await;
    let dns = Dns::serve(|_| vec![Ipv4Addr::LOCALHOST.into()]).await;
    let egress = egress("127.0.0.0/8", &[dns.address]);
    let url = format!("http://a_b.example.com:{}/", origin.address.port());
    assert_eq!(get(&egress, &url, LIMITS).await.unwrap(), b"here");
}

#[tokio::test]
async fn unresolvable_names_of_one_workspace_leave_look_ups_to_others() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let egress = egress("", &[silent.local_addr().unwrap()]);
    let begin = |workspace: u8, name: String| {
        let egress = egress.clone();
        let url = format!("http://{name}.example.com/");
        tokio::spawn(async move { egress.send(outgoing(Address([workspace; 10]), &url), PLENTY).await })
    };
    let mut calls: Vec<_> = (0..300).map(|n| begin(1, format!("hangs-{n}"))).collect();
    // By then all of them have reached their lookup.
    tokio::task::yield_now().await;
    calls.push(begin(2, "of-another".to_owned()));
    let is_asked = async {
        let mut packet = [0; 1500];
        loop {
            let (length, _) = silent.recv_from(&mut packet).await.unwrap();
            if packet[..length].windows(10).any(|part| part == b"of-another") {
                break;
            }
        }
    };
    // An unanswered lookup takes four seconds.
    timeout(Duration::from_secs(3), is_asked).await.expect("its name is asked for meanwhile");
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}
