//! Settings of the storage for attachments.

use std::path::{Path, PathBuf};

use super::error::InvalidSetting;
use super::{Secret, Values, parse};

/// The storage of attachments' bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachmentsConfig {
    /// The place.
    pub place: AttachmentsPlace,
}

/// One of the two kinds of places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachmentsPlace {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A bucket of an S3-compatible store.
    Bucket(Bucket),
}

/// A bucket and its access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// The store's URL; `None`: Amazon's for the region.
    pub endpoint: Option<String>,
    /// Key id and secret; `None`: those of the machine's role.
    pub credentials: Option<(String, Secret)>,
}

/// `None` if an error was reported.
pub(super) fn read(values: &mut Values<'_>, data_dir: Option<&Path>) -> Option<AttachmentsConfig> {
    let in_bucket = values.read("attachments.store", |text| match text {
        "directory" => Ok(false),
        "s3" => Ok(true),
        _ => Err("directory or s3".to_owned()),
    });
    let directory = values.read("attachments.directory", |text| match text {
        "" => Ok(None),
        text => parse::path(text).map(Some),
    });
    let name = values.read("attachments.s3_bucket", bucket_name);
    let region = values.read("attachments.s3_region", region);
    let endpoint = values.read("attachments.s3_endpoint", parse::endpoint);
    let key_id = values.read("attachments.s3_access_key_id", visible);
    let secret = values.read("attachments.s3_secret_access_key", |text| visible(text).map(|text| text.map(Secret)));
    let in_bucket = in_bucket?;
    let directory = directory?;
    let name = name?;
    let region = region?;
    let endpoint = endpoint?;
    let key_id = key_id?;
    let secret = secret?;
    if !in_bucket {
        let directory = directory.or_else(|| Some(data_dir?.join("attachments")))?;
        return Some(AttachmentsConfig { place: AttachmentsPlace::Directory(directory) });
    }
    let Some(name) = name else {
        let allowed = "the name of a bucket, required when attachments are stored in s3";
        values.wrong.push(InvalidSetting::missing("TERTULIA_ATTACHMENTS_S3_BUCKET", allowed));
        return None;
    };
    let credentials = match (key_id, secret) {
        (Some(id), Some(secret)) => Some((id, secret)),
        (None, None) => None,
        (Some(_), None) => return half(values, "TERTULIA_ATTACHMENTS_S3_SECRET_ACCESS_KEY"),
        (None, Some(_)) => return half(values, "TERTULIA_ATTACHMENTS_S3_ACCESS_KEY_ID"),
    };
    Some(AttachmentsConfig { place: AttachmentsPlace::Bucket(Bucket { name, region, endpoint, credentials }) })
}

/// One half of the credentials is missing.
fn half(values: &mut Values<'_>, name: &str) -> Option<AttachmentsConfig> {
    values.wrong.push(InvalidSetting::missing(name, "the other half of the access key"));
    None
}

fn bucket_name(text: &str) -> Result<Option<String>, String> {
    let fits = (3..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte));
    match text {
        "" => Ok(None),
        text if fits => Ok(Some(text.to_owned())),
        _ => Err("3 to 63 lower-case letters, digits, dots and hyphens".to_owned()),
    }
}

fn region(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits { Ok(text.to_owned()) } else { Err("letters, digits and hyphens, at most 64".to_owned()) }
}

fn visible(text: &str) -> Result<Option<String>, String> {
    match text {
        "" => Ok(None),
        text if text.len() <= 1_024 && text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(text.to_owned())),
        _ => Err("visible ASCII characters, at most 1024".to_owned()),
    }
}
