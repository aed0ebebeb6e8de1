//! The cause of a failure: a message, with the error below it.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::StoreError;

/// Why something failed: the failed operation or finding, and the underlying error, if there is one.
///
/// It prints with the text of every error below it, since log lines mostly show one string. [`Error::source`] leads to
/// the same errors one by one. Clones share them, so that all waiting requests can get the same failure.
#[derive(Clone, Debug)]
pub struct Cause {
    what: Cow<'static, str>,
    error: Option<Arc<dyn Error + Send + Sync>>,
}

impl Cause {
    /// `what` failed because of `error`.
    pub fn of(what: impl Into<Cow<'static, str>>, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what: what.into(), error: Some(error.into().into()) }
    }

    /// Replaces the message, and keeps the errors below it.
    pub(crate) fn under(self, what: String) -> Self {
        Self { what: what.into(), ..self }
    }
}

impl From<&'static str> for Cause {
    fn from(what: &'static str) -> Self {
        Self { what: what.into(), error: None }
    }
}

impl From<String> for Cause {
    fn from(what: String) -> Self {
        Self { what: what.into(), error: None }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        // Many errors already contain the text of the errors below them.
        let mut written = self.what.clone().into_owned();
        for below in std::iter::successors(self.source(), |&error| error.source()) {
            let text = below.to_string();
            if !written.contains(&text) {
                write!(f, ": {text}")?;
                written = text;
            }
        }
        Ok(())
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.as_deref().map(|error| error as &(dyn Error + 'static))
    }
}

/// By their text: two failures are equal if they have the same message.
impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Cause {}

impl From<StoreError> for Cause {
    fn from(error: StoreError) -> Self {
        let what = error.to_string();
        let (StoreError::Indeterminate(cause) | StoreError::Unavailable(cause) | StoreError::Corrupt(cause)) = error
        else {
            return what.into();
        };
        cause.under(what)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::store::StoreError;

    #[derive(Debug, thiserror::Error)]
    #[error("the journal cannot be written")]
    struct Journal(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("writing: {0}")]
    struct Telling(#[source] io::Error);

    fn full() -> io::Error {
        io::Error::new(io::ErrorKind::StorageFull, "the disk is full")
    }

    #[test]
    fn a_failure_says_every_error_below_it_once() {
        let cause = Cause::of("a batch", Journal(full()));
        assert_eq!(cause.to_string(), "a batch: the journal cannot be written: the disk is full");
        assert_eq!(Cause::of("a batch", Telling(full())).to_string(), "a batch: writing: the disk is full");
        assert_eq!(Cause::from("no answer came").to_string(), "no answer came");
    }

    #[test]
    fn the_error_of_the_disk_is_reached_from_a_copy_of_the_stores_error() {
        let first = StoreError::Indeterminate(Cause::of("a batch", Journal(full())));
        let error = first.clone();
        assert_eq!(error.to_string(), first.to_string());
        let below = std::iter::successors(error.source(), |&error| error.source());
        let disk = below.filter_map(|error| error.downcast_ref::<io::Error>()).next();
        assert_eq!(disk.map(io::Error::kind), Some(io::ErrorKind::StorageFull));
        assert_eq!(
            error.to_string(),
            "the outcome is unknown: a batch: the journal cannot be written: the disk is full"
        );
    }
}
