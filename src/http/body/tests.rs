use std::convert::Infallible;

use futures_util::stream;

use super::*;

const MAX_BODY: MaxBodyBytes = MaxBodyBytes(8);

#[derive(Clone)]
struct State;

impl FromRef<State> for BodyRoom {
    fn from_ref(_: &State) -> Self {
        Self::default()
    }
}

impl FromRef<State> for MaxBodyBytes {
    fn from_ref(_: &State) -> Self {
        MAX_BODY
    }
}

fn header_map(headers: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().unwrap());
    }
    map
}

/// A body that does not announce its length.
fn pieces(pieces: &'static [&'static str]) -> Body {
    Body::from_stream(stream::iter(pieces.iter().map(|piece| Ok::<_, Infallible>(*piece))))
}

async fn json(headers: &[(&'static str, &str)], body: Body) -> Result<Bytes, (u16, &'static str)> {
    let read = JsonBytes::read(&header_map(headers), body, &State).await;
    read.map_err(|problem| (problem.status.as_u16(), problem.code))
}

#[tokio::test]
async fn json_in_utf8_is_read_whatever_its_spelling() {
    for content_type in [
        "application/json",
        "Application/JSON; charset=UTF-8",
        "application/json;charset=\"utf-8\"",
        "application/json; profile=x; charset=utf8",
        "application/merge-patch+json",
    ] {
        let read = json(&[("content-type", content_type)], Body::from("{}")).await;
        assert_eq!(read.as_deref(), Ok(&b"{}"[..]), "{content_type}");
    }
    let identity = [("content-type", "application/json"), ("content-encoding", "Identity")];
    assert!(json(&identity, Body::from("{}")).await.is_ok());
}

#[tokio::test]
async fn a_content_type_that_is_not_plain_json_is_415() {
    for headers in [
        &[][..],
        &[("content-type", "")],
        &[("content-type", "json")],
        &[("content-type", "text/json")],
        &[("content-type", "text/plain")],
        &[("content-type", "application/+json")],
        &[("content-type", "application/jsonp")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "application/json; charset=latin1")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
    ] {
        let refused = json(headers, Body::from("{}")).await;
        assert_eq!(refused, Err((415, "unsupported_media_type")), "{headers:?}");
    }
}

#[tokio::test]
async fn a_body_of_exactly_the_bound_is_read_and_one_byte_more_is_413() {
    let headers = [("content-type", "application/json")];
    assert_eq!(json(&headers, Body::from("12345678")).await.as_deref(), Ok(&b"12345678"[..]));
    assert_eq!(json(&headers, pieces(&["1234", "", "5678"])).await.as_deref(), Ok(&b"12345678"[..]));
    assert_eq!(json(&headers, Body::from("123456789")).await, Err((413, "body_too_large")));
    assert_eq!(json(&headers, pieces(&["1234", "5678", "9"])).await, Err((413, "body_too_large")));
    assert_eq!(json(&headers, pieces(&["123456789"])).await, Err((413, "body_too_large")));
}

#[tokio::test]
async fn a_body_announced_too_large_is_refused_without_being_read() {
    let announced = http_body_util::Full::new(Bytes::from_static(b"123456789"));
    let announced = Body::new(announced.inspect_frame(|_| panic!("the body was read")));
    let headers = [("content-type", "application/json")];
    assert_eq!(json(&headers, announced).await, Err((413, "body_too_large")));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_shorter_body() {
    let broken = Body::from_stream(stream::iter([Ok("{\"a\""), Err("reset")]));
    assert_eq!(json(&[("content-type", "application/json")], broken).await, Err((400, "incomplete_body")));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_given_up() {
    let endless = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    assert_eq!(json(&[("content-type", "application/json")], endless).await, Err((408, "request_timeout")));
}

#[tokio::test]
async fn an_optional_body_may_be_missing_but_not_of_another_kind() {
    let optional = async |headers: &[(&'static str, &str)], body| {
        let read = OptionalJsonBytes::read(&header_map(headers), body, &State).await;
        read.map_err(|problem| problem.status.as_u16())
    };
    let json = [("content-type", "application/json")];
    assert_eq!(optional(&[], Body::empty()).await, Ok(None));
    assert_eq!(optional(&[], pieces(&[])).await, Ok(None));
    assert_eq!(optional(&json, Body::empty()).await, Ok(None));
    assert_eq!(optional(&json, Body::from("{}")).await, Ok(Some(Bytes::from_static(b"{}"))));
    assert_eq!(optional(&[], Body::from("{}")).await, Err(415));
    assert_eq!(optional(&json, Body::from("123456789")).await, Err(413));
    // Some clients announce the type of a form whether they send one or not.
    for headers in [[("content-type", "application/x-www-form-urlencoded")], [("content-type", "text/plain")]] {
        assert_eq!(optional(&headers, Body::empty()).await, Ok(None));
        assert_eq!(optional(&headers, pieces(&[""])).await, Ok(None));
        for body in [Body::from("a=b"), pieces(&["", "a=b"]), Body::from("123456789"), pieces(&["123456789"])] {
            assert_eq!(optional(&headers, body).await, Err(415));
        }
    }
}
