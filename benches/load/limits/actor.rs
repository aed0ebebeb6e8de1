//! L5: a call of an actor and its answer, with a message of the usual size and no work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, call};

use super::{Limit, MANY_ACTORS, repeat};
use crate::Error;

/// The message of a call, by value.
struct Ask([u8; 300], RpcReplyPort<u8>);

struct Echo;

impl Actor for Echo {
    type Msg = Ask;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Ask>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Ask>, Ask(bytes, reply): Ask, (): &mut ()) -> Result<(), ActorProcessingErr> {
        // A caller that is gone needs no answer.
        let _ = reply.send(bytes[0]);
        Ok(())
    }
}

/// Calls to so many actors; each client calls its own actors in turn.
pub(super) async fn call(actors: u32, clients: u32, time: Duration) -> Result<Limit, Error> {
    let mut cells = Vec::new();
    for _ in 0..actors {
        cells.push(Actor::spawn(None, Echo, ()).await?.0);
    }
    let all: Arc<[ActorRef<Ask>]> = cells.into();
    let of_clients = Arc::clone(&all);
    let name = if actors == 1 { "L5 call of 1 actor" } else { MANY_ACTORS };
    let next = Arc::new(AtomicUsize::new(0));
    let limit = repeat(name, clients, time, move |_| {
        let nth = next.fetch_add(1, Ordering::Relaxed);
        let actor = of_clients[nth % of_clients.len()].clone();
        async move {
            let answer = call!(actor, |reply| Ask([7; 300], reply));
            // The error contains the message sent; only its text is of use.
            answer.map(drop).map_err(|error| error.to_string().into())
        }
    })
    .await;
    all.iter().for_each(|actor| actor.stop(None));
    limit
}
