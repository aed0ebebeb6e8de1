//! Every way that we know to write an address into a URL.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 addresses that must not be reachable from outside: one of each reserved network, and the famous ones.
pub(crate) const PRIVATE_V4: [Ipv4Addr; 17] = [
    Ipv4Addr::new(127, 0, 0, 1),
    Ipv4Addr::new(127, 255, 255, 254),
    Ipv4Addr::new(0, 0, 0, 0),
    Ipv4Addr::new(10, 0, 0, 1),
    Ipv4Addr::new(100, 64, 0, 1),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(172, 16, 0, 1),
    Ipv4Addr::new(172, 31, 255, 254),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(192, 168, 1, 1),
    Ipv4Addr::new(198, 18, 0, 1),
    Ipv4Addr::new(203, 0, 113, 7),
    Ipv4Addr::new(224, 0, 0, 1),
    Ipv4Addr::new(255, 255, 255, 255),
];

/// IPv6 addresses that are not public themselves.
pub(crate) const PRIVATE_V6: [&str; 20] = [
    "::",
    "::1",
    "fe80::1",
    "febf::ffff",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "fdff:ffff::1",
    "ff02::1",
    "ff05::2",
    "ff0e::1",
    "100::1",
    "2001::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "64:ff9b:1::1",
];

/// Hosts that all mean `ip`, or an IPv6 address that leads to it.
pub(crate) fn of_v4(ip: Ipv4Addr) -> Vec<String> {
    let bits = ip.to_bits();
    let [a, b, c, d] = ip.octets();
    let low16 = bits & 0xffff;
    let low24 = bits & 0xff_ffff;
    let wide = |text: &str, zero: char| -> String {
        let shifted = |c: char| c.to_digit(10).and_then(|digit| char::from_u32(zero as u32 + digit));
        text.chars().map(|c| shifted(c).unwrap_or(c)).collect()
    };
    let escaped = ip.to_string().bytes().fold(String::new(), |mut text, byte| {
        write!(text, "%{byte:02x}").unwrap();
        text
    });
    let mut hosts = vec![
        ip.to_string(),
        format!("{ip}."),
        format!("{bits}"),
        format!("{bits:#x}"),
        format!("{bits:#X}").replace("0X", "0X0"),
        format!("0{bits:o}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("000{a:o}.0000{b:o}.{c}.{d:#x}"),
        format!("{a}.{b}.{low16}"),
        format!("{a:#x}.{b}.0{low16:o}"),
        format!("{a}.{low24}"),
        format!("0{a:o}.{low24:#x}"),
        wide(&ip.to_string(), '０'),
        ip.to_string().replace('.', "。"),
        ip.to_string().replace('.', "．"),
        ip.to_string().replace('.', "｡"),
        escaped,
    ];
    hosts.extend(embedded(ip).into_iter().map(|ip| format!("[{ip}]")));
    let [.., high, low] = ip.to_ipv6_mapped().segments();
    hosts.extend([
        format!("[::ffff:{ip}]"),
        format!("[0:0:0:0:0:FFFF:{high:04X}:{low:04X}]"),
        format!("[0000:0000:0000:0000:0000:ffff:{high:04x}:{low:04x}]"),
        format!("[::{ip}]"),
    ]);
    hosts
}

/// IPv6 addresses that lead to `ip` through some gateway or stack that translates them.
pub(crate) fn embedded(ip: Ipv4Addr) -> Vec<Ipv6Addr> {
    let [.., high, low] = ip.to_ipv6_mapped().segments();
    vec![
        ip.to_ipv6_mapped(),
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0x2001, 0, 0x4136, 0xe378, 0x8000, 0x63bf, !high, !low),
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x5efe, high, low),
    ]
}

/// Every address above, for answers of a name server.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let v6 = PRIVATE_V6.iter().map(|ip| ip.parse().unwrap());
    let v4 = PRIVATE_V4.iter().flat_map(|ip| {
        let leading_there = embedded(*ip).into_iter().map(IpAddr::V6);
        [IpAddr::V4(*ip)].into_iter().chain(leading_there)
    });
    v6.chain(v4).collect()
}

/// Names that only a local network resolves, and names made to look like public ones.
pub(crate) const LOCAL_NAMES: [&str; 38] = [
    "localhost",
    "LOCALHOST",
    "LocalHost.",
    "a.localhost",
    "a.b.localhost.",
    "localhost.localdomain",
    "%6cocalhost",
    "ｌｏｃａｌｈｏｓｔ",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "loc\u{ad}alhost",
    "localhost。",
    "localhoﬆ",
    "ip6-localhost",
    "ip6-loopback",
    "printer.local",
    "printer。local",
    "x.LOCAL.",
    "metadata.google.internal",
    "metadata.google.internal.",
    "metadata",
    "x.internal",
    "internal",
    "router.home.arpa",
    "home.arpa",
    "nas.lan",
    "NAS.LAN.",
    "db",
    "redis",
    "kubernetes",
    "kubernetes.default.svc.cluster.local",
    "host.docker.internal",
    "gateway.docker.internal",
    "wpad.localdomain",
    "nas.home",
    "wiki.corp",
    "a.intranet.",
    "db.private",
    "intranet.",
];

/// Whole URLs with a placeholder for the canary's port, each a way around a careless check.
pub(crate) const TRICKS: [&str; 40] = [
    "http://user@127.0.0.1:PORT/",
    "http://user:pass@127.0.0.1:PORT/",
    "http://@127.0.0.1:PORT/",
    "http://:@127.0.0.1:PORT/",
    "http://example.com@127.0.0.1:PORT/",
    "http://example.com:80@127.0.0.1:PORT/",
    "http://example.com%40@127.0.0.1:PORT/",
    "http://127.0.0.1:PORT@example.com/",
    "http://127.0.0.1:PORT#@example.com/",
    "http://127.0.0.1:PORT?@example.com/",
    "http://127.0.0.1:PORT/@example.com",
    "http://127.0.0.1:PORT\\@example.com/",
    "http://example.com\\@127.0.0.1:PORT/",
    "http:\\\\127.0.0.1:PORT\\",
    "http:/127.0.0.1:PORT/",
    "http:127.0.0.1:PORT/",
    "//127.0.0.1:PORT/",
    "127.0.0.1:PORT",
    "http:///127.0.0.1:PORT/",
    " http://127.0.0.1:PORT/",
    "http://127.0.0.1:PORT/ ",
    "http://127.0.0.1 :PORT/",
    "http://127.0.0.1\t:PORT/",
    "ht\ntp://127.0.0.1:PORT/",
    "http://127.0.0.1\n:PORT/",
    "http://127.0.0.1%00.example.com:PORT/",
    "http://127.0.0.1%2fexample.com:PORT/",
    "http://127.0.0.1%23.example.com:PORT/",
    "http://[::1%25lo]:PORT/",
    "http://[::1%lo]:PORT/",
    "http://[fe80::1%25eth0]:PORT/",
    "http://[fe80::1%251]:PORT/",
    "http://[::1]@example.com:PORT/",
    "http://[::1].example.com:PORT/",
    "ftp://127.0.0.1:PORT/",
    "file:///etc/passwd?PORT",
    "gopher://127.0.0.1:PORT/_x",
    "ws://127.0.0.1:PORT/",
    "unix:/var/run/docker.sock:PORT",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock:PORT/",
];
