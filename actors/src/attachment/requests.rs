//! The requests to a file, with the replies that answer them.

use super::{Attachment, Begin, Bind, Command, Erase, File, Reply, State};
use crate::requests::requests;

requests! { Attachment:
    // The file's state now.
    Begin as Begin, Box<State> { Reply::Attachment(state) => state }
    File as Complete, Box<State> { Reply::Attachment(state) => state }
    Erase as Erase, Box<State> { Reply::Attachment(state) => state }
    // The number by which it is bound.
    Bind as Bind, u32 { Reply::Bound(number) => number }
}
