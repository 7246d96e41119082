//! The layers of `src/` (see the head of `src/lib.rs`): a module may import only from layers below its own. Reads every
//! import and every path in every file, macros included, and lists each import of the same or of a higher layer. Cycles
//! between the files of one module are in `cycles`.

mod cycles;
mod vocabulary;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// The top-level modules with their layers. Two modules of one layer may not import each other.
const LAYERS: [(&str, u8); 10] = [
    ("main", 7),
    ("cli", 6),
    ("server", 5),
    ("inbound", 4),
    ("outbound", 4),
    ("jobs", 3),
    ("telemetry", 2),
    ("ports", 1),
    ("config", 1),
    ("domain", 0),
];

/// Imports of a lower layer that are forbidden, each with its reason.
const FORBIDDEN: [(&str, &str, &str); 2] = [
    ("inbound", "ports", "every handler calls a use case, so there is no second way around the access check"),
    ("outbound", "jobs", "an adapter never calls back up"),
];

/// Crates that only some modules may use, with these modules.
const ONE_PLACE: [(&str, &[&str]); 12] = [
    ("reqwest", &["outbound"]),
    ("moka", &["outbound"]),
    ("redis", &["outbound"]),
    ("redb", &["outbound"]),
    ("axum", &["inbound", "server"]),
    ("tower", &["inbound", "server"]),
    ("tower_http", &["inbound", "server"]),
    ("async_graphql", &["inbound", "server"]),
    ("clap", &["cli"]),
    // `config` uses its names of variables
    ("jobgate_client", &["cli", "config"]),
    ("jobgate_simulator", &["cli"]),
    ("tracing_opentelemetry", &["telemetry"]),
];

/// Files may not be longer than this (`style`, "Even, small files").
const LINES_MAX: usize = 500;

#[test]
fn no_module_imports_from_its_own_or_a_higher_layer() {
    let files = rust_files("src");
    assert!(files.len() > 20, "the test reads the sources");
    let faults: Vec<String> = files.iter().flat_map(|(path, text)| faults(path, text)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn source_files_begin_with_a_module_doc() {
    assert_no_file(|_, text| !text.starts_with("//!"), "does not start with a `//!` comment");
}

#[test]
fn source_files_have_at_most_500_lines() {
    assert_no_file(|_, text| text.lines().count() > LINES_MAX, "has more than 500 lines");
}

#[test]
fn a_module_is_a_file_beside_its_folder() {
    assert_no_file(|path, _| path.ends_with("mod.rs"), "is a mod.rs: a module is foo.rs beside foo/");
}

fn assert_no_file(is_wrong: impl Fn(&Path, &str) -> bool, what: &str) {
    let sources = sources();
    let faults: Vec<String> = sources
        .iter()
        .filter(|(path, text)| is_wrong(path, text))
        .map(|(path, _)| format!("{} {what}", path.display()))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A check that never failed proves nothing: each kind of violation is planted once.
#[test]
fn the_layer_check_reports_each_planted_violation() {
    let planted = [
        ("src/domain/job.rs", "use crate::jobs::Jobs;", "domain imports jobs"),
        ("src/jobs/lookup.rs", "use crate::{domain::job::Job, inbound::graphql};", "jobs imports inbound"),
        ("src/inbound/page.rs", "use crate::ports::store::JobStore;", "inbound imports ports"),
        ("src/outbound/http.rs", "fn f() { crate::jobs::run() }", "outbound imports jobs"),
        ("src/inbound/page.rs", "use crate::outbound::http;", "inbound imports outbound"),
        ("src/config/server.rs", "use super::super::ports::clock::Clock;", "config imports ports"),
        ("src/jobs.rs", "macro_rules! m { () => { $crate::server::build() } }", "jobs imports server"),
        ("src/jobs.rs", "fn f() { println!(\"{}\", crate::cli::NAME) }", "jobs imports cli"),
        ("src/jobs/rows.rs", "use moka::future::Cache;", "jobs uses the crate moka"),
        ("src/server/build.rs", "fn f() -> reqwest::Client { todo!() }", "server uses the crate reqwest"),
        ("src/server/build.rs", "use jobgate_client::Terminal;", "server uses the crate jobgate_client"),
        ("src/telemetry.rs", "mod tests { use super::super::jobs::Jobs; }", "telemetry imports jobs"),
    ];
    for (path, text, expected) in planted {
        let found = faults(Path::new(path), text);
        assert!(found.iter().any(|fault| fault.contains(expected)), "{path}: {text}: {found:?}");
    }
    let sound = "use crate::domain::job::Job; use super::flight::Seat; use crate::ports::clock::Clock;";
    assert_eq!(faults(Path::new("src/jobs/lookup.rs"), sound), Vec::<String>::new());
}

/// The sources of every crate of the workspace.
fn sources() -> Vec<(PathBuf, String)> {
    [rust_files("src"), rust_files("crates")].concat()
}

/// The Rust files below a folder, with their texts.
fn rust_files(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(root).unwrap().to_owned(), text));
            }
        }
    }
    files.sort();
    files
}

