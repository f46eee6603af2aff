//! What holds for any bytes: the bodies of the fuzz targets in `fuzz/`, over the crate's inside.
//!
//! They exist under `cargo test` and under `--cfg fuzzing`, and nowhere else. Each takes any bytes and panics where a
//! property does not hold. They use the wire by what its floor offers and none of its parsers' insides, so that a parser
//! can be replaced under them. The committed corpus and a bounded number of mutations of it are replayed by the tests
//! below, on any toolchain.

mod chunked;
mod decoder;
mod engine;
mod form;
mod headers;
mod open_data;
mod oracle;
mod path;
mod proxy_header;
mod push;
mod request;
mod response;
mod stored;
mod token;

pub use chunked::chunked;
pub use form::form;
pub use headers::headers;
pub use open_data::open_data;
pub use path::path;
pub use proxy_header::proxy_header;
pub use push::push;
pub use request::request;
pub use response::response;
pub use stored::stored;
pub use token::token;

/// A message as one side has understood it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Message {
    /// Method and target, or the status.
    start: (Vec<u8>, Vec<u8>),
    lines: Lines,
    body: Vec<u8>,
    trailers: Lines,
    /// Whether the body was read to its end.
    whole: bool,
}

/// Names in lower case and values, sorted by name; the order of lines with one name is kept.
type Lines = Vec<(Vec<u8>, Vec<u8>)>;

fn sorted<'l>(lines: impl Iterator<Item = (&'l [u8], &'l [u8])>) -> Lines {
    let mut lines: Lines = lines
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()))
        .collect();
    lines.sort_by(|(a, _), (b, _)| a.cmp(b));
    lines
}

/// SplitMix64 (Steele, Lea, Flood 2014): cuts and mutations that are the same in every run.
struct Dice(u64);

impl Dice {
    /// Dice that depend on nothing but `data` (FNV-1a).
    fn of(data: &[u8]) -> Self {
        let hash = data.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash)
    }

    /// A number below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let number = usize::try_from((mixed ^ (mixed >> 31)) >> 33).expect("31 bits fit");
        number % limit
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// How many mutations of the corpus of each target are tried.
    const MUTATIONS: usize = 300;
    /// What mutations put in, besides any bytes.
    const WORDS: &[&[u8]] = &[
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b";",
        b",",
        b"/",
        b"..",
        b"%2e",
        b"%2F",
        b"%25",
        b"_",
        b"0\r\n\r\n",
        b"Content-Length: 1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"\xff",
    ];

    fn replay(name: &str, target: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let mut files: Vec<_> = fs::read_dir(folder.join(name))
            .expect("every target has a corpus")
            .map(|entry| entry.expect("the corpus can be read").path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "the corpus of {name} is empty");
        let corpus: Vec<_> = files
            .iter()
            .map(|file| fs::read(file).expect("the corpus can be read"))
            .collect();
        let check = |what: &str, data: &[u8]| {
            let outcome = std::panic::catch_unwind(|| target(data));
            if let Err(panic) = outcome {
                eprintln!("{name}, {what}: {}", data.escape_ascii());
                std::panic::resume_unwind(panic);
            }
        };
        for (file, data) in files.iter().zip(&corpus) {
            check(&file.display().to_string(), data);
        }
        let mut dice = Dice::of(name.as_bytes());
        for round in 0..MUTATIONS {
            let data = mutation(&corpus, &mut dice);
            check(&format!("mutation {round}"), &data);
        }
    }

    fn mutation(corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
        let mut data = corpus[dice.below(corpus.len())].clone();
        for _ in 0..=dice.below(3) {
            let at = dice.below(data.len() + 1);
            let end = at + dice.below((data.len() - at).min(16) + 1);
            let piece: Vec<u8> = match dice.below(5) {
                0 => Vec::new(),
                1 => vec![u8::try_from(dice.below(256)).expect("a byte")],
                2 => data[at..end].repeat(2),
                3 => WORDS[dice.below(WORDS.len())].to_vec(),
                _ => {
                    let other = &corpus[dice.below(corpus.len())];
                    let from = dice.below(other.len() + 1);
                    other[from..].iter().take(40).copied().collect()
                }
            };
            let end = if dice.below(2) == 0 { at } else { end };
            data.splice(at..end, piece);
        }
        data
    }

    /// A second lock file is out of date as soon as a dependency changes, and then only the fuzzers would notice.
    #[test]
    fn the_fuzzers_are_locked_to_the_same_versions() {
        let read = |path: &str| -> toml::Table {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
            let text = fs::read_to_string(path).expect("it is there");
            toml::from_str(&text).expect("it is TOML")
        };
        let packages = |path: &str| -> Vec<toml::Table> {
            let lock = read(path);
            let packages = lock["package"].as_array().expect("a list").iter();
            packages
                .map(|it| it.as_table().expect("a table").clone())
                .collect()
        };
        let (ours, theirs) = (packages("Cargo.lock"), packages("fuzz/Cargo.lock"));
        let advice =
            "cp Cargo.lock fuzz/ && cargo metadata --manifest-path fuzz/Cargo.toml >/dev/null";
        for package in theirs.iter().filter(|it| it.contains_key("source")) {
            let same_name = |it: &&toml::Table| it["name"] == package["name"];
            let known: Vec<_> = ours.iter().filter(same_name).collect();
            let same = known.iter().any(|it| it["version"] == package["version"]);
            assert!(known.is_empty() || same, "{:?}: {advice}", package["name"]);
        }
        let sidecar = theirs
            .iter()
            .find(|it| it["name"].as_str() == Some("wx-sidecar"));
        let locked = sidecar.expect("it is fuzzed")["dependencies"].as_array();
        // A version stands behind the name where there are several.
        let name = |it: &toml::Value| Some(it.as_str()?.split(' ').next()?.to_owned());
        let locked: Vec<_> = locked.expect("a list").iter().filter_map(name).collect();
        let manifest = read("Cargo.toml");
        // The fuzzers are built with what is built if nobody says otherwise.
        let features = manifest["features"].as_table().expect("a table");
        let usual = features["default"].as_array().expect("a list");
        let others = features
            .iter()
            .filter(|(name, _)| !usual.iter().any(|it| it.as_str() == Some(name)));
        let left_out: Vec<_> = others
            .flat_map(|(_, brings)| brings.as_array().expect("a list"))
            .filter_map(|it| it.as_str()?.strip_prefix("dep:"))
            .collect();
        let targets = manifest["target"].as_table().expect("a table").values();
        for wanted in targets.chain([&toml::Value::Table(manifest.clone())]) {
            let wanted = wanted["dependencies"].as_table().expect("a table");
            for name in wanted.keys().filter(|it| !left_out.contains(&it.as_str())) {
                assert!(locked.contains(name), "{name}: {advice}");
            }
        }
    }

    macro_rules! replays {
        ($($target:ident)*) => {
            $(#[test]
            fn $target() {
                replay(stringify!($target), super::$target);
            })*

            #[test]
            fn every_target_is_replayed_and_built() {
                let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
                let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("it is there");
                let built = manifest.matches("[[bin]]").count();
                assert_eq!(built, [$(stringify!($target)),*].len());
                $(
                    let path = concat!("fuzz_targets/", stringify!($target), ".rs");
                    assert!(manifest.contains(path) && root.join(path).exists(), "{path}");
                )*
            }
        };
    }

    replays! { chunked form headers open_data path proxy_header push request response stored token }
}
