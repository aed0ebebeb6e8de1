//! The result of reading a body: faults, and unknown members.

use crate::json::path::Path;
use crate::problem::{Fault, MAX_FAULTS, Problem};

/// Unknown members named at once.
pub const MAX_IGNORED: usize = 64;

/// Everything that is to be said about a body.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What is wrong with the data.
    pub faults: Vec<Fault>,
    /// What is wrong only because time has passed: a retry of an accepted request must not be refused by it, so it is
    /// judged after the idempotency key.
    pub late: Vec<Fault>,
    /// Members that are not known here, as `foo` or `review.bar`.
    pub ignored: Vec<String>,
    strict: bool,
}

impl Report {
    /// An empty report. With `strict` an unknown member is a fault.
    #[must_use]
    pub fn new(strict: bool) -> Self {
        Self { strict, ..Self::default() }
    }

    /// Adds a fault; dropped past [`MAX_FAULTS`].
    pub fn fault(&mut self, path: &Path, code: &'static str, message: impl Into<String>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(Fault::new(path.pointer(), code, message));
        }
    }

    /// Adds a fault at a member whose name the client chose.
    pub fn fault_at(&mut self, pointer: String, code: &'static str, message: impl Into<String>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(Fault::new(pointer, code, message));
        }
    }

    /// Adds a fault that a retry of an accepted request may have.
    pub fn late(&mut self, path: &Path, code: &'static str, message: impl Into<String>) {
        if self.late.len() < MAX_FAULTS {
            self.late.push(Fault::new(path.pointer(), code, message));
        }
    }

    /// What another reader found; its faults join these.
    ///
    /// # Errors
    /// What it failed with, where that is no fault of the data.
    pub fn take<T>(&mut self, read: Result<T, Problem>) -> Result<Option<T>, Problem> {
        match read {
            Ok(found) => Ok(Some(found)),
            Err(problem) if problem.faults.is_empty() => Err(problem),
            Err(problem) => {
                self.faults.extend(problem.faults);
                Ok(None)
            }
        }
    }

    /// A refusal with what else was found, where that is of the same kind: one of a body that is no JSON at all stands
    /// alone.
    #[must_use]
    pub fn joined(&self, problem: Problem) -> Problem {
        if problem.faults.is_empty() {
            return problem;
        }
        Problem::invalid([&self.faults[..], &problem.faults].concat())
    }

    /// Notes a member that is not known here.
    pub fn unknown(&mut self, path: &Path, name: &str) {
        if self.strict {
            let message = format!("unknown member {name:?}");
            self.fault_at(path.member(name), "unknown_field", message);
        } else if self.ignored.len() <= MAX_IGNORED {
            // One more than are named, so that it can be said that there are others.
            let dotted = path.member(name)[1..].replace('/', ".");
            self.ignored.push(dotted);
        }
    }

    /// The members that were ignored, where nothing is wrong with the data: for requests whose data time cannot spoil.
    ///
    /// # Errors
    /// 400 with all faults.
    pub fn check(mut self) -> Result<Vec<String>, Problem> {
        self.refuse()?;
        self.refuse_late()?;
        Ok(self.ignored)
    }

    /// Refuses data that was wrong from the start: judged before the idempotency key is looked up.
    ///
    /// # Errors
    /// 400 with all faults, those that depend on the time included, where there is one that does not.
    pub fn refuse(&mut self) -> Result<(), Problem> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let mut faults = std::mem::take(&mut self.faults);
        faults.append(&mut self.late);
        Err(Problem::invalid(faults))
    }

    /// Refuses data that only became wrong with time: judged once the request is known to be no retry.
    ///
    /// # Errors
    /// 400 with those faults.
    pub fn refuse_late(&mut self) -> Result<(), Problem> {
        if self.late.is_empty() { Ok(()) } else { Err(Problem::invalid(std::mem::take(&mut self.late))) }
    }
}
