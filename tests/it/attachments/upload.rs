//! `POST /attachments`.

use super::*;

/// A form with these parts, each given as `head` and `body`.
fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (head, content) in parts {
        body.extend(b"--bound\r\nContent-Disposition: form-data; ");
        body.extend(head.as_bytes());
        body.extend(b"\r\n\r\n");
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(b"--bound--\r\n");
    body
}

fn post_form(app: &TestApp, path: &str, parts: &[(&str, &[u8])]) -> Request {
    app.post(path).body("multipart/form-data; boundary=bound", form(parts))
}

#[tokio::test]
async fn a_file_is_uploaded_as_it_is_or_in_a_form() {
    let app = TestApp::new().await;
    let raw = app.post("/api/v1/attachments").header("content-disposition", "attachment; filename=\"a.png\"");
    let raw = raw.body("image/png", "bytes").await;
    let location = raw.header("location").to_owned();
    let raw = raw.expect(201);
    let part = ("name=\"file\"; filename=\"a.png\"\r\nContent-Type: image/png", b"bytes".as_slice());
    let formed = post_form(&app, "/api/v1/attachments", &[part]).await.expect(201);
    assert_eq!(location, format!("/api/v1/attachments/{}", raw["id"].as_str().unwrap()));
    for made in [&raw, &formed] {
        let expected = json!({"id": made["id"], "messageId": null, "pluginType": "file", "filename": "a.png",
            "mimeType": "image/png", "size": 5, "storageKey": made["storageKey"],
            "createdAt": "2025-01-01T00:00:00.000Z"});
        assert_eq!(*made, expected);
        assert!(made["id"].as_str().unwrap().starts_with("att_"));
        let path = format!("/api/v1/attachments/{}", made["id"].as_str().unwrap());
        assert_eq!(app.get(&path).await.expect(200), *made);
        assert_eq!(app.get(format!("{path}/content")).await.bytes, b"bytes");
    }
}

#[tokio::test]
async fn the_largest_file_passes_and_one_byte_more_does_not() {
    let app = TestApp::new().await;
    let made = app.post("/api/v1/attachments").body("application/pdf", streamed(MAX_BYTES)).await.expect(201);
    assert_eq!(made["size"], MAX_BYTES);
    let head = "name=\"file\"; filename=\"a\"";
    let made = post_form(&app, "/api/v1/attachments", &[(head, &vec![1; MAX_BYTES])]).await.expect(201);
    assert_eq!(made["size"], MAX_BYTES);
    let kept = files_below(app.files.path()).len();
    for too_large in [
        app.post("/api/v1/attachments").body("application/pdf", streamed(MAX_BYTES + 1)),
        app.post("/api/v1/attachments").body("application/pdf", vec![0; MAX_BYTES + 1]),
        post_form(&app, "/api/v1/attachments", &[(head, &vec![1; MAX_BYTES + 1])]),
        post_form(&app, "/api/v1/attachments", &[(head, &vec![1; MAX_BYTES + 200_000])]),
    ] {
        too_large.await.problem(413, "attachment_too_large");
    }
    let kept = until(async || (files_below(app.files.path()).len() == kept).then_some(kept)).await;
    assert_eq!(kept, 2, "nothing is left of what was too large");
}

#[tokio::test]
async fn a_name_leads_nowhere_and_a_type_is_what_it_says_or_what_the_bytes_say() {
    let app = TestApp::new().await;
    for (disposition, content_type, filename, mime_type) in [
        ("attachment; filename=\"../../etc/passwd\"", "text/plain", "passwd", "text/plain"),
        ("attachment; filename=\"C:\\\\\\\\x\\\\\\\\y.txt\"", "TEXT/Plain; x", "y.txt", "text/plain"),
        ("attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe.txt", "TEXT/Plain", "größe.txt", "text/plain"),
        ("attachment; filename*=UTF-8''a%0D%0Ab%E2%80%AEgpj.exe", "a/b", "abgpj.exe", "a/b"),
        ("attachment; filename=\"..\"", "text/plain", "attachment", "text/plain"),
        ("attachment", "application/octet-stream", "attachment", "application/octet-stream"),
        ("inline; filename=x", "", "x", "text/plain"),
    ] {
        let request = app.post("/api/v1/attachments").header("content-disposition", disposition);
        let request = match content_type {
            "" => request.bare_body("plain words"),
            content_type => request.body(content_type, "plain words"),
        };
        let made = request.await.expect(201);
        assert_eq!((&made["filename"], &made["mimeType"]), (&json!(filename), &json!(mime_type)), "{disposition}");
    }
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice();
    let made = post_form(&app, "/api/v1/attachments", &[("name=\"x\"; filename=\"p\"", png)]).await.expect(201);
    assert_eq!(made["mimeType"], "image/png");
}

