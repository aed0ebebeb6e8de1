//! Allocates the timestamps of ids so that the order of ids is the order of creation.
//!
//! An id is a time followed by an address, and lists are in the order of ids. So of two ids made within one
//! millisecond, the later one needs the higher address or, if its address is given, a later time.

use std::sync::Mutex;

use crate::clock::Millis;
use crate::id::Address;
use crate::sync::LockUnpoisoned;

/// How far the time of an id may be ahead of the clock, in milliseconds. Ids made at that limit have no order; nor
/// have, within this time, ids of two processes.
const MAX_LEAD_MILLIS: u64 = 250;

/// The clocks of a node, one for each group of lists, so that no time is ahead because of other lists.
#[derive(Debug, Default)]
pub(crate) struct IdClocks {
    /// Conversations and contacts.
    pub(crate) entities: IdClock,
    /// The places of reviews.
    pub(crate) reviews: IdClock,
    /// A workspace's configuration, and keys.
    pub(crate) things: IdClock,
}

/// The last one that was given out. Concurrent requests have no order anyway.
#[derive(Debug, Default)]
pub(crate) struct IdClock(Mutex<(Millis, Address)>);

impl IdClock {
    /// A time and address for a thing with any address: `random` makes it unguessable.
    pub(crate) fn any(&self, now: Millis, random: [u8; 16]) -> (Millis, Address) {
        let drawn = Address::random(random);
        self.next(now, |(at, address)| match above(address, random) {
            _ if at < now => (now, drawn),
            Some(next) => (at, next),
            None => (at.plus(1), drawn),
        })
    }

    /// The time for a thing with this address.
    pub(crate) fn time_of(&self, now: Millis, address: Address) -> Millis {
        self.next(now, |(at, last)| (at.plus((address <= last).into()).max(now), address)).0
    }

    /// A time that it has not given out before.
    pub(crate) fn time(&self, now: Millis) -> Millis {
        self.next(now, |(at, _)| (at.plus(1).max(now), Address([u8::MAX; 10]))).0
    }

    /// The successor of the last one. A last one further ahead than the limit means that the clock was set back.
    fn next(&self, now: Millis, after: impl FnOnce((Millis, Address)) -> (Millis, Address)) -> (Millis, Address) {
        let mut last = self.0.lock_unpoisoned();
        if last.0 > now.plus(2 * MAX_LEAD_MILLIS) {
            *last = Default::default();
        }
        let (at, address) = after(*last);
        *last = (at.min(now.plus(MAX_LEAD_MILLIS)), address);
        *last
    }
}

/// When something began, if the time in its id is later: this time is shown, and the id's decides its position in
/// lists.
pub(crate) fn earlier(began: Millis, in_id: Millis) -> Option<Millis> {
    Some(began).filter(|began| *began < in_id)
}

/// An address above this one, unguessable from it; `None`: there is no room.
fn above(address: Address, random: [u8; 16]) -> Option<Address> {
    let mut wide = [0; 16];
    wide[6..].copy_from_slice(&address.0);
    let mut step = [0; 16];
    step[9..].copy_from_slice(&random[..7]);
    let next = u128::from_be_bytes(wide) + u128::from_be_bytes(step) + 1;
    let bytes = next.to_be_bytes();
    (bytes[..6] == [0; 6]).then(|| Address(std::array::from_fn(|n| bytes[6 + n])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn drawn(random: &mut Random) -> [u8; 16] {
        std::array::from_fn(|_| random.below(256) as u8)
    }

    #[test]
    fn minted_times_and_ids_keep_their_order_while_the_clock_stands() {
        let clock = IdClock::default();
        let mut random = Random(1);
        let mut last = (Millis(0), Address::default());
        for n in 0..300 {
            let now = Millis(1_000 + n / 50);
            let bytes = drawn(&mut random);
            let next = match n % 3 {
                0 => clock.any(now, bytes),
                1 => (clock.time_of(now, Address::random(bytes)), Address::random(bytes)),
                _ => (clock.time(now), Address::random(bytes)),
            };
            assert!(next > last, "{n}: {next:?} after {last:?}");
            assert!(next.0 >= now && next.0 <= now.plus(MAX_LEAD_MILLIS), "{n}");
            last = next;
        }
    }

    #[test]
    fn addresses_that_may_be_any_need_no_time_of_their_own() {
        let clock = IdClock::default();
        let mut random = Random(2);
        let times: Vec<_> = (0..1_000).map(|_| clock.any(Millis(7), drawn(&mut random)).0).collect();
        assert_eq!((times[0], times[999]), (Millis(7), Millis(7)));
    }

    #[test]
    fn a_clock_that_is_set_back_is_followed() {
        let clock = IdClock::default();
        assert_eq!(clock.time(Millis(5_000)), Millis(5_000));
        assert_eq!(clock.time(Millis(100)), Millis(100));
        assert_eq!(clock.time(Millis(100)), Millis(101));
    }

    #[test]
    fn times_stay_at_the_bound_of_their_lead_until_the_clock_has_caught_up() {
        let clock = IdClock::default();
        let times: Vec<_> = (0..MAX_LEAD_MILLIS + 3).map(|_| clock.time(Millis(100))).collect();
        assert!(times.is_sorted());
        assert_eq!(times[times.len() - 3..], [Millis(100 + MAX_LEAD_MILLIS); 3]);
        assert_eq!(clock.time(Millis(101)), Millis(101 + MAX_LEAD_MILLIS));
    }

    #[test]
    fn the_last_address_has_none_above() {
        assert_eq!(above(Address([u8::MAX; 10]), [0; 16]), None);
        assert_eq!(above(Address([0; 10]), [0; 16]), Some(Address([0, 0, 0, 0, 0, 0, 0, 0, 0, 1])));
    }
}
