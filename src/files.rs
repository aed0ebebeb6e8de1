//! Storage for the bytes of attachments: a local directory, or a bucket of an S3-compatible store.
//!
//! No file is held in memory as a whole: bytes are written in parts as they arrive and read in pieces as they are sent.
//! An object exists once it is complete and, in a directory, on disk; an unfinished one can never be read. The domain
//! decides which objects are in use ([`actors::attachment`]).

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actors::id::Address;
use actors::ports;
use actors::store::Cause;
use actors::tasks::shares::SharedPermits;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::client::HttpError;
use object_store::local::LocalFileSystem;
use object_store::{GetOptions, GetResultPayload, ObjectStore, ObjectStoreExt as _};
use tokio::time::{Instant, timeout};

mod s3;
mod writer;

pub use self::writer::{Writer, Written};
use crate::config::{AttachmentsConfig, AttachmentsPlace};

/// Bytes of one read from a file.
const PIECE_BYTES: usize = 256 * 1024;

/// Connecting to a bucket, TLS and all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A bucket that is silent for this long counts as unavailable.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the storage may take for one object in all while it is written, or until it begins to be read: a request
/// waits, and holds one of the writers.
const STORAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why bytes could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is no such object.
    #[error("there is no such object")]
    NotFound,
    /// As many files are being written as may be at once.
    #[error("too many files are being written")]
    Busy,
    /// The place cannot be used.
    #[error("cannot store attachments in {place}: {source}")]
    Place {
        /// The place.
        place: String,
        /// Why not.
        source: io::Error,
    },
    /// The object differs from what was written.
    #[error("the object's content differs from what was written")]
    Damaged,
    /// An object's bytes cannot be read.
    #[error("cannot read the object: {0}")]
    Unreadable(#[source] io::Error),
    /// The store refused.
    #[error("the attachment store failed: {0}")]
    Store(StorageError),
}

/// The error of the store of attachments, without a bucket's own text, which may be anything.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StorageError(String);

impl StorageError {
    /// It did not answer in time.
    fn nothing() -> Self {
        Self("no response in time".to_owned())
    }

    fn of(error: &object_store::Error) -> Self {
        let mut below = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
        // Errors of this machine, about its disk or the connection to the bucket, contain no text of the bucket.
        if below.any(|error| error.is::<io::Error>() || error.is::<HttpError>()) {
            return Self(error.to_string());
        }
        let status = status_in(&error.to_string());
        Self(format!("{}{}", kind_of(error), status.map_or_else(String::new, |status| format!(", status {status}"))))
    }
}

/// The kind of refusal.
fn kind_of(error: &object_store::Error) -> &'static str {
    match error {
        object_store::Error::PermissionDenied { .. } => "permission denied",
        object_store::Error::Unauthenticated { .. } => "not authenticated",
        object_store::Error::Precondition { .. } => "precondition failed",
        object_store::Error::AlreadyExists { .. } => "already exists",
        object_store::Error::NotSupported { .. } | object_store::Error::NotImplemented { .. } => "not supported",
        object_store::Error::InvalidPath { .. } => "invalid path",
        object_store::Error::UnknownConfigurationKey { .. } => "unknown setting",
        _ => "unreadable response",
    }
}

/// The status of a bucket's answer, which its library gives only as text, before the bucket's own.
fn status_in(words: &str) -> Option<u16> {
    let (_, behind) = words.split_once("status code: ")?;
    behind.get(..3)?.parse().ok()
}

impl From<object_store::Error> for FilesError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound,
            error => Self::Store(StorageError::of(&error)),
        }
    }
}

/// The store's answer, unless it takes longer than `left`, from which its time is subtracted.
async fn in_time<T>(
    left: &mut Duration,
    asking: impl Future<Output = object_store::Result<T>>,
) -> Result<T, FilesError> {
    let begun = Instant::now();
    let answered = timeout(*left, asking).await;
    *left = left.saturating_sub(begun.elapsed());
    Ok(answered.map_err(|_| FilesError::Store(StorageError::nothing()))??)
}

/// The write parameters of a kind of place.
#[derive(Clone, Copy, Debug)]
struct Manners {
    /// Bytes of a part. A writer holds two of them at most.
    part: usize,
    /// Writers at once.
    writers: usize,
}