#[tokio::test]
async fn a_file_is_served_with_the_charset_that_it_was_sent_with() {
    let app = TestApp::new().await;
    let path = "/api/v1/attachments";
    let part = "name=\"file\"; filename=\"a.txt\"\r\nContent-Type: text/plain; charset=ISO-8859-1";
    for (upload, mime_type) in [
        (app.post(path).body("Text/Plain;charset=utf-8", "ü"), "text/plain; charset=utf-8"),
        (post_form(&app, path, &[(part, b"\xfc")]), "text/plain; charset=ISO-8859-1"),
        // Not well-formed.
        (app.post(path).body("text/plain; charset=utf-8, text/html", "x"), "text/plain"),
    ] {
        let made = upload.await.expect(201);
        assert_eq!(made["mimeType"], mime_type);
        let content = app.get(format!("{path}/{}/content", made["id"].as_str().unwrap())).await;
        assert_eq!(content.header("content-type"), mime_type);
    }
}

#[tokio::test]
async fn each_fault_of_an_upload_is_named() {
    let app = TestApp::new().await;
    let path = "/api/v1/attachments";
    let long = format!("{path}?filename={}", "ü".repeat(256));
    let two = [("name=\"file\"; filename=\"a\"", b"a".as_slice()), ("name=\"file\"; filename=\"b\"", b"b".as_slice())];
    for (request, expected) in [
        (app.post(path).body("text/plain", ""), "too_short /file"),
        (app.post(path).body("text", "x"), "invalid_header /Content-Type"),
        (app.post(path).body("text/<b>", "x"), "invalid_header /Content-Type"),
        (app.post(&long).body("text/plain", "x"), "too_long /filename"),
        (post_form(&app, path, &[("name=\"note\"", b"x")]), "required /file"),
        (post_form(&app, path, &[("name=\"file\"; filename=\"a\"", b"")]), "too_short /file"),
        (post_form(&app, path, &two), "too_many /file"),
        (post_form(&app, "/api/v1/attachments?strict=true", &[two[0], ("name=\"note\"", b"x")]), "unknown_field /note"),
        (
            app.post(path).header("idempotency-key", "a b").body("text/plain", "x"),
            "invalid_idempotency_key /Idempotency-Key",
        ),
    ] {
        assert_eq!(request.await.faults(), [expected]);
    }
    app.post(path).body("multipart/form-data", "x").await.problem(400, "malformed_form");
    app.post(path).body("multipart/form-data; boundary=bound", "--bound\r\nX").await.problem(400, "incomplete_body");
    let packed = app.post(path).header("content-encoding", "gzip").body("text/plain", "x").await;
    packed.problem(415, "unsupported_media_type");
    let of_two = |second| app.post(path).body("text/plain", "x").one_more_header("content-type", second);
    of_two("text/html").await.problem(415, "unsupported_media_type");
    of_two("text/plain").await.expect(201);
    let broken = stream::iter([Ok(Bytes::from("x")), Err(std::io::Error::other("gone"))]);
    app.post(path).body("text/plain", Body::from_stream(broken)).await.problem(400, "incomplete_body");
    let noted = post_form(&app, path, &[("name=\"note\"", b"x"), two[0]]).await;
    assert_eq!(noted.header("x-ignored-fields"), "note");
    noted.expect(201);
    app.post(path).no_key().body("text/plain", "x").await.problem(401, "unauthenticated");
    let reader = app.key_with(&["messages:read"]).await;
    app.post(path).key(&reader).body("text/plain", "x").await.problem(403, "insufficient_scope");
}

