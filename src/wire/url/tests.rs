use std::net::IpAddr;

use super::*;

fn code(text: &str) -> &'static str {
    code_allowing(text, &|_| false)
}

fn code_allowing(text: &str, allow: Allow<'_>) -> &'static str {
    match check(text, allow) {
        Ok(_) => "ok",
        Err((code, _)) => code,
    }
}

#[test]
fn public_urls_pass() {
    for text in [
        "https://example.com",
        "http://example.com/",
        "HTTPS://EXAMPLE.COM/a",
        "http://example.com:8080/a?b=c#d",
        "https://sub.domain.example.co.uk/x/y",
        "https://example.com.",
        "https://example.com:65535",
        "http://8.8.8.8/",
        "https://1.1.1.1:8443/x",
        "http://134744072/",
        "http://0x08080808/",
        "http://[2606:4700:4700::1111]/",
        "http://[::ffff:8.8.8.8]/",
        "http://[64:ff9b::8.8.8.8]/",
        "https://bücher.example/",
        "https://xn--bcher-kva.example",
        "https://user.example.com/a@b",
        "https://example.com/?q=a@b",
        "https://localhost.example.com/",
        "https://notlocal.com",
        "https://mylocalhost.com",
        "https://lan.example.org",
        "https://internal.example.com",
        "http://172.15.255.255/",
        "http://172.32.0.0/",
        "http://100.63.255.255/",
        "http://100.128.0.0/",
        "http://198.17.255.255",
        "http://198.20.0.0",
        "http://192.0.1.1",
        "http://11.0.0.0",
        "http://9.255.255.255",
        "http://223.255.255.255",
        "http://169.253.255.255",
        "http://169.255.0.0",
        "http://128.0.0.1",
        "http://192.167.255.255",
        "http://192.169.0.0",
        "https://a_b.example.com/",
        "http://example.com:8443/",
        "http://8.8.8.8:49152/",
        "https://example.com/a|b^c`d\"e{f}",
        "https://hooks.example.test/x",
        "https://example.com/%20x",
        "https://example.com/ü",
    ] {
        assert_eq!(code(text), "ok", "{text}");
    }
}

#[test]
fn a_url_that_is_not_absolute_http_is_invalid() {
    for text in [
        "",
        "example.com",
        "/path",
        "//example.com/x",
        "http:",
        "http:/",
        "http://",
        "https:///path",
        "http://?x",
        "http://#x",
        "http://:80/",
        "http:example.com",
        "http:/example.com",
        "http:\\\\example.com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "javascript:alert(1)",
        "data:text/plain,x",
        "ws://example.com",
        "mailto:a@b.example",
        "http://user@example.com/",
        "http://user:pw@example.com/",
        "http://:pw@example.com/",
        "http://@example.com/",
        "http://8.8.8.8@127.0.0.1/",
        "http://exa mple.com/",
        " http://example.com/",
        "http://example.com/ ",
        "http://example.com/\n",
        "http://exam\tple.com",
        "http://example.com/a b",
        "http://example.com\\@127.0.0.1/",
        "http://example.com:99999/",
        "http://example.com:x/",
        "http://256.256.256.256/",
        "http://1.2.3.4.5/",
        "http://[::1/",
        "http://[zz]/",
        "http://[1::2::3]/",
        "http://exa<mple.com/",
        "http://example.com%2f/",
        "http://ex%00ample.com",
        "http://..",
        "http://.",
        "http://a..b.example/",
        "text",
        "<string>",
        "http://xn--.example/",
        "http://0x1ffffffff/",
        "http://[fe80::zz%25eth0]/",
        "http://\u{0}x.example",
        "://example.com",
        "h ttp://example.com",
        "https//example.com",
        "http://example.com/\u{a0}",
    ] {
        assert_eq!(code(text), "invalid_url", "{text}");
    }
}

#[test]
fn addresses_that_are_not_public_are_blocked_in_every_notation() {
    for text in [
        "http://127.0.0.1/",
        "http://127.0.0.1:8080/x",
        "http://127.1/",
        "http://127.0.1/",
        "http://127.255.255.255/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0X7F.1/",
        "http://0x7f.0x0.0x0.0x1/",
        "http://0177.0.0.1/",
        "http://0177.0.0.01/",
        "http://017700000001/",
        "http://127.0.0.1./",
        "http://0/",
        "http://0.0.0.0/",
        "http://00000000/",
        "http://0x0/",
        "http://0.1.2.3/",
        "http://10.0.0.1/",
        "http://10.255.255.255/",
        "http://012.0.0.1/",
        "http://167772161/",
        "http://172.16.0.1/",
        "http://172.31.255.255/",
        "http://192.168.0.1/",
        "http://192.168.257/",
        "http://0xc0a80001/",
        "http://169.254.169.254/latest/meta-data",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0xa9.0xfe.0xa9.0xfe",
        "http://100.64.0.1/",
        "http://100.127.255.255/",
        "http://100.100.100.200/",
        "http://192.0.0.1/",
        "http://192.0.0.192/",
        "http://192.0.2.1/",
        "http://198.51.100.7/",
        "http://203.0.113.9/",
        "http://198.18.0.1/",
        "http://198.19.255.255/",
        "http://192.88.99.1/",
        "http://224.0.0.1/",
        "http://239.255.255.255/",
        "http://240.0.0.1/",
        "http://255.255.255.255/",
        "http://4294967295/",
        "http://１２７.０.０.１/",
        "http://①②⑦.⓪.⓪.①/",
        "http://127。0。0。1/",
        "http://127．0．0．1/",
        "http://%31%32%37.0.0.1/",
        "http://[::1]/",
        "http://[::]/",
        "http://[0:0:0:0:0:0:0:1]/",
        "http://[0000::0001]:80/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[::127.0.0.1]/",
        "http://[::8.8.8.8]/",
        "http://[64:ff9b::127.0.0.1]/",
        "http://[64:ff9b::a00:1]/",
        "http://[64:ff9b::169.254.169.254]/",
        "http://[64:ff9b:1::1]/",
        "http://[2002:7f00:1::]/",
        "http://[2002:a00:1::1]/",
        "http://[2002:808:808::1]/",
        "http://[2001::1]/",
        "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
        "http://[2001:2::1]/",
        "http://[2001:10::1]/",
        "http://[2001:20::1]/",
        "http://[2001:db8::1]/",
        "http://[3fff::1]/",
        "http://[fc00::1]/",
        "http://[fd00:ec2::254]/",
        "http://[fdff::1]/",
        "http://[fe80::1]/",
        "http://[febf::1]/",
        "http://[fec0::1]/",
        "http://[ff02::1]/",
        "http://[ff0e::1]/",
        "http://[100::1]/",
        "http://[5f00::1]/",
        "http://[4000::1]/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[fe80::1%251]:80/",
        "http://[::1%25lo]/",
        "http://[::ffff:0:127.0.0.1]/",
    ] {
        assert_eq!(code(text), "blocked_url", "{text}");
    }
}

#[test]
fn names_of_the_local_network_are_blocked() {
    for text in [
        "http://localhost/",
        "http://LOCALHOST/",
        "http://localhost:8080/",
        "http://localhost./",
        "http://a.localhost/",
        "http://a.b.localhost./",
        "http://printer.local/",
        "http://metadata.google.internal/",
        "http://x.internal./",
        "http://router.home.arpa/",
        "http://home.arpa/",
        "http://nas.home/",
        "http://wiki.corp./",
        "https://a.b.INTRANET/",
        "http://db.private:8080/",
        "http://nas.lan/",
        "http://NAS.LAN/",
        "http://local/",
        "http://internal/",
        "http://intranet/",
        "http://db:5432/",
        "http://kubernetes/",
        "http://host./",
        "http://ｌｏｃａｌｈｏｓｔ/",
        "http://localhost.localdomain/",
        "http://%6cocalhost/",
        "http://svc.cluster.local/",
        "https://redis:6379",
        "http://loc\u{ad}alhost/",
    ] {
        assert_eq!(code(text), "blocked_url", "{text}");
    }
}

#[test]
fn an_allowed_network_lets_its_literal_addresses_pass_and_nothing_else() {
    let loopback = |ip: IpAddr| matches!(ip, IpAddr::V4(ip) if ip.is_loopback());
    for text in [
        "http://127.0.0.1:9000/x",
        "http://2130706433/",
        "http://127.1",
        "http://localhost:9000/",
        "http://a.localhost",
        "http://[::ffff:127.0.0.1]/",
        "http://8.8.8.8/",
    ] {
        assert_eq!(code_allowing(text, &loopback), "ok", "{text}");
    }
    for text in ["http://10.0.0.1/", "http://[::1]/", "http://nas.lan/", "http://db/", "http://[fe80::1%25lo]/"] {
        assert_eq!(code_allowing(text, &loopback), "blocked_url", "{text}");
    }
    assert_eq!(code_allowing("http://u@127.0.0.1/", &loopback), "invalid_url");
}

#[test]
fn a_url_has_at_most_2048_characters() {
    let of = |chars: usize| format!("https://example.com/{}", "ü".repeat(chars - 20));
    assert_eq!(code(&of(2_048)), "ok");
    assert_eq!(code(&of(2_049)), "invalid_url");
}

#[test]
fn every_reserved_network_ends_where_it_should() {
    for (first, last) in [
        ("0.0.0.0", "0.255.255.255"),
        ("10.0.0.0", "10.255.255.255"),
        ("100.64.0.0", "100.127.255.255"),
        ("127.0.0.0", "127.255.255.255"),
        ("168.63.129.16", "168.63.129.16"),
        ("169.254.0.0", "169.254.255.255"),
        ("172.16.0.0", "172.31.255.255"),
        ("192.0.0.0", "192.0.0.255"),
        ("192.0.2.0", "192.0.2.255"),
        ("192.88.99.0", "192.88.99.255"),
        ("192.168.0.0", "192.168.255.255"),
        ("198.18.0.0", "198.19.255.255"),
        ("198.51.100.0", "198.51.100.255"),
        ("203.0.113.0", "203.0.113.255"),
    ] {
        let bits = |text: &str| text.parse::<Ipv4Addr>().unwrap().to_bits();
        let public = |bits: u32| is_public(Ipv4Addr::from_bits(bits).into());
        assert!(!public(bits(first)) && !public(bits(last)), "{first}");
        assert!(public(bits(last) + 1), "after {last}");
        assert!(bits(first) == 0 || public(bits(first) - 1), "before {first}");
    }
    assert!(!is_public("224.0.0.0".parse().unwrap()) && is_public("223.255.255.255".parse().unwrap()));
}

#[test]
fn ports_of_other_protocols_are_blocked_except_in_an_allowed_network() {
    let loopback = |ip: IpAddr| matches!(ip, IpAddr::V4(ip) if ip.is_loopback());
    for port in [0, 22, 25, 53, 110, 587, 6000, 6697, 10_080] {
        for host in ["example.com", "8.8.8.8", "[2001:4860:4860::8888]"] {
            assert_eq!(code_allowing(&format!("https://{host}:{port}/"), &loopback), "blocked_url", "{host}:{port}");
        }
        for host in ["127.0.0.1", "localhost"] {
            assert_eq!(code_allowing(&format!("http://{host}:{port}/"), &loopback), "ok", "{host}:{port}");
        }
    }
    for port in [80, 81, 443, 3000, 6379, 8443, 9000, 65_535] {
        assert_eq!(code(&format!("https://example.com:{port}/")), "ok", "{port}");
    }
}
