//! Running statements, with failures mapped to the port's errors, and counting them.

use std::sync::atomic::{AtomicU64, Ordering};

use actors::store::{Cause, StoreError};
use scylla::client::session::Session;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::ExecutionError;
use scylla::response::query_result::{QueryResult, QueryRowsResult};
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;

use super::session::Profiles;
use super::statements::Statements;

/// The requests of the store to the cluster since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Conditional batches sent: the only rounds of consensus in a commit.
    pub conditional: u64,
    /// Conditional batches that were applied.
    pub applied: u64,
    /// Settling statements: rounds of consensus too. One for each load of an entity for commits that is not known to be
    /// settled, and after a conflict, an unknown outcome or a refusal.
    pub settling: u64,
    /// Commits that met an unknown outcome on their way.
    pub unknown: u64,
    /// Those whose outcome was settled.
    pub settled: u64,
    /// Commits that found another head.
    pub conflicts: u64,
    /// Plain writes.
    pub writes: u64,
    /// Plain reads.
    pub reads: u64,
}

macro_rules! counters {
    ($($name:ident),*) => {
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
        }

        impl Counters {
            pub(super) fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters!(conditional, applied, settling, unknown, settled, conflicts, writes, reads);

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A session with its statements.
pub(super) struct Db {
    pub(super) session: Session,
    pub(super) statements: Statements,
    pub(super) counters: Counters,
    pub(super) profiles: Profiles,
}

fn unavailable(error: ExecutionError) -> StoreError {
    StoreError::Unavailable(Cause::of("the driver's call failed", error))
}

fn corrupt(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Corrupt(Cause::of("a row does not have the expected columns", error))
}

impl Db {
    /// Runs a read; returns its raw rows.
    async fn raw(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<QueryRowsResult, StoreError> {
        // The driver's futures are large, and several of them are run together.
        let running = Box::pin(self.session.execute_unpaged(statement, values));
        let result = running.await.map_err(unavailable)?;
        result.into_rows_result().map_err(corrupt)
    }

    /// Runs a read.
    pub(super) async fn select<R>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<Vec<R>, StoreError>
    where
        R: for<'f> DeserializeRow<'f, 'f>,
    {
        let is_settling = statement.get_consistency().is_some_and(|consistency| consistency.is_serial());
        count(if is_settling { &self.counters.settling } else { &self.counters.reads });
        let result = self.raw(statement, values).await?;
        let rows = result.rows::<R>().map_err(corrupt)?;
        rows.collect::<Result<_, _>>().map_err(corrupt)
    }

    /// Runs a read of at most one row.
    pub(super) async fn select_one<R>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<Option<R>, StoreError>
    where
        R: for<'f> DeserializeRow<'f, 'f>,
    {
        Ok(self.select(statement, values).await?.into_iter().next())
    }

    /// Runs a condition that is never met; returns its answer.
    pub(super) async fn settle(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<QueryResult, StoreError> {
        count(&self.counters.settling);
        Box::pin(self.session.execute_unpaged(statement, values)).await.map_err(unavailable)
    }

    /// Runs a plain write.
    pub(super) async fn write(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<(), StoreError> {
        count(&self.counters.writes);
        Box::pin(self.session.execute_unpaged(statement, values)).await.map(drop).map_err(unavailable)
    }

    /// Runs plain writes to one partition together.
    pub(super) async fn write_together<V: SerializeRow>(
        &self,
        statements: Vec<&PreparedStatement>,
        values: Vec<V>,
    ) -> Result<(), StoreError> {
        count(&self.counters.writes);
        let statements = statements.into_iter().map(|statement| BatchStatement::from(statement.clone())).collect();
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        batch.set_is_idempotent(true);
        batch.set_execution_profile_handle(Some(self.profiles.plain.clone().into_handle()));
        Box::pin(self.session.batch(&batch, values)).await.map(drop).map_err(unavailable)
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("counts", &self.counters.read()).finish_non_exhaustive()
    }
}
