//! Small parts of answers.

use std::fmt::Display;

use actors::conversation::TurnStatus;
use actors::key::PrincipalKind;
use actors::message::{Json, ReviewStatus, SenderKind, Severity};
use serde::ser::Error;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// Stored JSON, written unchanged.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a>(pub &'a Json);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(self.0.as_str()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// A displayable value as a JSON string: ids.
#[derive(Clone, Copy, Debug)]
pub struct AsText<T>(pub T);

impl<T: Display> Serialize for AsText<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// The word for a severity.
#[must_use]
pub fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Success => "success",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// The word for a review's status.
#[must_use]
pub fn review_status(status: ReviewStatus) -> &'static str {
    match status {
        ReviewStatus::Pending => "pending",
        ReviewStatus::Completed => "completed",
        ReviewStatus::Expired => "expired",
        ReviewStatus::Cancelled => "cancelled",
    }
}

/// Stored JSON that the answer owns.
#[derive(Clone, Debug)]
pub struct RawOwned(pub Json);

impl Serialize for RawOwned {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Raw(&self.0).serialize(serializer)
    }
}

/// The word for a turn's status.
#[must_use]
pub fn turn_status(status: TurnStatus) -> &'static str {
    match status {
        TurnStatus::Queued => "queued",
        TurnStatus::Running => "running",
        TurnStatus::AwaitingReview => "awaiting_review",
        TurnStatus::Completed => "completed",
        TurnStatus::Failed => "failed",
        TurnStatus::Cancelled => "cancelled",
    }
}

/// The word for a sender in the channel view, which distinguishes agents from all others.
#[must_use]
pub fn sender_type(kind: SenderKind) -> &'static str {
    match kind {
        SenderKind::Agent => PrincipalKind::Agent.name(),
        SenderKind::User | SenderKind::Contact => PrincipalKind::User.name(),
    }
}
