//! The requests to a subject's memories, with the replies that answer them.

use super::{Command, ForgetAll, Memories, Outcome, Remember, Reply};
use crate::requests::requests;

requests! { Memories:
    // The outcome of each edit.
    Remember as Remember, Vec<Outcome> { Reply::Remembered(outcomes) => outcomes }
    // How many are left.
    ForgetAll as ForgetAll, u64 { Reply::Left(left) => left }
}
