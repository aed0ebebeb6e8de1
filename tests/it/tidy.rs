//! Rules of the project that the compiler does not enforce: which room may depend on what, no dead files, documents
//! that name existing things, a page for every error code. They read plain files, so they take milliseconds and need no
//! server.
//!
//! A failing rule says how to fix it. Fix the code or the page; the rule itself changes only with a decision record
//! (`docs/decisions/`).

mod map;
mod names;
mod numbers;
mod results;
mod steps;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::Path;

/// The folders with Rust code.
const ROOMS: [&str; 5] = ["src", "actors", "schema", "benches", "tests"];
/// The most lines of a source file. Half of that is usual; a longer file does more than one thing.
const MAX_LINES: usize = 500;
/// The most lines of a function from its name to its last brace: it fits on a screen.
const MAX_FUNCTION_LINES: usize = 70;
/// The one command that runs every room's tests.
const TEST_COMMAND: &str = "cargo test --workspace";
/// Rust sources in which error codes are the first element of a pair, because one place turns these into problems.
const CODES_IN_PAIRS: [&str; 2] = ["src/http/context/render.rs", "src/wire/url.rs"];
/// Functions that create an error, and the position of the code among their arguments.
const MAKERS: [(&str, usize); 10] = [
    ("Problem::new", 1),
    ("Problem::fault", 1),
    ("Problem::not_found", 0),
    ("Problem::conflict", 0),
    ("Problem::unavailable", 0),
    ("Problem::too_many", 0),
    ("Fault::new", 1),
    (".fault", 1),
    (".fault_at", 1),
    (".late", 1),
];

/// A text file of the project.
struct File {
    /// Its path from the top of the project, with `/` as the separator.
    path: String,
    text: String,
}

/// All files under these folders or with these names whose name ends in one of `endings`, in order.
fn files(places: &[&str], endings: &[&str]) -> Vec<File> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut waiting: Vec<String> = places.iter().map(|place| (*place).to_owned()).collect();
    while let Some(path) = waiting.pop() {
        let full = top.join(&path);
        if full.is_dir() {
            for entry in fs::read_dir(&full).expect("a folder of the project can be read") {
                let name = entry.expect("an entry can be read").file_name().to_string_lossy().into_owned();
                if name != "target" && name != ".git" {
                    waiting.push(format!("{path}/{name}"));
                }
            }
        } else if endings.iter().any(|ending| path.ends_with(ending)) {
            let text = fs::read_to_string(&full).unwrap_or_else(|error| panic!("{path}: {error}"));
            found.push(File { path, text });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn sources() -> Vec<File> {
    files(&ROOMS, &[".rs"])
}

fn documents() -> Vec<File> {
    files(&["README.md", "docs", "actors", "schema", "benches"], &[".md"])
}

/// Fails if there are faults; the message lists them and says how to mend them.
fn refuse(faults: &[String], mend: &str) {
    assert!(faults.is_empty(), "\n  {}\n\nHow to mend it: {mend}\n", faults.join("\n  "));
}

// === Dependencies ===

/// What a room's manifest must not name, even for its tests, and which rooms it may name.
struct Room {
    manifest: &'static str,
    foreign: &'static [&'static str],
    rooms: &'static [&'static str],
}

const DEPENDENCIES: [Room; 3] = [
    Room {
        manifest: "actors/Cargo.toml",
        foreign: &["axum", "fjall", "http", "hyper", "reqwest", "scylla", "serde_json"],
        // The room itself, for its own tests.
        rooms: &["actors"],
    },
    Room {
        manifest: "schema/Cargo.toml",
        foreign: &["axum", "http", "hyper", "ractor", "reqwest", "serde_json"],
        // The bed, for its tests.
        rooms: &["actors", "bed", "schema"],
    },
    Room { manifest: "Cargo.toml", foreign: &["fjall", "ractor", "scylla"], rooms: &["actors", "bed", "schema"] },
];

/// The packages in a manifest's dependency tables, including those for tests and for single platforms.
fn dependencies(table: &toml::Table) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (key, value) in table {
        let Some(inner) = value.as_table() else { continue };
        if key.ends_with("dependencies") {
            for (name, how) in inner {
                let package = how.as_table().and_then(|how| how.get("package")).and_then(toml::Value::as_str);
                names.insert(package.unwrap_or(name).to_owned());
            }
        } else if key != "workspace" {
            names.extend(dependencies(inner));
        }
    }
    names
}

