//! The JSON Pointer of a value in the body.

use std::borrow::Cow;
use std::fmt::Write;

/// The longest path of a member that this service knows, with room to spare.
const MAX_STEPS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Name(&'static str),
    Index(usize),
}

/// A position in the body: a copy on the stack, rendered only if there is a fault to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    steps: [Step; MAX_STEPS],
    len: usize,
}

impl Path {
    /// The body itself.
    pub const ROOT: Self = Self { steps: [Step::Index(0); MAX_STEPS], len: 0 };

    /// A member of the object at this position.
    #[must_use]
    pub fn name(self, name: &'static str) -> Self {
        self.with(Step::Name(name))
    }

    /// An item of the array at this position.
    #[must_use]
    pub fn index(self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(mut self, step: Step) -> Self {
        // A path longer than any known member's would point at the nearest known position.
        if let Some(slot) = self.steps.get_mut(self.len) {
            *slot = step;
            self.len += 1;
        }
        self
    }

    /// The JSON Pointer (RFC 6901): empty for the body itself, else `/content/3/role`.
    #[must_use]
    pub fn pointer(&self) -> String {
        let mut out = String::new();
        for step in &self.steps[..self.len] {
            match step {
                Step::Name(name) => {
                    out.push('/');
                    out.push_str(name);
                }
                // Writing to a string cannot fail.
                Step::Index(index) => _ = write!(out, "/{index}"),
            }
        }
        out
    }

    /// The pointer to a member whose name the client chose.
    #[must_use]
    pub fn member(&self, name: &str) -> String {
        let mut out = self.pointer();
        out.push('/');
        out.push_str(&escape(name));
        out
    }
}

/// A member name as a segment of a JSON Pointer.
#[must_use]
pub fn escape(name: &str) -> Cow<'_, str> {
    if name.contains(['~', '/']) { Cow::Owned(name.replace('~', "~0").replace('/', "~1")) } else { Cow::Borrowed(name) }
}
