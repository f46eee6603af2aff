//! Where a configuration comes from: a file, or a text at hand.
//!
//! The same steps serve the start, a reload and `check`: text, tree, raw, [`Config`]. Faults of syntax do not end the
//! reading, as toml goes on behind them; what is then told about the rest is what holds whatever the broken line was meant
//! to be.

use std::collections::BTreeSet;
use std::path::Path;

use toml::de::DeTable;

use super::Config;
use super::check::check;
use super::diagnostic::{Fault, Report, Sink};
use super::effective::Effective;
use super::files::{Files, Inputs};
use super::mask::Mask;
use super::pod::{self, Pod};
use super::raw;

/// How often a configuration is read again because its files changed meanwhile.
const MOST_LOOKS: usize = 20;

/// A configuration that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What should be looked at all the same.
    pub warnings: Report,
    /// What it was made of.
    pub inputs: Inputs,
    /// What each key is, and why.
    pub effective: Effective,
}

/// What came of reading a configuration, and what was read.
pub(crate) struct Attempt {
    pub(crate) outcome: Result<Loaded, Report>,
    pub(crate) inputs: Inputs,
}

/// Where a configuration is used.
struct Place<'a> {
    /// What the names of files are relative to.
    directory: &'a Path,
    env: raw::Env<'a>,
    unset: raw::Unset<'a>,
    files: &'a Files,
    /// The pod, if it is there and not here.
    pod: Option<&'a Pod>,
}

/// What came of a text.
struct Examined {
    /// `None` if it has faults, or depends on what is not here.
    config: Option<Config>,
    effective: Effective,
    report: Report,
}

impl Config {
    /// Reads and checks a file. Secret files are relative to its directory, `${NAME}` is the process's environment.
    /// All that is wrong comes in one report.
    pub fn load(path: &Path) -> Result<Loaded, Report> {
        Self::attempt(path, &Inputs::default()).outcome
    }

    /// As [`Config::load`]; what was read is known also if it cannot be used. All files were there as they are at one
    /// moment: if one changes while others are read, as when Kubernetes swaps a volume, all are read again. `before` is
    /// what the last one was made of, whose streams have given all they had.
    pub(crate) fn attempt(path: &Path, before: &Inputs) -> Attempt {
        let name = path.display().to_string();
        look_until_all_agree(before, |files| {
            let bytes = files.main(path);
            let bytes = bytes.map_err(|fault| Report::whole_file(&name, fault))?;
            Self::read(&bytes, &name, path.parent(), files)
        })
    }

    /// As [`Config::attempt`], of a text that is in no file. Secret files are relative to the working directory.
    pub(crate) fn attempt_text(bytes: &[u8], name: &str, before: &Inputs) -> Attempt {
        look_until_all_agree(before, |files| Self::read(bytes, name, None, files))
    }

    fn read(
        bytes: &[u8],
        name: &str,
        directory: Option<&Path>,
        files: &Files,
    ) -> Result<Loaded, Report> {
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let offset = e.valid_up_to();
            let fault = Fault::new(format!(
                "this file is not UTF-8 text: the byte at offset {offset} (counted from 0) cannot stand there"
            ));
            Report::whole_file(name, fault)
        })?;
        Self::parse_in(text, name, directory, &environment, files)
    }

    /// All there is to say of a text that is to be used in a pod: what is wrong wherever it is used, and what is wrong
    /// there. What only the pod has is not judged.
    pub(crate) fn judge_in_pod(text: &str, file_name: &str, pod: &Pod) -> Report {
        let place = Place {
            directory: &pod.directory,
            env: &|name| pod.variable(name),
            unset: &|name| pod.unset(name),
            files: &Files::of(pod),
            pod: Some(pod),
        };
        Self::examine(text, file_name, &place).report
    }

    /// Checks a text. `file_name` is what reports call it, and its directory is where secret files are relative to;
    /// `env` is what `${NAME}` reads.
    pub fn parse(
        text: &str,
        file_name: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Loaded, Report> {
        let directory = Path::new(file_name).parent();
        Self::parse_in(text, file_name, directory, env, &Files::default())
    }

    /// Checks a text with the process's environment, for embedding. Secret files are relative to the working directory;
    /// warnings are dropped.
    pub fn from_toml(text: &str) -> Result<Self, Report> {
        Self::parse(text, "sidecar.toml", &environment).map(|loaded| loaded.config)
    }

    /// Whose configuration a text is, also if it is not valid, as far as that can be told.
    pub(crate) fn appid_in(bytes: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(bytes).ok()?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (root, _) = DeTable::parse_recoverable(text);
        let app = root.get_ref().get("app")?.get_ref().as_table()?;
        let mut appid = String::new();
        for piece in raw::pieces(app.get("appid")?.get_ref().as_str()?) {
            match piece {
                raw::Piece::Plain(text) => appid.push_str(text),
                raw::Piece::Escape => appid.push_str("${"),
                raw::Piece::Variable { name, .. } => appid.push_str(&environment(name)?),
            }
        }
        Some(appid)
    }

    fn parse_in(
        text: &str,
        file_name: &str,
        directory: Option<&Path>,
        env: raw::Env<'_>,
        files: &Files,
    ) -> Result<Loaded, Report> {
        let place = Place {
            directory: directory.unwrap_or(Path::new("")),
            env,
            unset: &unset,
            files,
            pod: None,
        };
        let Examined {
            config,
            effective,
            report,
        } = Self::examine(text, file_name, &place);
        match config {
            Some(config) if !report.has_errors() => Ok(Loaded {
                effective: effective.with_workers(config.inbound.workers),
                config,
                warnings: report,
                inputs: files.inputs(),
            }),
            _ => Err(report),
        }
    }

    fn examine(text: &str, file_name: &str, place: &Place<'_>) -> Examined {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (root, faults) = DeTable::parse_recoverable(text);
        let root = root.into_inner();
        let mask = if faults.is_empty() {
            Mask::of_table(text, &root)
        } else {
            Mask::of_lines(text)
        };
        let mut sink = Sink::default();
        let lines = LineStarts::of(text);
        let broken = report_syntax(text, &lines, &faults, &mut sink);
        let syntax = std::mem::take(&mut sink.diagnostics);
        let effective = Effective::of(file_name, &lines, &root, place.env);
        let raw = raw::read(text, root, place.env, place.unset, &mut sink);
        let config = check(&raw, place.directory, place.files, &mut sink);
        if let Some(pod) = place.pod {
            pod::judge(&raw, pod, &mut sink);
        }
        sink.diagnostics.retain(|d| match &d.span {
            Some(span) => broken.leaves(lines.number(span.start)),
            None => true,
        });
        sink.diagnostics.extend(syntax);
        Examined {
            config,
            effective,
            report: Report::new(file_name, text, &mask, sink.diagnostics),
        }
    }
}

