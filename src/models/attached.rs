//! The description, for a model, of the files of a conversation message. They are the client's own objects, so the
//! usual member names are tried.

use actors::message::Json;
use serde_json::{Map, Value};

/// Files of one message that are described to a model; of more only the number is given.
const MAX_FILES: usize = 20;
/// Characters of a file's name or type: as many as an upload's name may have.
const MAX_CHARS: usize = 255;

const NAMES: [&str; 7] = ["filename", "file_name", "fileName", "name", "title", "id", "url"];
const TYPES: [&str; 5] = ["mime_type", "mimeType", "content_type", "contentType", "type"];

/// A line for each.
pub(crate) fn lines(references: &Json) -> Vec<String> {
    let files: Vec<Map<String, Value>> = serde_json::from_str(references.as_str()).unwrap_or_default();
    let more = files.len().saturating_sub(MAX_FILES);
    let more = (more > 0).then(|| format!("[{more} more attached files]"));
    files.iter().take(MAX_FILES).map(line).chain(more).collect()
}

fn line(file: &Map<String, Value>) -> String {
    let member = |names: &[&str]| names.iter().find_map(|name| file.get(*name)?.as_str().and_then(word));
    let size = file.get("size").and_then(Value::as_u64).map(|size| format!("{size} bytes"));
    let told: Vec<String> = [member(&NAMES), member(&TYPES), size].into_iter().flatten().collect();
    if told.is_empty() { "[attached file]".to_owned() } else { format!("[attached file: {}]", told.join(", ")) }
}

/// One line of a bounded length. A URL's query may be a secret, and a file in a URL is no name.
fn word(text: &str) -> Option<String> {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_word = !text.is_empty() && !text.starts_with("data:");
    is_word.then(|| text.chars().take(MAX_CHARS).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(references: &Value) -> Vec<String> {
        lines(&Json::from_checked(references.to_string()))
    }

    #[test]
    fn files_of_messages_are_named_by_their_usual_members() {
        for (file, line) in [
            (
                json!({"filename": "a b.pdf", "mime_type": "application/pdf", "size": 12}),
                "a b.pdf, application/pdf, 12 bytes",
            ),
            (json!({"name": "a.png", "type": "image", "id": "att_1"}), "a.png, image"),
            (json!({"id": "att_1", "filename": null, "size": "big"}), "att_1"),
            (json!({"url": "https://example.com/a.png?key=secret"}), "https://example.com/a.png"),
            (json!({"title": " ", "contentType": "text/plain"}), "text/plain"),
            (json!({"name": "two\n\tlines"}), "two lines"),
        ] {
            assert_eq!(told(&json!([file])), [format!("[attached file: {line}]")]);
        }
        for file in [json!({}), json!({"url": "data:image/png;base64,AAAA"}), json!({"name": 1})] {
            assert_eq!(told(&json!([file])), ["[attached file]"], "{file}");
        }
        assert!(told(&json!([])).is_empty());
    }

    #[test]
    fn a_model_reads_a_bounded_part_of_many_attachments() {
        let lines = told(&Value::from(vec![json!({"name": "é".repeat(1_000)}); 25]));
        assert_eq!((lines.len(), lines[20].as_str()), (21, "[5 more attached files]"));
        assert_eq!(lines[0].chars().count(), "[attached file: ]".len() + MAX_CHARS);
    }
}
