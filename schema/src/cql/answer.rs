//! Answers of conditional statements. Servers differ in the columns that they return, in their order, and in whether
//! they return any if the condition was met; so columns are looked up by name.

use actors::store::StoreError;
use bytes::Bytes;
use scylla::response::query_result::QueryResult;
use scylla::value::{CqlValue, Row};

/// A row of an answer.
pub(super) struct Answer<'a> {
    names: &'a [String],
    columns: Vec<Option<CqlValue>>,
}

/// Reads an answer row by row with `read`, until it returns something.
pub(super) fn find<T>(result: QueryResult, mut read: impl FnMut(&Answer<'_>) -> Option<T>) -> Option<T> {
    let rows = result.into_rows_result().ok()?;
    let names: Vec<String> = rows.column_specs().iter().map(|spec| spec.name().to_owned()).collect();
    let found = rows.rows::<Row>().ok()?.flatten();
    found.into_iter().find_map(|row| read(&Answer { names: &names, columns: row.columns }))
}

impl Answer<'_> {
    fn column(&self, name: &str) -> Option<&CqlValue> {
        let at = self.names.iter().position(|known| known == name)?;
        self.columns.get(at)?.as_ref()
    }

    /// Whether the condition was met.
    pub(super) fn is_applied(&self) -> bool {
        self.column("[applied]") == Some(&CqlValue::Boolean(true))
    }

    /// A column's value; `None`: it has none.
    pub(super) fn long(&self, name: &str) -> Option<i64> {
        self.column(name).and_then(CqlValue::as_bigint)
    }

    /// As [`Answer::long`].
    pub(super) fn int(&self, name: &str) -> Option<i32> {
        self.column(name).and_then(CqlValue::as_int)
    }

    /// Whether a column holds `true`.
    pub(super) fn is(&self, name: &str) -> bool {
        self.column(name) == Some(&CqlValue::Boolean(true))
    }

    /// As [`Answer::long`].
    pub(super) fn blob(&self, name: &str) -> Option<Bytes> {
        self.column(name).and_then(CqlValue::as_blob).map(|bytes| Bytes::copy_from_slice(bytes))
    }
}

/// The value, or an error if it is missing.
pub(super) fn needed<T>(found: Option<T>) -> Result<T, StoreError> {
    found.ok_or_else(|| StoreError::Corrupt("a column of a head is missing".into()))
}
