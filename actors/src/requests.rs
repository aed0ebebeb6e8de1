//! Typed requests to entities: each names the type of its reply.
//!
//! A machine has one enum for all of its commands and one for all of its replies. A caller with a typed request gets
//! only the replies that this request can have; that the machine gives no other one is checked here, for all of them.

use crate::directory::{Answer, Refusal, Reply};
use crate::machine::Machine;

/// A request to the entities of one kind.
pub trait Request<M: Machine>: Sized + Send {
    /// The reply on success.
    type Reply;

    /// The command that makes this request.
    fn command(self) -> M::Command;

    /// A machine's reply as this request's; `None`: this request cannot have it.
    fn reply(reply: M::Reply) -> Option<Self::Reply>;
}

/// The answer to a request, or why there is none.
pub type TypedReply<M, R> = Result<Answer<<R as Request<M>>::Reply>, Refusal<<M as Machine>::Rejection>>;

/// Converts a machine's reply to that of a request.
pub(crate) fn typed<M: Machine, R: Request<M>>(reply: Reply<M>) -> TypedReply<M, R> {
    match reply? {
        Answer::Done(reply) => {
            R::reply(reply).map(Answer::Done).ok_or(Refusal::Misanswered(std::any::type_name::<R>()))
        }
        Answer::Repeat(events) => Ok(Answer::Repeat(events)),
    }
}

/// The contract between a machine and its callers.
#[cfg(test)]
pub(crate) trait ChecksReplies: Machine {
    /// Whether a command's request can have this reply.
    fn answers(command: &Self::Command, reply: &Self::Reply) -> bool;
}

/// Maps each request of a machine to its command, and to its replies. A command itself is a request too, and is
/// answered by any reply.
macro_rules! requests {
    ($machine:ty: $($request:ty as $command:ident, $reply:ty { $($given:pat => $value:expr),+ })*) => {
        $(impl $crate::requests::Request<$machine> for $request {
            type Reply = $reply;

            fn command(self) -> Command {
                Command::$command(self)
            }

            fn reply(reply: Reply) -> Option<Self::Reply> {
                match reply {
                    $($given => Some($value),)+
                    _ => None,
                }
            }
        })*

        #[cfg(test)]
        impl $crate::requests::ChecksReplies for $machine {
            fn answers(command: &Command, reply: &Reply) -> bool {
                match command {
                    $(Command::$command(_) => <$request as $crate::requests::Request<$machine>>::reply(reply.clone()).is_some(),)*
                    _ => true,
                }
            }
        }

        impl $crate::requests::Request<$machine> for Command {
            type Reply = Reply;

            fn command(self) -> Command {
                self
            }

            fn reply(reply: Reply) -> Option<Reply> {
                Some(reply)
            }
        }
    };
}

pub(crate) use requests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::{CancelTurn, Disclaim, Rejection, Reply};
    use crate::store::SeqRange;

    #[test]
    fn a_reply_to_something_else_is_not_taken_for_an_answer() {
        let nothing = || Ok::<_, Refusal<Rejection>>(Answer::Done(Reply::Attached(None)));
        assert!(matches!(typed::<_, Disclaim>(nothing()), Ok(Answer::Done(None))));
        let refused = typed::<_, CancelTurn>(nothing());
        assert!(
            matches!(refused, Err(Refusal::Misanswered(request)) if request.ends_with("CancelTurn")),
            "{refused:?}"
        );
    }

    #[test]
    fn a_repeat_is_no_answer_to_a_request_without_idempotency_key() {
        assert!(matches!(Answer::Done(7).unkeyed::<Rejection>(), Ok(7)));
        let repeat = Answer::<u8>::Repeat(SeqRange::upto(2));
        assert!(matches!(repeat.unkeyed::<Rejection>(), Err(Refusal::Misanswered(_))));
    }
}