#[test]
fn every_arrow_between_rooms_points_at_the_domain() {
    let mut faults = Vec::new();
    for room in DEPENDENCIES {
        let [file] = &files(&[room.manifest], &[".toml"])[..] else { panic!("{} is not there", room.manifest) };
        let manifest = file.text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.path));
        for name in dependencies(&manifest) {
            let other_room = ["actors", "schema", "bed", "benches", "tertulia"].contains(&name.as_str());
            if room.foreign.contains(&name.as_str()) || (other_room && !room.rooms.contains(&name.as_str())) {
                faults.push(format!("{} depends on {name}", room.manifest));
            }
        }
    }
    refuse(
        &faults,
        "actors knows no HTTP, no JSON and no database; schema alone knows storage engines; src knows neither actors' \
         framework nor an engine; nobody depends on benches. Move the code to the room that may know it, or hand in \
         what is needed through a trait of actors (docs/CODEMAP.md).",
    );
}

// === Source files ===

/// The names of `mod name;` in a file.
fn modules(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let line = line.trim();
        let line = match line.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1.trim_start(),
            Some(rest) => rest.trim_start(),
            None => line,
        };
        let name = line.strip_prefix("mod ")?.strip_suffix(';')?.trim();
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then_some(name)
    })
}

/// Whether Cargo compiles the file on its own.
fn is_root(path: &str) -> bool {
    path.ends_with("/lib.rs") || path.ends_with("/main.rs") || path.contains("/examples/")
}

#[test]
fn every_source_file_is_compiled() {
    let all = sources();
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let mut waiting: Vec<&File> = all.iter().filter(|file| is_root(&file.path)).collect();
    while let Some(file) = waiting.pop() {
        reached.insert(file.path.clone());
        let folder = match file.path.rsplit_once('/') {
            Some((folder, _)) if is_root(&file.path) => folder,
            _ => file.path.trim_end_matches(".rs"),
        };
        for name in modules(&file.text) {
            let path = format!("{folder}/{name}.rs");
            waiting.extend(all.iter().find(|file| file.path == path && !reached.contains(&path)));
        }
    }
    let dead: Vec<_> = all.iter().map(|file| file.path.clone()).filter(|path| !reached.contains(path)).collect();
    refuse(
        &dead,
        "no `mod` line leads to these files, so nothing in them is compiled or tested. Declare or delete them.",
    );
}

#[test]
fn source_files_are_named_and_sized_for_readers() {
    let mut faults = Vec::new();
    for file in sources() {
        let lines = file.text.lines().count();
        if lines > MAX_LINES {
            faults.push(format!("{} has {lines} lines, more than {MAX_LINES}", file.path));
        }
        if file.path.ends_with("/mod.rs") {
            faults.push(format!("{} hides its name", file.path));
        }
    }
    refuse(
        &faults,
        "one operation, one file: move a part that has a name of its own to foo/part.rs, with `mod part;` in foo.rs \
         (foo.rs beside foo/, no mod.rs). Raising the number only postpones it.",
    );
}

/// The functions in `text` and their numbers of lines. The formatter aligns a function's last brace with its first
/// word.
fn functions(text: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((before, after)) = line.split_once("fn ") else { continue };
        let words = before.trim_start();
        let indent = &before[..before.len() - words.len()];
        let is_head = words
            .split(' ')
            .all(|word| matches!(word, "" | "async" | "const") || word.starts_with("pub") || word.ends_with(')'));
        let opens = lines[at..].iter().find_map(|line| match line.chars().last() {
            Some('{' | '}') => Some(true),
            Some(';') => Some(false),
            _ => None,
        });
        if is_head && opens == Some(true) {
            let last = format!("{indent}}}");
            let below = lines[at..].iter().take_while(|line| **line != last).count();
            let name = after.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(after);
            found.push((name, if line.ends_with('}') { 1 } else { below + 1 }));
        }
    }
    found
}

#[test]
fn functions_fit_on_a_screen() {
    let mut faults = Vec::new();
    let mut seen = 0;
    for file in sources().iter().filter(|file| !file.path.contains("tests")) {
        for (name, lines) in functions(without_tests(&file.text)) {
            seen += 1;
            if lines > MAX_FUNCTION_LINES {
                faults.push(format!("{}: {name} has {lines} lines", file.path));
            }
        }
    }
    assert!(seen > 1_000, "only {seen} functions");
    refuse(&faults, "a function that long does more than one thing: give the parts names");
}

