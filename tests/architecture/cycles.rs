//! No import cycle between the files of one top module. A file imports another when it names something that is defined
//! there, also through a re-export in a third file, or when it re-exports something of it. Unit tests do not count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// The path of a module: of each file, one.
type Module = Vec<String>;

/// What one file names.
#[derive(Default)]
struct FileNames {
    module: Module,
    /// The paths that it uses, as they are written, with the inline module they are in resolved.
    paths: Vec<Vec<String>>,
    /// What it re-exports, by name.
    exports: BTreeMap<String, Vec<String>>,
}

impl FileNames {
    fn note_use(&mut self, tree: &syn::UseTree, before: &[String], exported: bool) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        let (path, name) = match tree {
            syn::UseTree::Path(path) => return self.note_use(&path.tree, &with(&path.ident), exported),
            syn::UseTree::Group(group) => {
                return group.items.iter().for_each(|item| self.note_use(item, before, exported));
            }
            syn::UseTree::Glob(_) => (before.to_vec(), None),
            syn::UseTree::Name(name) => (with(&name.ident), Some(name.ident.to_string())),
            syn::UseTree::Rename(rename) => (with(&rename.ident), Some(rename.rename.to_string())),
        };
        if let Some(name) = name.filter(|_| exported) {
            self.exports.insert(name, path.clone());
        }
        self.paths.push(path);
    }

    /// The paths in the tokens of a macro, which has no syntax tree.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        let mut end = |path: &mut Vec<String>| {
            let path = std::mem::take(path);
            if path.len() > 1 {
                self.paths.push(path);
            }
        };
        let mut groups = Vec::new();
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        end(&mut path);
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' && !path.is_empty() => colons += 1,
                TokenTree::Group(group) => {
                    end(&mut path);
                    groups.push(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => end(&mut path),
            }
        }
        end(&mut path);
        for group in groups {
            self.note_tokens(group);
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for FileNames {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.note_use(&item.tree, &[], !matches!(item.vis, syn::Visibility::Inherited));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.paths.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {
        // `pub(in crate::jobs)` names no item
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.note_tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }
}

/// All files, by module.
struct Files(BTreeMap<Module, FileNames>);

impl Files {
    fn read(files: &[(PathBuf, String)]) -> Self {
        let mut all = BTreeMap::new();
        for (path, text) in files {
            let module: Module = path
                .with_extension("")
                .iter()
                .skip(1)
                .map(|part| part.to_str().unwrap().to_owned())
                .collect();
            if module.iter().any(|part| part == "tests" || part == "testing") {
                continue;
            }
            let mut names = FileNames { module: module.clone(), ..FileNames::default() };
            names.visit_file(&syn::parse_file(text).unwrap());
            all.insert(module, names);
        }
        Self(all)
    }

    /// The file that defines what a path names; `None` outside of the crate. `depth` bounds chains of re-exports.
    fn definer(&self, from: &[String], path: &[String], depth: u8) -> Option<Module> {
        if path.iter().any(|part| part == "tests" || part == "testing") {
            return None;
        }
        let mut at: Module = from.to_vec();
        let mut rest = path;
        match rest.first()?.trim_start_matches('$') {
            "crate" => {
                at.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|one| one == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            first => {
                let child = [from, &[first.to_owned()]].concat();
                self.0.get(&child)?;
            }
        }
        while let Some(first) = rest.first() {
            let child = [at.as_slice(), std::slice::from_ref(first)].concat();
            if !self.0.contains_key(&child) {
                break;
            }
            at = child;
            rest = &rest[1..];
        }
        let file = self.0.get(&at)?;
        let exported = rest.first().and_then(|name| file.exports.get(name)).filter(|_| depth > 0);
        let origin = exported.and_then(|path| self.definer(&at, path, depth - 1));
        Some(origin.unwrap_or(at))
    }

    /// The files of the same top module that each file imports.
    fn imports(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let imports_of = |names: &FileNames| -> BTreeSet<Module> {
            let defined = names.paths.iter().filter_map(|path| self.definer(&names.module, path, 8));
            defined.filter(|other| *other != names.module && other[0] == names.module[0]).collect()
        };
        self.0.iter().map(|(module, names)| (module, imports_of(names))).collect()
    }

    /// A shortest cycle through each file that is in one.
    fn cycles(&self) -> Vec<String> {
        let imports = self.imports();
        let mut found = BTreeMap::new();
        for start in imports.keys() {
            let mut reached: BTreeMap<&Module, &Module> = BTreeMap::new();
            let mut queue = VecDeque::from([*start]);
            while let Some(file) = queue.pop_front() {
                for next in &imports[file] {
                    if !reached.contains_key(next) {
                        reached.insert(next, file);
                        queue.push_back(next);
                    }
                }
            }
            if !reached.contains_key(start) {
                continue;
            }
            let (mut cycle, mut at) = (vec![start.join("/")], reached[start]);
            while at != *start {
                cycle.push(at.join("/"));
                at = reached[at];
            }
            let mut members = cycle.clone();
            members.sort_unstable();
            cycle.push(start.join("/"));
            cycle.reverse();
            found.entry(members).or_insert_with(|| cycle.join(" imports "));
        }
        found.into_values().collect()
    }
}

#[test]
fn no_files_of_one_module_import_each_other_in_a_cycle() {
    let files = Files::read(&super::rust_files("src"));
    let edges: usize = files.imports().values().map(BTreeSet::len).sum();
    assert!(edges > 200, "the imports were read: {edges}");
    let cycles = files.cycles();
    assert!(cycles.is_empty(), "{} cycles:\n{}", cycles.len(), cycles.join("\n"));
}

#[test]
fn planted_cycles_are_found() {
    let cycles = |files: &[(&str, &str)]| {
        let files: Vec<(PathBuf, String)> =
            files.iter().map(|(path, text)| (Path::new(path).to_owned(), (*text).to_owned())).collect();
        Files::read(&files).cycles()
    };
    let parent = "mod a; mod b; pub use b::B; struct Shared;";
    let through_a_re_export = [
        ("src/jobs.rs", parent),
        ("src/jobs/a.rs", "use super::B; pub struct A;"),
        ("src/jobs/b.rs", "pub struct B(super::a::A);"),
    ];
    assert_eq!(cycles(&through_a_re_export), ["jobs/a imports jobs/b imports jobs/a"]);
    let of_the_parent = [
        ("src/jobs.rs", parent),
        ("src/jobs/a.rs", ""),
        ("src/jobs/b.rs", "fn f() { m!(g(super::Shared)) } pub struct B;"),
    ];
    assert_eq!(cycles(&of_the_parent), ["jobs imports jobs/b imports jobs"]);
    let none = [
        ("src/jobs.rs", parent),
        ("src/jobs/a.rs", "use super::B; pub(in crate::jobs) struct A;"),
        ("src/jobs/b.rs", "pub struct B; #[cfg(test)] mod tests { use super::super::a::A; }"),
    ];
    assert_eq!(cycles(&none), Vec::<String>::new());
}