/// A directory accepts any part size; with these, all writers together hold 128 MiB at most.
const DIRECTORY: Manners = Manners { part: 256 * 1024, writers: 256 };
/// 5 MiB is the smallest part that S3 accepts; all writers together hold 640 MiB at most.
const BUCKET: Manners = Manners { part: 5 * 1024 * 1024, writers: 64 };

/// The place. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FileStore {
    objects: Arc<dyn ObjectStore>,
    /// The directory, if it is one.
    root: Option<Arc<Path>>,
    /// The URL of the bucket's store, if it is one.
    server: Option<Arc<str>>,
    manners: Manners,
    /// Permits of writers, of which one workspace may hold half.
    writing: SharedPermits,
}

impl FileStore {
    /// Opens the configured place.
    ///
    /// # Errors
    /// [`FilesError::Place`], or the store's error about its settings.
    pub fn open(config: &AttachmentsConfig) -> Result<Self, FilesError> {
        match &config.place {
            AttachmentsPlace::Directory(directory) => Self::directory(directory),
            AttachmentsPlace::Bucket(bucket) => {
                let files = Self::new(Arc::new(s3::open(bucket)?), None, BUCKET);
                Ok(Self { server: Some(s3::server(bucket).into()), ..files })
            }
        }
    }

    /// A directory, created if it does not exist.
    ///
    /// # Errors
    /// [`FilesError::Place`].
    pub fn directory(directory: &Path) -> Result<Self, FilesError> {
        let unusable = |source| FilesError::Place { place: directory.display().to_string(), source };
        schema::private_dir::create(directory).map_err(unusable)?;
        // Acknowledged data is on disk: see the guarantees in README.md.
        let objects = LocalFileSystem::new_with_prefix(directory)?.with_fsync(true);
        Ok(Self::new(Arc::new(objects), Some(directory.into()), DIRECTORY))
    }

    fn new(objects: Arc<dyn ObjectStore>, root: Option<Arc<Path>>, manners: Manners) -> Self {
        Self { objects, root, server: None, manners, writing: SharedPermits::halved(manners.writers) }
    }

    /// The URL of the store that the bucket is in; `None`: it is a directory of this machine.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// Begins an object of this workspace. It is not visible before [`Writer::finish`].
    ///
    /// # Errors
    /// [`FilesError::Busy`].
    pub fn writer(&self, workspace: Address, key: &str) -> Result<Writer, FilesError> {
        let permit = self.writing.try_enter(workspace).map_err(|_| FilesError::Busy)?;
        Ok(Writer::new(Arc::clone(&self.objects), key.into(), self.manners.part, permit))
    }