#[test]
fn intentions_are_not_left_in_the_code() {
    // Concatenated here, so that this file does not contain them.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!"), concat!("X", "XX")];
    let mut faults = Vec::new();
    for file in files(&["src", "actors", "schema", "benches", "tests", "Cargo.toml", ".ci"], &[".rs", ".toml", "run"]) {
        for (number, line) in (1..).zip(file.text.lines()) {
            if let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) {
                faults.push(format!("{}:{number}: {mark}", file.path));
            }
        }
    }
    refuse(&faults, "do it now, or say in README.md under \"Limits\" that it is missing.");
}

#[test]
fn no_document_names_a_local_path() {
    let places = [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
    let everything =
        ["src", "actors", "schema", "benches", "tests", "docs", ".ci", "README.md", "Cargo.toml", ".deny.toml"];
    let mut faults = Vec::new();
    for file in files(&everything, &[".rs", ".toml", ".md", ".json", ".sh", "run"]) {
        for (number, line) in (1..).zip(file.text.lines()) {
            if places.iter().any(|place| line.contains(place)) {
                faults.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    refuse(&faults, "use a path relative to the project, a temporary folder, or an example such as /srv/tertulia.");
}

// === Documents ===

/// The text in backticks outside of code blocks, with its line.
fn quoted(text: &str) -> Vec<(usize, &str)> {
    let mut quoted = Vec::new();
    let mut in_block = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            quoted.extend(line.split('`').skip(1).step_by(2).map(|span| (number, span)));
        }
    }
    quoted
}

/// The targets of a document's links, with their line.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for rest in line.split("](").skip(1) {
            links.extend(rest.split_once(')').map(|(target, _)| (number, target)));
        }
    }
    links
}

/// Whether `span` is a path of this project.
fn is_path(span: &str) -> bool {
    let known = ["src", "actors", "schema", "benches", "tests", "docs", ".ci"];
    let top = ["Cargo.toml", "Cargo.lock", "README.md", ".deny.toml", ".clippy.toml", ".rustfmt.toml"];
    let plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    let first = span.split_once('/').map(|(first, _)| first);
    plain && (top.contains(&span) || first.is_some_and(|first| known.contains(&first)))
}

#[test]
fn every_path_that_a_document_names_is_there() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut faults = Vec::new();
    for file in documents() {
        for (number, span) in quoted(&file.text).into_iter().filter(|(_, span)| is_path(span)) {
            if !top.join(span).exists() {
                faults.push(format!("{}:{number}: {span}", file.path));
            }
        }
        let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
        for (number, target) in links(&file.text) {
            let target = target.split('#').next().unwrap_or_default();
            let elsewhere = target.is_empty() || target.contains(':') || target.starts_with('/');
            if !elsewhere && !top.join(folder).join(target).exists() {
                faults.push(format!("{}:{number}: ({target})", file.path));
            }
        }
    }
    refuse(&faults, "the file was moved, renamed or removed: say where it is now, or take the sentence out.");
}

/// Whether `span` is a name of Rust code: `Type`, `module::Type` or `Type::function`.
fn is_name(span: &str) -> bool {
    let parts: Vec<&str> = span.split("::").collect();
    let words = parts.iter().all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    });
    let is_type = span.starts_with(|c: char| c.is_ascii_uppercase()) && span.contains(|c: char| c.is_ascii_lowercase());
    words && (parts.len() > 1 || is_type)
}

#[test]
fn every_name_of_code_in_the_map_is_in_the_code() {
    let all = sources();
    let not_in_a_word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let words: HashSet<&str> = all.iter().flat_map(|file| file.text.split(not_in_a_word)).collect();
    let mut faults = Vec::new();
    let named_in = ["docs/ARCHITECTURE.md", "docs/CODEMAP.md", "docs/CONTRIBUTING.md", "docs/decisions"];
    for file in files(&named_in, &[".md"]) {
        for (number, span) in quoted(&file.text).into_iter().filter(|(_, span)| is_name(span)) {
            if !span.split("::").all(|part| words.contains(part)) {
                faults.push(format!("{}:{number}: {span}", file.path));
            }
        }
    }
    refuse(&faults, "the name was changed or removed in the code: change it here too.");
}

