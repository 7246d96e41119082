//! The documents name what exists: every path in them is there, and every promise in the README has its test.

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

#[test]
fn every_promise_of_the_readme_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = read(&root.join("README.md"));
    let table = readme.split("| promise | test |").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut promises = 0;
    for row in table.lines().skip(2) {
        let tests = row.rsplit('|').nth(1).unwrap();
        for name in tests.split('`').skip(1).step_by(2) {
            let (file, function) =
                name.split_once("::").map_or((name, None), |(file, rest)| (file, Some(rest)));
            let text = read(&root.join(format!("tests/{file}.rs")));
            let holds = function.is_none_or(|function| text.contains(&format!("fn {function}(")));
            assert!(holds, "{row}");
            promises += 1;
        }
    }
    assert!(promises > 10, "the table was read");
}
