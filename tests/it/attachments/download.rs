//! `GET /attachments/{id}/content`.

use super::*;

#[tokio::test]
async fn a_file_comes_back_with_headers_that_keep_a_browser_from_running_it() {
    let app = TestApp::new().await;
    let path = "/api/v1/attachments?filename=b%C3%B6se.html";
    let made = app.post(path).body("text/html", "<script>alert(1)</script>").await.expect(201);
    let path = format!("/api/v1/attachments/{}/content", made["id"].as_str().unwrap());
    let got = app.get(&path).await;
    for (name, value) in [
        ("content-type", "text/html"),
        ("content-length", "25"),
        ("content-disposition", "attachment; filename=\"b_se.html\"; filename*=UTF-8''b%C3%B6se.html"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; sandbox"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "private, no-cache"),
        ("accept-ranges", "bytes"),
        ("last-modified", "Wed, 01 Jan 2025 00:00:00 GMT"),
    ] {
        assert_eq!(got.header(name), value, "{name}");
    }
    assert!(!got.header("etag").is_empty());
    assert_eq!(got.bytes, b"<script>alert(1)</script>");
    app.get(&path).no_key().await.problem(401, "unauthenticated");
    let writer = app.key_with(&["messages:write"]).await;
    app.get(&path).key(&writer).await.problem(403, "insufficient_scope");
}

#[tokio::test]
async fn a_stretch_of_a_file_is_sent_when_it_is_asked_for() {
    let app = TestApp::new().await;
    let path = format!("/api/v1/attachments/{}/content", uploaded(&app, "0123456789").await);
    for (range, status, body, content_range) in [
        ("bytes=0-3", 206, "0123", "bytes 0-3/10"),
        ("bytes=4-", 206, "456789", "bytes 4-9/10"),
        ("bytes=-2", 206, "89", "bytes 8-9/10"),
        ("bytes=8-100", 206, "89", "bytes 8-9/10"),
        ("bytes=0-1,4-5", 200, "0123456789", ""),
        ("bytes=x", 200, "0123456789", ""),
    ] {
        let got = app.get(&path).header("range", range).await;
        let shown = (got.status, String::from_utf8_lossy(&got.bytes).into_owned());
        assert_eq!(shown, (status, body.to_owned()), "{range}");
        assert_eq!(got.header("content-range"), content_range, "{range}");
        assert_eq!(got.header("content-length"), body.len().to_string(), "{range}");
    }
    for range in ["bytes=0-1", "bytes=10-"] {
        let head = app.request(http::Method::HEAD, &path).header("range", range).await;
        assert_eq!((head.status, head.header("content-length")), (200, "10"), "parts are of GET alone");
    }
    let refused = app.get(&path).header("range", "bytes=10-").await;
    assert_eq!(refused.header("content-range"), "bytes */10");
    refused.problem(416, "range_not_satisfiable");
}

#[tokio::test]
async fn a_client_that_has_the_file_gets_it_no_second_time() {
    let app = TestApp::new().await;
    let path = format!("/api/v1/attachments/{}/content", uploaded(&app, "0123456789").await);
    let etag = app.get(&path).await.header("etag").to_owned();
    for (name, value, status) in [
        ("if-none-match", etag.as_str(), 304),
        ("if-none-match", &format!("W/{etag}"), 304),
        ("if-none-match", &format!("\"x\", {etag}"), 304),
        ("if-none-match", "*", 304),
        ("if-none-match", "\"x\"", 200),
        ("if-match", &etag, 200),
        ("if-match", "*", 200),
        ("if-modified-since", "Wed, 01 Jan 2025 00:00:00 GMT", 304),
        ("if-modified-since", "Thu, 02 Jan 2025 00:00:00 GMT", 304),
        ("if-modified-since", "Tue, 31 Dec 2024 23:59:59 GMT", 200),
        ("if-modified-since", "yesterday", 200),
        ("if-unmodified-since", "Wed, 01 Jan 2025 00:00:00 GMT", 200),
        ("if-unmodified-since", "yesterday", 200),
    ] {
        let got = app.get(&path).header(name, value).await;
        assert_eq!((got.status, got.header("etag")), (status, etag.as_str()), "{name}: {value}");
        assert_eq!(got.bytes.is_empty(), status == 304);
    }
    for (name, value) in [("if-match", "\"x\""), ("if-unmodified-since", "Tue, 31 Dec 2024 23:59:59 GMT")] {
        app.get(&path).header(name, value).await.problem(412, "precondition_failed");
    }
    app.get(&path).header("if-match", "").await.problem(400, "invalid_header");
    let both =
        app.get(&path).header("if-none-match", "\"x\"").header("if-modified-since", "Thu, 02 Jan 2025 00:00:00 GMT");
    assert_eq!(both.await.status, 200, "a tag says more than a time");
    for (if_range, status) in [(etag.as_str(), 206), ("Wed, 01 Jan 2025 00:00:00 GMT", 206), ("\"x\"", 200)] {
        let got = app.get(&path).header("range", "bytes=0-0").header("if-range", if_range).await;
        assert_eq!(got.status, status, "{if_range}");
    }
}

#[tokio::test]
async fn a_head_says_what_a_get_would_bring() {
    let app = TestApp::new().await;
    let id = uploaded(&app, "0123456789").await;
    let path = format!("/api/v1/attachments/{id}/content");
    let etag = app.get(&path).await.header("etag").to_owned();
    for (name, value) in [("accept", "*/*"), ("if-none-match", &etag), ("if-match", "\"x\"")] {
        let got = app.get(&path).header(name, value).await;
        let head = app.request(http::Method::HEAD, &path).header(name, value).await;
        assert_eq!((head.status, head.bytes.len()), (got.status, 0), "{name}: {value}");
        for name in ["content-length", "content-type", "content-range", "etag", "content-disposition", "accept-ranges"]
        {
            assert_eq!(head.header(name), got.header(name), "{name}");
        }
    }
    let unknown = path.replace(&id, "att_x");
    assert_eq!(app.request(http::Method::HEAD, &unknown).await.status, 404);
    // An unreadable condition is reported first, as everywhere.
    app.get(&unknown).header("if-match", "\"a").await.problem(400, "invalid_header");
    let record = app.request(http::Method::HEAD, format!("/api/v1/attachments/{id}")).await;
    assert_eq!((record.status, record.bytes.len()), (200, 0));
}

#[tokio::test]
async fn the_largest_file_comes_back_whole() {
    let app = TestApp::new().await;
    let bytes: Vec<u8> = (0..MAX_BYTES).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let made = app.post("/api/v1/attachments").body("application/pdf", bytes.clone()).await.expect(201);
    let path = format!("/api/v1/attachments/{}/content", made["id"].as_str().unwrap());
    assert!(app.get(&path).await.bytes == bytes);
    let from = 262_143;
    let to = 9_000_001;
    let part = app.get(&path).header("range", &format!("bytes={from}-{to}")).await;
    assert!(part.bytes == bytes[from..=to]);
}
