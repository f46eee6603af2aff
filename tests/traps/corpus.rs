//! The text form of the catalogue: cases with what is sent, byte for byte, and what must come of it.
//!
//! A file is a few words (lines that begin with `#`) and cases. A case is a line `== ROW/NUMBER what it is`, its outcome as
//! `key: value` lines, a line `--`, and what is sent. There the ends of the lines of the file count for nothing and every
//! byte is visible: `\r`, `\n`, `\t`, `\\`, `\xHH`; a tilde at an end keeps the space before it from editors. A line that
//! begins with `@` is a step:
//!
//! - `@repeat COUNT text`: so often, with `{n}` counted from 0
//! - `@await`: go on only when something has come from the other side
//! - `@fin`: nothing more will be sent; `@reset`: the connection is gone
//!
//! The keys are those of whoever runs the cases; each may come several times.

use std::fs;
use std::path::Path;

/// Something to be done to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Send(Vec<u8>),
    Await,
    Fin,
    Reset,
}

/// One entry of the catalogue.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// Its row in the lists of faults and traps, and a number.
    pub(super) id: String,
    /// What it is.
    pub(super) title: String,
    outcome: Vec<(String, String)>,
    pub(super) steps: Vec<Step>,
}

impl Case {
    /// The value of a key that comes once.
    pub(super) fn only(&self, key: &'static str) -> Option<&str> {
        let values: Vec<_> = self.all(key).collect();
        assert!(values.len() < 2, "{}: {key} comes several times", self.id);
        values.first().copied()
    }

    /// The values of a key.
    pub(super) fn all(&self, key: &'static str) -> impl Iterator<Item = &str> {
        let same = move |(known, _): &&(String, String)| known == key;
        self.outcome
            .iter()
            .filter(same)
            .map(|(_, value)| value.as_str())
    }

    /// A case's keys, for whoever knows which there are.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.outcome.iter().map(|(key, _)| key.as_str())
    }

    /// How many bytes are sent.
    pub(super) fn size(&self) -> usize {
        let size = |step: &Step| match step {
            Step::Send(bytes) => bytes.len(),
            Step::Await | Step::Fin | Step::Reset => 0,
        };
        self.steps.iter().map(size).sum()
    }
}

/// All cases in a folder of `tests/traps`, in the order of the files' names.
pub(super) fn read(folder: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/traps")
        .join(folder);
    let entries = fs::read_dir(&folder).expect("the catalogue is there");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("a folder that can be read").path())
        .collect();
    paths.sort();
    let mut cases: Vec<Case> = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("the catalogue is text");
        let name = path.file_name().expect("a file").to_string_lossy();
        cases.extend(parse(&text, &name));
    }
    for (index, case) in cases.iter().enumerate() {
        let again = cases[..index].iter().any(|other| other.id == case.id);
        assert!(!again, "{} is there twice", case.id);
    }
    cases
}

fn parse(text: &str, file: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut in_outcome = false;
    for (number, line) in text.lines().enumerate() {
        let place = format!("{file}:{}", number + 1);
        if let Some(heading) = line.strip_prefix("== ") {
            let (id, title) = heading.split_once(' ').unwrap_or((heading, ""));
            cases.push(Case {
                id: id.to_owned(),
                title: title.to_owned(),
                outcome: Vec::new(),
                steps: Vec::new(),
            });
            in_outcome = true;
            continue;
        }
        let Some(case) = cases.last_mut() else {
            assert!(line.is_empty() || line.starts_with('#'), "{place}: {line}");
            continue;
        };
        if !in_outcome {
            read_step(line, &place, &mut case.steps);
        } else if line == "--" {
            in_outcome = false;
        } else if let Some((key, value)) = line.split_once(':') {
            case.outcome.push((key.to_owned(), value.trim().to_owned()));
        } else {
            assert!(line.is_empty() || line.starts_with('#'), "{place}: {line}");
        }
    }
    assert!(!cases.is_empty(), "{file} has no case");
    cases
}

fn read_step(line: &str, place: &str, steps: &mut Vec<Step>) {
    let line = line.strip_suffix('~').unwrap_or(line);
    let bytes = match line {
        "@await" => return steps.push(Step::Await),
        "@fin" => return steps.push(Step::Fin),
        "@reset" => return steps.push(Step::Reset),
        _ => match line.strip_prefix("@repeat ") {
            Some(rest) => {
                let (count, text) = rest.split_once(' ').expect("@repeat COUNT text");
                let count: usize = count.parse().expect("a count");
                (0..count)
                    .flat_map(|n| unescape(&text.replace("{n}", &n.to_string()), place))
                    .collect()
            }
            None => {
                assert!(!line.starts_with('@'), "{place}: no such step");
                unescape(line, place)
            }
        },
    };
    match steps.last_mut() {
        _ if bytes.is_empty() => {}
        Some(Step::Send(last)) => last.extend_from_slice(&bytes),
        _ => steps.push(Step::Send(bytes)),
    }
}

/// The bytes that a text of the catalogue stands for.
pub(super) fn unescape(text: &str, place: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let (byte, length) = match rest.as_bytes().get(at + 1) {
            Some(b'r') => (b'\r', 2),
            Some(b'n') => (b'\n', 2),
            Some(b't') => (b'\t', 2),
            Some(b'\\') => (b'\\', 2),
            Some(b'x') => {
                let digits = rest.get(at + 2..at + 4).expect("two digits after \\x");
                (u8::from_str_radix(digits, 16).expect("two digits"), 4)
            }
            _ => panic!("{place}: no such escape: {rest}"),
        };
        out.push(byte);
        rest = &rest[at + length..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}
