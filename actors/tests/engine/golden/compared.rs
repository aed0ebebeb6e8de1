//! Compares each example with the bytes that are written and read now.

use std::fmt::{Debug, Write};
use std::path::PathBuf;

use actors::codec;
use actors::machine::Record;
use actors::store::StoreError;
use actors::trace::TraceContext;
use bytes::Bytes;

use super::AT;

/// The differences found, by example.
#[derive(Default)]
pub(super) struct Golden(Vec<String>);

impl Golden {
    pub(super) fn check(&mut self, name: &str, bytes: &Bytes) -> Option<Bytes> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("hex");
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        }) + "\n";
        if std::env::var_os("GOLDEN").is_some_and(|how| how == "write") {
            std::fs::write(&path, &hex).unwrap();
        }
        let Ok(golden) = std::fs::read_to_string(&path) else {
            self.0.push(format!("{name}: there is no example"));
            return None;
        };
        if golden != hex {
            self.0.push(format!("{name}: it is written as\n  {hex}and not as\n  {golden}"));
        }
        let digits: Vec<char> = golden.trim().chars().collect();
        let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
        Some(digits.chunks(2).map(byte).collect())
    }

    fn read<T: Debug + PartialEq>(&mut self, name: &str, value: &T, read: Result<T, StoreError>) {
        match read {
            Ok(read) if read == *value => {}
            other => self.0.push(format!("{name}: it is read as {other:?}")),
        }
    }

    pub(super) fn value<T>(&mut self, name: &str, value: &T)
    where
        T: Debug + PartialEq + minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>,
    {
        if let Some(golden) = self.check(name, &codec::encode(value)) {
            self.read(name, value, codec::decode(&golden));
        }
    }

    pub(super) fn record<E>(&mut self, name: &str, trace: Option<TraceContext>, event: E)
    where
        E: Debug + PartialEq + minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>,
    {
        let record = Record { seq: 7, at: AT, trace, event };
        if let Some(golden) = self.check(name, &codec::encode_record(&record)) {
            self.read(name, &record, codec::decode_record(7, &golden));
        }
    }

    pub(super) fn done(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}
