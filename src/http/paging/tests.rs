use super::*;

fn request(query: &str) -> Result<PageRequest, Problem> {
    PageRequest::from_query(&Query::parse(Some(query)).unwrap(), "messages")
}

fn faults(query: &str) -> Vec<(String, &'static str)> {
    let problem = request(query).unwrap_err();
    assert_eq!(problem.status, 400);
    problem.faults.into_iter().map(|fault| (fault.pointer, fault.code)).collect()
}

async fn body(response: Response) -> serde_json::Value {
    let bytes = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn a_list_defaults_to_the_oldest_fifty() {
    assert_eq!(request("").unwrap(), PageRequest { limit: 50, cursor: None, order: Order::Asc });
    assert_eq!(request("limit=200&order=desc").unwrap(), PageRequest { limit: 200, cursor: None, order: Order::Desc });
}

#[test]
fn a_limit_outside_of_its_bounds_is_refused_and_never_clamped() {
    for limit in ["0", "201", "-1", "99999999999999999999999"] {
        assert_eq!(faults(&format!("limit={limit}")), [("/limit".to_owned(), "out_of_range")], "{limit}");
    }
    for limit in ["", "ten", "1.5", "0x10", "-", "%2B5"] {
        assert_eq!(faults(&format!("limit={limit}")), [("/limit".to_owned(), "invalid_type")], "{limit}");
    }
}

#[test]
fn every_fault_of_a_page_request_is_reported_at_once() {
    let found = faults("limit=0&cursor=x&order=up");
    let codes: Vec<_> = found.iter().map(|(_, code)| *code).collect();
    assert_eq!(codes, ["out_of_range", "invalid_cursor", "invalid_enum"]);
    let problem = request("order=up").unwrap_err();
    assert!(problem.detail.contains("asc, desc"), "{}", problem.detail);
}

#[test]
fn a_cursor_comes_back_as_the_position_it_was_made_of() {
    for position in [&b""[..], b"\0\xff", &[7; 40]] {
        let page = request(&format!("cursor={}", encode(position, "messages"))).unwrap();
        assert_eq!(page.cursor.as_deref(), Some(position));
    }
}

#[test]
fn a_cursor_of_another_list_is_refused() {
    assert_eq!(faults(&format!("cursor={}", encode(b"1", "reviews"))), [("/cursor".to_owned(), "invalid_cursor")]);
}

#[test]
fn a_cursor_with_any_bit_changed_is_refused() {
    let cursor = URL_SAFE_NO_PAD.decode(encode(b"seq-42", "messages")).unwrap();
    for bit in 0..cursor.len() * 8 {
        let mut forged = cursor.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode(&URL_SAFE_NO_PAD.encode(&forged), "messages"), None, "bit {bit}");
    }
    for end in 0..cursor.len() {
        assert_eq!(decode(&URL_SAFE_NO_PAD.encode(&cursor[..end]), "messages"), None, "cut at {end}");
    }
}

#[tokio::test]
async fn a_page_links_to_the_next_one_with_the_same_query() {
    let page = Page { data: vec![1, 2], next: Some(b"2".to_vec()) };
    let cursor = encode(b"2", "messages/desc");
    let uri = Uri::from_static("/api/v1/messages?limit=2&%63urso%72=old&tag=a%20b&order=desc");
    let next = format!("</api/v1/messages?limit=2&tag=a%20b&order=desc&cursor={cursor}>; rel=\"next\"");
    assert_eq!(page.clone().into_response("messages", &uri).headers()[header::LINK], next);
    let uri = Uri::from_static("/api/v1/messages?limit=2&cursor=old&tag=a%20b&order=desc");
    let response = page.into_response("messages", &uri);
    assert_eq!(response.headers()[header::LINK], next);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert_eq!(body(response).await, serde_json::json!({"data": [1, 2], "nextCursor": cursor, "hasMore": true}));
}

#[tokio::test]
async fn the_last_page_has_no_next_cursor() {
    let page = Page::<u8> { data: vec![], next: None };
    let response = page.into_response("messages", &Uri::from_static("/api/v1/messages"));
    assert!(!response.headers().contains_key(header::LINK));
    assert_eq!(body(response).await, serde_json::json!({"data": [], "nextCursor": null, "hasMore": false}));
}

#[test]
fn a_link_is_ascii_whatever_the_target_was() {
    let uri = Uri::try_from("/a?search=é&x").unwrap();
    assert_eq!(link(&uri, "c").unwrap(), "</a?search=%C3%A9&x&cursor=c>; rel=\"next\"");
}

#[test]
fn a_page_is_full_by_its_items_or_its_bytes_and_takes_one_at_least() {
    let fill = |limit: usize, weight: usize| {
        let mut items = PageItems::of(limit);
        let taken = (0..9).take_while(|n| items.push(*n, weight)).count();
        assert_eq!(items.into_page(None).data, (0..taken).collect::<Vec<_>>());
        taken
    };
    assert_eq!(fill(3, 0), 3);
    assert_eq!(fill(9, PAGE_BYTES / 4), 4, "exactly as many bytes as there may be");
    assert_eq!(fill(9, PAGE_BYTES / 4 + 1), 3);
    for long in [PAGE_BYTES + 1, usize::MAX] {
        assert_eq!(fill(9, long), 1);
    }
}