#[tokio::test]
async fn faults_of_an_uploads_head_and_of_its_file_are_named_at_once() {
    let app = TestApp::new().await;
    let path = "/api/v1/attachments";
    let strict = format!("{path}?strict=true&x=1");
    let long = format!("{strict}&filename={}", "ü".repeat(256));
    let file = "name=\"file\"; filename=\"a\"";
    let unkeyed = "invalid_idempotency_key /Idempotency-Key";
    let faulty: [(Request, &[&str]); 6] = [
        (app.post(path).header("idempotency-key", "a b").body("text/plain", ""), &[unkeyed, "too_short /file"]),
        (app.post(&long).body("text/plain", "x"), &["unknown_field /x", "too_long /filename"]),
        (
            app.post(&long).body("text", "x"),
            &["unknown_field /x", "invalid_header /Content-Type", "too_long /filename"],
        ),
        (post_form(&app, &strict, &[(file, b"a"), (file, b"b")]), &["unknown_field /x", "too_many /file"]),
        (
            post_form(&app, &strict, &[("name=\"n\"", b"x"), (file, b"")]),
            &["unknown_field /x", "unknown_field /n", "too_short /file"],
        ),
        (post_form(&app, path, &[("name=\"n\"", b"x")]).header("idempotency-key", "a b"), &[unkeyed, "required /file"]),
    ];
    for (request, expected) in faulty {
        assert_eq!(request.await.faults(), expected);
        assert_eq!(files_below(app.files.path()), [""; 0], "{expected:?}: none of it is kept");
    }
    let too_large = app.post(&strict).body("text/plain", streamed(MAX_BYTES + 1));
    too_large.await.problem(413, "attachment_too_large");
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_stalls_is_waited_for_no_longer_when_the_server_stops() {
    let app = TestApp::new().await;
    app.app.leave();
    let begun = tokio::time::Instant::now();
    let stalled = stream::iter([Ok::<_, std::io::Error>(Bytes::from("half"))]).chain(stream::pending());
    let refused = app.post("/api/v1/attachments").body("text/plain", Body::from_stream(stalled)).await;
    refused.problem(503, "stopping");
    assert!(begun.elapsed().as_secs() < 8, "within what a stopping server gives its requests");
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_stalls_is_ended_and_leaves_nothing() {
    let app = TestApp::new().await;
    let begun = tokio::time::Instant::now();
    let stalled = stream::iter([Ok::<_, std::io::Error>(Bytes::from("half"))]).chain(stream::pending());
    let refused = app.post("/api/v1/attachments").body("text/plain", Body::from_stream(stalled)).await;
    refused.problem(408, "request_timeout");
    let took = begun.elapsed().as_secs();
    assert!((15..60).contains(&took), "{took} s");
    until(async || files_below(app.files.path()).is_empty().then_some(())).await;
}

/// A stream of so many bytes at once, so many milliseconds apart.
fn trickling(bytes: usize, apart: u64) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> + Send {
    stream::unfold((), move |()| async move {
        tokio::time::sleep(std::time::Duration::from_millis(apart)).await;
        Some((Ok(Bytes::from(vec![b'x'; bytes])), ()))
    })
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_trickles_keeps_its_place_no_longer_than_one_that_stalls() {
    let app = TestApp::new().await;
    let form = b"--bound\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
    let begun_form = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(form))]);
    let ended = Bytes::from([&form[..], b"x\r\n--bound\r\n"].concat());
    let trickles: [(&str, Body); 4] = [
        ("text/plain", Body::from_stream(trickling(1, 1_000))),
        ("text/plain", Body::from_stream(trickling(1_000, 100))),
        ("multipart/form-data; boundary=bound", Body::from_stream(begun_form.chain(trickling(1, 1_000)))),
        (
            "multipart/form-data; boundary=bound",
            Body::from_stream(stream::iter([Ok::<_, std::io::Error>(ended)]).chain(trickling(1, 1_000))),
        ),
    ];
    for (n, (kind, body)) in trickles.into_iter().enumerate() {
        let begun = tokio::time::Instant::now();
        let refused = app.post("/api/v1/attachments").body(kind, body).await;
        refused.problem(408, "request_timeout");
        let took = begun.elapsed().as_secs();
        assert!((10..45).contains(&took), "{n}: {took} s");
    }
    // An upload at the required rate may take as long as it needs.
    let begun = tokio::time::Instant::now();
    let steady = Body::from_stream(trickling(20 * 1024, 1_000).take(60));
    let made = app.post("/api/v1/attachments").body("text/plain", steady).await.expect(201);
    assert_eq!((&made["size"], begun.elapsed().as_secs()), (&json!(60 * 20 * 1024), 60));
    until(async || (files_below(app.files.path()).len() == 1).then_some(())).await;
}

