//! The vocabulary of `docs/glossary.md`: no identifier contains a replaced word, and no two types have one name.
//!
//! The words are in `banned_words.txt`. Ordinary English words that other terms need are not in it; prose is checked by
//! reviewers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// Names that are not ours to choose, and the terms of `docs/glossary.md` that contain a banned word.
const ALLOWED: [&str; 4] = ["single_flight", "in_flight", "InFlight", "SingleFlight"];

/// The banned words, each with what is written instead.
fn banned() -> Vec<(&'static str, &'static str)> {
    let lines =
        include_str!("banned_words.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_once(' ').expect("a line is `word instead`")).collect()
}

/// The words of an identifier in snake or camel case, in lower case.
fn words(identifier: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut is_start = true;
    let mut was_lower = false;
    for letter in identifier.chars() {
        if letter == '_' || letter == '-' {
            is_start = true;
            continue;
        }
        if is_start || (letter.is_ascii_uppercase() && was_lower) {
            words.push(String::new());
        }
        is_start = false;
        was_lower = !letter.is_ascii_uppercase();
        words.last_mut().unwrap().push(letter.to_ascii_lowercase());
    }
    words
}

/// The banned word in an identifier, and what is written instead.
fn violation(identifier: &str) -> Option<(&'static str, &'static str)> {
    let rest = ALLOWED.iter().fold(identifier.to_owned(), |rest, term| rest.replace(term, "_"));
    let words = words(&rest);
    banned().into_iter().find(|(banned, _)| words.iter().any(|word| word == banned))
}

/// Every identifier in tokens, macros included, and every name of a metric in a string.
fn identifiers(tokens: TokenStream, found: &mut BTreeSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Ident(name) => {
                found.insert(name.to_string());
            }
            TokenTree::Group(group) => identifiers(group.stream(), found),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                if let Some(name) = text.strip_prefix("\"jobgate_")
                    && name
                        .trim_end_matches('"')
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                {
                    found.insert(name.trim_end_matches('"').to_owned());
                }
            }
            TokenTree::Punct(_) => {}
        }
    }
}

fn violations(path: &Path, identifiers: &BTreeSet<String>) -> Vec<String> {
    let found = identifiers.iter().filter_map(|name| Some((name, violation(name)?)));
    found
        .map(|(name, (word, instead))| {
            format!("{}: {name}: write {instead} in place of {word}", path.display())
        })
        .collect()
}

#[test]
fn no_identifier_contains_a_banned_word() {
    let mut found = Vec::new();
    let mut read = 0;
    for folder in ["src", "crates", "tests"] {
        for (path, text) in super::rust_files(folder) {
            let mut names = BTreeSet::new();
            identifiers(text.parse().unwrap(), &mut names);
            names.extend(path.iter().map(|part| part.to_str().unwrap().trim_end_matches(".rs").to_owned()));
            read += names.len();
            found.extend(violations(&path, &names));
        }
    }
    assert!(read > 20_000, "the sources were read: {read}");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_public_name_contains_a_banned_word() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for file in
        ["schema/schema.graphql", "schema/openapi.yaml", "config/default.yaml", "charts/jobgate/values.yaml"]
    {
        let text = fs::read_to_string(root.join(file)).unwrap();
        let mut in_description = false;
        let mut names = BTreeSet::new();
        for line in text.lines() {
            let line = line.trim();
            let quotes = line.matches("\"\"\"").count();
            if in_description || quotes > 0 {
                in_description ^= quotes == 1;
                continue;
            }
            let name = line.trim_start_matches("- ").split([':', '(', ' ', '#']).next().unwrap();
            if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                names.insert(name.to_owned());
            }
        }
        assert!(names.len() > 20, "{file} was read");
        found.extend(violations(Path::new(file), &names));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The types that a file declares.
#[derive(Default)]
struct Types(Vec<String>);

impl<'ast> Visit<'ast> for Types {
    #[expect(clippy::wildcard_enum_match_arm, reason = "no other item declares a type")]
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let name = match item {
            syn::Item::Struct(item) => Some(&item.ident),
            syn::Item::Enum(item) => Some(&item.ident),
            syn::Item::Union(item) => Some(&item.ident),
            syn::Item::Trait(item) => Some(&item.ident),
            syn::Item::Type(item) => Some(&item.ident),
            _ => None,
        };
        self.0.extend(name.map(ToString::to_string));
        visit::visit_item(self, item);
    }
}

/// The names that more than one type has, with their files.
fn shared_names(files: &[(&Path, &str)]) -> Vec<String> {
    let mut declared: BTreeMap<String, Vec<&Path>> = BTreeMap::new();
    for (path, text) in files {
        let mut types = Types::default();
        types.visit_file(&syn::parse_file(text).unwrap());
        for name in types.0 {
            declared.entry(name).or_default().push(path);
        }
    }
    let shared = declared.iter().filter(|(_, files)| files.len() > 1);
    shared.map(|(name, files)| format!("{name}: {files:?}")).collect()
}

#[test]
fn no_two_types_have_one_name() {
    let files = super::sources();
    let files: Vec<(&Path, &str)> =
        files.iter().map(|(path, text)| (path.as_path(), text.as_str())).collect();
    assert_eq!(shared_names(&files), Vec::<String>::new());
}

#[test]
fn planted_words_are_found() {
    for name in ["told", "Told", "by_the_door", "PorterState", "LOOK_EVERY", "redis_turns_lost_total"] {
        assert!(violation(name).is_some(), "{name}");
    }
    for name in ["lookup", "returns", "SingleFlight", "in_flight", "outlook"] {
        assert!(violation(name).is_none(), "{name}: {:?}", violation(name));
    }
    let mut names = BTreeSet::new();
    let text =
        r#"fn f() { trace!("x", told = 1); count("jobgate_redis_turns_total", "no jobgate_looks_total") }"#;
    identifiers(text.parse().unwrap(), &mut names);
    assert_eq!(violations(Path::new("a.rs"), &names).len(), 2, "{names:?}");
}

#[test]
fn planted_duplicate_type_names_are_found() {
    let twice = [(Path::new("a.rs"), "struct A; mod m { enum B {} }"), (Path::new("b.rs"), "type B = u8;")];
    assert_eq!(shared_names(&twice).len(), 1);
}
