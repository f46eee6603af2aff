//! Nothing secret is in any output: reads all that the integration tests left in `target/test-output` and looks for every
//! secret value that a test got hold of (`canary` in `rig.rs`): AppSecrets, login codes, tokens, session keys.
//!
//! A test binary of its own, because it has to run after the other: cargo runs test targets in the order of their
//! names. A check that finds nothing because there is nothing to read would be no check, so that fails too.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What to do when there is too little to read.
const ADVICE: &str =
    "run the other tests first: cargo test --test integration (or all of them: cargo test)";

/// Values shorter than this are found anywhere by chance, and no test should list one.
const SHORTEST: usize = 12;

/// Outputs of the test run that list what is to be looked for.
const LISTS: [&str; 2] = ["canaries", "openids"];

#[test]
fn no_output_of_the_test_run_holds_a_secret() {
    let directory = output_directory();
    let listed = fs::read_to_string(directory.join("canaries"))
        .unwrap_or_else(|error| panic!("no list of secret values ({error}); {ADVICE}"));
    let canaries = Canaries::new(listed.lines());
    canaries.assert_kinds();

    let mut outputs: Vec<PathBuf> = fs::read_dir(&directory)
        .expect("the directory that held the list")
        .map(|entry| entry.expect("an entry of the directory").path())
        .filter(|path| path.is_file() && !LISTS.contains(&name(path)))
        .collect();
    outputs.sort();
    let mut found = Vec::new();
    for path in &outputs {
        let bytes = fs::read(path).expect("an output can be read");
        assert_has_said_something(path, &bytes);
        for (canary, at) in canaries.search(&bytes) {
            found.push(format!("{}: {} at byte {at}", name(path), masked(canary)));
        }
    }
    for needed in ["in-process.log", "error-bodies.log", "metrics.log"] {
        assert!(
            outputs.iter().any(|path| name(path) == needed),
            "no {needed}; {ADVICE}"
        );
    }
    assert!(
        outputs.iter().any(|path| name(path).ends_with(".stdout")),
        "no output of an app; {ADVICE}"
    );
    assert!(
        found.is_empty(),
        "secrets in outputs:\n{}",
        found.join("\n")
    );
}

/// Answers and requests name users, for that is what the sidecar is for. Its log does not: there they have pseudonyms.
#[test]
fn no_line_of_the_log_names_a_user() {
    let directory = output_directory();
    let read = |name: &str| {
        let text = fs::read(directory.join(name));
        text.unwrap_or_else(|error| panic!("no {name} ({error}); {ADVICE}"))
    };
    let listed = String::from_utf8(read("openids")).expect("openids are ASCII");
    let openids = Canaries::new(listed.lines());
    assert!(!openids.listed.is_empty(), "no openid is listed; {ADVICE}");
    let log = read("in-process.log");
    let lines = log.split(|&b| b == b'\n');
    let found = lines.filter(|line| openids.search(line).next().is_some());
    let found: Vec<_> = found.map(String::from_utf8_lossy).take(10).collect();
    assert!(found.is_empty(), "users in the log: {found:#?}");
}

/// The outputs that prove that logging, error answers and metrics were watched at all.
fn assert_has_said_something(path: &Path, bytes: &[u8]) {
    let needed: &[&str] = match name(path) {
        "in-process.log" => &[
            "\"level\":\"INFO\"",
            "\"level\":\"DEBUG\"",
            "request_id",
            "\"target\":\"access\"",
        ],
        "error-bodies.log" => &["urn:wx-sidecar:problem:token-invalid", "errcode"],
        "metrics.log" => &["wx_sidecar_login_total"],
        _ => return,
    };
    let text = String::from_utf8_lossy(bytes);
    for needed in needed {
        assert!(
            text.contains(needed),
            "{} has no {needed}; {ADVICE}",
            name(path)
        );
    }
}

/// Secret values, found in a text in one pass: by their last eight bytes, because tokens begin alike.
struct Canaries<'a> {
    by_end: HashMap<[u8; 8], Vec<Vec<u8>>>,
    listed: Vec<&'a str>,
    /// Says for a hash of eight bytes that no value ends in them, which is nearly always so.
    maybe: Vec<bool>,
}

