//! Detecting a file's type by its first bytes.

use std::borrow::Cow;

use actors::message::MediaKind;
use infer::MatcherType;

use self::containers::DetectedType;

mod containers;

/// The number of first bytes inspected: enough for every known format.
pub(in crate::http) const HEAD_BYTES: usize = 8 * 1024;

/// The media type of an upload whose sender declares none.
pub(super) fn of_upload(head: &[u8]) -> &'static str {
    match detect(head) {
        Some((_, "application/zip")) => containers::of_package(head).unwrap_or("application/zip"),
        Some((_, mime_type)) => mime_type,
        None if is_text(head) => "text/plain",
        None => UNKNOWN,
    }
}

/// The type by the first bytes alone.
fn detect(head: &[u8]) -> Option<DetectedType> {
    containers::of_ebml(head)
        .or_else(|| infer::get(head).map(|kind| (kind.matcher_type(), kind.mime_type())))
        .or_else(|| containers::of_iso(head))
        .or_else(|| containers::of_mpeg(head))
        .or_else(|| containers::of_program(head))
}

/// Whether bytes begin a text in UTF-8 without control characters that no text has.
pub(in crate::http) fn is_text(head: &[u8]) -> bool {
    let control = |byte: &u8| matches!(byte, 0..=8 | 11 | 14..=26 | 28..=31 | 127);
    if head.is_empty() || head.iter().any(control) {
        return false;
    }
    match str::from_utf8(head) {
        Ok(_) => true,
        // The last character may have been cut in two.
        Err(error) => error.error_len().is_none() && head.len() == HEAD_BYTES,
    }
}

/// The media type of bytes of which nothing is known.
const UNKNOWN: &str = "application/octet-stream";
/// Documents recognised by their first bytes.
const DOCUMENTS: [&str; 14] = [
    "application/pdf",
    "application/rtf",
    "application/postscript",
    "application/epub+zip",
    "application/msword",
    "application/vnd.ms-excel",
    "application/vnd.ms-powerpoint",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "application/vnd.oasis.opendocument.text",
    "application/vnd.oasis.opendocument.spreadsheet",
    "application/vnd.oasis.opendocument.presentation",
    "text/xml",
];
/// Packages of documents; only the sender can say which document it is.
const PACKAGES: [&str; 2] = ["application/zip", "application/x-ole-storage"];
/// Containers of pictures with sound, which may hold sound alone.
const FILMS: [&str; 7] =
    ["video/mp4", "video/x-m4v", "video/3gpp", "video/3gpp2", "video/webm", "video/x-matroska", "video/quicktime"];
/// Containers of sound, which may hold pictures.
const SOUNDS: [&str; 4] = ["audio/ogg", "audio/m4a", "audio/mp4", "audio/opus"];
/// Texts with a media type of their own that does not begin with `text/`.
const TEXTS: [&str; 4] = ["application/json", "application/xml", "application/yaml", "application/x-ndjson"];

/// The media type of a file that must be of this kind; `None` if it is of another. The sender's declaration decides
/// only where the bytes leave it open.
pub(in crate::http) fn of_media(kind: MediaKind, head: &[u8], declared: Option<&str>) -> Option<String> {
    let found = detect(head);
    let mime_type = found.map(|(_, mime_type)| mime_type).unwrap_or_default();
    let is = |wanted| found.is_some_and(|(kind, _)| kind == wanted);
    let declared = declared.unwrap_or_default();
    let fits = match kind {
        MediaKind::Document if is_page(head) => false,
        // A bitmap begins with only two letters.
        MediaKind::Image => is(MatcherType::Image) && !(mime_type == "image/bmp" && is_text(head)),
        MediaKind::Audio if FILMS.contains(&mime_type) && declared.starts_with("audio/") => {
            return Some(declared.to_owned());
        }
        MediaKind::Audio => is(MatcherType::Audio),
        MediaKind::Video if SOUNDS.contains(&mime_type) && declared.starts_with("video/") => {
            return Some(declared.to_owned());
        }
        MediaKind::Video => is(MatcherType::Video),
        MediaKind::Document if PACKAGES.contains(&mime_type) && DOCUMENTS.contains(&declared) => {
            return Some(declared.to_owned());
        }
        MediaKind::Document if mime_type == "application/zip" => {
            return containers::of_archive(head).map(str::to_owned);
        }
        MediaKind::Document if found.is_none() || mime_type == "image/bmp" => {
            let of_unknown = || found.is_none() && !head.is_empty() && is_uninformative(declared);
            return of_text(head, declared).or_else(|| of_unknown().then(|| UNKNOWN.to_owned()));
        }
        MediaKind::Document => DOCUMENTS.contains(&mime_type),
        MediaKind::Text => false,
    };
    fits.then(|| mime_type.to_owned())
}

/// Whether a declared type says nothing of the first bytes: there is none, or its files have none that are known here.
fn is_uninformative(declared: &str) -> bool {
    let is_known = || {
        let lists: [&[&str]; 3] = [&DOCUMENTS, &TEXTS, &PACKAGES];
        infer::is_mime_supported(declared) || lists.iter().any(|list| list.contains(&declared))
    };
    declared.is_empty() || declared == UNKNOWN || (declared.starts_with("application/") && !is_known())
}

fn is_utf16(head: &[u8]) -> bool {
    head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff")
}

/// Whether a text, by its beginning, is one that a browser would run or show as a page. `infer` knows pages too, but
/// not after a byte order mark or an XML declaration.
fn is_page(head: &[u8]) -> bool {
    let narrow: Cow<'_, [u8]> = if is_utf16(head) {
        // In ASCII characters every other byte is zero.
        head[2..].iter().copied().filter(|byte| *byte != 0).collect()
    } else {
        head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).into()
    };
    let mut rest = narrow.trim_ascii_start();
    let begins = |rest: &[u8], word: &str| {
        rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
    };
    let before = [("<?xml", "?>"), ("<!--", "-->")];
    while let Some((_, end)) = before.iter().find(|(opening, _)| begins(rest, opening)) {
        let Some(at) = rest.windows(end.len()).position(|window| window == end.as_bytes()) else { return false };
        rest = rest[at + end.len()..].trim_ascii_start();
    }
    ["<!doctype html", "<html", "<script", "<?php"].iter().any(|word| begins(rest, word))
}

/// A text's media type. A text that is not in UTF-8 must be declared as one; pages and scripts are no documents.
fn of_text(head: &[u8], declared: &str) -> Option<String> {
    let as_text = (declared.starts_with("text/") && declared != "text/html") || TEXTS.contains(&declared);
    match is_text(head) {
        _ if head.is_empty() || (head.contains(&0) && !is_utf16(head)) => None,
        true if as_text => Some(declared.to_owned()),
        true => Some("text/plain".to_owned()),
        false => as_text.then(|| declared.to_owned()),
    }
}

#[cfg(test)]
mod tests;
