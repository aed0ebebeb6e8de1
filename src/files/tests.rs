use super::*;

#[tokio::test]
async fn what_this_machine_says_is_told_whole() {
    let directory = tempfile::tempdir().unwrap();
    let files = FileStore::directory(&directory.path().join("files")).unwrap();
    std::fs::write(directory.path().join("files/a"), "in the way").unwrap();
    let error = files.writer("a/b").unwrap().finish().await.unwrap_err().to_string();
    assert!(error.contains("directory"), "{error}");
}
