//! What is sent, and what is read of a good answer or a bad one.

use super::*;

async fn reply(answer: Value) -> Result<(String, Usage), &'static str> {
    let (outcome, _) = ask(vec![Act::Say(json_answer(&answer))]).await;
    outcome.map_err(Fault::code)
}

#[tokio::test]
async fn the_prompt_is_posted_with_the_key_the_settings_and_the_trace() {
    let (outcome, requests) = ask(vec![good()]).await;
    outcome.unwrap();
    let [request] = requests.as_slice() else { panic!("asked once") };
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    assert_eq!(header("authorization: "), format!("Bearer {SECRET}"));
    assert_eq!(header("content-type: "), "application/json");
    let trace = header("traceparent: ");
    assert_eq!(trace, "00-abababababababababababababababab-cdcdcdcdcdcdcdcd-01", "the prompt's own place");
    let body: Value = serde_json::from_str(body).unwrap();
    let messages = json!([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Good morning"}]);
    let mut expected = json!({"model": "small", "messages": messages, "temperature": 0.7, "max_tokens": 64});
    expected["stream"] = json!(true);
    expected["stream_options"] = json!({"include_usage": true});
    assert_eq!(body, expected);
}

#[tokio::test]
async fn settings_that_the_agent_lacks_are_not_sent() {
    let stub = Stub::start(vec![good()]).await;
    let mut agent = agent(stub.base_url());
    agent.provider = Provider::OpenAi { base_url: stub.base_url(), api_key: None };
    (agent.model, agent.temperature_milli, agent.max_output_tokens) = (None, None, None);
    let prompt = Prompt { trace: None, ..prompt_of(agent) };
    client().ask(&prompt, AMPLE).await.unwrap();
    let request = stub.requests().remove(0);
    for absent in ["authorization", "traceparent", "model", "temperature", "max_tokens"] {
        assert!(!request.contains(absent), "{absent} in {request}");
    }
}

#[tokio::test]
async fn a_reply_comes_with_its_usage_and_the_model_that_gave_it() {
    let stub = Stub::start(vec![good()]).await;
    let said = client().complete(prompt(stub.base_url())).await.unwrap();
    assert_eq!(said.replies, ["Good morning!"]);
    let usage = said.usage;
    let expected = Usage { input_tokens: 11, output_tokens: 3, millicredits: 14, model: "small-2025".to_owned() };
    assert_eq!(usage, expected);
}

#[tokio::test]
async fn the_text_parts_of_a_reply_are_one_reply() {
    let parts = json!([
        {"type": "text", "text": "Good "},
        {"type": "image_url", "image_url": {"url": "https://models.example/sun.png"}},
        {"type": "text", "text": "morning!"},
    ]);
    assert_eq!(reply(completion(parts)).await.unwrap().0, "Good morning!");
}

#[tokio::test]
async fn half_a_character_in_a_reply_costs_no_more_than_itself() {
    let body = completion(json!("HALF")).to_string().replace("HALF", r"a\ud83d b");
    let (outcome, _) = ask(vec![Act::Say(answer("200 OK", &["content-type: application/json"], &body))]).await;
    assert_eq!(outcome.unwrap().0, "a\u{fffd} b");
}

#[tokio::test]
async fn the_first_of_several_choices_is_taken() {
    let mut answer = completion(json!("first"));
    answer["choices"].as_array_mut().unwrap().push(json!({"message": {"content": "second"}}));
    assert_eq!(reply(answer).await.unwrap().0, "first");
}

#[tokio::test]
async fn a_reply_cut_at_its_length_is_a_reply() {
    let mut answer = completion(json!("Good mor"));
    answer["choices"][0]["finish_reason"] = json!("length");
    assert_eq!(reply(answer).await.unwrap().0, "Good mor");
}

#[tokio::test]
async fn missing_usage_is_estimated_at_four_characters_a_token() {
    // "Be kind." and "Good morning" are 2 + 3 tokens, "Good morning!" is 4.
    for usage in [Value::Null, json!({}), json!({"prompt_tokens": null, "completion_tokens": "3"}), json!([1])] {
        let mut answer = completion(json!("Good morning!"));
        answer["usage"] = usage.clone();
        answer["model"] = Value::Null;
        let expected = Usage { input_tokens: 5, output_tokens: 4, millicredits: 9, model: "small".to_owned() };
        assert_eq!(reply(answer).await.unwrap().1, expected, "{usage}");
    }
}

#[tokio::test]
async fn a_count_of_tokens_counts_however_it_is_written() {
    let mut answer = completion(json!("Good morning!"));
    answer["usage"] = serde_json::from_str(r#"{"prompt_tokens":12.0,"completion_tokens":0.3e1}"#).unwrap();
    let usage = reply(answer).await.unwrap().1;
    assert_eq!((usage.input_tokens, usage.output_tokens), (12, 3));
}

#[tokio::test]
async fn a_long_model_name_is_cut() {
    let mut answer = completion(json!("hi"));
    answer["model"] = json!("é".repeat(1000));
    assert_eq!(reply(answer).await.unwrap().1.model, "é".repeat(128));
}

#[tokio::test]
async fn a_reply_without_words_is_a_failure() {
    for content in [Value::Null, json!(""), json!(" \n"), json!([]), json!([{"type": "image_url"}])] {
        assert_eq!(reply(completion(content.clone())).await, Err("empty_reply"), "{content}");
    }
    assert_eq!(reply(json!({"choices": []})).await, Err("empty_reply"));
}

#[tokio::test]
async fn a_filtered_reply_is_a_failure_even_if_it_has_words() {
    let mut answer = completion(json!("I will not"));
    answer["choices"][0]["finish_reason"] = json!("content_filter");
    assert_eq!(reply(answer).await, Err("content_filtered"));
}

#[tokio::test]
async fn json_that_is_no_chat_completion_is_an_invalid_reply() {
    for answer in [json!({}), json!([]), json!({"choices": [{}]}), completion(json!(7)), json!({"error": null})] {
        assert_eq!(reply(answer.clone()).await, Err("invalid_reply"), "{answer}");
    }
    assert_eq!(reply(json!({"error": {"code": 1}})).await, Err("reported_error"), "an error with a good status");
}

#[tokio::test]
async fn a_reply_longer_than_a_message_may_be_is_too_large() {
    assert_eq!(reply(completion(json!("a".repeat(256 * 1024)))).await.unwrap().0.len(), 256 * 1024);
    assert_eq!(reply(completion(json!("a".repeat(256 * 1024 + 1)))).await, Err("too_large"));
}

#[tokio::test]
async fn a_reply_with_another_content_type_or_a_broken_body_is_not_json() {
    let body = completion(json!("hi")).to_string();
    assert_eq!(fault(answer("200 OK", &["content-type: text/html"], &body)).await, "not_json");
    assert_eq!(fault(answer("200 OK", &["content-type: application/jsonl"], &body)).await, "not_json");
    assert_eq!(fault(answer("200 OK", &[], &body)).await, "not_json");
    assert_eq!(fault(answer("200 OK", &["content-type: application/json"], "<html>")).await, "not_json");
    assert_eq!(fault(answer("200 OK", &["content-type: application/json"], &body[..20])).await, "not_json");
}
