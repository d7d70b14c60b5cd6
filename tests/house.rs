//! The house keeps its walls: who may use whom, and what every tool has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The layers, and which others each may use. A layer not named here must be given its walls first.
const WALLS: [(&str, &[&str]); 9] = [
    ("format", &[]),
    ("state", &["format"]),
    ("flow", &["format", "state"]),
    ("foreign", &[]),
    ("source", &["format", "state", "flow", "foreign", "host"]),
    ("sink", &["format", "state", "flow", "foreign", "host"]),
    ("filter", &["format", "state", "flow"]),
    ("host", &["format", "state"]),
    // Progress is a trait of the filter that counts.
    ("cli", &["format", "state", "filter", "host"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder, with their text; what is no text is left out.
fn files(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.map(|entry| entry.unwrap().path()) {
            if entry.is_dir() { walk(&entry, found) } else { found.push(entry) }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort();
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    found.iter().filter_map(|path| Some((name(path), std::fs::read_to_string(path).ok()?))).collect()
}

fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.enumerate().map(|(n, line)| (n + 1, line))
}

/// The layer of a file below src; `None` for lib.rs and the tools.
fn layer(file: &str) -> Option<&str> {
    let inside = file.strip_prefix("src/")?;
    let first = inside.split('/').next()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib" && name != "bin").then_some(name)
}

/// Layers that a file names, each with its line: `crate::LAYER`, `crate::{LAYER…`, and as many `super::` as lead to the root.
fn uses(file: &str, text: &str) -> Vec<(usize, String)> {
    let inside = file.strip_prefix("src/").unwrap().strip_suffix(".rs").unwrap();
    let depth = inside.strip_suffix("/mod").unwrap_or(inside).split('/').count();
    let out = "super::".repeat(depth);
    let mut found = Vec::new();
    for (n, line) in code(text) {
        for way in ["crate::", "siphon::", out.as_str()] {
            for (at, _) in line.match_indices(way) {
                let before = line[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                    continue;
                }
                let rest = &line[at + way.len()..];
                let names = match rest.strip_prefix('{') {
                    Some(group) => group.split(',').map(str::trim).collect(),
                    None => vec![rest],
                };
                for name in names {
                    let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    if WALLS.iter().any(|(layer, _)| *layer == name) {
                        found.push((n, name));
                    } else if way == "crate::" {
                        // `use crate::*` and groups over several lines say nothing of what they use.
                        found.push((n, format!("crate::{name}?")));
                    }
                }
            }
        }
    }
    found
}

/// Every use that goes through a wall.
fn breaches(file: &str, text: &str) -> Vec<String> {
    let Some(own) = layer(file) else { return Vec::new() };
    let Some((_, allowed)) = WALLS.iter().find(|(layer, _)| *layer == own) else {
        return vec![format!("{file}: the layer {own} has no walls")];
    };
    uses(file, text)
        .into_iter()
        .filter(|(_, used)| used != own && !allowed.contains(&used.as_str()))
        .map(|(line, used)| format!("{file}:{line}: {own} must not use {used}"))
        .collect()
}

#[test]
fn no_layer_uses_what_it_must_not() {
    let found: Vec<String> = files("src").iter().flat_map(|(file, text)| breaches(file, text)).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn each_wall_turns_red_when_it_is_broken() {
    for (own, allowed) in WALLS {
        for (other, _) in WALLS.iter().filter(|(other, _)| *other != own) {
            for (file, text) in [
                (format!("src/{own}/mod.rs"), format!("use crate::{other}::Thing;")),
                (format!("src/{own}/deep/er.rs"), format!("let x = crate::{other}::thing();")),
                (format!("src/{own}/thing.rs"), format!("use super::super::{other}::Thing;")),
                (format!("src/{own}.rs"), format!("use super::{other};")),
                (format!("src/{own}/mod.rs"), format!("use crate::{{{own}, {other}::Thing}};")),
            ] {
                assert_eq!(breaches(&file, &text).is_empty(), allowed.contains(other), "{file}: {text}");
            }
        }
        assert!(
            breaches(&format!("src/{own}/mod.rs"), "// use crate::vault;\nuse crate::format::Id;").len()
                <= usize::from(!allowed.contains(&"format"))
        );
    }
    assert_eq!(breaches("src/source/mod.rs", "use crate::*;").len(), 1);
    assert_eq!(breaches("src/drawer/mod.rs", "").len(), 1);
}

#[test]
fn only_the_host_is_unsafe() {
    let word =
        |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe" || word == "unsafe_code");
    for (file, text) in files("src").iter().filter(|(file, _)| !file.starts_with("src/host/")) {
        let found: Vec<usize> = code(text).filter(|(_, line)| word(line)).map(|(n, _)| n).collect();
        assert!(found.is_empty(), "{file}: unsafe in lines {found:?}");
    }
}

#[test]
fn files_are_short_and_finished() {
    let mut found = Vec::new();
    for (file, text) in files("src") {
        let most = if file.starts_with("src/bin/") { 150 } else { 500 };
        let lines = text.lines().count();
        if lines > most {
            found.push(format!("{file}: {lines} lines, {most} are allowed"));
        }
    }
    let unfinished = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    for folder in ["src", "tests", "man", "scripts", "fuzz/fuzz_targets", "benches"] {
        for (file, text) in files(folder) {
            for (n, line) in text.lines().enumerate() {
                if unfinished.iter().any(|word| line.split(|c: char| !c.is_alphanumeric()).any(|part| part == *word)) {
                    found.push(format!("{file}:{}: unfinished", n + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The tools, by the files of src/bin: one for each, or a folder.
fn tools() -> Vec<String> {
    let names = files("src/bin").into_iter().map(|(file, _)| {
        let name = file.strip_prefix("src/bin/").unwrap();
        name.split('/').next().unwrap().trim_end_matches(".rs").to_owned()
    });
    let tools: BTreeSet<String> = names.collect();
    assert!(!tools.is_empty());
    tools.into_iter().collect()
}

#[test]
fn every_tool_has_a_row_in_the_readme() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap_or_default();
    let rows: BTreeSet<&str> = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let missing: Vec<String> = tools().into_iter().filter(|tool| !rows.contains(tool.as_str())).collect();
    assert!(missing.is_empty(), "no row `| `TOOL` …` in README.md for {missing:?}");
}

/// The tools lie beside the tests' folder.
fn program(tool: &str) -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join(tool)
}

/// What a tool, or one of its verbs, says with `--help`.
fn help(tool: &str, verb: Option<&str>) -> String {
    let output = Command::new(program(tool))
        .args(verb)
        .arg("--help")
        .env("COLUMNS", "120")
        .output()
        .unwrap_or_else(|error| panic!("{tool}: {error}"));
    assert!(output.status.success(), "{tool} {verb:?} --help");
    String::from_utf8(output.stdout).unwrap()
}

/// The long options in the first column.
fn options_of_help(help: &str) -> BTreeSet<String> {
    let first = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    first
        .flat_map(|line| line.split([' ', ',', '=', '[']).take(4).filter(|word| word.starts_with("--")))
        .map(str::to_owned)
        .collect()
}

/// The verbs, in the order of their list; lines that go on are indented further. Every list has a `help`.
fn verbs_of_help(help: &str) -> Vec<&str> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = list.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !["", "help"].contains(name)).collect()
}

/// The long options in some lines of a page, spelled `Fl Fl json` or `Fl -json`.
fn options_in<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in lines.filter_map(|line| line.strip_prefix('.')) {
        let words: Vec<&str> = line.split(' ').chain([""; 2]).collect();
        for three in words.windows(3).filter(|three| three[0] == "Fl") {
            let name = if three[1] == "Fl" { Some(three[2]) } else { three[1].strip_prefix('-') };
            found.extend(name.map(|name| format!("--{}", name.split(['=', '[']).next().unwrap())));
        }
    }
    found
}

/// The long options that a page has an item for.
fn options_of_page(page: &str) -> BTreeSet<String> {
    options_in(page.lines().filter(|line| line.starts_with(".It ")))
}

/// Each verb that the synopsis has a line for, and the options there.
fn verbs_of_page(page: &str) -> Vec<(&str, BTreeSet<String>)> {
    let synopsis = page.split("\n.Sh ").find_map(|section| section.strip_prefix("SYNOPSIS\n")).unwrap_or_default();
    let calls = synopsis.split(".Nm\n").filter_map(|call| call.strip_prefix(".Cm "));
    calls.map(|call| (call.lines().next().unwrap(), options_in(call.lines().skip(1)))).collect()
}

/// The options that the page's item about a verb speaks of.
fn options_of_item(page: &str, verb: &str) -> Option<BTreeSet<String>> {
    let mut lines = page.lines().skip_while(|line| *line != format!(".It Cm {verb}"));
    lines.next()?;
    Some(options_in(lines.take_while(|line| !line.starts_with(".It ") && *line != ".El")))
}

#[test]
fn every_tool_prints_its_completions() {
    for tool in tools() {
        for (shell, mark) in [("bash", "complete -F"), ("zsh", "#compdef"), ("fish", "complete -c")] {
            let output = Command::new(program(&tool)).args(["--completions", shell]).output().unwrap();
            let script = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success() && script.contains(mark) && script.contains(&tool), "{tool} {shell}");
        }
        let output = Command::new(program(&tool)).args(["--completions", "dash"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{tool}");
    }
}

#[test]
fn pages_and_help_have_the_same_options() {
    let mut found = Vec::new();
    for tool in tools() {
        let Ok(page) = std::fs::read_to_string(root().join(format!("man/{tool}.1"))) else {
            found.push(format!("{tool}: there is no man/{tool}.1"));
            continue;
        };
        let (help, page) = (options_of_help(&help(&tool, None)), options_of_page(&page));
        assert!(help.contains("--help"), "{tool}: {help:?}");
        // What every tool has need not stand on every page.
        let common = ["--help", "--version", "--completions"];
        let help_alone = help.difference(&page).filter(|option| !common.contains(&option.as_str()));
        found.extend(help_alone.map(|option| format!("man/{tool}.1 lacks {option}")));
        found.extend(page.difference(&help).map(|option| format!("{tool} --help lacks {option}")));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn pages_and_help_have_the_same_verbs_each_with_its_options() {
    let mut seen = 0;
    for tool in tools() {
        let page = std::fs::read_to_string(root().join(format!("man/{tool}.1"))).unwrap_or_default();
        let listed = help(&tool, None);
        let by_page = verbs_of_page(&page);
        assert_eq!(verbs_of_help(&listed), by_page.iter().map(|(verb, _)| *verb).collect::<Vec<_>>(), "{tool}: help, page");
        for (verb, options) in by_page {
            let mut by_help = options_of_help(&help(&tool, Some(verb)));
            assert!(by_help.remove("--help"), "{tool} {verb}: {by_help:?}");
            assert_eq!(by_help, options, "{tool} {verb}: help, SYNOPSIS of the page");
            assert_eq!(Some(by_help), options_of_item(&page, verb), "{tool} {verb}: help, item of the page");
            seen += 1;
        }
    }
    assert!(seen > 0, "zfs-snapmark has verbs");
}

#[test]
fn pages_name_every_exit_code_that_the_tools_have() {
    for tool in tools() {
        let Ok(page) = std::fs::read_to_string(root().join(format!("man/{tool}.1"))) else { continue };
        let section = page.split(".Sh EXIT STATUS").nth(1).unwrap_or_else(|| panic!("man/{tool}.1: no EXIT STATUS"));
        let codes: Vec<&str> =
            section.lines().filter_map(|line| line.strip_prefix(".It ")).filter(|code| code.len() == 1).collect();
        assert!(codes.starts_with(&["0", "1", "2"]), "man/{tool}.1: {codes:?}");
        assert!(page.contains("\n.Sh EXAMPLES\n"), "man/{tool}.1: no EXAMPLES");
    }
}

#[test]
fn nothing_names_the_machine_it_was_made_on() {
    let work = concat!("/wo", "rk/");
    for folder in ["src", "tests", "man", "scripts", "fuzz/fuzz_targets", "benches"] {
        for (file, text) in files(folder) {
            for (n, line) in text.lines().enumerate() {
                assert!(!line.contains(work), "{file}:{}: {line}", n + 1);
            }
        }
    }
}
