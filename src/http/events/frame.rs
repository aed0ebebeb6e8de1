//! Frames of an event stream (`text/event-stream`).

use actors::clock::Millis;
use actors::conversation::Event;
use actors::deltas::Delta;
use actors::machine::Record;
use bytes::Bytes;

use crate::wire::event::{DELTA, Source, delta_json, event_json};

/// An event with its sequence as the id for reconnecting. Empty: clients do not see this record.
pub(super) fn of_event(record: &Record<Event>, source: &Source<'_>) -> Bytes {
    let name = record.event.name().unwrap_or_default();
    let written = event_json(record, source).ok().flatten();
    written.map(|data| frame(&format!("id: {}\nevent: {name}\ndata: ", record.seq), &data)).unwrap_or_default()
}

/// A piece of an agent's reply, which has no id.
pub(super) fn of_delta(delta: &Delta, now: Millis) -> Bytes {
    delta_json(delta, now).map(|data| frame(&format!("event: {DELTA}\ndata: "), &data)).unwrap_or_default()
}

/// How long a reader waits before it reconnects, in milliseconds. A stopped server has its successor within a second or
/// two; an earlier connection is refused, and a refused browser gives up.
const RECONNECT_MILLIS: &str = "2000";

/// The beginning of a stream. It is a line of the first event, so that readers see no additional event.
pub(super) fn opening() -> Bytes {
    Bytes::from(["retry: ", RECONNECT_MILLIS, "\n"].concat())
}

/// A comment, so that no proxy takes the connection as dead.
pub(super) const fn comment() -> Bytes {
    Bytes::from_static(b":\n\n")
}

/// The last frame of a stream whose channel is deleted: no event, but the position for reconnecting. If another channel
/// has the id by then, its stream begins with its first event.
pub(super) const fn restart() -> Bytes {
    Bytes::from_static(b"id: 0\n\n")
}

/// JSON from clients may have several lines; each becomes a line of data.
fn frame(head: &str, data: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(head.len() + data.len() + 2);
    frame.extend_from_slice(head.as_bytes());
    for (n, line) in data.split(|byte| matches!(byte, b'\n' | b'\r')).enumerate() {
        if n > 0 {
            frame.extend_from_slice(b"\ndata: ");
        }
        frame.extend_from_slice(line);
    }
    frame.extend_from_slice(b"\n\n");
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_data_stay_apart() {
        assert_eq!(frame("id: 1\ndata: ", b"{\"a\":\r\n1}"), "id: 1\ndata: {\"a\":\ndata: \ndata: 1}\n\n");
    }
}
