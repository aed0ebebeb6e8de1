//! A message with a file, which is fetched before the message is accepted.

use std::time::Duration;

use actors::attachment;
use actors::channel::ChannelKind;
use axum::response::Response;
use futures_util::FutureExt as _;
use http::{HeaderValue, StatusCode};
use tokio::time::{Instant, timeout};

use super::{ContactExchange, IncomingMessage};
use crate::http::call::Call;
use crate::http::caller::recheck_key;
use crate::http::headers::prefer::{PREFERENCE_APPLIED, Prefer, prefer};
use crate::http::idempotency::in_progress;
use crate::http::long_requests::unless_stopping;
use crate::http::messages::find_channel;
use crate::http::messages::media::{self, FlightLeader};
use crate::http::messages::turn_wait::MAX_WAIT_SECONDS;
use crate::http::refusal::channel::{channel_not_found, kind_mismatch};
use crate::http::refusal::key_reused;
use crate::problem::Problem;
use crate::wire::contact_message::content::Media;

/// The progress of fetching for a request that was not accepted before.
#[derive(Clone, Copy)]
pub(super) struct Fetching<'a> {
    /// How long it waited for an identical request. Its wait for the agent is shorter by this.
    pub(super) waited: Duration,
    /// The handle on which later identical requests wait.
    pub(super) leader: Option<&'a FlightLeader>,
}

impl ContactExchange<'_> {
    /// Fetches the file and delivers the message with it. Of identical requests one fetches; the others get its
    /// outcome, and wait for that no longer than for an agent.
    pub(super) async fn with_file(
        &self,
        incoming: &IncomingMessage,
        agent: &str,
        media: &Media,
    ) -> Result<Response, Problem> {
        if let Some(response) = self.earlier().await? {
            return Ok(response);
        }
        self.admit(agent)?;
        let begun = Instant::now();
        let leader = match self.lead().await {
            // A request with this body may have been accepted just before the other one began.
            Err(refusal) if refusal.code == key_reused().code => return self.earlier_or(refusal).await,
            leader => leader?,
        };
        let fetching = Some(Fetching { waited: begun.elapsed(), leader: leader.as_ref() });
        let exchange = ContactExchange { scope: self.scope.clone(), fetching, ..*self };
        if let Some(response) = exchange.earlier().await? {
            return Ok(response);
        }
        exchange.fetch_and_deliver(incoming, media).await
    }

    /// Delivers a message without a file. A request that fetches one has another body, and if it has the same key, it
    /// came first.
    pub(super) async fn without_file(&self, incoming: &IncomingMessage, agent: &str) -> Result<Response, Problem> {
        if self.key().is_some_and(|key| self.request.call.app.fetches().has(key)) {
            return self.earlier_or(key_reused()).await;
        }
        self.deliver(incoming, agent, None).await
    }

    /// Waits until no identical request fetches. `None`: there is a message to look for, or no key.
    ///
    /// # Errors
    /// See [`media::Fetches::enter`]; 409 once the request has waited as long as it may.
    async fn lead(&self) -> Result<Option<FlightLeader>, Problem> {
        let Some(keyed) = &self.request.keyed else { return Ok(None) };
        let Call { app, context, headers, caller, .. } = self.request.call;
        let mut entered = Box::pin(app.fetches().enter(keyed.used(&self.scope)));
        if let Some(entered) = (&mut entered).now_or_never() {
            return entered;
        }
        let prefer = prefer(headers);
        let budget = self.budget(prefer);
        if budget.is_zero() {
            return Err(still_in_progress(prefer));
        }
        // If too many requests wait already, the client must ask again.
        let Some(_permit) = app.long_requests().enter(caller.address) else { return Err(in_progress()) };
        context.begin_wait();
        let in_time =
            timeout(budget, entered).map(|entered| entered.unwrap_or_else(|_| Err(still_in_progress(prefer))));
        unless_stopping(app, in_time).await
    }

    async fn fetch_and_deliver(&self, incoming: &IncomingMessage, media: &Media) -> Result<Response, Problem> {
        let app = &self.request.call.app;
        let fetched = Box::pin(unless_stopping(app, media::fetch(self.request, media))).await;
        let file = fetched.map_err(|problem| self.share_refusal(problem))?;
        let delivered = Box::pin(self.deliver_with(incoming, &file)).await;
        // The file has its message now, or never will.
        app.node().settle(self.contact.workspace, &[file.id]);
        delivered
    }

    /// Delivers the message with its file, which may have taken long: only if the caller's key is still valid, and to
    /// the channel as it is now.
    async fn deliver_with(&self, incoming: &IncomingMessage, file: &attachment::State) -> Result<Response, Problem> {
        // A waiting request may use another API key.
        recheck_key(self.request.call).await?;
        self.deliver_on_channel(incoming, file).await.map_err(|problem| self.share_refusal(problem))
    }

    async fn deliver_on_channel(
        &self,
        incoming: &IncomingMessage,
        file: &attachment::State,
    ) -> Result<Response, Problem> {
        let channel = find_channel(self.request.call, &self.channel.id).await?.ok_or_else(channel_not_found)?;
        if channel.kind != ChannelKind::Api {
            return Err(kind_mismatch("", channel.kind));
        }
        let exchange = self.with_channel(&channel);
        match exchange.agent() {
            Ok(agent) => exchange.deliver(incoming, &agent, Some(file)).await,
            Err(refusal) => exchange.earlier_or(refusal).await,
        }
    }

    /// Passes a problem on to the identical requests that wait, if it is about the request itself. After a problem of
    /// the server, of its load, or of this request's API key, the next of them tries by itself.
    ///
    /// Returns the problem.
    fn share_refusal(&self, problem: Problem) -> Problem {
        let is_of_load = problem.status == StatusCode::TOO_MANY_REQUESTS || problem.code == in_progress().code;
        let is_of_caller = matches!(problem.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if problem.status.is_client_error()
            && !is_of_load
            && !is_of_caller
            && let Some(leader) = self.fetching.and_then(|fetching| fetching.leader)
        {
            leader.refused(&problem);
        }
        problem
    }
}

/// The identical request has no answer yet, and this one has waited as long as it wanted to. There is no turn yet that
/// a 202 could name.
fn still_in_progress(prefer: Prefer) -> Problem {
    with_applied_wait(in_progress(), prefer)
}

/// The problem of a request that has waited as long as it wanted to.
pub(super) fn with_applied_wait(problem: Problem, prefer: Prefer) -> Problem {
    let waited = prefer.explicit_wait(MAX_WAIT_SECONDS);
    match waited.map(|wait| HeaderValue::try_from(format!("wait={wait}"))) {
        Some(Ok(applied)) => problem.header(PREFERENCE_APPLIED, applied),
        _ => problem,
    }
}
