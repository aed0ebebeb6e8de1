//! `GET /admin/heap`: the allocations in use by code path, as a profile that `pprof` reads.
//!
//! It needs another allocator than the usual one, so it is a feature of the build, and jemalloc must be configured at
//! the start of the process to sample allocations: see `docs/TELEMETRY.md`.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use crate::problem::Problem;

/// The profile, or why there is none.
pub(super) async fn heap() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"heap.pb.gz\""),
    ];
    profile().await.map_or_else(IntoResponse::into_response, |profile| (headers, profile).into_response())
}

/// This process has no profile.
fn not_there(why: &str) -> Problem {
    Problem::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", why)
}

#[cfg(not(feature = "heap-profile"))]
async fn profile() -> Result<Vec<u8>, Problem> {
    Err(not_there(
        "this program was built without heap profiles: build it with `--features heap-profile` and start it with \
         _RJEM_MALLOC_CONF=prof:true",
    ))
}

/// Allocations in use, by code path, in the form of `pprof`.
#[cfg(feature = "heap-profile")]
async fn profile() -> Result<Vec<u8>, Problem> {
    use std::sync::Arc;

    let Some(control) = jemalloc_pprof::PROF_CTL.as_ref() else {
        return Err(not_there("allocations are not sampled: start the program with _RJEM_MALLOC_CONF=prof:true"));
    };
    // One at a time: allocations block while it goes through the samples.
    let Ok(mut control) = Arc::clone(control).try_lock_owned() else {
        let why = "another heap profile is in progress; retry later";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", why));
    };
    if !control.activated() {
        return Err(not_there("allocations are not sampled: remove prof_active:false from _RJEM_MALLOC_CONF"));
    }
    // It goes through a file below the system's directory for temporary ones.
    let profile = tokio::task::spawn_blocking(move || control.dump_pprof()).await;
    let failed = |error: &dyn std::fmt::Display| {
        tracing::warn!(%error, "the heap profile failed");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the heap profile failed; the log has the reason")
    };
    match profile {
        Ok(profile) => profile.map_err(|error| failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}
