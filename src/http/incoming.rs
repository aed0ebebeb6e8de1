//! A changing request, before its members are read.

use actors::directory::CommandContext;
use bytes::Bytes;

use super::call::Call;
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
    call: &'a Call,
    /// The body.
    pub(super) object: Object<'a>,
    /// The faults so far: those of the query and the idempotency key.
    pub(super) report: Report,
    /// The idempotency key.
    pub(super) key: Option<&'a str>,
}

impl Call {
    /// Splits the body and reads the query and the idempotency key. `None`: the request has no body and needs none.
    ///
    /// # Errors
    /// 400 if the body is no JSON object, with the other faults so far.
    pub(super) fn read<'a>(&'a self, body: impl Into<Option<&'a Bytes>>) -> Result<Incoming<'a>, Problem> {
        let object = body.into().map_or_else(|| Ok(Object::default()), |body| Object::parse(body));
        let mut report = report(&self.context);
        let key = idempotency_key(&self.headers, None).unwrap_or_else(|faults| {
            report.faults.extend(faults);
            None
        });
        let object = object.map_err(|problem| report.joined(problem))?;
        Ok(Incoming { call: self, object, report, key })
    }

    /// Splits the body and reads the query of a request that is idempotent by itself: it needs no key.
    ///
    /// # Errors
    /// 400 if the body is no JSON object, with the other faults so far.
    pub(super) fn read_unkeyed<'a>(&'a self, body: &'a Bytes) -> Result<Incoming<'a>, Problem> {
        let report = report(&self.context);
        let object = Object::parse(body).map_err(|problem| report.joined(problem))?;
        Ok(Incoming { call: self, object, report, key: None })
    }

    /// Reads a request whose body has no members that the handler knows. Returns the command's context, and the members
    /// that the body has nevertheless.
    ///
    /// # Errors
    /// 400 if the body is no JSON object, or the query or the key is wrong.
    pub(super) fn read_without_members(&self, body: Option<&Bytes>) -> Result<(CommandContext, Vec<String>), Problem> {
        let mut incoming = self.read(body)?;
        let command_context = incoming.command_context();
        incoming.fields().finish(&mut incoming.report);
        Ok((command_context, incoming.report.check()?))
    }
}

impl<'a> Incoming<'a> {
    /// The body's members.
    pub(super) fn fields(&mut self) -> Fields<'a> {
        Fields::root(self.object.clone(), &mut self.report)
    }

    /// The command's context.
    pub(super) fn command_context(&self) -> CommandContext {
        command_context(self.call, self.key, &self.object)
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
