//! A changing request, before its members are read.

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

/// A body, and the part of the request's head that belongs to the command.
pub(super) struct Incoming<'a> {
    /// The body.
    pub(super) object: Object<'a>,
    /// The faults so far: those of the query and the idempotency key.
    pub(super) report: Report,
    /// The idempotency key.
    pub(super) key: Option<&'a str>,
}

impl<'a> Incoming<'a> {
    /// Splits the body and reads the head. `None`: the request has no body and needs none.
    ///
    /// # Errors
    /// 400 if the body is no JSON object, with the other faults so far.
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

    /// Splits the body of an idempotent request, which needs no key, and reads its query.
    ///
    /// # Errors
    /// 400 if the body is no JSON object, with the other faults so far.
    pub(super) fn unkeyed(context: &RequestContext, body: &'a Bytes) -> Result<Self, Problem> {
        let report = report(context);
        let object = Object::parse(body).map_err(|problem| report.joined(problem))?;
        Ok(Self { object, report, key: None })
    }

    /// A request without body members: its command's context, and the unknown members of its body.
    ///
    /// # Errors
    /// 400 if the body is no JSON object, or the query or the key is wrong.
    pub(super) fn bare(
        context: &RequestContext,
        caller: &Caller,
        headers: &HeaderMap,
        body: Option<&Bytes>,
    ) -> Result<(CommandContext, Vec<String>), Problem> {
        let mut incoming = Incoming::read(context, headers, body)?;
        let command_context = incoming.command_context(context, caller);
        incoming.fields().finish(&mut incoming.report);
        Ok((command_context, incoming.report.check()?))
    }

    /// The body's members.
    pub(super) fn fields(&mut self) -> Fields<'a> {
        Fields::root(self.object.clone(), &mut self.report)
    }

    /// The command's context.
    pub(super) fn command_context(&self, context: &RequestContext, caller: &Caller) -> CommandContext {
        command_context(context, caller, self.key, &self.object)
    }
}

/// A report for the body's faults, which already has those of the query.
pub(super) fn report(context: &RequestContext) -> Report {
    let query = Query::of(context);
    let mut report = Report::new(query.as_ref().is_ok_and(Query::is_strict));
    match query {
        Ok(query) => report.faults.extend(query.unknown_faults()),
        Err(problem) => report.faults.extend(problem.faults),
    }
    report
}
