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
const ZEROS: &[u8] = &[0; 64];
const OCTETS: &str = "application/octet-stream";
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
        (Audio, b"\xff\xfb\x90\x64\0".as_slice(), None, Some("audio/mpeg")),
        (Audio, b"\xff\xfa\x90\x64\0".as_slice(), None, Some("audio/mpeg")),
        (Audio, b"\xff\xe3\x18\xc4\0".as_slice(), None, Some("audio/mpeg")),
        (Audio, b"\xff\xe2\x18\xc4\0".as_slice(), None, Some("audio/mpeg")),
        (Audio, b"\xff\xfa\xf0\x64\0".as_slice(), Some("audio/mpeg"), None),
        (Audio, b"\xff\xfa\x9c\x64\0".as_slice(), Some("audio/mpeg"), None),
        (Audio, b"\xff\xea\x90\x64\0".as_slice(), Some("audio/mpeg"), None),
        (Audio, b"\xff\xf1\x50\x80\0".as_slice(), None, Some("audio/aac")),
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
        (Document, b"gr\xf6\xdfe".as_slice(), None, Some(OCTETS)),
        (Document, b"\0\0\0\0".as_slice(), Some("text/plain"), None),
        (Document, ZEROS, None, Some(OCTETS)),
        (Document, ZEROS, Some(OCTETS), Some(OCTETS)),
        (Document, ZEROS, Some("application/x-own"), Some(OCTETS)),
        (Document, ZEROS, Some("application/pdf"), None),
        (Document, ZEROS, Some(DOCX), None),
        (Document, ZEROS, Some("application/zip"), None),
        (Document, ZEROS, Some("application/gzip"), None),
        (Document, ZEROS, Some("application/json"), None),
        (Document, ZEROS, Some("text/html"), None),
        (Document, ZEROS, Some("image/png"), None),
        (Image, ZEROS, Some(OCTETS), None),
        (Audio, ZEROS, None, None),
        (Video, ZEROS, Some("video/mp4"), None),
        (Document, ZIP, Some(DOCX), Some(DOCX)),
        (Document, ZIP, Some("application/zip"), Some("application/zip")),
        (Document, ZIP, None, Some("application/zip")),
        (Document, HTML, Some("text/html"), None),
        (Document, HTML, Some("text/plain"), None),
        (Document, b"\xef\xbb\xbf\n<!DOCTYPE html>".as_slice(), Some("text/plain"), None),
        (Document, b"<?xml version=\"1.0\"?><!-- a --> <!doctype HTML><html/>".as_slice(), None, None),
        (Document, b"<?xml version=\"1.0\"?><html xmlns=\"x\"/>".as_slice(), Some("text/xml"), None),
        (Document, b"<?xml version=\"1.0\"?><note/>".as_slice(), Some("text/xml"), Some("text/xml")),
        (Document, b"<?php echo 1;".as_slice(), None, None),
        (Document, b"<?xml?><!-- --><?xml-stylesheet?><html>".as_slice(), None, None),
        (Document, b"\xff\xfe<\0H\0T\0M\0L\0>\0".as_slice(), Some("text/plain"), None),
        (Document, b"\xff\xfea\0,\0b\0".as_slice(), Some("text/csv"), Some("text/csv")),
        (Document, b"\xff\xfea\0,\0b\0".as_slice(), None, Some(OCTETS)),
        (Document, b"#!/bin/sh\nrm -rf /\n".as_slice(), Some("text/plain"), None),
        (Document, ELF, None, None),
        (Document, PNG, Some("application/pdf"), None),
        (Document, PNG, Some(OCTETS), None),
        (Document, MP4, Some(OCTETS), None),
        (Document, HTML, Some(OCTETS), None),
        (Document, ELF, Some(OCTETS), None),
        (Document, b"\0asm".as_slice(), Some(OCTETS), None),
        (Document, b"\xca\xfe\xba\xbe\0\0\0\x02".as_slice(), None, None),
        (Document, b"BM\x36\0\0\0\0\0\0\0".as_slice(), Some(OCTETS), None),
        (Document, b"".as_slice(), Some("text/plain"), None),
        (Document, b"".as_slice(), None, None),
    ] {
        let shown = String::from_utf8_lossy(head);
        assert_eq!(of_media(kind, head, declared).as_deref(), expected, "{kind:?} {declared:?} {shown}");
    }
}

