use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::*;
use crate::telemetry::tests::config;

const WORKSPACE: Address = Address([1; 10]);

/// Files in a bucket that somebody at this address speaks for.
pub(crate) fn bucket_at(address: SocketAddr) -> FileStore {
    let endpoint = format!("http://{address}");
    let env = [
        ("TERTULIA_ATTACHMENTS", "s3"),
        ("TERTULIA_ATTACHMENTS_S3_BUCKET", "bucket"),
        ("TERTULIA_ATTACHMENTS_S3_REGION", "eu-central-1"),
        ("TERTULIA_ATTACHMENTS_S3_ENDPOINT", &endpoint),
        ("TERTULIA_ATTACHMENTS_S3_ACCESS_KEY_ID", "id"),
        ("TERTULIA_ATTACHMENTS_S3_SECRET_ACCESS_KEY", "key"),
    ];
    FileStore::open(&config(&env).attachments).unwrap()
}

#[tokio::test]
async fn a_local_io_error_is_shown_unredacted() {
    let directory = tempfile::tempdir().unwrap();
    let files = FileStore::directory(&directory.path().join("files")).unwrap();
    std::fs::write(directory.path().join("files/a"), "in the way").unwrap();
    let error = files.writer(WORKSPACE, "a/b").unwrap().finish().await.unwrap_err().to_string();
    assert!(error.contains("directory"), "{error}");
}

#[test]
fn a_workspace_that_holds_its_share_of_writers_leaves_half_to_others() {
    let directory = tempfile::tempdir().unwrap();
    let files = FileStore::directory(&directory.path().join("files")).unwrap();
    let held: Vec<_> = std::iter::from_fn(|| files.writer(WORKSPACE, "a/b").ok()).take(DIRECTORY.writers).collect();
    assert_eq!(held.len(), DIRECTORY.writers / 2);
    let others: Vec<_> =
        std::iter::from_fn(|| files.writer(Address([2; 10]), "a/b").ok()).take(DIRECTORY.writers).collect();
    assert_eq!(others.len(), DIRECTORY.writers / 4, "its own share");
    drop(held);
    assert!(files.writer(WORKSPACE, "a/b").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_silent_bucket_is_given_up_in_half_a_minute() {
    // Connections come about, and nobody ever speaks on them.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let files = bucket_at(silent.local_addr().unwrap());
    let written = Written { size: 1, digest: [0; 32] };
    for bytes in [1, 2 * BUCKET.part] {
        let begun = Instant::now();
        let mut writer = files.writer(WORKSPACE, "a/b").unwrap();
        let writing = async {
            writer.write(vec![0; bytes].into()).await?;
            writer.finish().await
        };
        assert!(matches!(writing.await, Err(FilesError::Store(_))));
        assert!(begun.elapsed() <= STORAGE_TIMEOUT + Duration::from_secs(1), "{bytes} bytes: {:?}", begun.elapsed());
    }
    let begun = Instant::now();
    assert!(matches!(files.read("a/b", written, None).await, Err(FilesError::Store(_))));
    assert!(begun.elapsed() <= STORAGE_TIMEOUT + Duration::from_secs(1), "{:?}", begun.elapsed());
}
