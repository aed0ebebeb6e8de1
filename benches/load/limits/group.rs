//! L2: a loop that makes the same bytes durable in groups, and does nothing else with them.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{Limit, MESSAGE_BYTES, repeat};
use crate::Error;
use crate::server::data_dir;

/// The most messages of one group; the store's own bound.
const GROUP: usize = 1_024;

/// One thread writes; all clients wait for it.
pub(super) async fn commit(clients: u32, time: Duration) -> Result<Limit, Error> {
    let path = data_dir()?;
    let mut file = OpenOptions::new().append(true).create_new(true).open(&path)?;
    let (send, mut receive) = mpsc::channel::<oneshot::Sender<()>>(GROUP);
    let writer = std::thread::spawn(move || {
        let mut waiting = Vec::with_capacity(GROUP);
        let mut bytes = Vec::with_capacity(GROUP * MESSAGE_BYTES);
        while receive.blocking_recv_many(&mut waiting, GROUP) > 0 {
            bytes.resize(waiting.len() * MESSAGE_BYTES, 7);
            file.write_all(&bytes)?;
            file.sync_data()?;
            for waiter in waiting.drain(..) {
                // A waiter that is gone needs no answer.
                let _ = waiter.send(());
            }
        }
        Ok::<_, std::io::Error>(())
    });
    let send = Arc::new(send);
    let limit = repeat("L2 group commit", clients, time, move |_| {
        let send = Arc::clone(&send);
        async move {
            let (done, durable) = oneshot::channel();
            send.send(done).await?;
            Ok(durable.await?)
        }
    })
    .await;
    let written = tokio::task::spawn_blocking(move || writer.join()).await?;
    fs::remove_file(&path)?;
    written.map_err(|_| "the writer panicked")??;
    limit
}
