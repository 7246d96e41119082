//! The documents name what exists: every path in them is there, and every promise in the README has its test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn documents(root: &Path) -> Vec<PathBuf> {
    let named = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root.join(name));
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    named.into_iter().chain(docs.filter(|path| path.extension().is_some_and(|kind| kind == "md"))).collect()
}

/// What stands between backticks, or between parentheses behind a link's text.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split('`').skip(1).step_by(2);
    let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
    code.chain(links)
}

#[test]
fn every_path_in_the_documents_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    for document in documents(root) {
        for word in quoted(&read(&document)) {
            let word = word.trim_start_matches("../");
            let folder = ["src/", "tests/", "docs/", "config/", "schema/"];
            let is_path = folder.iter().any(|start| word.starts_with(start))
                && !word.contains(['*', '<', ' ', '{', '…']);
            let path = word.split(['#', ':']).next().unwrap();
            if is_path && !root.join(path).exists() {
                missing.push(format!("{}: {word}", document.display()));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

/// The names of tests in the last column of a table, each with its row.
fn tests_of<'a>(text: &'a str, head: &str) -> Vec<(&'a str, &'a str)> {
    let table = text.split(head).nth(1).unwrap().split("\n\n").next().unwrap();
    let rows = table.lines().skip(2);
    rows.flat_map(|row| {
        let tests = row.rsplit('|').nth(1).unwrap();
        tests.split('`').skip(1).step_by(2).map(move |name| (row, name))
    })
    .collect()
}

#[test]
fn every_promise_of_the_readme_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = read(&root.join("README.md"));
    let named = tests_of(&readme, "| promise | test |");
    for (row, name) in &named {
        let (file, function) = name.split_once("::").map_or((*name, None), |(file, rest)| (file, Some(rest)));
        let text = read(&root.join(format!("tests/{file}.rs")));
        let holds = function.is_none_or(|function| text.contains(&format!("fn {function}(")));
        assert!(holds, "{row}");
    }
    assert!(named.len() > 10, "the table was read");
}

/// A name there is as `cargo test` prints it, of the tests in `tests/` or beside the source.
#[test]
fn every_threat_names_tests_that_exist_and_would_fail() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let threats = read(&root.join("docs/threats.md"));
    let named = tests_of(&threats, "| threat | what stands against it | the test that would fail |");
    for (row, name) in &named {
        let (place, function) = name.rsplit_once("::").unwrap_or((name, "no function"));
        let place = place.replace("::", "/");
        let inline = place.strip_suffix("/tests").unwrap_or(&place);
        let files = [format!("tests/{place}.rs"), format!("src/{place}.rs"), format!("src/{inline}.rs")];
        let texts = files.iter().filter_map(|file| fs::read_to_string(root.join(file)).ok());
        let holds = texts.into_iter().any(|text| is_test(&text, function));
        assert!(holds, "{name} of {row}");
    }
    let rows: BTreeSet<&str> = named.iter().map(|(row, _)| *row).collect();
    let table = threats.lines().filter(|line| line.starts_with("| ")).count();
    // all but the head: a threat without a test is one that nothing is seen to hold back
    assert_eq!(rows.len(), table - 1);
}

/// Says whether a function of this name stands there under a test's attribute, and not an ignored one.
fn is_test(text: &str, function: &str) -> bool {
    let Some((before, _)) = text.split_once(&format!("fn {function}(")) else { return false };
    let above = before.rsplit_once('\n').map_or("", |(above, _)| above);
    let attributes: Vec<&str> =
        above.lines().rev().map(str::trim).take_while(|line| line.starts_with("#[")).collect();
    let marked = |mark: &str| attributes.iter().any(|line| line.contains(mark));
    marked("test") && !marked("ignore")
}
