//! Checks that the table of ratios is the output of a run, without edits.

use super::{File, files, refuse};

const PAGE: &str = "benches/README.md";
const RESULTS: &str = "benches/results";
/// The first line of the table, on the page and in the file.
const HEAD: &str = "| what | lowest / middle / highest | goal | |";

/// The table's rows, without its headings.
fn rows(text: &str) -> Vec<&str> {
    let table = text.lines().skip_while(|line| *line != HEAD);
    table.skip(2).take_while(|line| line.starts_with('|')).collect()
}

/// The newest of these files that the page names; their names begin with a date, and of one day the one named last
/// counts.
fn newest<'a>(page: &str, results: &'a [File]) -> Option<&'a File> {
    let day = |file: &File| file.path.trim_start_matches(RESULTS).chars().take("/2026-11-27".len()).collect::<String>();
    let named = results.iter().filter_map(|file| Some((day(file), page.rfind(&format!("`{}`", file.path))?, file)));
    named.max_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1))).map(|(_, _, file)| file)
}

#[test]
fn the_table_of_ratios_is_what_the_newest_run_printed() {
    let [page] = &files(&[PAGE], &[".md"])[..] else { panic!("{PAGE} is not there") };
    let results = files(&[RESULTS], &[".txt"]);
    let Some(result) = newest(&page.text, &results) else { panic!("{PAGE} names no file of {RESULTS}") };
    let shown = rows(&page.text);
    let printed = rows(&result.text);
    assert!(shown.len() > 20, "{PAGE} shows only {} ratios", shown.len());
    let invented = shown.iter().filter(|row| !printed.contains(row)).map(|row| format!("{PAGE} has {row}"));
    let left_out = printed.iter().filter(|row| !shown.contains(row)).map(|row| format!("{} has {row}", result.path));
    let faults: Vec<String> = invented.chain(left_out).collect();
    refuse(
        &faults,
        "the table is pasted as `load all` printed it, from the newest file of benches/results that the page names; \
         what is of another run stands in a table of its own.",
    );
}
