use super::*;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF\0";
const GIF: &[u8] = b"GIF89a\x01\0\x01\0";
const MP3: &[u8] = b"ID3\x03\0\0\0\0\0\0";
const OGG: &[u8] = b"OggS\0\x02\0\0\0\0\0\0\0\0";
const WAV: &[u8] = b"RIFF\x24\0\0\0WAVEfmt ";
const MP4: &[u8] = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom";
const PDF: &[u8] = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n";
const ZIP: &[u8] = b"PK\x03\x04\x14\0\0\0\0\0";
const HTML: &[u8] = b"<!DOCTYPE html><html><head><title>Log in</title></head></html>";
const ELF: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0";
const DOCX: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";

#[test]
fn a_file_is_what_its_first_bytes_say() {
    use MediaKind::{Audio, Document, Image, Video};
    for (kind, head, declared, expected) in [
        (Image, PNG, None, Some("image/png")),
        (Image, PNG, Some("text/html"), Some("image/png")),
        (Image, JPEG, None, Some("image/jpeg")),
        (Image, GIF, None, Some("image/gif")),
        (Image, b"BM\x36\0\0\0\0\0\0\0".as_slice(), None, Some("image/bmp")),
        (Image, b"BMW is a maker of cars".as_slice(), Some("image/bmp"), None),
        (Image, HTML, Some("image/png"), None),
        (Image, PDF, Some("image/png"), None),
        (Image, b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".as_slice(), Some("image/svg+xml"), None),
        (Image, b"".as_slice(), Some("image/png"), None),
        (Image, MP4, None, None),
        (Audio, MP3, None, Some("audio/mpeg")),
        (Audio, OGG, None, Some("audio/ogg")),
        (Audio, WAV, None, Some("audio/x-wav")),
        (Audio, MP4, Some("audio/mp4"), Some("audio/mp4")),
        (Audio, MP4, Some("video/mp4"), None),
        (Audio, MP4, None, None),
        (Audio, PNG, Some("audio/mpeg"), None),
        (Video, MP4, None, Some("video/mp4")),
        (Video, OGG, Some("video/ogg"), Some("video/ogg")),
        (Video, OGG, None, None),
        (Video, MP3, Some("video/mp4"), None),
        (Document, PDF, None, Some("application/pdf")),
        (Document, b"%PDF-1.4\nall of it is text".as_slice(), None, Some("application/pdf")),
        (Document, b"{\\rtf1\\ansi hello}".as_slice(), None, Some("application/rtf")),
        (Document, b"a,b\n1,2\n".as_slice(), Some("text/csv"), Some("text/csv")),
        (Document, b"{\"a\": 1}".as_slice(), Some("application/json"), Some("application/json")),
        (Document, b"plain words".as_slice(), None, Some("text/plain")),
        (Document, b"plain words".as_slice(), Some("application/octet-stream"), Some("text/plain")),
        (Document, "größe".as_bytes(), Some("image/png"), Some("text/plain")),
        (Document, b"BMW is a maker of cars".as_slice(), None, Some("text/plain")),
        (Document, b"gr\xf6\xdfe".as_slice(), Some("text/plain"), Some("text/plain")),
        (Document, b"gr\xf6\xdfe".as_slice(), None, None),
        (Document, b"\0\0\0\0".as_slice(), Some("text/plain"), None),
        (Document, ZIP, Some(DOCX), Some(DOCX)),
        (Document, ZIP, Some("application/zip"), None),
        (Document, ZIP, None, None),
        (Document, HTML, Some("text/html"), None),
        (Document, HTML, Some("text/plain"), None),
        (Document, b"#!/bin/sh\nrm -rf /\n".as_slice(), Some("text/plain"), None),
        (Document, ELF, None, None),
        (Document, PNG, Some("application/pdf"), None),
        (Document, b"".as_slice(), Some("text/plain"), None),
    ] {
        let shown = String::from_utf8_lossy(head);
        assert_eq!(of_media(kind, head, declared).as_deref(), expected, "{kind:?} {declared:?} {shown}");
    }
}

#[test]
fn a_character_may_be_cut_in_two_at_the_end_of_what_is_looked_at() {
    let mut head = vec![b'a'; HEAD_BYTES - 1];
    head.push(0xc3);
    assert!(is_text(&head));
    head.pop();
    head[10] = 0xc3;
    assert!(!is_text(&head), "but not in the middle");
    assert!(!is_text(b"cut \xc3"), "nor at the end of a file");
}
