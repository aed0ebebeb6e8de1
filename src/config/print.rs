//! The effective configuration, for people to read.

use std::borrow::Cow;

use super::otel::Otel;
use super::sources::{Given, Kind, Origin, SETTINGS, Settings};

/// Printed instead of a secret.
pub(super) const MASK: &str = "***";

/// A wrong value as it may be shown. The part before an `@` may be a name and a password, wherever it was meant to end:
/// it is better to hide too much.
pub(super) fn hidden(value: &str) -> Cow<'_, str> {
    let from = value.find("://").map_or(0, |at| at + "://".len());
    match value.rfind('@').filter(|at| *at >= from) {
        Some(at) => Cow::Owned([&value[..from], MASK, &value[at..]].concat()),
        None => Cow::Borrowed(value),
    }
}

/// A valid value, which may be a URL with a name and a password before its host, without these.
pub(super) fn without_userinfo(value: &str) -> Cow<'_, str> {
    let Some(scheme) = value.find("://") else { return Cow::Borrowed(value) };
    let host = scheme + "://".len();
    let (authority, behind) = value.split_at(value[host..].find(['/', '?', '#']).map_or(value.len(), |end| host + end));
    match hidden(authority) {
        Cow::Owned(masked) => Cow::Owned(masked + behind),
        Cow::Borrowed(_) => Cow::Borrowed(value),
    }
}

/// The text of the defaults with the effective values, so that no setting is printed without its explanation.
pub(super) fn effective(settings: &Settings) -> String {
    let mut out = String::with_capacity(super::DEFAULTS.len() + 256);
    let mut table = "";
    for line in super::DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = name;
        }
        let value = line.split_once(" = ").filter(|_| !line.starts_with('#')).and_then(|(name, _)| {
            let key = format!("{table}.{name}");
            let setting = SETTINGS.iter().find(|setting| setting.key == key)?;
            Some((name, setting.kind, settings.get(setting.key)?))
        });
        match value {
            Some((name, kind, given)) => push_value(&mut out, name, kind, given),
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// OpenTelemetry's variables that are set and no settings, as comments; empty if there are none.
pub(super) fn variables(otel: &Otel) -> String {
    let mut out = String::new();
    if !otel.given.is_empty() {
        out.push_str("\n# Other variables of the environment that are set:\n");
    }
    for (name, value) in &otel.given {
        out.extend(["# ", *name, " = "]);
        push_string(&mut out, value);
        out.push('\n');
    }
    if !otel.complaints.is_empty() {
        out.push_str("\n# Variables that are not understood, or have no effect:\n");
    }
    for complaint in &otel.complaints {
        out.extend(["# ", complaint.as_str(), "\n"]);
    }
    out
}

fn push_value(out: &mut String, name: &str, kind: Kind, given: &Given) {
    out.push_str(name);
    out.push_str(" = ");
    let text = given.text.trim();
    match kind {
        Kind::Text => push_string(out, text),
        Kind::Boolean => out.push_str(if matches!(text, "true" | "1") { "true" } else { "false" }),
        // TOML knows no leading zeros.
        Kind::Integer => {
            out.push_str(Some(text.trim_start_matches('0')).filter(|digits| !digits.is_empty()).unwrap_or("0"))
        }
        Kind::List => {
            out.push('[');
            for (nth, item) in text.split(',').map(str::trim).filter(|item| !item.is_empty()).enumerate() {
                if nth > 0 {
                    out.push_str(", ");
                }
                push_string(out, item);
            }
            out.push(']');
        }
    }
    if given.origin != Origin::Default {
        // A path may hold a line break; a comment may not.
        let origin = given.origin.to_string().replace(char::is_control, " ");
        out.push_str("  # from ");
        out.push_str(&origin);
    }
}

fn push_string(out: &mut String, text: &str) {
    use std::fmt::Write as _;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
