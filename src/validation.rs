//! Work with clients' JSON Schemas: compiling one, and validating values. It may take a second, cannot be interrupted,
//! and may need more stack than the runtime's threads have.
//!
//! Quick work is done where it is needed, or among other blocking work. The rest runs on a thread with a large stack and
//! needs a permit. There are permits for half of the cores, so that the others keep serving; one workspace gets at most
//! half of the permits.

use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use actors::id::Address;
use actors::tasks::shares::{BoundedPermit, BoundedPermits, SharedPermits};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::timeout;

use crate::http::refusal::broken;
use crate::json::report::{DeferredCheck, Report};
use crate::problem::{Fault, Problem};
use crate::wire::channel_message::schema::STACK_BYTES;

/// How long a request waits for a permit: as long as for the answer to a command.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests of one workspace that hold a permit or wait for one. Each keeps a schema and a value in memory, up to a few
/// megabytes.
const MAX_WAITING_PER_WORKSPACE: usize = 16;

/// The permits of the process, as they stand for its cores.
static PERMITS: LazyLock<BoundedPermits> =
    LazyLock::new(|| permits_of(thread::available_parallelism().map_or(1, usize::from)));

/// The result of work, or the work if it is not quick.
pub enum Progress<T> {
    /// The result.
    Done(T),
    /// What is left to do, on a thread with [`STACK_BYTES`].
    Deferred(Box<dyn FnOnce() -> T + Send>),
}

/// Permits for work that is not quick, on so many cores.
fn permits_of(cores: usize) -> BoundedPermits {
    let all = (cores / 2).max(1);
    BoundedPermits::of(SharedPermits::of(all, all.div_ceil(2)), MAX_WAITING_PER_WORKSPACE)
}

/// Waits for a permit; a workspace's requests get theirs in order.
///
/// # Errors
/// 429 if too many requests of this workspace wait, 503 if there is no permit in time.
async fn enter(permits: &BoundedPermits, workspace: Address) -> Result<BoundedPermit, Problem> {
    let Some(entering) = permits.enter(workspace) else {
        let detail = "too many values of this workspace are being validated; retry later";
        return Err(Problem::too_many("rate_limited", detail, 1));
    };
    let permit = timeout(PERMIT_TIMEOUT, entering).await;
    permit.map_err(|_| overloaded("too many values are being validated; retry later"))
}

fn overloaded(detail: &str) -> Problem {
    Problem::unavailable("overloaded", detail, 1)
}

/// Runs `begin` on a blocking thread, and what it defers with a permit.
///
/// # Errors
/// 429 and 503 if it cannot be done now.
pub async fn run<T: Send + 'static>(
    workspace: Address,
    begin: impl FnOnce() -> Progress<T> + Send + 'static,
) -> Result<T, Problem> {
    match on_blocking_thread(begin).await? {
        Progress::Done(result) => Ok(result),
        Progress::Deferred(rest) => run_permitted(workspace, rest).await,
    }
}

/// Makes the deferred checks of a body with a permit. A handler that does not call this has them made by
/// [`Report::refuse`], on its own thread.
///
/// # Errors
/// 429 and 503 if they cannot be made now.
pub async fn run_deferred(report: &mut Report, workspace: Address) -> Result<(), Problem> {
    let checks = report.take_deferred();
    if !checks.is_empty() {
        let faults = run_permitted(workspace, move || faults(&checks)).await?;
        faults.into_iter().for_each(|fault| report.push(fault));
    }
    Ok(())
}

/// Makes the deferred checks of a body on this thread. Other threads take over the other tasks of this one meanwhile.
///
/// # Errors
/// 503 if they cannot be made now.
pub fn run_deferred_here(report: &mut Report) -> Result<(), Problem> {
    let checks = report.take_deferred();
    if !checks.is_empty() {
        let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
        let work = || with_large_stack(|| faults(&checks));
        // A runtime with one thread has no other one.
        let faults = if matches!(flavor, Ok(RuntimeFlavor::MultiThread)) { block_in_place(work) } else { work() };
        faults?.into_iter().for_each(|fault| report.push(fault));
    }
    Ok(())
}

fn faults(checks: &[DeferredCheck]) -> Vec<Fault> {
    checks.iter().flat_map(DeferredCheck::faults).collect()
}

/// Runs `work` with a permit, which is held to its end even if nobody waits for the result any longer.
async fn run_permitted<T: Send + 'static>(
    workspace: Address,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let permit = enter(&PERMITS, workspace).await?;
    on_blocking_thread(move || {
        let _permit = permit;
        with_large_stack(work)
    })
    .await?
}

async fn on_blocking_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    spawn_blocking(work).await.map_err(|_| broken("work with a schema does not panic"))
}

/// Runs `work` on a thread whose stack suffices for any schema.
fn with_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Problem> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("schemas".to_owned()).stack_size(STACK_BYTES);
        let thread = thread.spawn_scoped(scope, work).map_err(|error| {
            tracing::warn!(%error, "no thread could be started to work with a schema");
            overloaded("no thread could be started; retry later")
        })?;
        thread.join().map_err(|_| broken("work with a schema does not panic"))
    })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn workspace(n: u8) -> Address {
        Address([n; 10])
    }

    #[tokio::test(start_paused = true)]
    async fn validations_of_one_workspace_leave_permits_to_others() {
        let permits = permits_of(8);
        let enter = |n| enter(&permits, workspace(n)).now_or_never().map(Result::unwrap);
        let held: Vec<_> = std::iter::from_fn(|| enter(1)).take(8).collect();
        assert_eq!(held.len(), 2, "half of four");
        let others: Vec<_> = std::iter::from_fn(|| enter(2)).take(8).collect();
        assert_eq!(others.len(), 2);
        assert!(enter(3).is_none(), "half of the cores are at work");
        drop(held);
        assert!(enter(3).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_validation_waits_for_its_permit_for_a_bounded_time() {
        let permits = permits_of(1);
        let held = enter(&permits, workspace(1)).await.unwrap();
        let late = enter(&permits, workspace(2)).await.unwrap_err();
        assert_eq!((late.status.as_u16(), late.code), (503, "overloaded"));
        let waiting: Vec<_> = (1..MAX_WAITING_PER_WORKSPACE)
            .map(|_| {
                let mut waits = Box::pin(enter(&permits, workspace(1)));
                assert!((&mut waits).now_or_never().is_none());
                waits
            })
            .collect();
        let refused = enter(&permits, workspace(1)).await.unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.code), (429, "rate_limited"));
        drop((held, waiting));
        assert!(enter(&permits, workspace(2)).await.is_ok());
    }

    /// On a thread with the usual two mebibytes this recursion would end the process.
    #[test]
    fn deferred_work_has_the_stack_that_schemas_need() {
        fn deep(levels: usize) -> usize {
            let frame = std::hint::black_box([levels; 1_024]);
            if levels == 0 { 0 } else { 1 + deep(frame[1_023] - 1) }
        }
        assert_eq!(with_large_stack(|| deep(2_000)).unwrap(), 2_000);
    }

    #[tokio::test]
    async fn deferred_checks_are_made_however_a_body_is_judged() {
        let report = || {
            let mut report = Report::new(false);
            report.defer(|| vec![Fault::new("/a", "invalid_schema", "is wrong")]);
            report.defer(Vec::new);
            report
        };
        let mut permitted = report();
        run_deferred(&mut permitted, workspace(1)).await.unwrap();
        assert_eq!(permitted.faults.len(), 1);
        assert_eq!(report().check().unwrap_err().faults, permitted.faults);
        assert_eq!(permitted.check().unwrap_err().faults.len(), 1);
    }
}
