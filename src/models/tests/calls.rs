//! How a call ends: retries, limits, and being cancelled.

use tokio::net::TcpSocket;

use super::stub::Seen;
use super::*;

fn status(line: &str, headers: &[&str]) -> Act {
    Act::Say(answer(line, headers, "{}"))
}

#[tokio::test]
async fn a_call_refused_for_its_rate_is_tried_again_when_the_endpoint_says() {
    let (outcome, requests) = ask(vec![status("429 Too Many Requests", &["retry-after: 0"]), good()]).await;
    assert_eq!(outcome.unwrap().0, "Good morning!");
    let bodies: Vec<_> = requests.iter().map(|request| request.split_once("\r\n\r\n").unwrap().1).collect();
    assert_eq!(bodies.len(), 2);
    assert_eq!(bodies[0], bodies[1]);
}

#[tokio::test]
async fn an_endpoint_that_asks_for_more_time_than_there_is_is_not_asked_again() {
    let (outcome, requests) = ask(vec![status("429 Too Many Requests", &["retry-after: 3600"]), good()]).await;
    assert_eq!((outcome, requests.len()), (Err(Fault::RateLimited), 1));
}

#[tokio::test]
async fn a_date_in_retry_after_counts_as_its_seconds_do() {
    let busy = |date| status("429 Too Many Requests", &[date]);
    let now = busy("retry-after: Wed, 21 Oct 2015 07:28:00 GMT");
    let (outcome, requests) = ask(vec![now, good()]).await;
    assert_eq!((outcome.unwrap().0.as_str(), requests.len()), ("Good morning!", 2));
    let in_an_hour = busy("retry-after: Wed, 21 Oct 2015 08:28:00 GMT");
    let (outcome, requests) = ask(vec![in_an_hour, good()]).await;
    assert_eq!((outcome, requests.len()), (Err(Fault::RateLimited), 1));
}

#[tokio::test]
async fn a_second_failure_is_the_answer() {
    let first = status("500 Internal Server Error", &[]);
    let (outcome, requests) = ask(vec![first, status("503 Service Unavailable", &[]), good()]).await;
    assert_eq!((outcome, requests.len()), (Err(Fault::Upstream(StatusCode::SERVICE_UNAVAILABLE)), 2));
}

#[tokio::test]
async fn a_requested_retry_is_recorded_whatever_its_outcome() {
    let busy = || status("503 Service Unavailable", &[]);
    for (acts, asked_again) in [(vec![good()], false), (vec![busy(), good()], true), (vec![busy(), busy()], true)] {
        let stub = Stub::start(acts).await;
        let prompt = prompt(stub.base_url());
        let _ = client().ask(&prompt, AMPLE).await;
        assert_eq!(prompt.exchange.was_resent(), asked_again);
    }
}

