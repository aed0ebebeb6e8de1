//! A stream of server-sent events, read as a client does.

use std::collections::VecDeque;

use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::Value;

/// The retry time that a stream begins with.
pub(crate) const OPENING: &str = "retry: 2000\n";

/// A live stream.
pub(crate) struct Live {
    body: Body,
    /// The received part of an incomplete event.
    text: String,
    ready: VecDeque<Told>,
}

/// An event or comment of a stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    /// The position from which a reader resumes.
    pub(crate) id: Option<String>,
    /// `None`: a comment.
    pub(crate) event: Option<String>,
    /// `null` if there are none.
    pub(crate) data: Value,
}

impl Told {
    fn read(block: &str) -> Self {
        let field =
            |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
        let data = field("data:").map_or(Value::Null, |data| serde_json::from_str(&data).unwrap());
        Self { id: field("id:"), event: field("event:"), data }
    }
}

impl Live {
    /// A stream whose opening was read.
    pub(super) async fn open(body: Body) -> Self {
        let mut live = Self { body, text: String::new(), ready: VecDeque::new() };
        let frame = live.body.frame().await.unwrap().unwrap();
        assert_eq!(frame.data_ref().unwrap(), OPENING, "what every stream begins with");
        live
    }

    /// The next event or comment; `None` at the stream's end.
    pub(crate) async fn told(&mut self) -> Option<Told> {
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Some(told);
            }
            let frame = self.body.frame().await?.unwrap();
            self.text.push_str(std::str::from_utf8(frame.data_ref()?).unwrap());
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                self.ready.push_back(Told::read(block));
                self.text = rest.to_owned();
            }
        }
    }

    /// The next event or message piece.
    pub(crate) async fn next(&mut self) -> Told {
        loop {
            let told = self.told().await.expect("the stream ended");
            if told.event.is_some() {
                return told;
            }
        }
    }

    /// Everything up to and including the next event of this type.
    pub(crate) async fn up_to(&mut self, kind: &str) -> Vec<Told> {
        let mut all = Vec::new();
        loop {
            all.push(self.next().await);
            if all.last().is_some_and(|told| told.event.as_deref() == Some(kind)) {
                return all;
            }
        }
    }
}
