//! A running stage of a message's life.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::underway::StageEntry;
use super::{Finished, TraceContext, Tracer, Value, bounded, names};
use crate::url::Server;

/// A running stage; it ends when it is dropped. Empty if its trace is not recorded and running stages are not listed:
/// then it costs nothing.
#[derive(Default)]
#[must_use = "a span that is dropped has ended"]
pub struct Span(Option<Box<Open>>);

struct Open {
    /// The tracer that gets it when it has ended, if its trace is sampled by then; `None` if it is only listed.
    tracer: Option<Arc<dyn Tracer>>,
    /// Its entry in the list of running stages.
    doing: Option<StageEntry>,
    finished: Finished,
}

impl Open {
    fn is_exported(&self) -> bool {
        self.tracer.is_some() && self.finished.context.is_sampled()
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Span").field(&self.0.as_ref().map(|open| &open.finished)).finish()
    }
}

impl Span {
    /// A span that begins.
    pub(super) fn open(tracer: Option<Arc<dyn Tracer>>, doing: Option<StageEntry>, finished: Finished) -> Self {
        Self(Some(Box::new(Open { tracer, doing, finished })))
    }

    /// Whether it is exported or listed, or may yet be; check before computing attributes. [`Span::recorded`] says
    /// whether it is exported.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Its trace context if it is recorded, for exemplars: a span that is only listed is found nowhere later.
    #[must_use]
    pub fn recorded(&self) -> Option<TraceContext> {
        self.0.as_ref().filter(|open| open.is_exported()).map(|open| open.finished.context)
    }

    /// Its trace context, for its children.
    #[must_use]
    pub fn context(&self) -> Option<TraceContext> {
        self.0.as_ref().map(|open| open.finished.context)
    }

    /// Its trace context, or if it is not recorded, that of its cause, so that the trace continues.
    #[must_use]
    pub fn context_or(&self, cause: Option<TraceContext>) -> Option<TraceContext> {
        self.context().or(cause)
    }

    /// Sets an attribute.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(open) = &mut self.0 {
            let value = value.into();
            if let Some(doing) = &open.doing {
                doing.change(|stage| stage.attributes.push((key, value.clone())));
            }
            if open.finished.attributes.is_empty() {
                // As many as most spans with attributes have.
                open.finished.attributes.reserve(8);
            }
            open.finished.attributes.push((key, value));
        }
    }

    /// Sets the server of this URL, and nothing else of it: path and query may be secrets.
    pub fn asks(&mut self, url: &str) {
        if self.is_recorded() {
            let server = Server::of(url);
            self.set(names::SERVER, server.host.to_owned());
            self.set(names::SERVER_PORT, server.port);
        }
    }

    /// Names it by its operation and the object, for example a model: one of few names too.
    pub fn name(&mut self, name: impl FnOnce() -> String) {
        if let Some(open) = &mut self.0 {
            let name = bounded(name());
            if let Some(doing) = &open.doing {
                doing.change(|stage| stage.name.clone_from(&name));
            }
            open.finished.name = Cow::Owned(name);
        }
    }

    /// Sets its beginning, if it began before it was opened.
    pub fn began(&mut self, at: Instant) {
        if let Some(open) = &mut self.0 {
            if let Some(doing) = &open.doing {
                doing.change(|stage| stage.began = at);
            }
            open.finished.began = at;
        }
    }

    /// Links another cause, once, if that is recorded. A span that began ahead of its causes is then recorded too.
    pub fn link(&mut self, cause: TraceContext) {
        let Some(open) = self.0.as_mut().filter(|_| cause.is_sampled()) else { return };
        if open.tracer.is_some() {
            open.finished.context = open.finished.context.sampled();
        }
        if !open.finished.links.contains(&cause) {
            open.finished.links.push(cause);
        }
    }

    /// Marks it as failed, with one of a few words.
    pub fn fail(&mut self, error: impl Into<Cow<'static, str>>) {
        if let Some(open) = &mut self.0 {
            open.finished.error = Some(error.into());
        }
    }

    /// Ends it with these times.
    pub(crate) fn lasted(mut self, began: Instant, ended: Instant) {
        if let Some(open) = self.0.take() {
            let Open { tracer, finished, .. } = *open;
            if let Some(tracer) = tracer.filter(|_| finished.context.is_sampled()) {
                tracer.record(Finished { began, ended, ..finished });
            }
        }
    }

    /// Drops it without recording.
    pub fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            let Open { tracer, mut finished, .. } = *open;
            if let Some(tracer) = tracer.filter(|_| finished.context.is_sampled()) {
                finished.ended = Instant::now();
                tracer.record(finished);
            }
        }
    }
}
