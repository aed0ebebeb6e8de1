//! By what each request to somebody's memories is answered, as far as anybody goes by it.

use super::{Command, ForgetAll, Memories, Outcome, Remember, Reply};
use crate::asks::requests;

requests! { Memories:
    // What became of each edit.
    Remember as Remember, Vec<Outcome> { Reply::Remembered(outcomes) => outcomes }
    // How many are left.
    ForgetAll as ForgetAll, u64 { Reply::Left(left) => left }
}
