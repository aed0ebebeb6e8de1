use super::*;

#[test]
fn every_body_that_the_contract_allows_is_accepted() {
    let metadata_of = |bytes: usize| json!({"metadata": {"k": "x".repeat(bytes - 8)}});
    let deep =
        |levels: usize| serde_json::from_str::<Any>(&format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels)));
    let ids = |n: usize| (0..n).map(|i| format!("att_{i}")).collect::<Vec<_>>();
    let headers = |n: usize| (0..n).map(|i| (format!("X-{i}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    for body in [
        json!({"channelId": "demo", "text": "x"}),
        json!({"channelId": "x", "status": "info"}),
        json!({"channelId": "x", "attachmentIds": ["att_1"]}),
        json!({"channelId": "x", "review": {"type": "approval"}}),
        json!({"channelId": "x", "text": null, "status": "error"}),
        json!({"channelId": "x", "text": "", "status": "error"}),
        with(json!({"text": "x".repeat(65_536)})),
        with(json!({"text": "é".repeat(32_768)})),
        with(json!({"text": "😀".repeat(16_384)})),
        with(json!({"text": " \n **bold** \u{0} "})),
        with(json!({"status": "success"})),
        with(json!({"status": "warning"})),
        with(metadata_of(16_384)),
        with(json!({"metadata": {}})),
        with(json!({"metadata": deep(8).unwrap()})),
        with(json!({"metadata": null, "webhookUrl": null, "review": null, "status": null, "clientId": null,
                "iterationOf": null})),
        with(json!({"attachmentIds": []})),
        with(json!({"attachmentIds": null})),
        with(json!({"attachmentIds": ids(20)})),
        with(json!({"webhookUrl": "https://example.com/hook"})),
        with(json!({"webhookUrl": "http://127.0.0.9:99/hook"})),
        with(json!({"iterationOf": "msg_x"})),
        with(json!({"clientId": "k"})),
        with(json!({"clientId": "~".repeat(255)})),
        review(json!({"type": "t".repeat(64)})),
        review(json!({"type": "é".repeat(64)})),
        review(json!({"payload": {}})),
        review(json!({"payload": {"options": 5, "anything": [1, null]}})),
        payload("approval", json!({})),
        payload("approval", json!({"options": [{"id": "a", "label": "A"}], "allowComment": true})),
        payload(
            "approval",
            json!({"options": [{"id": "a", "label": "A", "style": "danger"}, {"id": "b", "label": "B", "x": 1}]}),
        ),
        payload("selection", json!({"mode": "single", "items": [{"id": "a", "label": "A"}]})),
        payload("selection", json!({"mode": "multi", "items": [{"id": "a", "label": "A"}, {"id": "b", "label": "A"}]})),
        payload("selection", json!({"items": [{"id": "a", "label": "A"}]})),
        payload("form", json!({"fields": [{"name": "n", "type": "text"}]})),
        payload(
            "form",
            json!({"fields": [{"name": "n", "type": "select", "label": "N", "required": true, "options": ["a",
                {"id": "b", "label": "B"}]}]}),
        ),
        payload("text-input", json!({"minLength": 0, "maxLength": 0, "placeholder": "p", "prefill": ""})),
        payload("text-input", json!({"minLength": 1.0, "maxLength": 1e3})),
        review(json!({"type": "text-input"})),
        payload("x", json!({"responseSchema": {}})),
        payload("x", json!({"responseSchema": true})),
        payload(
            "x",
            json!({"responseSchema": {"type": "object", "required": ["a"],
                "properties": {"a": {"$ref": "#/$defs/t"}}, "$defs": {"t": {"type": "string"}}}}),
        ),
        payload(
            "x",
            json!({"responseSchema": {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"}}),
        ),
        review(json!({"callback": {"url": "https://example.com"}})),
        review(json!({"callback": {"url": "https://example.com", "method": null, "headers": null}})),
        review(json!({"callback": {"url": "https://example.com", "method": "PATCH", "headers": headers(20)}})),
        review(json!({"callback": {"url": "https://example.com", "headers": {"Authorization": "Bearer x",
                "X-Webhook-Id": "y", "x-empty": ""}}})),
        review(json!({"expiresInSeconds": 1})),
        review(json!({"expiresInSeconds": 1.0})),
        review(json!({"expiresInSeconds": 31_536_000})),
        review(json!({"expiresAt": "2025-01-01T00:00:00.001Z"})),
        review(json!({"expiresAt": "2026-01-01T00:00:00Z"})),
        review(json!({"expiresAt": "2025-01-01T02:00:00+01:00"})),
        review(json!({"expiresAt": "1999-01-01T00:00:00Z", "expiresInSeconds": 5})),
        review(json!({"onExpire": {"response": {"selectedOption": "reject"}}})),
        review(json!({"onExpire": null, "quorum": null, "callback": null, "expiresAt": null,
                "expiresInSeconds": null, "payload": null})),
        review(json!({"quorum": {"of": 1}})),
        review(json!({"quorum": {"of": 100}})),
        review(json!({"quorum": {}})),
        review(json!({"quorum": {"of": 2, "allowed": ["a", "b"]}})),
        review(json!({"quorum": {"of": 2, "allowed": ["a", "b", "c"]}})),
    ] {
        let (_, report) = read(&body);
        assert_eq!((named(&report.faults), named(&report.late)), (vec![], vec![]), "{body}");
        assert!(report.ignored.is_empty(), "{body} {:?}", report.ignored);
    }
}

#[test]
fn each_fault_has_its_code_and_pointer() {
    let deep9 = serde_json::from_str::<Any>(&format!("{}1{}", "{\"a\":".repeat(9), "}".repeat(9))).unwrap();
    let ids = |n: usize| (0..n).map(|i| format!("att_{i}")).collect::<Vec<_>>();
    let headers = |n: usize| (0..n).map(|i| (format!("X-{i}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    let callback = |members: Any| {
        let mut callback = json!({"url": "https://example.com"});
        callback.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        review(json!({ "callback": callback }))
    };
    for (body, expected) in [
        (json!({"text": "x"}), "required /channelId"),
        (json!({"text": "x", "channelId": null}), "required /channelId"),
        (json!({"text": "x", "channelId": ""}), "too_short /channelId"),
        (json!({"text": "x", "channelId": 5}), "invalid_type /channelId"),
        (json!({"channelId": "x"}), "empty_message "),
        (json!({"channelId": "x", "text": null}), "empty_message "),
        (json!({"channelId": "x", "text": ""}), "empty_message "),
        (json!({"channelId": "x", "attachmentIds": [ ]}), "empty_message "),
        (json!({"channelId": "x", "metadata": {"a": 1}, "webhookUrl": "https://example.com"}), "empty_message "),
        (json!({"channelId": "x", "text": 5}), "invalid_type /text"),
        (json!({"channelId": "x", "attachmentIds": "a"}), "invalid_type /attachmentIds"),
        (json!({"channelId": "x", "attachmentIds": [5]}), "invalid_type /attachmentIds/0"),
        (with(json!({"text": "x".repeat(65_537)})), "too_long /text"),
        (with(json!({"text": "é".repeat(32_769)})), "too_long /text"),
        (with(json!({"status": "INFO"})), "invalid_enum /status"),
        (with(json!({"status": ""})), "invalid_enum /status"),
        (with(json!({"status": 1})), "invalid_type /status"),
        (with(json!({"metadata": {"k": "x".repeat(16_377)}})), "too_large /metadata"),
        (with(json!({"metadata": deep9})), "too_deep /metadata"),
        (with(json!({"metadata": []})), "invalid_type /metadata"),
        (with(json!({"metadata": "x"})), "invalid_type /metadata"),
        (with(json!({"webhookUrl": "x"})), "invalid_url /webhookUrl"),
        (with(json!({"webhookUrl": ""})), "invalid_url /webhookUrl"),
        (with(json!({"webhookUrl": "http://127.0.0.1/"})), "blocked_url /webhookUrl"),
        (with(json!({"webhookUrl": 5})), "invalid_type /webhookUrl"),
        (with(json!({"attachmentIds": ids(21)})), "too_many /attachmentIds"),
        (with(json!({"attachmentIds": ["a", "b", "a"]})), "duplicate_value /attachmentIds/2"),
        (with(json!({"attachmentIds": ["a", null]})), "invalid_type /attachmentIds/1"),
        (with(json!({"iterationOf": 5})), "invalid_type /iterationOf"),
        (with(json!({"clientId": ""})), "too_short /clientId"),
        (with(json!({"clientId": "\"\""})), "too_short /clientId"),
        (with(json!({"clientId": "k".repeat(256)})), "too_long /clientId"),
        (with(json!({"clientId": "a b"})), "invalid_idempotency_key /clientId"),
        (with(json!({"clientId": "é"})), "invalid_idempotency_key /clientId"),
        (with(json!({"clientId": 7})), "invalid_type /clientId"),
        (with(json!({"review": "x"})), "invalid_type /review"),
        (with(json!({"review": []})), "invalid_type /review"),
        (with(json!({"review": {}})), "required /review/type"),
        (with(json!({"review": {"type": null}})), "required /review/type"),
        (with(json!({"review": {"type": ""}})), "required /review/type"),
        (review(json!({"type": "t".repeat(65)})), "too_long /review/type"),
        (review(json!({"type": 1})), "invalid_type /review/type"),
        (review(json!({"payload": []})), "invalid_type /review/payload"),
        (review(json!({"type": "selection"})), "required /review/payload"),
        (review(json!({"type": "form"})), "required /review/payload"),
        (payload("approval", json!({"options": []})), "too_few /review/payload/options"),
        (payload("approval", json!({"options": {}})), "invalid_type /review/payload/options"),
        (payload("approval", json!({"options": ["a"]})), "invalid_type /review/payload/options/0"),
        (payload("approval", json!({"options": [{"label": "A"}]})), "required /review/payload/options/0/id"),
        (payload("approval", json!({"options": [{"id": "a"}]})), "required /review/payload/options/0/label"),
        (payload("approval", json!({"options": [{"id": "", "label": ""}]})), "too_short /review/payload/options/0/id"),
        (
            payload("approval", json!({"options": [{"id": 1, "label": "A"}]})),
            "invalid_type /review/payload/options/0/id",
        ),
        (
            payload("approval", json!({"options": [{"id": "a", "label": "A", "style": 1}]})),
            "invalid_type /review/payload/options/0/style",
        ),
        (
            payload("approval", json!({"options": [{"id": "a", "label": "A"}, {"id": "a", "label": "B"}]})),
            "duplicate_value /review/payload/options/1/id",
        ),
        (payload("approval", json!({"allowComment": "yes"})), "invalid_type /review/payload/allowComment"),
        (payload("selection", json!({})), "required /review/payload/items"),
        (payload("selection", json!({"items": []})), "too_few /review/payload/items"),
        (
            payload("selection", json!({"mode": "many", "items": [{"id": "a", "label": "A"}]})),
            "invalid_enum /review/payload/mode",
        ),
        (
            payload("selection", json!({"items": [{"id": "a", "label": "A"}, {"id": "a", "label": "B"}]})),
            "duplicate_value /review/payload/items/1/id",
        ),
        (payload("form", json!({})), "required /review/payload/fields"),
        (payload("form", json!({"fields": [{"type": "text"}]})), "required /review/payload/fields/0/name"),
        (payload("form", json!({"fields": [{"name": "a"}]})), "required /review/payload/fields/0/type"),
        (
            payload("form", json!({"fields": [{"name": "a", "type": "t"}, {"name": "a", "type": "t"}]})),
            "duplicate_value /review/payload/fields/1/name",
        ),
        (
            payload("form", json!({"fields": [{"name": "a", "type": "t", "label": 1}]})),
            "invalid_type /review/payload/fields/0/label",
        ),
        (
            payload("form", json!({"fields": [{"name": "a", "type": "t", "required": "x"}]})),
            "invalid_type /review/payload/fields/0/required",
        ),
        (
            payload("form", json!({"fields": [{"name": "a", "type": "t", "options": [1]}]})),
            "invalid_type /review/payload/fields/0/options/0",
        ),
        (
            payload("form", json!({"fields": [{"name": "a", "type": "t", "options": ["x", {"id": "y"}]}]})),
            "required /review/payload/fields/0/options/1/label",
        ),
        (payload("text-input", json!({"minLength": -1})), "out_of_range /review/payload/minLength"),
        (payload("text-input", json!({"maxLength": 1.5})), "invalid_type /review/payload/maxLength"),
        (payload("text-input", json!({"minLength": 5, "maxLength": 4})), "out_of_range /review/payload/minLength"),
        (payload("text-input", json!({"placeholder": 1})), "invalid_type /review/payload/placeholder"),
        (payload("text-input", json!({"prefill": {}})), "invalid_type /review/payload/prefill"),
        (
            payload("x", json!({"responseSchema": {"type": "nope"}})),
            "invalid_schema /review/payload/responseSchema/type",
        ),
        (
            payload("x", json!({"responseSchema": {"required": "a"}})),
            "invalid_schema /review/payload/responseSchema/required",
        ),
        (
            payload("x", json!({"responseSchema": {"pattern": "("}})),
            "invalid_schema /review/payload/responseSchema/pattern",
        ),
        (
            payload("x", json!({"responseSchema": {"$ref": "#/$defs/none"}})),
            "invalid_schema /review/payload/responseSchema/$ref",
        ),
        (
            payload("x", json!({"responseSchema": {"$ref": "https://example.com/schema.json"}})),
            "invalid_schema /review/payload/responseSchema/$ref",
        ),
        (
            payload("x", json!({"responseSchema": {"$ref": "file:///etc/passwd"}})),
            "invalid_schema /review/payload/responseSchema/$ref",
        ),
        (review(json!({"callback": "x"})), "invalid_type /review/callback"),
        (review(json!({"callback": {}})), "required /review/callback/url"),
        (callback(json!({"url": "ftp://example.com"})), "invalid_url /review/callback/url"),
        (callback(json!({"url": "http://u:p@example.com"})), "invalid_url /review/callback/url"),
        (callback(json!({"url": "http://localhost/x"})), "blocked_url /review/callback/url"),
        (callback(json!({"method": "GET"})), "invalid_enum /review/callback/method"),
        (callback(json!({"method": "post"})), "invalid_enum /review/callback/method"),
        (callback(json!({"method": 1})), "invalid_type /review/callback/method"),
        (callback(json!({"headers": []})), "invalid_type /review/callback/headers"),
        (callback(json!({"headers": headers(21)})), "too_many /review/callback/headers"),
        (callback(json!({"headers": {"X-A": 1}})), "invalid_type /review/callback/headers/X-A"),
        (callback(json!({"headers": {"Host": "x"}})), "forbidden_header /review/callback/headers/Host"),
        (
            callback(json!({"headers": {"content-length": "1"}})),
            "forbidden_header /review/callback/headers/content-length",
        ),
        (callback(json!({"headers": {"CONNECTION": "x"}})), "forbidden_header /review/callback/headers/CONNECTION"),
        (
            callback(json!({"headers": {"Transfer-Encoding": "x"}})),
            "forbidden_header /review/callback/headers/Transfer-Encoding",
        ),
        (callback(json!({"headers": {"Webhook-Id": "x"}})), "forbidden_header /review/callback/headers/Webhook-Id"),
        (callback(json!({"headers": {"X-A": "a\r\nHost: b"}})), "forbidden_header /review/callback/headers/X-A"),
        (callback(json!({"headers": {"X-A": "a\n"}})), "forbidden_header /review/callback/headers/X-A"),
        (callback(json!({"headers": {"X A": "a"}})), "forbidden_header /review/callback/headers/X A"),
        (callback(json!({"headers": {"a/b": "a"}})), "forbidden_header /review/callback/headers/a~1b"),
        (callback(json!({"headers": {"": "a"}})), "forbidden_header /review/callback/headers/"),
        (review(json!({"expiresInSeconds": 0})), "out_of_range /review/expiresInSeconds"),
        (review(json!({"expiresInSeconds": -5})), "out_of_range /review/expiresInSeconds"),
        (review(json!({"expiresInSeconds": 1.5})), "invalid_type /review/expiresInSeconds"),
        (review(json!({"expiresInSeconds": "60"})), "invalid_type /review/expiresInSeconds"),
        (review(json!({"expiresInSeconds": 31_536_001})), "expiry_too_far /review/expiresInSeconds"),
        (review(json!({"expiresInSeconds": 4_503_599_627_370_495_u64})), "expiry_too_far /review/expiresInSeconds"),
        (review(json!({"expiresInSeconds": 9_007_199_254_740_991_u64})), "expiry_too_far /review/expiresInSeconds"),
        (review(json!({"expiresInSeconds": 9_007_199_254_740_992_u64})), "expiry_too_far /review/expiresInSeconds"),
        (review(json!({"expiresInSeconds": u64::MAX})), "expiry_too_far /review/expiresInSeconds"),
        (review(json!({"expiresAt": "tomorrow"})), "invalid_datetime /review/expiresAt"),
        (review(json!({"expiresAt": "2026-01-01T00:00:00"})), "invalid_datetime /review/expiresAt"),
        (review(json!({"expiresAt": 1_735_689_600})), "invalid_type /review/expiresAt"),
        (review(json!({"expiresAt": "x", "expiresInSeconds": 5})), "invalid_datetime /review/expiresAt"),
        (review(json!({"expiresAt": "2026-01-01T00:00:00.001Z"})), "expiry_too_far /review/expiresAt"),
        (review(json!({"expiresAt": "9999-12-31T23:59:59Z"})), "expiry_too_far /review/expiresAt"),
        (review(json!({"onExpire": {}})), "required /review/onExpire/response"),
        (review(json!({"onExpire": {"response": "x"}})), "invalid_type /review/onExpire/response"),
        (review(json!({"onExpire": []})), "invalid_type /review/onExpire"),
        (review(json!({"quorum": 2})), "invalid_type /review/quorum"),
        (review(json!({"quorum": {"of": 0}})), "out_of_range /review/quorum/of"),
        (review(json!({"quorum": {"of": 101}})), "out_of_range /review/quorum/of"),
        (review(json!({"quorum": {"of": "2"}})), "invalid_type /review/quorum/of"),
        (review(json!({"quorum": {"of": 2, "allowed": ["a"]}})), "too_few /review/quorum/allowed"),
        (review(json!({"quorum": {"of": 1, "allowed": []}})), "too_few /review/quorum/allowed"),
        (review(json!({"quorum": {"of": 1, "allowed": ["a", "a"]}})), "duplicate_value /review/quorum/allowed/1"),
        (review(json!({"quorum": {"of": 1, "allowed": [""]}})), "too_short /review/quorum/allowed/0"),
        (review(json!({"quorum": {"of": 1, "allowed": "a"}})), "invalid_type /review/quorum/allowed"),
    ] {
        assert_eq!(faults(&body), [expected], "{body}");
    }
}

#[test]
fn at_most_a_thousand_principals_may_be_allowed() {
    let allowed = |n: usize| {
        let names: Vec<_> = (0..n).map(|i| format!("user{i}")).collect();
        faults(&review(json!({"quorum": {"of": 100, "allowed": names}})))
    };
    assert!(allowed(100).is_empty());
    assert!(allowed(1_000).is_empty());
    assert_eq!(allowed(1_001), ["too_many /review/quorum/allowed"]);
    assert_eq!(allowed(99), ["too_few /review/quorum/allowed"]);
}

#[test]
fn only_what_is_within_a_lists_bound_is_read() {
    let headers: serde_json::Map<_, _> = (0..100).map(|i| (format!("X-{i}"), json!(1))).collect();
    for (body, bound) in [
        (with(json!({"attachmentIds": vec![1; 100]})), 20),
        (review(json!({"callback": {"url": "https://example.com", "headers": headers}})), 20),
    ] {
        let faults = faults(&body);
        assert!(faults[0].starts_with("too_many "), "{faults:?}");
        assert_eq!(faults.len(), 1 + bound, "{faults:?}");
    }
}