/// Reads until all that was read was there at one moment, or often enough.
fn look_until_all_agree(
    before: &Inputs,
    look: impl Fn(&Files) -> Result<Loaded, Report>,
) -> Attempt {
    let mut files = Files::knowing(before);
    let mut looks = 0;
    loop {
        looks += 1;
        let outcome = look(&files);
        let inputs = files.inputs();
        if looks == MOST_LOOKS || inputs.are_as_they_were() {
            return Attempt { outcome, inputs };
        }
        files = Files::knowing(&inputs);
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn unset(name: &str) -> Fault {
    Fault::new(format!("the environment variable `{name}` is not set")).help(format!(
        "start the sidecar with `{name}` in its environment"
    ))
}

/// What of a file cannot be judged because of faults of syntax.
struct Broken {
    /// The lines with a fault; each is told of once.
    lines: BTreeSet<usize>,
    /// The first broken section header: nobody knows what section the keys below it are in.
    header: Option<usize>,
}

impl Broken {
    fn leaves(&self, line: usize) -> bool {
        !self.lines.contains(&line) && self.header.is_none_or(|header| line < header)
    }
}

/// Reports what toml could not read, one fault a line.
fn report_syntax(
    text: &str,
    lines: &LineStarts,
    faults: &[toml::de::Error],
    sink: &mut Sink,
) -> Broken {
    let mut broken = Broken {
        lines: BTreeSet::new(),
        header: None,
    };
    for fault in faults {
        let span = fault.span().unwrap_or(0..0);
        let line = lines.number(span.start);
        if !broken.lines.insert(line) {
            continue;
        }
        let is_header = text[lines.start(line)..].trim_start().starts_with('[');
        let message = fault.message();
        let unquoted = message.starts_with("string values must be quoted");
        let twice = message == "duplicate key";
        // toml keeps one of two keys and all of an unquoted value; anything else may have taken more with it.
        sink.partial |= is_header || !(unquoted || twice);
        if is_header && !twice {
            broken.header = broken.header.or(Some(line));
        }
        let fault = match message {
            _ if twice => Fault::new("this stands in the file twice").help("keep one of the two"),
            _ if unquoted => {
                Fault::new("this value needs quotes").help("write it like timeout = \"30s\"")
            }
            _ => Fault::new(format!("this is not TOML: {message}")),
        };
        sink.error(Some(span), fault);
    }
    broken
}

/// Finds lines fast: a file may be nothing but mistakes.
pub(super) struct LineStarts(Vec<usize>);

impl LineStarts {
    fn of(text: &str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(i, _)| i + 1);
        Self(std::iter::once(0).chain(after_newlines).collect())
    }

    /// The number of a line, from 0.
    pub(super) fn number(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset) - 1
    }

    fn start(&self, line: usize) -> usize {
        self.0[line]
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::super::files::FILE_LIMIT;
    use super::super::raw::{Kind, SECTIONS};
    use super::super::reference::{self, KeyEntry, Usual};
    use super::super::{TextCheck, Verdict};
    use super::*;
    use crate::clock::Timestamp;
    use crate::wechat::content_check::Scene;

    const SECRET: &str = "5ec3e75ec3e75ec3e75ec3e75ec3e75e";

    fn env(name: &str) -> Option<String> {
        match name {
            "WX_APP_SECRET" => Some(SECRET.to_owned()),
            "UPSTREAM" => Some("http://from-env:3000/hidden".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn parse(text: &str) -> Result<Loaded, Report> {
        Config::parse(text, "sidecar.toml", &env)
    }

    /// The smallest useful file, with more lines in `[app]`, in `[inbound]` and at its end.
    fn good(app: &str, inbound: &str, rest: &str) -> String {
        let secret = match app.contains("secret") {
            true => "",
            false => "secret = \"${WX_APP_SECRET}\"",
        };
        let upstream = match inbound.contains("upstream") {
            true => "",
            false => "upstream = \"http://127.0.0.1:3000\"",
        };
        format!(
            "[app]\n{app}\n{secret}\nappid = \"wx0123456789abcdef\"\n[inbound]\n{inbound}\n{upstream}\n{rest}\n"
        )
    }

    fn report(text: &str) -> Report {
        match parse(text) {
            Ok(_) => panic!("this should have been refused:\n{text}"),
            Err(report) => report,
        }
    }

    fn loaded(text: &str) -> Loaded {
        parse(text).unwrap_or_else(|report| panic!("{report}"))
    }

    fn lines(report: &Report) -> Vec<String> {
        report
            .diagnostics()
            .map(|(d, at)| {
                let at = at.map_or("-".to_owned(), |p| format!("{}:{}", p.line, p.column));
                let help = d.help.as_deref().unwrap_or("");
                format!("{at} {}: {} | {help}", d.level.name(), d.message)
            })
            .collect()
    }

    /// The one diagnostic of a text that has one mistake.
    fn only(text: &str) -> String {
        let report = report(text);
        let mut lines = lines(&report);
        assert_eq!(lines.len(), 1, "{report}");
        lines.remove(0)
    }

    /// The one error of a text that may have warnings too.
    fn only_error(text: &str) -> String {
        let mut lines = lines(&report(text));
        lines.retain(|line| line.contains(" error: "));
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }

    #[test]
    fn the_smallest_useful_file_has_the_documented_defaults() {
        let config = loaded(&good("", "", "")).config;
        assert_eq!(config.inbound.listen.to_string(), "0.0.0.0:8080");
        assert_eq!(config.inbound.prefix, "/wx");
        assert_eq!(config.inbound.body_limit, 10 << 20);
        assert_eq!(config.inbound.max_connections, 10_000);
        assert!(config.inbound.workers >= 1);
        assert_eq!(config.session.refresh_ttl.as_secs(), 30 * 24 * 60 * 60);
        assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9901");
        assert_eq!(config.wechat.endpoints[0].host, "api.weixin.qq.com");
        assert_eq!(config.app.secrets[0].expose(), SECRET);
        assert!(config.routes.is_empty());
    }

    #[test]
    fn whose_a_text_is_can_be_told_without_its_being_valid() {
        let appid = |text: &str| Config::appid_in(text.as_bytes());
        let broken = "[app]\nappid = \"wx1\"\n[inbound]\nupstream = \n";
        assert_eq!(appid(broken).as_deref(), Some("wx1"));
        assert_eq!(appid("app.appid = \"${NO_SUCH_VARIABLE_HERE}\""), None);
        assert_eq!(appid("app = 1"), None);
        assert_eq!(Config::appid_in(&[0xff]), None);
    }

    #[test]
    fn the_reference_file_says_the_defaults() {
        let reference = loaded(reference::TEXT);
        assert!(reference.warnings.is_empty(), "{}", reference.warnings);
        assert_eq!(reference.config, loaded(&good("", "", "")).config);
    }

    /// Those too that stand there as comments.
    #[test]
    fn a_default_that_is_written_changes_nothing() {
        let (_files, tls) = tls_section();
        let sections = [
            ("route", "path = \"/a\""),
            ("route.text_check", "field = \"a\"\nscene = 1"),
            ("push", "token = \"abc\"\nmode = \"plaintext\""),
            ("store", "kind = \"redis\"\nurl = \"redis://a\""),
            ("media", "cache_dir = \"/c\""),
            ("inbound.tls", tls.as_str()),
        ];
        let redis = cfg!(feature = "redis");
        let sections = sections
            .into_iter()
            .filter(|(name, _)| redis || *name != "store");
        let mut shortest = good("", "", "");
        let mut longest = shortest.clone();
        let mut told = BTreeSet::new();
        for (name, required) in sections {
            let entry = reference::REFERENCE.section(name).unwrap();
            let header = entry.section.header();
            shortest += &format!("{header}\n{required}\n");
            longest += &format!("{header}\n{required}\n");
            for key in &entry.keys {
                let start = format!("{} = ", key.key.name);
                if let Usual::Value(value) = key.usual
                    && !required.lines().any(|line| line.starts_with(&start))
                {
                    longest += &format!("{start}{value}\n");
                    told.insert((name, key.key.name));
                }
            }
        }
        // Two that were read at different times count as different.
        let config = |text: &str| {
            let mut config = loaded(text).config;
            let tls = config.inbound.tls.take();
            (config, tls.map(|tls| tls.handshake_timeout))
        };
        assert_eq!(config(&longest), config(&shortest));
        for key in [
            ("push", "max_waiting"),
            ("route", "open_data"),
            ("media", "cache_size"),
            ("inbound.tls", "handshake_timeout"),
        ] {
            assert!(told.contains(&key), "{told:?}");
        }
        let optional = reference::REFERENCE.sections.iter().filter(|s| s.optional);
        for section in optional {
            let has_default = |key: &KeyEntry| matches!(key.usual, Usual::Value(_));
            let name = section.section.name;
            let is_here = told.iter().any(|(section, _)| *section == name);
            assert!(is_here || !section.keys.iter().any(has_default), "{name}");
        }
    }

    #[test]
    fn every_key_of_the_table_is_read() {
        for section in SECTIONS {
            for key in section.keys {
                // A date fits no key, so a key that is read at all is one of the wrong type.
                let header = match section.repeated {
                    true => format!("[[{}]]", section.name),
                    false => format!("[{}]", section.name),
                };
                // What stands in a repeated section stands in one of them.
                let around = section
                    .name
                    .strip_prefix("route.")
                    .map_or("", |_| "[[route]]");
                let text = format!("{around}\n{header}\n{} = 2020-01-01\n", key.name);
                let expected = format!("3:{} error: `{}` takes", key.name.len() + 4, key.name);
                let report = report(&text);
                let lines = lines(&report);
                assert!(lines.iter().any(|l| l.starts_with(&expected)), "{report}");
                assert!(key.kind != Kind::Flag || report.to_string().contains("true or false"));
            }
        }
    }

    /// The lines of a good `[inbound.tls]`, and the directory that its files are in.
    fn tls_section() -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let write = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            path.display().to_string()
        };
        let cert = write("cert", pair.cert.pem());
        let key = write("key", pair.signing_key.serialize_pem());
        let lines = format!("cert_file = \"{cert}\"\nkey_file = \"{key}\"");
        (directory, lines)
    }

    #[test]
    fn what_of_a_chain_is_not_good_now_is_warned_of_to_the_second() {
        const YEAR_2024: u64 = 1_704_067_200;
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().display().to_string();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = |from, until| {
            let mut params = rcgen::CertificateParams::new(["a".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
            params.self_signed(&key).unwrap().pem()
        };
        let key_file = directory.path().join("key");
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        std::fs::set_permissions(key_file, Permissions::from_mode(0o600)).unwrap();
        let warned = |chain: &[String]| {
            std::fs::write(directory.path().join("cert"), chain.concat()).unwrap();
            let tls = format!("[inbound.tls]\ncert_file = \"{at}/cert\"\nkey_file = \"{at}/key\"");
            let loaded = loaded(&good("", "", &tls));
            (loaded.config.inbound.tls.unwrap(), lines(&loaded.warnings))
        };
        let (good, expired, early) = (
            certificate(2001, 2090),
            certificate(2001, 2024),
            certificate(2090, 2091),
        );
        assert!(warned(&[good.clone(), good.clone()]).1.is_empty());
        let (tls, warnings) = warned(&[expired.clone(), good.clone()]);
        let said = "warning: the certificate expired at 2024-01-01T00:00:00Z";
        assert!(
            warnings.len() == 1 && warnings[0].contains(said),
            "{warnings:?}"
        );
        assert!(!warnings[0].starts_with('-'), "{warnings:?}");
        assert_eq!(tls.expires(), Some(YEAR_2024 as i64));
        let then = |seconds: u64| tls.out_of_date(Timestamp::from_millis(seconds * 1_000));
        assert_eq!(then(YEAR_2024), None);
        assert!(then(YEAR_2024 + 1).is_some());

        let (_, warnings) = warned(&[good.clone(), early]);
        let said = "certificate 2 of the chain is not valid before 2090-01-01T00:00:00Z";
        assert!(warnings[0].contains(said), "{warnings:?}");
        let (_, warnings) = warned(&[good, expired]);
        let said = "certificate 2 of the chain expired at 2024-01-01T00:00:00Z";
        assert!(warnings[0].contains(said), "{warnings:?}");
    }

    #[test]
    fn each_mistake_of_a_tls_section_has_its_message_and_place() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().display().to_string();
        let pair = |name: &str| {
            let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            std::fs::write(directory.path().join(name), pair.cert.pem()).unwrap();
            let key = directory.path().join(format!("{name}.key"));
            std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
            std::fs::set_permissions(key, Permissions::from_mode(0o600)).unwrap();
        };
        pair("a");
        pair("b");
        let write = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).unwrap();
        };
        write("empty", "");
        write(
            "broken",
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        );
        write(
            "locked",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        );
        let section = |cert: &str, key: &str, more: &str| {
            let tls = format!(
                "[inbound.tls]\ncert_file = \"{at}/{cert}\"\nkey_file = \"{at}/{key}\"\n{more}"
            );
            good("", "", &tls)
        };
        let tls = loaded(&section("a", "a.key", ""))
            .config
            .inbound
            .tls
            .unwrap();
        assert_eq!(tls.handshake_timeout.as_secs(), 10);
        for (cert, key, more, expected) in [
            (
                "a",
                "b.key",
                "",
                "this key is not that of the first certificate",
            ),
            ("none", "a.key", "", "does not exist"),
            ("empty", "a.key", "", "has no certificate"),
            ("a.key", "a.key", "", "has no certificate"),
            ("broken", "a.key", "", "not PEM"),
            ("a", "a", "", "has no private key"),
            ("a", "locked", "", "is encrypted"),
            (
                "a",
                "a.key",
                "client_ca_file = \"nowhere\"",
                "`nowhere` does not exist",
            ),
            (
                "a",
                "a.key",
                "client_ca_file = \"\"",
                "the name of the file is missing",
            ),
            ("a", "a.key", "handshake_timeout = \"0s\"", "more than zero"),
        ] {
            let report = report(&section(cert, key, more));
            let found = lines(&report);
            let line = found.iter().find(|l| l.contains(" error: "));
            assert!(
                line.is_some_and(|l| l.contains(expected) && !l.starts_with('-')),
                "{report}"
            );
        }
        for (tls, expected) in [
            ("[inbound.tls]", "`[inbound.tls] cert_file` is missing"),
            ("[inbound.tls]\ncertfile = 1", "did you mean `cert_file`?"),
            ("[inbound]\ntls = true", "write `[inbound.tls]`"),
            ("[tls]\ncert_file = \"a\"", "unknown section `tls`"),
        ] {
            let text = match tls.strip_prefix("[inbound]\n") {
                Some(line) => good("", line, ""),
                None => good("", "", tls),
            };
            let report = report(&text);
            assert!(
                lines(&report).iter().any(|l| l.contains(expected)),
                "{report}"
            );
        }
    }

    #[test]
    fn an_empty_file_lists_what_is_missing() {
        for text in ["", "\u{feff}", "# nothing\r\n"] {
            let lines = lines(&report(text));
            let messages: Vec<&str> = lines
                .iter()
                .map(|l| l.split(" | ").next().unwrap())
                .collect();
            assert_eq!(
                messages,
                [
                    "- error: `[app] appid` is missing",
                    "- error: `[app] secret` is missing",
                    "- error: `[inbound] upstream` is missing",
                ]
            );
        }
    }

    #[test]
    fn several_mistakes_come_in_one_report_at_their_places() {
        let text = "[app]\nappid = \"gh1\"\n\n[inbound]\nupstrem = \"http://app:3000\"\ntimeout = 30\nauth = \"requierd\"\n\n[lgo]\nlevel = 1\n";
        assert_eq!(
            lines(&report(text)),
            [
                "1:1 error: `[app] secret` is missing | write secret = \"${WX_APP_SECRET}\" or secret_file = \"/path\" below `[app]`",
                "2:9 error: an appid begins with `wx` | it is shown at mp.weixin.qq.com, under 开发管理, as AppID(小程序ID)",
                "4:1 error: `[inbound] upstream` is missing | write upstream = \"http://127.0.0.1:3000\" below `[inbound]`, with your app's port",
                "5:1 error: unknown key `upstrem` in `[inbound]` | did you mean `upstream`?",
                "6:11 error: `timeout` takes a duration, which is a string with a unit, and this is a number | write \"30s\"",
                "7:8 error: this is not one of the words that can stand here | did you mean \"required\"?",
                "9:2 error: unknown section `lgo` | did you mean `log`?",
            ]
        );
    }

    #[test]
    fn each_mistake_has_its_message() {
        for (app, inbound, rest, expected) in [
            (
                "",
                "colour = 1",
                "",
                "unknown key `colour` in `[inbound]` | there is `listen`",
            ),
            ("", "level = \"info\"", "", "`level` belongs in `[log]`"),
            ("", "timeout = \"30\"", "", "write \"30s\""),
            ("", "body_limit = 10", "", "write \"10B\""),
            (
                "",
                "workers = \"4\"",
                "",
                "write a number from 1 to 256 without quotes",
            ),
            ("", "workers = 0", "", "this must be from 1 to 256"),
            ("", "workers = 1.5", "", "takes a whole number or \"auto\""),
            (
                "",
                "max_connections = 99999999999999999999",
                "",
                "takes a whole number",
            ),
            (
                "",
                "trusted_proxies = \"10.0.0.0/8\"",
                "",
                "put it in brackets",
            ),
            (
                "",
                "trusted_proxies = [1]",
                "",
                "this list holds strings only",
            ),
            ("", "listen = \"8080\"", "", "write \":8080\""),
            (
                "",
                "upstream = \"https://app:3000\"",
                "",
                "write \"http://app:3000\"",
            ),
            (
                "",
                "upstream = \"http://app:3000/api\"",
                "",
                "takes no path | write \"http://app:3000\"",
            ),
            (
                "",
                "upstream = \"http://127.0.0.1:8080\"",
                "",
                "this is `[inbound] listen`",
            ),
            (
                "",
                "upstream = \"http://localhost:9901\"",
                "",
                "this is `[admin] listen`",
            ),
            (
                "",
                "listen = \"0.0.0.0:9901\"",
                "",
                "this is where `[admin] listen` listens already",
            ),
            (
                "",
                "",
                "[admin]\nlisten = \"127.0.0.1:8080\"",
                "this is where `[inbound] listen` listens",
            ),
            (
                "",
                "",
                "[session]\nrefresh_ttl = \"1h\"",
                "must live longer",
            ),
            (
                "",
                "",
                "[session]\nrefresh_grace = \"61s\"",
                "\"60s\" at the most",
            ),
            (
                "",
                "",
                "[session]\nkey = \"short\"",
                "16 bytes at the least",
            ),
            (
                "",
                "",
                "[store]\nkind = \"rediss\"",
                "did you mean \"redis\"?",
            ),
            ("", "", "[store]\ntimeout = \"2s\"", "\"1s\" at the most"),
            (
                "",
                "",
                "[store]\nurl = \"redis://a\"",
                "write kind = \"redis\" below `[store]`",
            ),
            ("", "", "[wechat]\nendpoints = []", "one endpoint at least"),
            (
                "",
                "",
                "[wechat.breaker]\nfailures = 0",
                "this must be from 1 to 1000",
            ),
            (
                "",
                "",
                "[wechat.breaker]\nmax_pause = \"500ms\"",
                "`max_pause` is at least `min_pause`",
            ),
            ("", "", "[log]\nlevel = \"warning\"", "there is \"trace\""),
            (
                "",
                "",
                "[log]\nlevels = [\"push\"]",
                "write it like \"push=debug\"",
            ),
            (
                "",
                "",
                "[log]\nlevels = [\"pusch=info\"]",
                "did you mean \"push\"",
            ),
            (
                "",
                "",
                "[log]\nlevels = [\"push=loud\"]",
                "there is \"trace\"",
            ),
            (
                "",
                "",
                "[log]\nlevels = [\"push=info\", \"push=debug\"]",
                "the level of this part is given twice",
            ),
            (
                "",
                "",
                "[log]\nlevels = \"push=debug\"",
                "put it in brackets",
            ),
            ("", "listen = 8080", "", "write \":8080\""),
            (
                "",
                "",
                "[trace]\nendpoint = \"localhost:4318\"",
                "a collector is \"http://host:4318\"",
            ),
            ("", "", "[trace]\nsample = \"0.1\"", "write it like \"10%\""),
            ("", "", "[trace]\nservice = \"\"", "name of the service"),
            ("", "", "[trace]\nclients = \"keep\"", "there is \"new\""),
            ("", "", "[route]\npath = \"/a\"", "write `[[route]]`"),
            ("", "", "[[log]]\nlevel = \"info\"", "write `[log]`"),
            ("", "", "[[route]]\n", "needs a `path`"),
            (
                "",
                "",
                "[[route]]\npath = \"/a\"\nmethods = [\"get\"]",
                "write \"GET\"",
            ),
            (
                "",
                "",
                "[[route]]\npath = \"/a\"\nmethods = []",
                "never matches",
            ),
            (
                "",
                "",
                "[[route]]\npath = \"/a\"\nmethods = \"GET\"",
                "put it in brackets",
            ),
            ("env = \"a b\"", "", "", "1 to 64 characters"),
            ("secret = \"\"", "", "", "the AppSecret is empty"),
            ("secret = \"${EMPTY}\"", "", "", "the AppSecret is empty"),
            ("secret = \"a b\"", "", "", "without spaces"),
            ("secret = []", "", "", "this list is empty"),
            ("secret = \"${NOPE}\"", "", "", "`NOPE` is not set"),
            ("secret = \"${NOPE\"", "", "", "`${` without `}`"),
            (
                "secret = \"${A-B}\"",
                "",
                "",
                "not the name of an environment variable",
            ),
        ] {
            let line = only(&good(app, inbound, rest));
            assert!(line.contains(expected), "{line}\n{expected}");
        }
    }

    #[test]
    fn each_mistake_of_a_store_in_redis_has_its_message_and_place() {
        for (keys, expected) in [
            ("", "`[store] url` is missing"),
            ("url = []", "10:7 error: this list is empty"),
            (
                "url = \"http://a\"",
                "10:7 error: this is \"redis://host:port\"",
            ),
            ("url = \"redis://:p/w@a\"", "the port is a number"),
            ("url = \"redis://a/x\"", "number of a database"),
            ("url = \"redis://a?db=1\"", "number of a database"),
            ("url = \"redis://u:%zz@a\"", "two hexadecimal digits"),
            (
                "url = \"unix://run/a.sock\"",
                "the path of a socket is absolute",
            ),
            ("url = \"unix:///a.sock?x=1\"", "`db`, `user` and `pass`"),
            (
                "url = [\"redis://a\", \"redis://b\"]",
                "one Redis has one URL",
            ),
            (
                "url = \"redis://a\"\nmode = \"clusters\"",
                "did you mean \"cluster\"?",
            ),
            (
                "url = \"redis://a/1\"\nmode = \"cluster\"",
                "a Cluster has one database",
            ),
            (
                "url = \"unix:///a.sock\"\nmode = \"cluster\"",
                "for several machines",
            ),
            (
                "url = [\"redis://a\", \"rediss://b\"]\nmode = \"cluster\"",
                "differ in more than host and port",
            ),
            (
                "url = \"redis://a\"\nmode = \"sentinel\"",
                "`[store] master` is missing",
            ),
            (
                "url = \"redis://a\"\nmode = \"sentinel\"\nmaster = \"\"",
                "12:10 error: the name of a master",
            ),
            (
                "url = \"redis://a\"\nmaster = \"m\"",
                "11:10 error: only Sentinels are asked for a master",
            ),
            (
                "url = \"rediss://a\"\nca_file = \"nowhere.pem\"",
                "the file `nowhere.pem` does not exist",
            ),
            (
                "url = \"redis://a\"\nurl_file = \"b\"",
                "`url` and `url_file` exclude each other",
            ),
        ] {
            let text = good("", "", &format!("[store]\nkind = \"redis\"\n{keys}"));
            let report = report(&text);
            let lines = lines(&report);
            assert!(
                lines.iter().any(|line| line.contains(expected)),
                "{keys}: {report}"
            );
        }
    }

    #[test]
    #[cfg(feature = "redis")]
    fn a_store_in_redis_is_read_whole() {
        use super::super::{RedisMode, RedisPlace, Store};
        use crate::secret::Secret;

        let redis = |keys: &str| {
            let text = good("", "", &format!("[store]\nkind = \"redis\"\n{keys}"));
            match loaded(&text).config.store {
                Store::Redis(redis) => redis,
                Store::Memory => panic!("it is in Redis"),
            }
        };
        let plain = redis("url = \"redis://cache\"");
        let place = |host: &str, port| RedisPlace::Tcp {
            host: host.to_owned(),
            port,
        };
        assert_eq!(plain.nodes[0].place, place("cache", 6379));
        assert_eq!(plain.nodes[0].password, None);
        assert_eq!(plain.timeout.as_millis(), 200);
        assert!(!plain.required);

        let full = redis(
            "url = [\"rediss://us%40er:p%3Aw%2F@[::1]:7000/3\"]\ntimeout = \"1s\"\nrequired = true",
        );
        let node = &full.nodes[0];
        assert_eq!(node.place, place("::1", 7000));
        assert_eq!((node.tls, node.database), (true, 3));
        assert_eq!(node.user.as_deref(), Some("us@er"));
        assert_eq!(node.password, Some(Secret::new("p:w/")));
        assert!(full.required && !format!("{full:?}").contains("p:w"));

        let sentinel = redis(
            "url = [\"redis://:pw@a\", \"redis://:pw@b:1\"]\nmode = \"sentinel\"\nmaster = \"m\"",
        );
        assert_eq!(sentinel.nodes[0].place, place("a", 26379));
        assert_eq!(
            sentinel.mode,
            RedisMode::Sentinel {
                master: "m".to_owned()
            }
        );
        let socket = redis("url = \"unix:///run/redis.sock?db=2&pass=a%26b\"");
        assert_eq!(
            socket.nodes[0].place,
            RedisPlace::Unix("/run/redis.sock".into())
        );
        assert_eq!(socket.nodes[0].database, 2);
        assert_eq!(socket.nodes[0].password, Some(Secret::new("a&b")));
    }

    #[test]
    fn each_mistake_on_the_way_to_wechat_has_its_message_and_place() {
        for (keys, expected) in [
            (
                "egress_proxy = \"proxy:3128\"",
                "9:16 error: a proxy is \"http://host:port\"",
            ),
            ("egress_proxy = \"https://a\"", "no other kind is spoken"),
            ("egress_proxy = \"socks5://a\"", "no other kind is spoken"),
            ("egress_proxy = \"http://a/x\"", "takes no path"),
            ("egress_proxy = \"http://u:p/w@a\"", "the port is a number"),
            (
                "egress_proxy = \"http://u:%zz@a\"",
                "two hexadecimal digits",
            ),
            ("egress_proxy = \"http://u%3Av:p@a\"", "has no colon"),
            ("egress_proxy = \"http://u:p%0Aq@a\"", "control character"),
            (
                "egress_proxy = [\"http://a\", \"http://b\"]",
                "one proxy only",
            ),
            (
                "egress_proxy = \"http://a\"\negress_proxy_file = \"b\"",
                "`egress_proxy` and `egress_proxy_file` exclude each other",
            ),
            (
                "egress_proxy_file = \"nowhere\"",
                "the file `nowhere` does not exist",
            ),
            (
                "ca_file = \"nowhere.pem\"",
                "the file `nowhere.pem` does not exist",
            ),
            ("ca_file = \"Cargo.toml\"", "has no certificate"),
        ] {
            let report = report(&good("", "", &format!("[wechat]\n{keys}")));
            let lines = lines(&report);
            assert!(
                lines.iter().any(|line| line.contains(expected)),
                "{keys}: {report}"
            );
        }
    }

    #[test]
    fn authorities_and_an_egress_proxy_are_read_whole() {
        use super::super::{EgressProxy, ProxyCredentials};
        use crate::secret::Secret;

        let wechat = |keys: &str| {
            let text = good("", "", &format!("[wechat]\n{keys}"));
            loaded(&text).config.wechat
        };
        let plain = wechat("");
        assert_eq!((plain.authorities, plain.egress_proxy), (None, None));

        let proxy = |url: &str| wechat(&format!("egress_proxy = \"{url}\"")).egress_proxy;
        let at = |host: &str, port| EgressProxy {
            host: host.to_owned(),
            port,
            credentials: None,
        };
        assert_eq!(proxy("http://Proxy:3128/"), Some(at("proxy", 3128)));
        assert_eq!(proxy("HTTP://[::1]"), Some(at("::1", 80)));
        let known = |user: &str, password: &str| {
            Some(EgressProxy {
                credentials: Some(ProxyCredentials {
                    user: user.to_owned(),
                    password: Secret::new(password),
                }),
                ..at("proxy", 80)
            })
        };
        let full = proxy("http://us%40er:p%3Aw%2F@proxy");
        assert!(!format!("{full:?}").contains("p:w"));
        assert_eq!(full, known("us@er", "p:w/"));
        assert_eq!(proxy("http://:pw@proxy"), known("", "pw"));
        assert_eq!(proxy("http://user@proxy"), known("user", ""));

        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().display();
        let pem = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        std::fs::write(directory.path().join("ca.pem"), pem.cert.pem()).unwrap();
        std::fs::write(directory.path().join("proxy"), "http://u:p@proxy\n").unwrap();
        let keys = format!("ca_file = \"{at}/ca.pem\"\negress_proxy_file = \"{at}/proxy\"");
        let files = wechat(&keys);
        assert_eq!(files.egress_proxy, known("u", "p"));
        assert_eq!(files.authorities.map(|a| a.0.len()), Some(1));
        let in_clear = format!("endpoints = [\"http://a\"]\nca_file = \"{at}/ca.pem\"");
        let fault = only_error(&good("", "", &format!("[wechat]\n{in_clear}")));
        assert!(fault.contains("no endpoint asks for TLS"), "{fault}");
    }

    #[test]
    fn a_password_of_a_proxy_never_appears_in_a_report() {
        for line in [
            format!("egress_proxy = \"http://u:{SECRET}@a/x\""),
            format!("egress_proxy = \"https://u:{SECRET}@a\""),
            format!("egress_proxy = [\"http://:{SECRET}@a\", \"http://b\"]"),
            format!("egres_proxy = \"http://:{SECRET}@a\""),
            format!("egress_proxy_file = \"http://:{SECRET}@a\""),
            format!("ca_file = \"http://:{SECRET}@a\""),
            format!("endpoints = [\"http://:{SECRET}@a\"]"),
        ] {
            let report = report(&format!("[wechat]\n{line}\n")).to_string();
            assert!(!report.contains(&SECRET[..12]), "{report}");
        }
    }

    #[test]
    fn a_password_of_redis_never_appears_in_a_report() {
        for line in [
            format!("url = \"redis://:{SECRET}@a/x\""),
            format!("url = \"http://:{SECRET}@a\""),
            format!("url = [\"redis://:{SECRET}@a\", \"redis://b\"]"),
            format!("urll = \"redis://:{SECRET}@a\""),
            format!("url_file = \"redis://:{SECRET}@a\""),
            format!("master = \"redis://:{SECRET}@a\""),
        ] {
            let text = format!("[store]\nkind = \"redis\"\n{line}\n");
            let report = report(&text).to_string();
            assert!(!report.contains(&SECRET[..12]), "{report}");
        }
    }

    #[test]
    fn each_mistake_of_a_text_check_has_its_message_and_place() {
        for (keys, expected) in [
            (
                "field = \"content\"",
                "10:1 error: `text_check` needs a `scene`",
            ),
            (
                "scene = 2",
                "10:1 error: a `text_check` needs a `field` | write field",
            ),
            ("scene = 2\nfield = []", "12:9 error: this list is empty"),
            (
                "scene = 2\nfield = \"\"",
                "12:9 error: this is not the name of a field",
            ),
            (
                "scene = 2\nfield = \"a..b\"",
                "write it like \"content\", or \"post.title\"",
            ),
            (
                "scene = 2\nfield = [\"a\", \".b\"]",
                "12:15 error: this is not the name of a field",
            ),
            (
                "scene = 2\nfield = \"1\"",
                "12:9 error: this is not the name of a field",
            ),
            (
                "scene = 2\nfield = \"[0][]\"",
                "12:9 error: this is not the name of a field",
            ),
            ("scene = 2\nfield = 7", "12:9 error: "),
            (
                "scene = 2\nfield = ['a','b','c','d','e','f','g','h','i']",
                "12:9 error: these are more than 8 fields | name a",
            ),
            (
                "field = \"a\"\nscene = 5",
                "12:9 error: this is not one of WeChat's scenes",
            ),
            (
                "field = \"a\"\nscene = 0",
                "12:9 error: this is not one of WeChat's scenes",
            ),
            (
                "field = \"a\"\nscene = \"comments\"",
                "12:9 error: this is not one of the words that can stand here",
            ),
            ("field = \"a\"\nscene = true", "12:9 error: "),
            (
                "field = \"a\"\nscene = 1\non_review = \"block\"",
                "13:13 error: this is not one of the words that can stand",
            ),
            (
                "field = \"a\"\nscene = 1\non_failure = \"close\"",
                "13:14 error: this is not one of the words that can stand",
            ),
            (
                "field = \"a\"\nscene = 1\non_error = \"open\"",
                "13:1 error: unknown key `on_error` in `[route.text_check]`",
            ),
        ] {
            let text = format!("[[route]]\npath = \"/a\"\n[route.text_check]\n{keys}");
            let line = only(&good("", "", &text));
            assert!(line.contains(expected), "{line}\n{expected}");
        }
    }

    #[test]
    fn a_text_is_checked_for_its_author_only() {
        let route = |keys: &str| {
            let check = "text_check = { field = \"a\", scene = 1 }";
            good(
                "",
                "",
                &format!("[[route]]\npath = \"/a\"\n{keys}\n{check}"),
            )
        };
        for auth in ["none", "optional"] {
            let line = only(&route(&format!("auth = \"{auth}\"")));
            let expected = "error: WeChat checks a text for its author";
            assert!(line.contains(expected), "{line}");
            assert!(line.contains("write auth = \"required\""), "{line}");
        }
        for keys in ["", "auth = \"required\"", "login = true"] {
            let route = &loaded(&route(keys)).config.routes[0];
            let check = route.text_check.as_ref().unwrap();
            assert_eq!(check.fields, ["a"]);
            assert_eq!(
                (check.on_review, check.on_failure),
                (Verdict::Pass, Verdict::Refuse)
            );
        }
    }

    /// As when a volume is swapped between two reads of one load.
    #[test]
    fn files_that_change_while_they_are_read_are_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (directory.path().join("a"), directory.path().join("b"));
        let write = |generation: &str| {
            std::fs::write(&one, generation).unwrap();
            std::fs::write(&other, generation).unwrap();
        };
        let looks = std::cell::RefCell::new(Vec::new());
        write("0");
        look_until_all_agree(&Inputs::default(), |files| {
            let first = files.open(&one, "a").unwrap();
            let count = looks.borrow().len();
            if count < 3 {
                write(&(count + 1).to_string());
            }
            let second = files.open(&other, "b").unwrap();
            let seen = [first, second].map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
            looks.borrow_mut().push(seen);
            Err(Report::unread("a", "nobody asks"))
        });
        let looks = looks.into_inner();
        let expected = [["0", "1"], ["1", "2"], ["2", "3"], ["3", "3"]];
        assert_eq!(looks, expected.map(|seen| seen.map(str::to_owned)));
    }

    /// Whoever sees one of two keys that contradict each other has to look for the other one.
    #[test]
    fn of_two_keys_that_contradict_each_other_both_are_shown() {
        for (app, inbound, rest, related) in [
            (
                "secret = \"a\"\nsecret_file = \"/b\"",
                "",
                "",
                "secret = \"***\"",
            ),
            (
                "",
                "",
                "[session]\naccess_ttl = \"2h\"\nrefresh_ttl = \"1h\"",
                "access_ttl = \"2h\"",
            ),
            (
                "",
                "",
                "[wechat.breaker]\nmin_pause = \"9s\"\nmax_pause = \"1s\"",
                "min_pause = \"9s\"",
            ),
            (
                "",
                "listen = \"127.0.0.1:9\"",
                "[admin]\nlisten = \"127.0.0.1:9\"",
                "listen = \"127.0.0.1:9\"",
            ),
            (
                "",
                "listen = \"127.0.0.1:3000\"",
                "",
                "listen = \"127.0.0.1:3000\"",
            ),
            (
                "",
                "",
                "[[route]]\npath = \"/**\"\n[[route]]\npath = \"/a\"",
                "path = \"/**\"",
            ),
            (
                "",
                "",
                "[[route]]\npath = \"/a\"\nlogin = true\nauth = \"required\"",
                "login = true",
            ),
            (
                "",
                "",
                "[media]\nenabled = false\n[[route]]\npath = \"/a\"\nmedia = \"upload\"",
                "enabled = false",
            ),
        ] {
            let text = good(app, inbound, rest);
            let report = match parse(&text) {
                Ok(loaded) => loaded.warnings,
                Err(report) => report,
            };
            let shown = report.to_string();
            assert!(shown.contains(" ::: sidecar.toml:"), "{shown}");
            let (_, behind) = shown.split_once(" ::: sidecar.toml:").unwrap();
            assert!(behind.contains(related), "{shown}");
        }
    }

    #[test]
    fn media_of_strangers_are_not_judged_and_a_warning_says_so() {
        let route = |keys: &str| {
            let check = "[media]\nbase_url = \"https://a.example.com\"\n[media.check]\nscene = 1\n";
            good("", "", &format!("{check}[[route]]\npath = \"/a\"\n{keys}"))
        };
        for auth in ["none", "optional"] {
            let warned = loaded(&route(&format!("media = \"upload\"\nauth = \"{auth}\""))).warnings;
            let line = lines(&warned).remove(0);
            assert!(
                line.contains("14:9 warning: what nobody in particular uploads"),
                "{line}"
            );
        }
        for keys in [
            "media = \"upload\"",
            "login = true\nmedia = \"upload\"",
            "auth = \"none\"",
        ] {
            assert_eq!(loaded(&route(keys)).warnings.to_string(), "", "{keys}");
        }
    }

    #[test]
    fn a_text_check_is_read_whole() {
        let text = "[[route]]\npath = \"/a\"\n[route.text_check]\nfield = [\"title\", \"post.body\"]\n\
             scene = \"forum\"\non_review = \"refuse\"\non_failure = \"open\"";
        let config = loaded(&good("", "", text)).config;
        let expected = TextCheck {
            fields: vec!["title".to_owned(), "post.body".to_owned()],
            scene: Scene::Forum,
            on_review: Verdict::Refuse,
            on_failure: Verdict::Pass,
        };
        assert_eq!(config.routes[0].text_check, Some(expected));
    }

    #[test]
    fn each_mistake_of_media_has_its_message_and_place() {
        for (keys, expected) in [
            ("[media]\nenabled = \"yes\"", "9:11 error: "),
            (
                "[media]\nbase_url = \"mini.example.com\"",
                "9:12 error: a URL begins with `https://`",
            ),
            (
                "[media]\nbase_url = \"https://\"",
                "this is not the beginning of a URL | write it like",
            ),
            (
                "[media]\nbase_url = \"https://a/?x=1\"",
                "this is not the beginning of a URL",
            ),
            (
                "[media]\nurl_ttl = \"4d\"",
                "9:11 error: this must be \"3d\" at the most",
            ),
            ("[media]\nurl_ttl = \"3\"", "9:11 error: "),
            ("[media]\nmemory_cache_size = \"much\"", "9:21 error: "),
            ("[media]\ncache_dir = \"\"", "9:13 error: "),
            (
                "[media]\nvideo_hosts = [\"*.qq.com\", \"a b\"]",
                "9:28 error: this is not the name of a host",
            ),
            (
                "[media]\nvideo_hosts = [\"*\"]",
                "this is not the name of a host",
            ),
            ("[media]\nvideo_hosts = \"*.qq.com\"", "9:15 error: "),
            (
                "[media]\nsize = \"1MiB\"",
                "9:1 error: unknown key `size` in `[media]`",
            ),
            ("[media.max_size]\nimage = 10", "9:9 error: "),
            (
                "[media.max_size]\npicture = \"1MiB\"",
                "9:1 error: unknown key `picture`",
            ),
            (
                "[media]\nbase_url = \"https://a\"\n[media.check]",
                "10:1 error: `[media.check]` needs a `scene`",
            ),
            (
                "[media]\nbase_url = \"https://a\"\n[media.check]\nscene = 9",
                "11:9 error: this is not one of WeChat's scenes",
            ),
            (
                "[media.check]\nscene = 1",
                "8:1 error: WeChat fetches what it is to check",
            ),
            (
                "[media]\nenabled = false\n[[route]]\npath = \"/a\"\nmedia = \"upload\"",
                "12:9 error: files cannot be uploaded: `[media] enabled` is false",
            ),
            (
                "[[route]]\npath = \"/a\"\nmedia = \"uploads\"",
                "did you mean \"upload\"?",
            ),
        ] {
            let line = only(&good("", "", keys));
            assert!(line.contains(expected), "{line}\n{expected}");
        }
        let warned = loaded(&good("", "", "[media]\ncache_size = \"1GiB\""));
        let warning = lines(&warned.warnings).remove(0);
        assert!(
            warning.contains("9:14 warning: without a `cache_dir`"),
            "{warning}"
        );
    }

    #[test]
    fn media_are_read_whole() {
        let text = "[media]\nbase_url = \"https://mini.example.com/app/\"\nurl_ttl = \"1h\"\n\
             memory_cache_size = \"none\"\ncache_dir = \"/c\"\nvideo_hosts = [\"*.QQ.com\"]\n\
             [media.max_size]\nimage = \"10MiB\"\n[media.check]\nscene = \"social\"";
        let media = loaded(&good("", "", text)).config.media;
        assert!(media.enabled);
        assert_eq!(
            media.base_url.as_deref(),
            Some("https://mini.example.com/app")
        );
        assert_eq!(
            (media.url_ttl.as_secs(), media.memory_cache_size),
            (3600, 0)
        );
        assert_eq!(media.cache_dir.as_deref(), Some(Path::new("/c")));
        assert_eq!(media.video_hosts, ["*.qq.com"]);
        assert_eq!(
            (media.max_size.image, media.max_size.thumb),
            (10 << 20, 64 << 10)
        );
        assert_eq!(media.check.map(|check| check.scene), Some(Scene::Social));
    }

    #[test]
    fn what_is_doubtful_is_a_warning() {
        for (app, inbound, rest, expected) in [
            (
                "secret = \"abc\"",
                "",
                "",
                "does not look like an AppSecret",
            ),
            (
                "",
                "",
                "[wechat]\nendpoints = [\"http://127.0.0.1:1\"]",
                "in clear",
            ),
            (
                "",
                "trusted_proxies = [\"0.0.0.0/0\"]",
                "",
                "everybody is trusted",
            ),
            (
                "",
                "trusted_proxies = [\"10.1.0.0/8\"]",
                "",
                "write \"10.0.0.0/8\"",
            ),
            ("", "", "[[route]]\npath = \"/wx/login\"", "own endpoints"),
            (
                "",
                "",
                "[[route]]\npath = \"/a\"\n[[route]]\npath = \"/a\"",
                "an earlier one",
            ),
            (
                "",
                "",
                "[[route]]\npath = \"/**\"\n[[route]]\npath = \"/a\"",
                "an earlier one",
            ),
            (
                "",
                "",
                "[[route]]\npath = \"/a\"\nmethods = [\"GTE\"]",
                "did you mean \"GET\"?",
            ),
            (
                "",
                "",
                "[[route]]\npath = \"/a\"\nlogin = true\nauth = \"required\"",
                "no token yet",
            ),
        ] {
            let warnings = loaded(&good(app, inbound, rest)).warnings;
            assert!(!warnings.has_errors());
            let lines = lines(&warnings);
            assert_eq!(lines.len(), 1, "{warnings}");
            assert!(lines[0].contains(expected), "{warnings}");
        }
    }

    #[cfg(feature = "redis")]
    #[test]
    fn a_journal_beside_redis_is_not_used_and_that_is_said() {
        let sections = "[store]\nkind = \"redis\"\nurl = \"redis://127.0.0.1\"\n\
                        [push]\ntoken = \"abc\"\nmode = \"plaintext\"\njournal = \"/tmp\"";
        let warnings = loaded(&good("", "", sections)).warnings;
        assert!(
            warnings.to_string().contains("this journal is not used"),
            "{warnings}"
        );
    }

    #[test]
    fn routes_take_what_they_leave_out_from_inbound() {
        let rest = "[[route]]\npath = \"/login\"\nlogin = true\n[[route]]\npath = \"/a\"\nmethods = [\"GET\"]\ntimeout = \"1s\"\nauth = \"none\"\n[[route]]\npath = \"/a\"\nmethods = [\"POST\"]";
        let Loaded {
            config, warnings, ..
        } = loaded(&good("", "auth = \"optional\"", rest));
        assert!(warnings.is_empty(), "{warnings}");
        let [login, first, second] = config.routes.as_slice() else {
            panic!("three routes");
        };
        assert_eq!((login.auth, login.login), (super::super::Auth::None, true));
        assert_eq!(first.timeout.as_secs(), 1);
        assert_eq!(second.auth, super::super::Auth::Optional);
        assert_eq!(second.timeout, config.inbound.timeout);
        assert_eq!(second.upstream, config.inbound.upstream);
    }

    #[test]
    fn two_listeners_may_both_ask_for_any_port() {
        let text = good(
            "",
            "listen = \"127.0.0.1:0\"",
            "[admin]\nlisten = \"127.0.0.1:0\"",
        );
        assert!(parse(&text).is_ok());
    }

    #[test]
    fn a_clash_points_at_the_second_listener_in_the_file() {
        let text = "[admin]\nlisten = \":7000\"\n[inbound]\nupstream = \"http://a\"\nlisten = \"127.0.0.1:7000\"\n[app]\nappid = \"wx0123456789abcdef\"\nsecret = \"${WX_APP_SECRET}\"\n";
        let line = only(text);
        assert!(
            line.starts_with("5:10 error: this is where `[admin] listen`"),
            "{line}"
        );
    }

    #[test]
    fn the_environment_is_read_and_never_shown() {
        let line = only(&good("", "upstream = \"${UPSTREAM}\"", ""));
        assert!(line.contains("takes no path"), "{line}");
        assert!(!line.contains("from-env"), "{line}");
        let config = loaded(&good("env = \"a\"", "", "[log]\nlevel = \"info\"")).config;
        assert_eq!(config.app.env, "a");
        let escaped = loaded(&good("secret = \"$${x}$\"", "", "")).config;
        assert_eq!(escaped.app.secrets[0].expose(), "${x}$");
        let text = good("", "upstream = \"http://é${NOPE}:1\"", "");
        let line = only(&text);
        assert!(
            line.starts_with("7:21 error") || line.contains(":21 error"),
            "{line}"
        );
    }

    #[test]
    fn a_secret_never_appears_in_a_report() {
        let wrap = |line: &str| {
            format!("[app]\nappid = \"x\"\n{line}\n[inbound]\nupstream = \"http://a:1/b\"\n")
        };
        for line in [
            format!("secret = \"{SECRET} \""),
            format!("secret = \"{SECRET}\u{1}\""),
            format!("secret = \"{SECRET}${{NOPE}}\""),
            format!("secret = \"{SECRET}\" x"),
            format!("secret = \"{SECRET}"),
            format!("secret = {SECRET}"),
            format!("secret {SECRET}"),
            format!("secret = '{SECRET}'\nsecret = '{SECRET}'"),
            format!("secert = \"{SECRET}\""),
            format!("secret = {{ a = \"{SECRET}\" }}"),
            format!("secret = [\"{SECRET}\", 1, \"\", [\"{SECRET}\"]]"),
            format!("secret = \"\"\"\n{SECRET} x\n\"\"\""),
            format!("secret = \"\"\"\n{SECRET}\n\"\""),
            format!("secret = \"a b\" # was {SECRET}"),
            format!("appid = \"{SECRET}\""),
            format!("\"{SECRET}\" = 1 = 2"),
            format!("session.key = \"{}\"", &SECRET[..15]),
        ] {
            let report = report(&wrap(&line));
            for out in [
                report.to_string(),
                report.to_json().to_string(),
                format!("{report:?}"),
            ] {
                assert!(!out.contains(&SECRET[..12]), "{line}\n{out}");
            }
        }
    }

    #[test]
    fn secrets_are_masked_where_they_would_be_shown() {
        let text =
            format!("[app]\nappid = \"wx0123456789abcdef\"\nsecert = \"{SECRET}\" # {SECRET}\n");
        let report = report(&text).to_string();
        assert!(
            report.contains("3 | secert = \"***\" ***\n  | ^^^^^^\n"),
            "{report}"
        );
    }

    #[test]
    fn broken_syntax_does_not_hide_other_mistakes() {
        let text = "[app]\nappid = \"gh1\"\nsecret = \"abc\n[inbound]\ntimeout = 30s\ntimeout = \"1s\"\nupstrem = 1\n";
        let lines = lines(&report(text));
        let starts: Vec<&str> = lines.iter().map(|l| l.split(' ').next().unwrap()).collect();
        assert_eq!(starts, ["2:9", "3:14", "5:11", "6:1", "7:1"], "{lines:#?}");
    }

    #[test]
    fn keys_below_a_broken_header_are_not_judged() {
        let line = only(
            "[app]\nappid = \"wx0123456789abcdef\"\n[inbound\nupstream = \"http://a\"\nx = 1\n",
        );
        assert!(line.starts_with("3:9 error: this is not TOML"), "{line}");
    }

    #[test]
    fn a_secret_in_place_of_its_file_is_not_named() {
        let report = report(&good(&format!("secret_file = \"{SECRET}\""), "", ""));
        assert!(!report.to_string().contains(SECRET), "{report}");
        assert!(report.to_string().contains("does not exist"), "{report}");
    }

    #[test]
    fn windows_line_ends_and_wide_characters_do_not_move_positions() {
        let text = good("", "tiemout = \"1s\"", "").replace('\n', "\r\n");
        assert!(only(&text).starts_with("6:1 "), "{}", only(&text));
        let inline = "app = { secret = \"é中文\", evn = 1 }\n";
        let report = report(inline);
        let lines = lines(&report);
        assert!(
            lines
                .iter()
                .any(|l| l.starts_with("1:25 error: unknown key `evn`")),
            "{lines:?}"
        );
        assert!(
            report.to_string().contains("sidecar.toml:1:25\n"),
            "{report}"
        );
        assert!(
            report.to_string().contains("secret = \"***\", evn"),
            "{report}"
        );
    }

    #[test]
    fn secret_files_are_read_beside_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sidecar.toml");
        let secret = dir.path().join("secret");
        let write = |content: &[u8], mode: u32| {
            std::fs::write(&secret, content).unwrap();
            std::fs::set_permissions(&secret, Permissions::from_mode(mode)).unwrap();
        };
        std::fs::write(
            &path,
            good("secret_file = [\"secret\", \"secret\"]", "", ""),
        )
        .unwrap();

        write(format!("{SECRET}\r\n").as_bytes(), 0o600);
        let Loaded {
            config, warnings, ..
        } = Config::load(&path).unwrap();
        assert!(warnings.is_empty(), "{warnings}");
        assert_eq!(config.app.secrets.len(), 2);
        assert_eq!(config.app.secrets[1].expose(), SECRET);

        write(SECRET.as_bytes(), 0o644);
        let warnings = Config::load(&path).unwrap().warnings.to_string();
        assert!(
            warnings.contains("`secret` can be read by every user"),
            "{warnings}"
        );

        for (content, expected) in [
            (&b"\n"[..], "the file `secret` is empty"),
            (b"hunter2\xff", "the file `secret` is not UTF-8"),
            (b"hunter2 x", "without spaces"),
            (&[b'x'; 70_000], "the file `secret` is too large"),
        ] {
            write(content, 0o600);
            let report = Config::load(&path).unwrap_err().to_string();
            assert!(report.contains(expected), "{report}");
            assert!(!report.contains("hunter2"), "{report}");
        }
        std::fs::remove_file(&secret).unwrap();
        let report = Config::load(&path).unwrap_err().to_string();
        assert!(
            report.contains("the file `secret` does not exist"),
            "{report}"
        );
    }

    #[test]
    fn a_secret_and_its_file_exclude_each_other() {
        let text = good("secret = \"a\"\nsecret_file = \"/nonexistent\"", "", "");
        let lines = lines(&report(&text));
        assert!(
            lines
                .iter()
                .any(|l| l.starts_with("3:15 error: `secret` and `secret_file`")),
            "{lines:?}"
        );
    }

    #[test]
    fn files_that_cannot_be_read_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sidecar.toml");
        let load = |path: &Path| Config::load(path).unwrap_err().to_string();
        assert!(load(&path).contains("does not exist"));
        assert!(load(dir.path()).contains("is a directory"));
        std::fs::write(&path, b"[app]\n\xff\xfe").unwrap();
        let report = load(&path);
        assert!(report.contains("the byte at offset 6"), "{report}");
        assert!(report.contains("sidecar.toml"), "{report}");
        std::fs::write(&path, vec![b'#'; FILE_LIMIT + 1]).unwrap();
        assert!(load(&path).contains("too large"));
    }

    #[test]
    fn nesting_and_floods_do_no_harm() {
        let n = 10_000;
        for text in [
            format!("a = {}1{}", "[".repeat(n), "]".repeat(n)),
            format!("a = {}1{}", "{a=".repeat(n), "}".repeat(n)),
            format!("{}a = 1", "a.".repeat(n)),
            format!("[{}a]", "a.".repeat(n)),
            "x y\n".repeat(n),
            (0..n).map(|i| format!("k{i} = 1\n")).collect(),
        ] {
            let report = report(&text);
            assert!(report.diagnostics().count() <= 101);
            let _ = (report.to_string(), report.to_json());
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            if let Err(report) = parse(&text) {
                let _ = (report.render(true), report.to_json());
            }
        }

        #[test]
        fn no_mixture_of_pieces_makes_it_panic(pieces in prop::collection::vec(prop::sample::select(vec![
            "[app]", "[[route]]", "[inbound]", "\n", "\r\n", " = ", "secret", "appid", "path", "upstream",
            "\"", "'", "\"\"\"", "${", "}", "$${", "[", "]", "{", ",", "é", "#", "1", "true", ".", "\u{0}", "\\",
        ]), 0..40)) {
            let text = pieces.concat();
            if let Err(report) = parse(&text) {
                let _ = (report.render(false), report.to_json());
            }
        }
    }
}