    /// The bytes of an object, or those of a range of it, which must not be empty. An object that is read whole is
    /// compared with what was written: its last bytes come only if all bytes match, else an error.
    ///
    /// # Errors
    /// [`FilesError::NotFound`]; [`FilesError::Damaged`] if that is visible at once, by the object's length or because
    /// it is small; or the store's error.
    pub async fn read(
        &self,
        key: &str,
        written: Written,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, FilesError> {
        // A file is opened whole and read in part; a bucket gets a request for the part.
        let asked = range.clone().filter(|_| self.root.is_none());
        let key = key.into();
        let asking = self.objects.get_opts(&key, GetOptions::new().with_range(asked));
        let found = in_time(&mut { STORAGE_TIMEOUT }, asking).await?;
        if found.meta.size != written.size {
            return Err(FilesError::Damaged);
        }
        let is_whole = range.as_ref().is_none_or(|range| *range == (0..written.size));
        let range = range.unwrap_or_else(|| found.range.clone());
        let bytes = match found.payload {
            // The store's own pieces are small, and each is a task of its own.
            GetResultPayload::File(file, _) => pieces(file, range),
            GetResultPayload::Stream(stream) => {
                stream.map_err(|error| io::Error::other(FilesError::from(error))).boxed()
            }
        };
        if !is_whole {
            return Ok(bytes);
        }
        let mut compared = Box::pin(compared(bytes, written.digest).peekable());
        match compared.as_mut().peek().await {
            Some(Err(error)) if is_damage(error) => Err(FilesError::Damaged),
            _ => Ok(compared),
        }
    }

    /// Checks that an object is what was written.
    ///
    /// # Errors
    /// As [`FileStore::read`], and [`FilesError::Damaged`] wherever the damage is.
    pub async fn check(&self, key: &str, written: Written) -> Result<(), FilesError> {
        let mut bytes = self.read(key, written, None).await?;
        while let Some(piece) = bytes.next().await {
            piece
                .map_err(|error| if is_damage(&error) { FilesError::Damaged } else { FilesError::Unreadable(error) })?;
        }
        Ok(())
    }

    /// Deletes one object; a missing one is no error.
    ///
    /// # Errors
    /// [`FilesError`] if it may still exist.
    pub async fn delete(&self, key: &str) -> Result<(), FilesError> {
        match self.objects.delete(&key.into()).await.map_err(FilesError::from) {
            Err(FilesError::NotFound) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn clear(&self, folder: String, except: Option<String>) -> Result<(), FilesError> {
        if let Some(root) = &self.root {
            return clear_directory(root.join(folder), except).await;
        }
        let listed = self.objects.list(Some(&folder.into()));
        let unwanted = listed.try_filter_map(move |object| {
            let kept = except.as_deref() == Some(object.location.as_ref());
            std::future::ready(Ok(Some(object.location).filter(|_| !kept)))
        });
        let deleted = self.objects.delete_stream(unwanted.boxed());
        deleted.try_for_each(|_| async { Ok(()) }).await.or_else(|error| match FilesError::from(error) {
            FilesError::NotFound => Ok(()),
            error => Err(error),
        })
    }
}

/// `bytes`, the last of them only if the hash of all is `digest`.
fn compared(
    bytes: BoxStream<'static, io::Result<Bytes>>,
    digest: [u8; 32],
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let begun = Some((bytes, blake3::Hasher::new(), None));
    stream::unfold(begun, move |state| async move {
        let (mut bytes, mut hasher, mut held) = state?;
        while let Some(piece) = bytes.next().await {
            match piece {
                Ok(piece) => {
                    hasher.update(&piece);
                    if let Some(before) = held.replace(piece) {
                        return Some((Ok(before), Some((bytes, hasher, held))));
                    }
                }
                Err(error) => return Some((Err(error), None)),
            }
        }
        if *hasher.finalize().as_bytes() == digest {
            return held.map(|last| (Ok(last), None));
        }
        Some((Err(io::Error::new(io::ErrorKind::InvalidData, FilesError::Damaged)), None))
    })
}

/// Whether a read error means that the object is damaged.
fn is_damage(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|source| matches!(source.downcast_ref(), Some(FilesError::Damaged)))
}

impl ports::Files for FileStore {
    fn clear(&self, folder: String, except: Option<String>) -> BoxFuture<'_, Result<(), Cause>> {
        let cleared = self.clear(folder, except);
        Box::pin(async move { cleared.await.map_err(|error| Cause::of("bytes cannot be taken away", error)) })
    }
}

/// Beside objects a folder may contain unfinished files of a dead process, which a listing hides.
async fn clear_directory(folder: PathBuf, except: Option<String>) -> Result<(), FilesError> {
    let place = folder.display().to_string();
    let clear = move || {
        let kept = except.as_deref().and_then(|key| key.rsplit('/').next());
        let Some(kept) = kept else { return std::fs::remove_dir_all(&folder) };
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name() != kept {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    match tokio::task::spawn_blocking(clear).await.map_err(io::Error::other).flatten() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|source| FilesError::Place { place, source }),
    }
}

fn pieces(file: std::fs::File, range: Range<u64>) -> BoxStream<'static, io::Result<Bytes>> {
    use std::os::unix::fs::FileExt as _;
    let file = Arc::new(file);
    let next = move |at: u64| {
        let file = Arc::clone(&file);
        let end = range.end;
        async move {
            if at >= end {
                return Ok(None);
            }
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
            // Allocated where it is freed: each of many reading threads would keep memory of its own.
            let mut piece = BytesMut::zeroed(length);
            let read = move || file.read_exact_at(&mut piece, at).map(|()| piece.freeze());
            let piece = tokio::task::spawn_blocking(read).await.map_err(io::Error::other).flatten()?;
            Ok(Some((piece, at + length as u64)))
        }
    };
    stream::try_unfold(range.start, next).boxed()
}

#[cfg(test)]
pub(crate) mod tests;
