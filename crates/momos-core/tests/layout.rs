//! Whether imports go one way, and unsafe code is in one place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module, as the names from the root of the crate to it.
type Module = Vec<String>;

/// For each module those it names in its code.
type Graph = BTreeMap<Module, BTreeSet<Module>>;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every module and its code.
fn modules() -> BTreeMap<Module, String> {
    let mut modules = BTreeMap::new();
    let mut directories = vec![(source(), Module::new())];
    while let Some((directory, place)) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let mut module = place.clone();
            if path.is_dir() {
                module.push(name);
                directories.push((path, module));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                if name != "mod" && name != "lib" {
                    module.push(name);
                }
                modules.insert(module, code_of(&fs::read_to_string(path).unwrap()));
            }
        }
    }
    modules
}

/// A file without its comments and tests, which come last.
fn code_of(text: &str) -> String {
    let end = ["mod tests", "pub mod tests", "pub(super) mod tests"]
        .iter()
        .filter_map(|tests| text.find(&format!("#[cfg(test)]\n{tests}")))
        .min()
        .unwrap_or(text.len());
    text[..end]
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The pieces of code: identifiers, `::`, and every other character that is no space.
fn tokens(code: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if is_name(first) {
            rest.find(|c| !is_name(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

/// All paths that begin at a place among the tokens, with braces written out.
fn paths(tokens: &[&str], at: &mut usize) -> Vec<Vec<String>> {
    if tokens.get(*at) == Some(&"{") {
        *at += 1;
        let mut found = Vec::new();
        while *at < tokens.len() && tokens[*at] != "}" {
            found.extend(paths(tokens, at));
            // Past what follows a path: `as name` and a comma.
            while *at < tokens.len() && !matches!(tokens[*at], "," | "}") {
                *at += 1;
            }
            if tokens.get(*at) == Some(&",") {
                *at += 1;
            }
        }
        *at += 1;
        return found;
    }
    let Some(&name) = tokens.get(*at) else {
        return Vec::new();
    };
    *at += 1;
    if tokens.get(*at) != Some(&"::") {
        return vec![vec![name.to_owned()]];
    }
    *at += 1;
    let mut tails = match tokens.get(*at) {
        // Type arguments of a function end its path.
        Some(&"<") => vec![Vec::new()],
        _ => paths(tokens, at),
    };
    for tail in &mut tails {
        tail.insert(0, name.to_owned());
    }
    tails
}

/// The module that a path leads to, or to something in it.
fn resolve(path: &[String], from: &Module, all: &BTreeMap<Module, String>) -> Option<Module> {
    let mut names = path.iter().peekable();
    let mut module = from.clone();
    if names.next_if(|name| *name == "crate").is_some() {
        module.clear();
    } else if path[0] != "self" && path[0] != "super" {
        // Only a path that begins with a child of the module is one within the crate.
        let child = [from.as_slice(), &path[..1]].concat();
        all.get(&child)?;
    }
    names.next_if(|name| *name == "self");
    while names.next_if(|name| *name == "super").is_some() {
        module.pop();
    }
    for name in names {
        let child = [module.as_slice(), std::slice::from_ref(name)].concat();
        if !all.contains_key(&child) {
            break;
        }
        module = child;
    }
    Some(module)
}

fn graph() -> Graph {
    let all = modules();
    let mut graph = Graph::new();
    for (module, code) in &all {
        let tokens = tokens(code);
        let mut targets = BTreeSet::new();
        let mut at = 0;
        while at < tokens.len() {
            let starts = at == 0 || tokens[at - 1] != "::";
            // `pub(super)` and the like are no imports, nor is a child's declaration.
            let is_path = tokens.get(at + 1) == Some(&"::") || at > 0 && tokens[at - 1] == "use";
            if !(starts && is_path) {
                at += 1;
                continue;
            }
            for path in paths(&tokens, &mut at) {
                targets.extend(resolve(&path, module, &all));
            }
        }
        targets.remove(module);
        graph.insert(module.clone(), targets);
    }
    graph
}

/// A way through the graph that ends where it began, if there is one.
fn cycle(graph: &Graph) -> Option<Vec<Module>> {
    fn visit(
        module: &Module,
        graph: &Graph,
        done: &mut BTreeSet<Module>,
        way: &mut Vec<Module>,
    ) -> Option<Vec<Module>> {
        if let Some(start) = way.iter().position(|visited| visited == module) {
            return Some(way[start..].to_vec());
        }
        if done.contains(module) {
            return None;
        }
        way.push(module.clone());
        let targets = graph.get(module).into_iter().flatten();
        let found = targets
            .into_iter()
            .find_map(|target| visit(target, graph, done, way));
        way.pop();
        done.insert(module.clone());
        found
    }
    let mut done = BTreeSet::new();
    graph
        .keys()
        .find_map(|module| visit(module, graph, &mut done, &mut Vec::new()))
}

/// The imports between what lies directly in a directory: each subdirectory counts as one module.
fn between_children(graph: &Graph, directory: &Module) -> Graph {
    let child = |module: &Module| -> Option<Module> {
        let inside = module.len() > directory.len() && module.starts_with(directory);
        inside.then(|| module[..=directory.len()].to_vec())
    };
    let mut children = Graph::new();
    for (module, targets) in graph {
        let Some(from) = child(module) else { continue };
        let targets = targets.iter().filter_map(child).filter(|to| *to != from);
        children.entry(from.clone()).or_default().extend(targets);
    }
    children
}

#[test]
fn the_graph_sees_the_imports() {
    let module = |path: &str| -> Module { path.split("::").map(str::to_owned).collect() };
    let graph = graph();
    let imports = |from: &str, to: &str| graph[&module(from)].contains(&module(to));
    assert!(graph.len() > 60, "only {} modules", graph.len());
    assert!(imports("nearest::search", "nearest::kernel"));
    assert!(imports("nearest::search", "nearest::block_tree"));
    assert!(imports("nearest::choice", "nearest::cost_table"));
    assert!(imports("nearest", "nearest::choice"));
    assert!(imports("simd", "simd::isa"));
    assert!(imports(
        "codec::index::paths::mixing",
        "codec::index::chunks"
    ));
    assert!(!imports("nearest::kernel", "nearest::search"));

    let loops = Graph::from([
        (module("a"), BTreeSet::from([module("b")])),
        (module("b"), BTreeSet::from([module("c"), module("d")])),
        (module("d"), BTreeSet::from([module("b")])),
    ]);
    assert_eq!(cycle(&loops), Some(vec![module("b"), module("d")]));
}

#[test]
fn no_module_imports_itself_through_others() {
    if let Some(cycle) = cycle(&graph()) {
        let names: Vec<String> = cycle.iter().map(|module| module.join("::")).collect();
        panic!("a cycle: {}", names.join(" -> "));
    }
}

#[test]
fn no_directory_imports_itself_through_others() {
    let graph = graph();
    let directories: BTreeSet<Module> = graph
        .keys()
        .filter_map(|module| module.split_last())
        .map(|(_, directory)| directory.to_vec())
        .collect();
    for directory in directories {
        if let Some(cycle) = cycle(&between_children(&graph, &directory)) {
            let names: Vec<String> = cycle.iter().map(|module| module.join("::")).collect();
            panic!("a cycle: {}", names.join(" -> "));
        }
    }
}

#[test]
fn unsafe_code_is_in_simd_alone() {
    for (module, code) in modules() {
        let has_unsafe = tokens(&code).contains(&"unsafe");
        let in_simd = module.first().is_some_and(|first| first == "simd");
        assert!(in_simd || !has_unsafe, "{} is unsafe", module.join("::"));
    }
}
