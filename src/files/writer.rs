//! Writing one object, part by part.

use std::sync::Arc;
use std::time::Duration;

use actors::attachment::File;
use actors::tasks::shares::SharedPermit;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload};

use super::{FilesError, STORAGE_TIMEOUT, in_time};

/// The size and hash of a written object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes.
    pub size: u64,
    /// Their BLAKE3 hash.
    pub digest: [u8; 32],
}

/// An object that is being written. Dropped before its end it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    objects: Arc<dyn ObjectStore>,
    key: Path,
    part: usize,
    /// Bytes not written yet; less than a part.
    pending: Vec<Bytes>,
    pending_bytes: usize,
    /// Begun with the first whole part; a small object is written at once.
    upload: Option<Box<dyn MultipartUpload>>,
    hasher: blake3::Hasher,
    size: u64,
    /// The remaining time for the store.
    left: Duration,
    _permit: SharedPermit,
}

impl Written {
    /// The size and hash of an attachment's object.
    #[must_use]
    pub fn of(file: &File) -> Self {
        Self { size: file.size, digest: file.digest }
    }
}

impl Writer {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, key: Path, part: usize, permit: SharedPermit) -> Self {
        Self {
            objects,
            key,
            part,
            pending: Vec::new(),
            pending_bytes: 0,
            upload: None,
            hasher: blake3::Hasher::new(),
            size: 0,
            left: STORAGE_TIMEOUT,
            _permit: permit,
        }
    }

    /// Appends bytes. Returns once they are written or there is room for more.
    ///
    /// # Errors
    /// The store's error, or that it did not answer; the object is lost then.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), FilesError> {
        self.hasher.update(&bytes);
        self.size += bytes.len() as u64;
        while self.pending_bytes + bytes.len() >= self.part {
            let rest = bytes.split_off(self.part - self.pending_bytes);
            self.pending.push(bytes);
            let part = self.take_pending();
            let upload = match &mut self.upload {
                Some(upload) => upload,
                none => none.insert(in_time(&mut self.left, self.objects.put_multipart(&self.key)).await?),
            };
            in_time(&mut self.left, upload.put_part(part)).await?;
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.pending_bytes += bytes.len();
            self.pending.push(bytes);
        }
        Ok(())
    }

    fn take_pending(&mut self) -> PutPayload {
        self.pending_bytes = 0;
        std::mem::take(&mut self.pending).into_iter().collect()
    }

    /// Makes the object exist, durably.
    ///
    /// # Errors
    /// The store's error, or that it did not answer; whether the object exists is unknown then.
    pub async fn finish(mut self) -> Result<Written, FilesError> {
        let last = self.take_pending();
        match &mut self.upload {
            None => drop(in_time(&mut self.left, self.objects.put(&self.key, last)).await?),
            Some(upload) => {
                if last.content_length() > 0 {
                    in_time(&mut self.left, upload.put_part(last)).await?;
                }
                in_time(&mut self.left, upload.complete()).await?;
            }
        }
        self.upload = None;
        Ok(Written { size: self.size, digest: *self.hasher.finalize().as_bytes() })
    }
}

impl Drop for Writer {
    /// A bucket keeps the parts of an upload that was never completed unless it is aborted.
    fn drop(&mut self) {
        let (Some(mut upload), Ok(runtime)) = (self.upload.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            if let Err(error) = upload.abort().await.map_err(FilesError::from) {
                tracing::debug!(%error, "could not abort an abandoned upload");
            }
        });
    }
}