#[tokio::test]
async fn a_key_has_one_file_however_often_it_is_sent() {
    let app = TestApp::new().await;
    let upload = |key: &str, text: &str, name: &str| {
        let path = format!("/api/v1/attachments?filename={name}");
        app.post(path).idempotency_key(key).body("text/plain", text.to_owned())
    };
    let racing: Vec<Answer> =
        stream::iter((0..20).map(|_| upload("k", "same", "a").send())).buffered(20).collect().await;
    let first = racing[0].bytes.clone();
    let replays = racing.iter().filter(|answer| answer.header("idempotent-replayed") == "true").count();
    for answer in racing {
        assert_eq!((answer.status, &answer.bytes), (201, &first));
    }
    assert_eq!(replays, 19);
    until(async || (files_below(app.files.path()).len() == 1).then_some(())).await;

    for (text, name) in [("other", "a"), ("same", "b")] {
        upload("k", text, name).await.problem(422, "idempotency_key_reused");
    }
    let other = app.workspace("other").await;
    let elsewhere = upload("k", "other", "a").key(&other).await.expect(201);
    assert_ne!(
        Some(elsewhere["id"].as_str().unwrap()),
        serde_json::from_slice::<Value>(&first).unwrap()["id"].as_str()
    );
    upload("l", "same", "a").await.expect(201);

    app.clock.advance(2 * DAY + 1);
    let reborn = upload("k", "other", "a").await;
    assert_eq!(reborn.header("idempotent-replayed"), "");
    assert_ne!(reborn.expect(201)["id"], serde_json::from_slice::<Value>(&first).unwrap()["id"]);
}

#[tokio::test]
async fn an_upload_shares_the_keys_of_its_workspace_with_every_other_post() {
    let app = TestApp::new().await;
    let path = "/api/v1/attachments?filename=a";
    let upload = |key: &str| app.post(path).idempotency_key(key).body("text/plain", "same").send();
    let channel = |key: &str, id: &str| {
        app.post("/api/v1/channels").idempotency_key(key).json(json!({"id": id, "name": "c", "kind": "human"})).send()
    };
    let conversation =
        |key: &str| app.post("/api/v1/messages").idempotency_key(key).json(json!({"content": {"content": "x"}})).send();
    let first = upload("one").await;
    channel("one", "c1").await.problem(422, "idempotency_key_reused");
    conversation("one").await.problem(422, "idempotency_key_reused");
    channel("two", "c2").await.expect(201);
    upload("two").await.problem(422, "idempotency_key_reused");
    conversation("three").await.expect(200);
    upload("three").await.problem(422, "idempotency_key_reused");
    let again = upload("one").await;
    assert_eq!((again.status, &again.bytes), (201, &first.bytes));
    assert_eq!(again.header("idempotent-replayed"), "true");

    // A refused request uses up nothing, on either side.
    app.post(path).idempotency_key("four").body("text/plain", "").await.problem(400, "too_short");
    channel("four", "c2").await.problem(409, "channel_exists");
    let made = upload("four").await;
    assert_eq!((made.status, made.header("idempotent-replayed")), (201, ""));
    channel("four", "c4").await.problem(422, "idempotency_key_reused");
    until(async || (files_below(app.files.path()).len() == 2).then_some(())).await;
}

#[tokio::test]
async fn a_foreign_file_is_as_one_that_never_was() {
    let app = TestApp::new().await;
    let mine = uploaded(&app, "mine").await;
    let other = app.workspace("other").await;
    let strange = AttachmentId::new(Millis(1), actors::id::Address([1; 10])).to_string();
    for id in [mine.as_str(), &strange, "att_", "msg_x", "%00"] {
        for path in [format!("/api/v1/attachments/{id}"), format!("/api/v1/attachments/{id}/content")] {
            app.get(path).key(&other).await.problem(404, "attachment_not_found");
        }
    }
    let body = json!({"channelId": "demo", "text": "x", "attachmentIds": [mine]});
    let made = json!({"id": "demo", "name": "demo", "kind": "human"});
    app.post("/api/v1/channels").key(&other).json(made).await.expect(201);
    let faults = app.post("/api/v1/messages").key(&other).json(body).await.faults();
    assert_eq!(faults, ["attachment_not_found /attachmentIds/0"]);
}