fn faults(path: &Path, text: &str) -> Vec<String> {
    let modules: Vec<String> =
        path.with_extension("").iter().skip(1).map(|part| part.to_str().unwrap().to_owned()).collect();
    if modules == ["lib"] {
        return Vec::new();
    }
    let top = modules[0].clone();
    let mut reader = Reader { module: modules, seen: BTreeSet::new() };
    reader.visit_file(&syn::parse_file(text).unwrap());
    reader
        .seen
        .iter()
        .filter_map(|name| fault(&top, name))
        .map(|fault| format!("{}: {fault}", path.display()))
        .collect()
}

fn fault(from: &str, to: &Name) -> Option<String> {
    match to {
        Name::Module(to) if to == from => None,
        Name::Module(to) => {
            let layer =
                |name: &str| LAYERS.iter().find(|(module, _)| *module == name).map(|(_, layer)| *layer);
            let Some(above) = layer(from) else { return Some(format!("{from} has no layer in this test")) };
            let below = layer(to)?;
            let forbidden = FORBIDDEN.iter().find(|(one, other, _)| *one == from && other == to);
            match forbidden {
                Some((_, _, reason)) => Some(format!("{from} imports {to}, but {reason}")),
                None if below >= above => Some(format!("{from} imports {to}, which is not in a lower layer")),
                None => None,
            }
        }
        Name::Crate(name) => {
            let (_, places) = ONE_PLACE.iter().find(|(one, _)| one == name)?;
            (!places.contains(&from))
                .then(|| format!("{from} uses the crate {name}, which belongs in {places:?}"))
        }
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    /// A top-level module of jobgate.
    Module(String),
    /// Possibly a crate: the first segment of a path that starts elsewhere.
    Crate(String),
}

struct Reader {
    /// The current module: of the file, and the inline ones.
    module: Vec<String>,
    seen: BTreeSet<Name>,
}

impl Reader {
    /// Records a path, given as segments.
    fn note(&mut self, path: &[String]) {
        let mut rest = path;
        let mut base = self.module.clone();
        match rest.first().map(String::as_str) {
            Some("crate") => {
                base.clear();
                rest = &rest[1..];
            }
            Some("self") => rest = &rest[1..],
            Some("super") => {
                while rest.first().is_some_and(|one| one == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            Some(name) => {
                self.seen.insert(Name::Crate(name.to_owned()));
                return;
            }
            None => return,
        }
        if let Some(top) = base.first().or_else(|| rest.first()) {
            self.seen.insert(Name::Module(top.clone()));
        }
    }

    fn note_use(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.note_use(&path.tree, &with(&path.ident)),
            syn::UseTree::Name(name) => self.note(&with(&name.ident)),
            syn::UseTree::Rename(rename) => self.note(&with(&rename.ident)),
            syn::UseTree::Glob(_) => self.note(before),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.note_use(item, before)),
        }
    }

    /// Finds paths in the tokens of a macro, which has no syntax tree.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) if path.is_empty() || colons == 2 => {
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Ident(name) => {
                    self.note_if_path(&path);
                    path = vec![name.to_string()];
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' && !path.is_empty() => colons += 1,
                TokenTree::Group(group) => {
                    self.note_if_path(&path);
                    path.clear();
                    colons = 0;
                    self.note_tokens(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    self.note_if_path(&path);
                    path.clear();
                    colons = 0;
                }
            }
        }
        self.note_if_path(&path);
    }

    /// A single name in a macro is a variable or a word; only a path with `::` in it is checked.
    fn note_if_path(&mut self, path: &[String]) {
        if path.len() > 1 {
            self.note(path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.note_use(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let segments: Vec<String> =
                path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.note(&segments);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.note_tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }
}