/// The beginning of a ZIP file with these entries.
fn zip(entries: &[(&str, &str)]) -> Vec<u8> {
    let entry = |(name, content): &(&str, &str)| {
        let mut bytes = [b"PK\x03\x04".as_slice(), &[0; 22]].concat();
        bytes.extend([name.len() as u8, 0, 0, 0]);
        bytes.extend(name.bytes().chain(content.bytes()));
        bytes
    };
    entries.iter().flat_map(entry).collect()
}

#[test]
fn a_document_in_a_package_is_known_by_its_first_entry() {
    let types = ("[Content_Types].xml", "<Types/>");
    let rels = ("_rels/.rels", "<Relationships/>");
    let sheet = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
    for (entries, expected) in [
        (vec![types, rels, ("word/document.xml", "")], Some(DOCX)),
        (vec![types, rels, ("docProps/app.xml", ""), ("docProps/core.xml", ""), ("xl/workbook.xml", "")], Some(sheet)),
        (vec![types], Some("application/zip")),
        (
            vec![("mimetype", "application/vnd.oasis.opendocument.text")],
            Some("application/vnd.oasis.opendocument.text"),
        ),
        (
            vec![("mimetype", "application/vnd.oasis.opendocument.graphics"), ("content.xml", "")],
            Some("application/vnd.oasis.opendocument.graphics"),
        ),
        (vec![("mimetype", "application/epub+zip")], Some("application/epub+zip")),
        (vec![("mimetype", "application/x-own")], Some("application/zip")),
        (vec![("mimetype", "image/openraster"), ("stack.xml", "")], None),
        (vec![("META-INF/MANIFEST.MF", ""), types], None),
        (vec![("a.txt", "[Content_Types].xml")], Some("application/zip")),
    ] {
        for declared in [None, Some("application/octet-stream"), Some("application/zip")] {
            assert_eq!(of_media(MediaKind::Document, &zip(&entries), declared).as_deref(), expected, "{entries:?}");
        }
        assert_eq!(of_media(MediaKind::Video, &zip(&entries), None), None);
    }
    assert_eq!(of_upload(&zip(&[types, ("word/document.xml", "")])), DOCX);
    assert_eq!(of_upload(ZIP), "application/zip");
    assert_eq!(
        of_media(
            MediaKind::Document,
            b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff",
            None
        )
        .as_deref(),
        Some("application/zip")
    );
}

#[test]
fn a_film_is_a_film_however_short_its_head_and_whatever_its_brand() {
    for (head, expected) in [
        (b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm".as_slice(), "video/webm"),
        (b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f\x42\x82\x40\x04webm", "video/webm"),
        (b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\x82\x88matroska", "video/x-matroska"),
        (b"\x1a\x45\xdf\xa3\x80", "video/x-matroska"),
        (b"\0\0\0\x14ftyp3gp4\0\0\x02\0", "video/3gpp"),
        (b"\0\0\0\x14ftyp3gp5\0\0\x02\x003gp5", "video/3gpp"),
        (b"\0\0\0\x14ftyp3g2a\0\0\x02\0", "video/3gpp2"),
        (b"\0\0\0\x14ftypf4v \0\0\0\0", "video/mp4"),
        (b"\0\0\0\x14ftypiso9\0\0\0\0", "video/mp4"),
    ] {
        assert_eq!(of_media(MediaKind::Video, head, None).as_deref(), Some(expected));
        for other in [MediaKind::Image, MediaKind::Audio, MediaKind::Document] {
            assert_eq!(of_media(other, head, None), None, "{other:?} {expected}");
        }
        assert_eq!(of_media(MediaKind::Audio, head, Some("audio/x")).as_deref(), Some("audio/x"), "it may be sound");
        assert_eq!(of_upload(head), expected);
    }
    for (brand, kind, expected) in [
        ("M4A ", MediaKind::Audio, "audio/m4a"),
        ("M4B ", MediaKind::Audio, "audio/mp4"),
        ("F4A ", MediaKind::Audio, "audio/mp4"),
        ("heic", MediaKind::Image, "image/heif"),
        ("mif1", MediaKind::Image, "image/heif"),
        ("avif", MediaKind::Image, "image/avif"),
    ] {
        let head = format!("\0\0\0\x14ftyp{brand}\0\0\0\0{brand}");
        assert_eq!(of_media(kind, head.as_bytes(), None).as_deref(), Some(expected), "{brand}");
        assert_eq!(of_media(MediaKind::Video, head.as_bytes(), None), None, "{brand}");
    }
    assert_eq!(of_media(MediaKind::Document, b"The ftyp box names a brand", None).as_deref(), Some("text/plain"));
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