#[tokio::test]
async fn why_an_answer_ended_is_known_by_the_words_of_the_protocol_alone() {
    for (said, kept) in [("stop", "stop"), ("content_filter", "content_filter"), ("my own secret", "_OTHER")] {
        let mut answer = completion(json!("Good morning!"));
        answer["choices"][0]["finish_reason"] = json!(said);
        let stub = Stub::start(vec![Act::Say(json_answer(&answer))]).await;
        let prompt = prompt(stub.base_url());
        let _ = client().ask(&prompt, AMPLE).await;
        assert_eq!((prompt.exchange.finish_reason(), prompt.exchange.first_chunk()), (Some(kept), None));
    }
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_tried_again() {
    let (outcome, requests) = ask(vec![Act::Say(String::new()), good()]).await;
    assert_eq!((outcome.unwrap().0.as_str(), requests.len()), ("Good morning!", 2));
}

#[tokio::test]
async fn every_other_status_ends_the_call_with_a_code_of_its_own() {
    for (line, code) in [
        ("400 Bad Request", "bad_request"),
        ("404 Not Found", "bad_request"),
        ("401 Unauthorized", "unauthorized"),
        ("403 Forbidden", "unauthorized"),
    ] {
        assert_eq!(fault(answer(line, &["content-type: application/json"], "{}")).await, code, "{line}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for line in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let stub = Stub::start(vec![good()]).await;
        let location = format!("location: {}/chat/completions", stub.base_url());
        assert_eq!(fault(answer(line, &[&location], "")).await, "unexpected_redirect", "{line}");
        assert_eq!(stub.requests().len(), 0, "{line}");
    }
}

#[tokio::test]
async fn an_endpoint_without_listener_is_a_failed_connection() {
    // Bound but not listening: the port refuses, and no other test can get it meanwhile.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let outcome = client().ask(&prompt(format!("http://{address}")), AMPLE).await;
    assert_eq!(outcome, Err(Fault::Connect));
}

#[tokio::test]
async fn an_endpoint_that_does_not_speak_http_gives_an_invalid_reply() {
    assert_eq!(fault("SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned()).await, "invalid_reply");
}

#[tokio::test]
async fn an_endpoint_that_stalls_before_or_within_its_answer_is_timed_out() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"choices\"";
    for held in [String::new(), head.to_owned()] {
        let mut stub = Stub::start(vec![Act::Hold(held)]).await;
        let prompt = prompt(stub.base_url());
        let asked = tokio::spawn(async move { client().ask(&prompt, AMPLE).await });
        assert_eq!(stub.seen.recv().await, Some(Seen::Request));
        // From here on time passes whenever nobody has anything to do.
        tokio::time::pause();
        assert_eq!(asked.await.unwrap(), Err(Fault::Timeout));
        tokio::time::resume();
        assert_eq!(stub.seen.recv().await, Some(Seen::Closed));
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_invalid() {
    let whole = json_answer(&completion(json!("Good morning!")));
    assert_eq!(fault(whole[..whole.len() - 1].to_owned()).await, "invalid_reply");
}

#[tokio::test]
async fn an_answer_over_the_limit_is_refused_with_or_without_a_length() {
    let whole = json_answer(&completion(json!("Good morning!")));
    let body = completion(json!("Good morning!")).to_string();
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
         {:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    for answer in [whole, chunked] {
        for (limit, expected) in [(body.len(), Ok("Good morning!")), (body.len() - 1, Err("too_large"))] {
            let stub = Stub::start(vec![Act::Say(answer.clone())]).await;
            let mut client = client();
            client.answer_bytes = limit;
            let outcome = client.ask(&prompt(stub.base_url()), AMPLE).await;
            let outcome = outcome.map(|said| words(said).0).map_err(Fault::code);
            assert_eq!(outcome, expected.map(str::to_owned));
        }
    }
}

#[tokio::test]
async fn a_cancelled_call_closes_its_socket_before_and_within_the_answer() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    for held in [String::new(), head.to_owned()] {
        let mut stub = Stub::start(vec![Act::Hold(held)]).await;
        let prompt = prompt(stub.base_url());
        let call = tokio::spawn(async move { client().complete(prompt).await });
        assert_eq!(stub.seen.recv().await, Some(Seen::Request));
        call.abort();
        assert_eq!(stub.seen.recv().await, Some(Seen::Closed));
    }
}

#[tokio::test]
async fn a_setting_that_cannot_work_is_a_failure_of_its_own() {
    let refused = client().ask(&prompt("https://me:pass@models.example".to_owned()), AMPLE).await.unwrap_err();
    assert_eq!(refused.code(), "invalid_base_url");
    let mut agent = agent("http://127.0.0.1:9".to_owned());
    agent.provider = Provider::OpenAi { base_url: "http://127.0.0.1:9".to_owned(), api_key: Some("a\nb".to_owned()) };
    assert_eq!(client().ask(&prompt_of(agent.clone()), AMPLE).await, Err(Fault::ApiKey));
    agent.provider = Provider::Builtin(actors::agent::builtin::Builtin::default());
    assert_eq!(client().ask(&prompt_of(agent), AMPLE).await, Err(Fault::Provider));
}
