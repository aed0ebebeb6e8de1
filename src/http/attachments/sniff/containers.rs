//! Files whose first bytes `infer` does not know, and containers that show more than their own type.

use infer::MatcherType;

/// A kind of file, and its media type.
pub(super) type DetectedType = (MatcherType, &'static str);

/// A file in the ISO base media format, by its major brand (ISO/IEC 14496-12, 4.3): brands other than known audio and
/// images are video. The first byte is part of the box's size; no text begins with it.
pub(super) fn of_iso(head: &[u8]) -> Option<DetectedType> {
    let [0, _, _, _, b'f', b't', b'y', b'p', brand @ ..] = head else { return None };
    Some(match brand.first_chunk::<4>()? {
        b"M4A " | b"M4P " => (MatcherType::Audio, "audio/m4a"),
        b"M4B " | b"F4A " | b"F4B " => (MatcherType::Audio, "audio/mp4"),
        b"avif" | b"avis" => (MatcherType::Image, "image/avif"),
        b"mif1" | b"mif2" | b"msf1" | b"miaf" | b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" => {
            (MatcherType::Image, "image/heif")
        }
        b"crx " => (MatcherType::Image, "image/x-canon-cr3"),
        [b'3', b'g', b'2', _] => (MatcherType::Video, "video/3gpp2"),
        [b'3', b'g', ..] => (MatcherType::Video, "video/3gpp"),
        _ => (MatcherType::Video, "video/mp4"),
    })
}

/// MPEG audio of layer III without a tag before it (ISO/IEC 11172-3, 2.4.1.3), by the header of its first frame.
/// `infer` knows neither frames with a checksum nor those of the lowest sampling rates (MPEG 2.5).
pub(super) fn of_mpeg(head: &[u8]) -> Option<DetectedType> {
    let [0xff, version, rates, ..] = *head else { return None };
    let is_layer_three = version & 0b1110_0110 == 0b1110_0010 && version & 0b0001_1000 != 0b0000_1000;
    let has_rates = rates & 0b1111_0000 != 0b1111_0000 && rates & 0b0000_1100 != 0b0000_1100;
    (is_layer_three && has_rates).then_some((MatcherType::Audio, "audio/mpeg"))
}

/// A video in WebM or Matroska (RFC 8794 and RFC 9559), however short it is.
pub(super) fn of_ebml(head: &[u8]) -> Option<DetectedType> {
    let rest = head.strip_prefix(b"\x1a\x45\xdf\xa3")?;
    // The element DocType: its id, its length in one to eight bytes, its text.
    let doc_type = rest.windows(2).position(|id| id == b"\x42\x82").and_then(|at| {
        let length = rest.get(at + 2)?;
        rest.get(at + 3 + length.leading_zeros() as usize..)
    });
    match doc_type {
        Some(text) if text.starts_with(b"webm") => Some((MatcherType::Video, "video/webm")),
        // The format was made for Matroska, and nothing else of note uses it.
        _ => Some((MatcherType::Video, "video/x-matroska")),
    }
}

/// A program by its first four bytes, however short it is.
pub(super) fn of_program(head: &[u8]) -> Option<DetectedType> {
    let mime_type = match head.first_chunk::<4>()? {
        b"\x7fELF" => "application/x-executable",
        b"\0asm" => "application/wasm",
        // A class of Java, or programs of Mach-O for several processors.
        b"\xca\xfe\xba\xbe" => "application/java",
        _ => return None,
    };
    Some((MatcherType::App, mime_type))
}

/// The name of a ZIP file's first entry, and the bytes after the name.
fn first_entry(head: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = head.strip_prefix(b"PK\x03\x04")?;
    let number = |at: usize| Some(usize::from(u16::from_le_bytes(*header.get(at..)?.first_chunk()?)));
    let name = number(22)?;
    let extra = number(24)?;
    Some((header.get(26..26 + name)?, header.get(26 + name + extra..)?))
}

/// The folders of office documents' parts, in their order in a package.
const OFFICE: [(&[u8], &str); 3] = [
    (b"word/", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    (b"xl/", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    (b"ppt/", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
];
/// The formats that a package may declare: `infer` knows the other formats of OpenDocument.
const STATED: [&str; 3] = [
    "application/epub+zip",
    "application/vnd.oasis.opendocument.graphics",
    "application/vnd.oasis.opendocument.formula",
];

/// The media type of a ZIP file that is a document by its first entry: OOXML lists the types of its parts there (ECMA
/// 376-2), OpenDocument and EPUB declare their format there. Without such an entry it is a ZIP file.
pub(super) fn of_package(head: &[u8]) -> Option<&'static str> {
    let (name, content) = first_entry(head)?;
    let found = match name {
        b"[Content_Types].xml" => content.windows(4).enumerate().find_map(|(at, header)| {
            let name = content.get(at + 30..).filter(|_| header == b"PK\x03\x04")?;
            OFFICE.iter().find(|(folder, _)| name.starts_with(folder)).map(|(_, mime_type)| *mime_type)
        }),
        b"mimetype" => STATED.iter().find(|stated| content.starts_with(stated.as_bytes())).copied(),
        _ => return None,
    };
    Some(found.unwrap_or("application/zip"))
}

/// The media type of any ZIP file; `None` for a program of Java, which begins with its manifest.
pub(super) fn of_archive(head: &[u8]) -> Option<&'static str> {
    let is_program = first_entry(head).is_some_and(|(name, _)| name.starts_with(b"META-INF/"));
    (!is_program).then(|| of_package(head).unwrap_or("application/zip"))
}