impl<'a> Canaries<'a> {
    fn new(lines: impl Iterator<Item = &'a str>) -> Self {
        let mut listed: Vec<_> = lines.filter(|line| line.len() >= SHORTEST).collect();
        listed.sort_unstable();
        listed.dedup();
        let mut canaries = Self {
            by_end: HashMap::new(),
            listed,
            maybe: vec![false; 1 << 16],
        };
        let forms: Vec<_> = canaries
            .listed
            .iter()
            .flat_map(|value| forms(value))
            .collect();
        for form in forms {
            let end = *form.last_chunk().expect("longer than eight bytes");
            canaries.maybe[hash(end)] = true;
            canaries.by_end.entry(end).or_default().push(form);
        }
        canaries
    }

    /// Of each kind there must be some, or a kind has ceased to be listed.
    fn assert_kinds(&self) {
        let some = |what: &str, is: &dyn Fn(&str) -> bool| {
            assert!(
                self.listed.iter().any(|value| is(value)),
                "no {what} is listed; {ADVICE}"
            );
        };
        some("access token", &|value| value.starts_with("wxat_"));
        some("refresh token", &|value| value.starts_with("wxrt_"));
        some("session key", &|value| {
            value.len() == 24 && value.ends_with("==")
        });
        some("AppSecret", &|value| {
            value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit())
        });
        some("login code", &|value| {
            value.len() == 32 && value.bytes().any(|b| b.is_ascii_uppercase())
        });
    }

    /// All occurrences: the value, and where it ends.
    fn search<'s>(&'s self, text: &'s [u8]) -> impl Iterator<Item = (&'s [u8], usize)> {
        text.windows(8).enumerate().filter_map(move |(at, window)| {
            let end = *window.first_chunk().expect("a window of eight");
            let candidates = self.maybe[hash(end)]
                .then(|| self.by_end.get(&end))
                .flatten()?;
            let before = &text[..at + 8];
            let value = candidates.iter().find(|value| before.ends_with(value))?;
            Some((value.as_slice(), at + 8))
        })
    }
}

/// A value as it is, and as a URL, or a log of the bytes that it encodes, would show it.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let percent_encoded: String = value
        .bytes()
        .map(|b| match b {
            b'+' | b'/' | b'=' | b'|' => format!("%{b:02X}"),
            _ => char::from(b).to_string(),
        })
        .collect();
    let url_safe = value
        .trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_");
    let mut forms = vec![value.to_owned(), percent_encoded, url_safe];
    if let Ok(bytes) = STANDARD.decode(value)
        && bytes.len() == 16
    {
        let list = format!("{bytes:?}");
        forms.push(list[1..list.len() - 1].to_owned());
        forms.push(bytes.iter().map(|b| format!("{b:02x}")).collect());
    }
    forms.sort();
    forms.dedup();
    forms.into_iter().map(String::into_bytes).collect()
}

fn hash(bytes: [u8; 8]) -> usize {
    let mixed = u64::from_le_bytes(bytes).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    usize::try_from(mixed >> 48).expect("sixteen bits")
}

/// Enough to know which it is.
fn masked(value: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&value[..6]);
    format!("{shown}... ({} characters)", value.len())
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

/// As in `rig.rs`.
fn output_directory() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let target = target
        .parent()
        .expect("cargo's directory for tests lies in target");
    target.join("test-output")
}

#[test]
fn a_value_is_found_in_each_of_its_forms() {
    let canaries =
        Canaries::new(["wxat_abcdefghijkl", "a+b/cdefghijklmnopqrsQ==", "short"].into_iter());
    let found = |text: &str| canaries.search(text.as_bytes()).count();
    assert_eq!(found("Bearer wxat_abcdefghijkl, wxat_abcdefghijkl."), 2);
    assert_eq!(found("key=a%2Bb%2FcdefghijklmnopqrsQ%3D%3D"), 1);
    assert_eq!(found("key=a-b_cdefghijklmnopqrsQ"), 1);
    assert_eq!(found("key=6be6ff71d79f8218a39259a7a29aabb1"), 1);
    assert_eq!(
        found(
            "SessionKey([107, 230, 255, 113, 215, 159, 130, 24, 163, 146, 89, 167, 162, 154, 171, 177])"
        ),
        1
    );
    assert_eq!(found("wxat_abcdefghijk and bcdefghijkl, short"), 0);
}
