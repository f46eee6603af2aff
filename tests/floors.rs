//! The architecture, as the table in `src/lib.rs` tells it, held against the code.
//!
//! A map that nobody checks is wrong within a month. The table is read from the documentation itself, so that it cannot
//! say one thing and the test another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each top-level module and the ones it uses, tests left out.
type Uses = BTreeMap<String, BTreeSet<String>>;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every file under `src/`, relative to it, with its text.
fn files() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![source()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("src can be read");
                let path = path
                    .strip_prefix(source())
                    .expect("it lies in src")
                    .to_owned();
                files.push((path, text));
            }
        }
    }
    files.sort();
    assert!(files.len() > 20, "these are not all files: {files:?}");
    files
}

fn text_of(name: &str) -> String {
    fs::read_to_string(source().join(name)).expect("src can be read")
}

/// The modules that `src/lib.rs` declares.
fn modules() -> BTreeSet<String> {
    let text = text_of("lib.rs");
    let declared = text.lines().filter_map(|line| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        line.strip_prefix("mod ")?.strip_suffix(';')
    });
    declared.map(str::to_owned).collect()
}

/// The floor of each module, from the table.
fn floors() -> BTreeMap<String, usize> {
    let modules = modules();
    let mut floors = BTreeMap::new();
    for line in text_of("lib.rs").lines() {
        let Some((floor, rest)) = line
            .strip_prefix("//! | ")
            .and_then(|line| line.split_once(" | "))
        else {
            continue;
        };
        let Ok(floor) = floor.parse::<usize>() else {
            continue;
        };
        for name in rest
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| modules.contains(*name))
        {
            let before = floors.insert(name.to_owned(), floor);
            assert_eq!(before, None, "`{name}` stands twice in the table");
        }
    }
    floors
}

/// The code without comments and without what only tests see. Relies on rustfmt: an item ends at its own indentation.
fn code(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let indentation = &line[..line.len() - line.trim_start().len()];
            let end = format!("{indentation}}}");
            let one_line = |line: &str| line.ends_with(';') || line.ends_with(" {}");
            let first = lines.by_ref().find(|line| !line.trim().starts_with("#["));
            if !first.is_none_or(one_line) {
                lines.by_ref().find(|line| *line == end);
            }
        } else if !line.trim_start().starts_with("//") {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The files that are modules of tests as a whole (`#[cfg(test)] mod tests;`).
fn is_for_tests_only(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests")
}

/// The first names of all paths that begin with `crate::`, of groups too.
fn named(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => names.extend(identifier(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        _ if start && !c.is_whitespace() => {
                            names.extend(identifier(&group[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    names
}

fn identifier(text: &str) -> Option<String> {
    let name: String = text
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!name.is_empty()).then_some(name)
}

fn uses() -> Uses {
    let mut uses = Uses::new();
    for (path, text) in files() {
        let first = path.iter().next().expect("a file has a name");
        let module = first
            .to_str()
            .expect("names are ASCII")
            .trim_end_matches(".rs")
            .to_owned();
        if !matches!(module.as_str(), "lib" | "main") && !is_for_tests_only(&path) {
            let others = named(&code(&text))
                .into_iter()
                .filter(|name| *name != module);
            uses.entry(module.clone()).or_default().extend(others);
        }
    }
    uses
}

#[test]
fn every_module_stands_on_one_floor_of_the_map() {
    let placed: BTreeSet<_> = floors().into_keys().collect();
    assert_eq!(placed, modules());
}

#[test]
fn a_module_uses_only_floors_below_its_own() {
    let floors = floors();
    for (module, used) in uses() {
        for name in used {
            let Some(below) = floors.get(&name) else {
                panic!(
                    "{module} uses crate::{name}, which is no module: name what it is re-exported from"
                );
            };
            let own = floors[&module];
            assert!(
                *below < own,
                "`{module}` (floor {own}) uses `{name}` (floor {below})"
            );
        }
    }
}

#[test]
fn features_never_see_each_other() {
    let floors = floors();
    assert_eq!(floors["session"], floors["proxy"]);
    let uses = uses();
    assert!(!uses["session"].contains("proxy"));
    assert!(!uses["proxy"].contains("session"));
}

#[test]
fn the_wire_knows_sockets_and_nothing_else() {
    assert_eq!(uses()["wire"], BTreeSet::from(["net".to_owned()]));
}

#[test]
fn the_simulator_shares_no_code_with_what_it_is_to_test() {
    let allowed = ["wechat", "crypto", "domain", "clock", "secret"];
    for name in &uses()["sim"] {
        assert!(allowed.contains(&name.as_str()), "sim uses {name}");
    }
}

#[test]
fn no_module_is_reached_around_the_map() {
    for (path, text) in files() {
        let code = code(&text);
        let own_root = path.components().count() == 1
            || path.ends_with("mod.rs") && path.components().count() == 2;
        let way_out = match path.components().count() {
            1 | 2 if own_root => "super::",
            _ => "super::super::",
        };
        if !is_for_tests_only(&path) {
            assert!(
                !code.contains(way_out),
                "{} leaves its module by {way_out}",
                path.display()
            );
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (path, text) in files() {
        assert!(text.starts_with("//! "), "{} has no header", path.display());
    }
}

#[test]
fn no_module_is_named_for_nothing() {
    let empty = [
        "util", "utils", "common", "helper", "helpers", "manager", "misc",
    ];
    for (path, _) in files() {
        for part in &path.with_extension("") {
            let name = part.to_str().expect("names are ASCII");
            assert!(!empty.contains(&name), "{}", path.display());
        }
    }
}

#[test]
fn nothing_is_unsafe() {
    for (path, text) in files() {
        let code = code(&text);
        let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(!words.any(|word| word == "unsafe"), "{}", path.display());
    }
}

#[test]
fn the_reader_of_uses_sees_groups_and_skips_tests() {
    let text = "use crate::{a, b::{c, d}, e};\n// crate::comment\nfn f() { crate::g::h(); mycrate::i(); }\n\
                #[cfg(test)]\nmod tests {\n    use crate::j;\n}\nuse crate::k;\n#[cfg(test)]\nmod l;\nuse crate::m;\n";
    let names: Vec<_> = named(&code(text)).into_iter().collect();
    assert_eq!(names, ["a", "b", "e", "g", "k", "m"]);
}
