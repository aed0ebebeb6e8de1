//! Checks that the map is complete: rooms, invariants, decision records, and the entries at the top.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{files, refuse, sources};

const MAP: &str = "docs/CODEMAP.md";
const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";
/// The entries at the top of the project, besides files whose names begin with a dot, and including what is built.
const TOP: [&str; 10] =
    ["Cargo.lock", "Cargo.toml", "README.md", "actors", "benches", "docs", "schema", "src", "target", "tests"];
/// The headings of a decision record, in this order; other headings may come between them.
const HEADINGS: [&str; 5] = ["## Context", "## Decision", "## Consequences", "## What would change our mind", "## Log"];

fn text_of(path: &str) -> String {
    let [file] = &files(&[path], &[".md"])[..] else { panic!("{path} is not there") };
    file.text.clone()
}

#[test]
fn every_file_at_the_door_of_a_room_is_on_the_map() {
    let map = text_of(MAP);
    let missing: Vec<String> = sources()
        .iter()
        .map(|file| file.path.clone())
        .filter(|path| {
            ["src/", "actors/src/", "schema/src/"]
                .iter()
                .any(|room| path.strip_prefix(room).is_some_and(|name| !name.contains('/') && name != "lib.rs"))
        })
        .filter(|path| !map.contains(&format!("`{path}`")))
        .collect();
    refuse(&missing, &format!("say in {MAP} what it is for"));
}

/// The numbers of invariants that `text` names, as in "invariant I1".
fn invariants(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("nvariant I").map(|(at, before)| {
        let rest = &text[at + before.len() - 1..];
        &rest[..rest[1..].find(|next: char| !next.is_ascii_digit()).map_or(rest.len(), |end| end + 1)]
    })
}

#[test]
fn every_invariant_that_the_code_names_is_listed() {
    let architecture = text_of(ARCHITECTURE);
    let mut faults = Vec::new();
    let mut named = BTreeSet::new();
    for file in sources().iter().filter(|file| !file.path.starts_with("tests/it/tidy")) {
        for number in invariants(&file.text) {
            named.insert(number.to_owned());
            if !architecture.contains(&format!("- **{number}. ")) {
                faults.push(format!("{} names invariant {number}", file.path));
            }
        }
        for elsewhere in ["DESIGN", "API section"] {
            if file.text.contains(elsewhere) {
                faults.push(format!("{} speaks of \"{elsewhere}\", which is no document of this project", file.path));
            }
        }
    }
    assert!(named.len() > 3, "only {named:?}");
    refuse(&faults, &format!("list it under Invariants in {ARCHITECTURE}, or name the page of docs/ that says it"));
}

#[test]
fn every_decision_record_has_its_form_and_its_line_on_the_map() {
    let map = text_of(MAP);
    let mut faults = Vec::new();
    let mut before = 0;
    for record in files(&["docs/decisions"], &[".md"]) {
        let name = record.path.rsplit('/').next().unwrap_or_default();
        let number = &name[..4];
        if number == "0000" {
            continue;
        }
        if !record.text.starts_with(&format!("# {number}: ")) || !record.text.contains("\nStatus: ") {
            faults.push(format!("{} begins without its number or its status", record.path));
        }
        let mut rest = record.text.as_str();
        for heading in HEADINGS {
            match rest.split_once(&format!("\n{heading}\n")) {
                Some((_, after)) => rest = after,
                None => faults.push(format!("{} has no \"{heading}\", or not there", record.path)),
            }
        }
        match map.find(&format!("- `{}`", record.path)) {
            Some(at) if at > before => before = at,
            Some(_) => faults.push(format!("{} is listed behind a later one", record.path)),
            None => faults.push(format!("{} is not listed", record.path)),
        }
    }
    refuse(&faults, &format!("follow docs/decisions/0000-template.md, and list records in their order in {MAP}"));
}

#[test]
fn the_top_folder_holds_only_listed_names() {
    let names = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the project can be read");
    let strangers: Vec<String> = names
        .map(|entry| entry.expect("an entry can be read").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !TOP.contains(&name.as_str()) && name != "data")
        .collect();
    refuse(&strangers, "give it a room: see \"The map\" in README.md");
}
