//! A stage of a message's life while it lasts.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::underway::Doing;
use super::{Finished, TraceContext, Tracer, Value, names};
use crate::url::Server;

/// A stage while it lasts; it ends when it is dropped. Empty if its trace is not recorded and running stages are not
/// listed: then it costs nothing.
#[derive(Default)]
#[must_use = "a span that is dropped has ended"]
pub struct Span(Option<Box<Open>>);

struct Open {
    /// The tracer that gets it when it has ended; none if it is only listed.
    tracer: Option<Arc<dyn Tracer>>,
    /// Its place on the list of what is underway.
    doing: Option<Doing>,
    finished: Finished,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Span").field(&self.0.as_ref().map(|open| &open.finished)).finish()
    }
}

impl Span {
    /// One that begins.
    pub(super) fn open(tracer: Option<Arc<dyn Tracer>>, doing: Option<Doing>, finished: Finished) -> Self {
        Self(Some(Box::new(Open { tracer, doing, finished })))
    }

    /// Whether it is exported or listed; check before computing attributes. [`Span::recorded`] says whether it is
    /// exported.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Its place where it is recorded, for a number that it stands for: what is only listed is found nowhere later.
    #[must_use]
    pub fn recorded(&self) -> Option<TraceContext> {
        self.0.as_ref().filter(|open| open.tracer.is_some()).map(|open| open.finished.context)
    }

    /// Its place, for what it causes.
    #[must_use]
    pub fn context(&self) -> Option<TraceContext> {
        self.0.as_ref().map(|open| open.finished.context)
    }

    /// Its place, or where it is not recorded that of what caused it, so that the trace goes on all the same.
    #[must_use]
    pub fn context_or(&self, cause: Option<TraceContext>) -> Option<TraceContext> {
        self.context().or(cause)
    }

    /// Says something of it.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(open) = &mut self.0 {
            let value = value.into();
            if let Some(doing) = &open.doing {
                doing.change(|stage| stage.attributes.push((key, value.clone())));
            }
            if open.finished.attributes.is_empty() {
                // As many as most spans have that have any.
                open.finished.attributes.reserve(8);
            }
            open.finished.attributes.push((key, value));
        }
    }

    /// It asks the server of this URL, of which nothing else is told: path and query may be secrets.
    pub fn asks(&mut self, url: &str) {
        if self.is_recorded() {
            let server = Server::of(url);
            self.set(names::SERVER, server.host.to_owned());
            self.set(names::SERVER_PORT, server.port);
        }
    }

    /// Calls it by the word and what it was done with, for example a model: of few different words too.
    pub fn name(&mut self, name: impl FnOnce() -> String) {
        if let Some(open) = &mut self.0 {
            let name = name();
            if let Some(doing) = &open.doing {
                doing.change(|stage| stage.name.clone_from(&name));
            }
            open.finished.name = Cow::Owned(name);
        }
    }

    /// It began before it was opened.
    pub fn began(&mut self, at: Instant) {
        if let Some(open) = &mut self.0 {
            if let Some(doing) = &open.doing {
                doing.change(|stage| stage.began = at);
            }
            open.finished.began = at;
        }
    }

    /// Something else caused it too. What is not recorded is not linked to.
    pub fn link(&mut self, cause: TraceContext) {
        if let Some(open) = self.0.as_mut().filter(|_| cause.is_sampled()) {
            open.finished.links.push(cause);
        }
    }

    /// It fails, with a word of few.
    pub fn fail(&mut self, error: impl Into<Cow<'static, str>>) {
        if let Some(open) = &mut self.0 {
            open.finished.error = Some(error.into());
        }
    }

    /// It has ended, and these were its times.
    pub(crate) fn lasted(mut self, began: Instant, ended: Instant) {
        if let Some(open) = self.0.take() {
            let Open { tracer, finished, .. } = *open;
            if let Some(tracer) = tracer {
                tracer.record(Finished { began, ended, ..finished });
            }
        }
    }

    /// It never was.
    pub fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            let Open { tracer, mut finished, .. } = *open;
            if let Some(tracer) = tracer {
                finished.ended = Instant::now();
                tracer.record(finished);
            }
        }
    }
}
