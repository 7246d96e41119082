//! The documents refer to what exists: every path and every link in them resolves, and every guarantee and every threat
//! has its tests.

mod blocks;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// The Markdown files in a folder and below it.
fn markdown_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            markdown_below(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "md") {
            found.push(path);
        }
    }
}

fn documents() -> Vec<PathBuf> {
    let named = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md"];
    let mut found: Vec<PathBuf> = named.iter().map(|name| root().join(name)).collect();
    let below = ["charts/jobgate", "clients/typescript", "clients/python", "examples"];
    found.extend(below.iter().map(|folder| root().join(folder).join("README.md")));
    markdown_below(&root().join("docs"), &mut found);
    found
}

/// The lines outside of fenced and indented code.
fn prose(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let is_prose = |line: &&str| {
        let fencing_token = line.trim_start().starts_with("```");
        fenced ^= fencing_token;
        !fenced && !fencing_token && !line.starts_with("    ")
    };
    text.lines().filter(is_prose).collect()
}

/// The target of each inline link.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        // without inline code, which may be the text of a link
        let plain: String = line.split('`').step_by(2).collect();
        let targets = plain.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        found.extend(targets.map(|(target, _)| target.to_owned()));
    }
    found
}

/// The anchors of a document, made from its headings as GitHub does.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for line in prose(text) {
        let level = line.chars().take_while(|letter| *letter == '#').count();
        let Some(title) = line.get(level..).and_then(|rest| rest.strip_prefix(' ')) else { continue };
        if !(1..=6).contains(&level) {
            continue;
        }
        let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
        let anchor = title.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-");
        let count = seen.entry(anchor.clone()).or_default();
        found.insert(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
        *count += 1;
    }
    found
}

#[test]
fn every_path_in_the_documents_exists() {
    let mut missing = Vec::new();
    for document in documents() {
        let text = read(&document);
        for word in text.split('`').skip(1).step_by(2) {
            let word = word.trim_start_matches("../");
            let folders = "src crates tests docs config schema charts clients examples";
            let is_path = folders.split(' ').any(|folder| word.starts_with(&format!("{folder}/")))
                && !word.contains(['*', '<', ' ', '{', '…']);
            let path = word.split(['#', ':']).next().unwrap();
            if is_path && !root().join(path).exists() {
                missing.push(format!("{}: {word}", document.display()));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_link_between_documents_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    let mut checked = 0;
    for document in documents() {
        for link in links(&read(&document)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            checked += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target =
                if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            let exists = target.exists();
            let found = exists && (anchor.is_empty() || anchors(&read(&target)).contains(anchor));
            if !found {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
    assert!(checked > 100, "the links were read: {checked}");
}

#[test]
fn heading_anchors_match_those_of_github() {
    let text =
        "# A `b` c\n## What's new, and (old)?\n## A b c\n```\n# no heading\n```\n#no\n### snake_case-x";
    let expected = ["a-b-c", "a-b-c-1", "snake_case-x", "whats-new-and-old"];
    assert_eq!(anchors(text).iter().collect::<Vec<_>>(), expected);
    let text = "[`a`](b.md#c) `[d](e.md)` [f](g)\n```\n[h](i.md)\n```";
    assert_eq!(links(text), ["b.md#c", "g"]);
}

/// The names of tests in the last column of a table, each with its row.
fn tests_of<'a>(text: &'a str, head: &str) -> Vec<(&'a str, &'a str)> {
    let tables = text.split(head).skip(1).map(|rest| rest.split("\n\n").next().unwrap());
    let rows = tables.flat_map(|table| table.lines().skip(2));
    rows.flat_map(|row| {
        let tests = row.rsplit('|').nth(1).unwrap();
        tests.split('`').skip(1).step_by(2).map(move |name| (row, name))
    })
    .collect()
}

/// Whether a test of this name exists and is not ignored. A name is as `cargo test` prints it, of `tests/` or of
/// `src/`; the name of a file in `tests/` stands for all its tests.
fn is_there(name: &str) -> bool {
    let (place, function) = name.rsplit_once("::").unwrap_or((name, ""));
    let place = place.replace("::", "/");
    let inline = place.strip_suffix("/tests").unwrap_or(&place);
    let files = [format!("tests/{place}.rs"), format!("src/{place}.rs"), format!("src/{inline}.rs")];
    let whole = root().join(format!("tests/{}.rs", name.replace("::", "/")));
    let texts = files.iter().filter_map(|file| fs::read_to_string(root().join(file)).ok());
    whole.exists() || texts.into_iter().any(|text| is_test(&text, function))
}

#[test]
fn every_guarantee_names_tests_that_exist() {
    let text = read(&root().join("docs/guarantees.md"));
    let named = tests_of(&text, "| guarantee | test |");
    let missing: Vec<_> = named.iter().filter(|(_, name)| !is_there(name)).collect();
    assert_eq!(missing, Vec::<&(&str, &str)>::new());
    let rows: BTreeSet<&str> = named.iter().map(|(row, _)| *row).collect();
    let heads = text.matches("| guarantee | test |").count();
    let table = text.lines().filter(|line| line.starts_with("| ")).count();
    assert_eq!(rows.len(), table - heads, "each guarantee names a test");
    assert!(rows.len() > 25, "the tables were read");
}

#[test]
fn every_threat_names_tests_that_exist() {
    let text = read(&root().join("docs/threats.md"));
    let head = "| threat | mitigation | test |";
    let named = tests_of(&text, head);
    let missing: Vec<_> = named.iter().filter(|(_, name)| !name.contains("::") || !is_there(name)).collect();
    assert_eq!(missing, Vec::<&(&str, &str)>::new());
    let rows: BTreeSet<&str> = named.iter().map(|(row, _)| *row).collect();
    let table = text.lines().filter(|line| line.starts_with("| ")).count();
    // all but the headers: a threat without a test is one without a mitigation that is known to work
    assert_eq!(rows.len(), table - text.matches(head).count());
}

/// Whether a function of this name exists with a test attribute, and is not ignored.
fn is_test(text: &str, function: &str) -> bool {
    let Some((before, _)) = text.split_once(&format!("fn {function}(")) else { return false };
    let above = before.rsplit_once('\n').map_or("", |(above, _)| above);
    let attributes: Vec<&str> =
        above.lines().rev().map(str::trim).take_while(|line| line.starts_with("#[")).collect();
    let marked = |mark: &str| attributes.iter().any(|line| line.contains(mark));
    marked("test") && !marked("ignore")
}
