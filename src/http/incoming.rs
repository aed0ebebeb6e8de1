//! A request that changes something, before its members are looked at.

use actors::directory::CommandContext;
use bytes::Bytes;
use http::HeaderMap;

use super::caller::Caller;
use super::context::RequestContext;
use super::headers::idempotency_key;
use super::idempotency::command_context;
use super::query::Query;
use crate::json::Object;
use crate::json::fields::Fields;
use crate::json::report::Report;
use crate::problem::Problem;

/// A body, and the request's head as far as it belongs to the command.
pub(super) struct Incoming<'a> {
    /// The body.
    pub(super) object: Object<'a>,
    /// What is wrong so far: the query and the idempotency key have been judged.
    pub(super) report: Report,
    /// The idempotency key.
    pub(super) key: Option<&'a str>,
}

impl<'a> Incoming<'a> {
    /// Splits the body and reads the head. `None`: the request has no body and needs none.
    ///
    /// # Errors
    /// 400 where the body is no JSON object, with what else is wrong so far.
    pub(super) fn read(
        context: &RequestContext,
        headers: &'a HeaderMap,
        body: Option<&'a Bytes>,
    ) -> Result<Self, Problem> {
        let object = body.map_or_else(|| Ok(Object::default()), |body| Object::parse(body));
        let mut report = report(context);
        let key = idempotency_key(headers, None).unwrap_or_else(|faults| {
            report.faults.extend(faults);
            None
        });
        let object = object.map_err(|problem| report.joined(problem))?;
        Ok(Self { object, report, key })
    }

    /// The same for a request that has the same effect however often it comes, and so needs no key.
    ///
    /// # Errors
    /// 400 where the body is no JSON object, with what else is wrong so far.
    pub(super) fn unkeyed(context: &RequestContext, body: &'a Bytes) -> Result<Self, Problem> {
        let report = report(context);
        let object = Object::parse(body).map_err(|problem| report.joined(problem))?;
        Ok(Self { object, report, key: None })
    }

    /// A request whose path says everything: its command's context, and unknown members of its body.
    ///
    /// # Errors
    /// 400 where the body is no JSON object, or the query or the key is wrong.
    pub(super) fn bare(
        context: &RequestContext,
        caller: &Caller,
        headers: &HeaderMap,
        body: Option<&Bytes>,
    ) -> Result<(CommandContext, Vec<String>), Problem> {
        let mut incoming = Incoming::read(context, headers, body)?;
        let with = incoming.command_context(context, caller);
        incoming.fields().finish(&mut incoming.report);
        Ok((with, incoming.report.check()?))
    }

    /// The body's members.
    pub(super) fn fields(&mut self) -> Fields<'a> {
        Fields::root(self.object.clone(), &mut self.report)
    }

    /// What the command comes with.
    pub(super) fn command_context(&self, context: &RequestContext, caller: &Caller) -> CommandContext {
        command_context(context, caller, self.key, &self.object)
    }
}

/// A report that the body's faults can join: what is wrong with the query stands in it.
pub(super) fn report(context: &RequestContext) -> Report {
    let query = Query::of(context);
    let mut report = Report::new(query.as_ref().is_ok_and(Query::is_strict));
    match query {
        Ok(query) => report.faults.extend(query.strays()),
        Err(problem) => report.faults.extend(problem.faults),
    }
    report
}