#[test]
fn the_one_test_command_is_the_same_everywhere() {
    let places = files(&["README.md", ".ci/run", "docs/CONTRIBUTING.md"], &["README.md", "run", "CONTRIBUTING.md"]);
    assert_eq!(places.len(), 3, "one of README.md, .ci/run and docs/CONTRIBUTING.md is missing");
    let silent: Vec<_> =
        places.iter().filter(|file| !file.text.contains(TEST_COMMAND)).map(|f| f.path.clone()).collect();
    refuse(&silent, &format!("say `{TEST_COMMAND}` there, or change TEST_COMMAND here and all of them."));
}

// === Error codes ===

/// The arguments of a call; `text` begins after its opening parenthesis.
fn arguments(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut depth = 0;
    let mut begin = 0;
    let mut at = 0;
    let mut arguments = Vec::new();
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += 1 + usize::from(bytes[at] == b'\\');
                }
            }
            // A character such as '('; a lifetime has no second quote there.
            b'\'' if bytes.get(at + 2) == Some(&b'\'') => at += 2,
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                while at < bytes.len() && bytes[at] != b'\n' {
                    at += 1;
                }
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' if depth == 0 => break,
            b')' | b']' | b'}' => depth -= 1,
            b',' if depth == 0 => {
                arguments.push(text[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    arguments.push(text.get(begin..at).unwrap_or_default().trim());
    arguments.retain(|argument| !argument.is_empty());
    arguments
}

/// The content of a string literal that can be an error code.
fn literal(argument: &str) -> Option<&str> {
    let word = argument.strip_prefix('"')?.strip_suffix('"')?;
    (!word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')).then_some(word)
}

/// The code of a file without its tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

/// Every error code that the front door can answer with, and the first file that does.
fn answered_codes() -> BTreeMap<String, String> {
    let mut codes = BTreeMap::new();
    let production = |file: &File| !file.path.ends_with("/tests.rs") && !file.path.contains("/tests/");
    for file in files(&["src"], &[".rs"]).into_iter().filter(production) {
        let text = without_tests(&file.text);
        for (at, _) in text.match_indices('(') {
            let before = &text[..at];
            let code = if let Some((_, place)) = MAKERS.iter().find(|(maker, _)| before.ends_with(maker)) {
                arguments(&text[at + 1..]).get(*place).copied().and_then(literal)
            } else if CODES_IN_PAIRS.contains(&file.path.as_str()) {
                let is_call = before.ends_with(|c: char| c.is_ascii_alphanumeric() || "_!>".contains(c));
                match arguments(&text[at + 1..])[..] {
                    [code, _] if !is_call => literal(code),
                    _ => None,
                }
            } else {
                None
            };
            if let Some(code) = code {
                let place = format!("{}:{}", file.path, before.lines().count());
                codes.entry(code.to_owned()).or_insert(place);
            }
        }
    }
    codes
}

#[test]
fn every_error_code_has_a_page_and_every_page_a_code() {
    let codes = answered_codes();
    assert!(codes.len() > 50, "only {} codes were found: the search in this file no longer fits the code", codes.len());
    let index = files(&["docs/errors/README.md"], &[".md"]).pop().map(|file| file.text).unwrap_or_default();
    let pages: BTreeSet<String> = files(&["docs/errors"], &[".md"])
        .iter()
        .filter_map(|file| file.path.strip_prefix("docs/errors/")?.strip_suffix(".md"))
        .filter(|name| *name != "README")
        .map(str::to_owned)
        .collect();
    let mut faults = Vec::new();
    for (code, place) in &codes {
        if !pages.contains(code) {
            faults.push(format!("{place} answers {code}, and docs/errors/{code}.md is missing"));
        }
    }
    for page in &pages {
        if !codes.contains_key(page) {
            faults.push(format!("docs/errors/{page}.md is about a code that nothing in src answers"));
        }
        if !index.contains(&format!("({page}.md)")) {
            faults.push(format!("docs/errors/README.md does not list {page}"));
        }
    }
    refuse(
        &faults,
        "write the page (status, what happened, what to do, whether a retry is safe; copy the form of its neighbours) \
         and its line in docs/errors/README.md, or delete the page of a code that is gone. Codes are written as \
         literals where the error is made.",
    );
}
