//! The result of reading a body: faults, and unknown members.

use std::fmt;
use std::sync::Arc;

use crate::json::path::Path;
use crate::problem::{Fault, MAX_KEPT_FAULTS, Problem};
use crate::validation;

/// Unknown members named at once.
pub const MAX_IGNORED: usize = 64;

/// All findings about a body.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The faults of the data.
    pub faults: Vec<Fault>,
    /// Faults caused only by the passing of time: they must not refuse a retry of an accepted request, so they are
    /// checked after the idempotency key.
    pub late: Vec<Fault>,
    /// Unknown members, as `foo` or `review.bar`.
    pub ignored: Vec<String>,
    deferred: Vec<DeferredCheck>,
    strict: bool,
}

/// A check that takes too long where bodies are read.
#[derive(Clone)]
pub struct DeferredCheck(Arc<dyn Fn() -> Vec<Fault> + Send + Sync>);

impl DeferredCheck {
    /// The faults that it finds.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.0()
    }
}

impl fmt::Debug for DeferredCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredCheck").finish_non_exhaustive()
    }
}

/// Whether these are as many faults as are kept.
fn is_full(faults: &[Fault]) -> bool {
    faults.len() >= MAX_KEPT_FAULTS
}

/// Adds a fault, which is not made past [`MAX_KEPT_FAULTS`].
fn keep(faults: &mut Vec<Fault>, fault: impl FnOnce() -> Fault) {
    if !is_full(faults) {
        faults.push(fault());
    }
}

impl Report {
    /// An empty report. With `strict` an unknown member is a fault.
    #[must_use]
    pub fn new(strict: bool) -> Self {
        Self { strict, ..Self::default() }
    }

    /// Whether further faults are dropped. Whoever reads a long list stops then: looking for them would cost time for
    /// nothing.
    #[must_use]
    pub fn is_full(&self) -> bool {
        is_full(&self.faults)
    }

    /// Adds a fault; dropped past [`MAX_KEPT_FAULTS`].
    pub fn fault(&mut self, path: &Path, code: &'static str, message: impl Into<String>) {
        keep(&mut self.faults, || Fault::new(path.pointer(), code, message));
    }

    /// Adds a fault that was found elsewhere.
    pub fn push(&mut self, fault: Fault) {
        keep(&mut self.faults, || fault);
    }

    /// Adds a check that takes too long where bodies are read. [`validation::run_deferred`] makes it, else
    /// [`Report::refuse`].
    pub fn defer(&mut self, check: impl Fn() -> Vec<Fault> + Send + Sync + 'static) {
        self.deferred.push(DeferredCheck(Arc::new(check)));
    }

    /// The deferred checks, which the caller makes.
    #[must_use]
    pub fn take_deferred(&mut self) -> Vec<DeferredCheck> {
        std::mem::take(&mut self.deferred)
    }

    /// Adds a fault at a member whose name the client chose.
    pub fn fault_at(&mut self, pointer: String, code: &'static str, message: impl Into<String>) {
        keep(&mut self.faults, || Fault::new(pointer, code, message));
    }

    /// Adds a fault that a retry of an accepted request may have.
    pub fn late(&mut self, path: &Path, code: &'static str, message: impl Into<String>) {
        keep(&mut self.late, || Fault::new(path.pointer(), code, message));
    }

    /// Takes another reader's result; its faults are added.
    ///
    /// # Errors
    /// Its error, if that is no fault of the data.
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

    /// A refusal together with the faults so far, if it is of the same kind: a body that is no JSON at all is refused
    /// alone.
    #[must_use]
    pub fn joined(&self, problem: Problem) -> Problem {
        if problem.faults.is_empty() {
            return problem;
        }
        Problem::invalid([&self.faults[..], &problem.faults].concat())
    }

    /// Notes an unknown member.
    pub fn unknown(&mut self, path: &Path, name: &str) {
        if self.strict {
            if self.is_full() {
                return;
            }
            let message = format!("unknown member {name:?}");
            self.fault_at(path.member(name), "unknown_field", message);
        } else if self.ignored.len() <= MAX_IGNORED {
            // One more than are named, so that the answer can show that there are others.
            let dotted = path.member(name)[1..].replace('/', ".");
            self.ignored.push(dotted);
        }
    }

    /// The ignored members, if the data has no faults: for requests whose data does not depend on time.
    ///
    /// # Errors
    /// 400 with all faults; 503 if it cannot be checked now.
    pub fn check(mut self) -> Result<Vec<String>, Problem> {
        self.refuse()?;
        self.refuse_late()?;
        Ok(self.ignored)
    }

    /// Refuses data that was wrong from the start: checked before the idempotency key is looked up.
    ///
    /// # Errors
    /// 400 with all faults, including those that depend on time, if there is one that does not; 503 if it cannot be
    /// checked now.
    pub fn refuse(&mut self) -> Result<(), Problem> {
        validation::run_deferred_here(self)?;
        if self.faults.is_empty() {
            return Ok(());
        }
        let mut faults = std::mem::take(&mut self.faults);
        faults.append(&mut self.late);
        Err(Problem::invalid(faults))
    }

    /// Refuses data that only became wrong with time: checked once the request is known to be no retry.
    ///
    /// # Errors
    /// 400 with those faults.
    pub fn refuse_late(&mut self) -> Result<(), Problem> {
        if self.late.is_empty() { Ok(()) } else { Err(Problem::invalid(std::mem::take(&mut self.late))) }
    }
}
