//! The memory that all bodies of requests share.
//!
//! Each body has its bound, and so has their number, but the largest times as many as there are connections is more
//! than any machine has.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// Bytes of all bodies together, without the first unit of each.
const ROOM_BYTES: usize = 512 * 1024 * 1024;
/// The unit in which room is taken. Bodies of at most one unit take none, so usual requests do not count.
const UNIT_BYTES: usize = 64 * 1024;

/// The room for bodies of a server.
#[derive(Clone, Debug)]
pub struct BodyRoom(Arc<Semaphore>);

impl Default for BodyRoom {
    fn default() -> Self {
        Self::of(ROOM_BYTES)
    }
}

impl BodyRoom {
    /// Room for this many bytes.
    fn of(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / UNIT_BYTES)))
    }

    /// A body of which nothing has arrived.
    pub(super) fn body(&self) -> TakenRoom<'_> {
        TakenRoom { room: &self.0, permit: None }
    }
}

/// The room that one body has taken; free again once this and the body are dropped.
pub(super) struct TakenRoom<'a> {
    room: &'a Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl TakenRoom<'_> {
    /// Takes room for a body of which this many bytes have arrived.
    ///
    /// # Errors
    /// 503 `overloaded` if other bodies have taken it. A body never waits for room: it would keep what it has from
    /// others that wait.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let taken = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = (bytes.div_ceil(UNIT_BYTES).saturating_sub(1)).saturating_sub(taken);
        if more == 0 {
            return Ok(());
        }
        let more = u32::try_from(more).ok().and_then(|more| Arc::clone(self.room).try_acquire_many_owned(more).ok());
        let Some(more) = more else {
            let detail = "too many large bodies are being processed; retry later";
            return Err(Problem::unavailable("overloaded", detail, 1));
        };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// The body, which keeps its room as long as any part of it is kept.
    pub(super) fn hold(self, body: Bytes) -> Bytes {
        match self.permit {
            None => body,
            Some(permit) => Bytes::from_owner(HeldBody { body, _permit: permit }),
        }
    }
}

struct HeldBody {
    body: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for HeldBody {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(room: &BodyRoom, length: usize) -> Result<Bytes, &'static str> {
        let mut taken = room.body();
        taken.grow(length / 2).and_then(|()| taken.grow(length)).map_err(|problem| problem.code)?;
        Ok(taken.hold(Bytes::from(vec![b'x'; length])))
    }

    #[test]
    fn large_bodies_share_the_room_and_get_it_back() {
        let room = BodyRoom::of(4 * UNIT_BYTES);
        let first = held(&room, 4 * UNIT_BYTES).unwrap();
        assert_eq!(held(&room, 3 * UNIT_BYTES), Err("overloaded"));
        let other = held(&room, 2 * UNIT_BYTES).unwrap();
        let part = first.slice(1..2);
        drop((first, other));
        assert_eq!(held(&room, 3 * UNIT_BYTES), Err("overloaded"), "a part of the first is kept");
        drop(part);
        assert!(held(&room, 5 * UNIT_BYTES).is_ok());
    }

    #[test]
    fn usual_bodies_need_no_room() {
        let room = BodyRoom::of(0);
        assert!(held(&room, UNIT_BYTES).is_ok());
        assert_eq!(held(&room, UNIT_BYTES + 1), Err("overloaded"));
    }
}
