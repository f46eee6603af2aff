//! The commands that explain the configuration: `config show`, `schema`, `init` and `completions`.
//!
//! The schema is judged by a validator that is not ours, next to `check`: what `check` accepts it must accept, or an editor
//! would underline what is right.

use std::fs;
use std::process::Command;

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use wx_sidecar::Config;
use wx_sidecar::config::Level;

use crate::api_security::Agreement;
use crate::backends::{Kind, Script};
use crate::process::{finished, finished_with, write_configuration};
use crate::rig::{self, APPID, SECRET, canary};

/// Texts that may fit a key, or look as if they did.
#[rustfmt::skip]
const TEXTS: [&str; 55] = [
    "", "30s", "00030ms", "0s", "30", "1d", "none", "off", "auto", "all", "10MiB", "1KB", "0B", "/a", "/a/**", "/", "/a?b=c",
    "//a", "a b", "é", "é012345678901234", "http://a", "HTTP://A", "HTTPS://a:1", "http://a:1/x", "http://[::1]:5",
    "H2C://a:1", "unix:/a.sock", "unix:///a.sock", "127.0.0.1:1", ":1", "[::1]:5", "localhost:9", "10.0.0.0/8", "unix", "::1",
    "10/s", "010/h burst 20", "redis://a", "rediss://u:p@a/1", "*.qq.com", "a.b", "${X}", "a${X}b", "$${x}", "$$${x}", "$",
    "a$b", "$$", "0123456789abcdef", "0123456789$bcdef${X}", "M-SEARCH", "https://a/b/",
    "0123456789abcdefghijklmnopqrstuvwxyz0123456", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
];

/// Values that are no texts.
#[rustfmt::skip]
const OTHERS: [&str; 12] =
    ["[]", "1", "2", "4", "256", "1000", "1000000", "10000000", "0x10", "1_000", "true", "false"];

/// Files that a key may name, and what they hold; the first two are a certificate and its key.
const FILES: [(&str, &str); 6] = [
    ("cert", ""),
    ("key", ""),
    ("token", "0123456789abcdef"),
    ("aes", "0123456789abcdefghijklmnopqrstuvwxyz0123456"),
    ("url", "rediss://a"),
    ("proxy", "http://a"),
];

#[test]
fn config_show_tells_each_value_and_its_source() {
    canary(SECRET);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sidecar.toml");
    let key = canary_key();
    fs::write(directory.path().join("key"), &key).unwrap();
    let text = "[app]\nappid = \"wx0123456789abcdef\"\nsecret = \"${WX_APP_SECRET}\"\n\
                [inbound]\nupstream = \"http://127.0.0.1:3000\"\n[session]\nkey_file = \"key\"\n";
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();

    let (code, stdout, stderr) = finished(&["config", "show", "-c", path]);
    assert_eq!(code, 0, "{stderr}");
    let shown = |start: &str| {
        let line = stdout.lines().find(|line| line.starts_with(start));
        let words: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
        words.join(" ")
    };
    let secret = "secret = \"***\" # env WX_APP_SECRET (sidecar.toml:3)";
    assert_eq!(shown("secret ="), secret);
    assert_eq!(shown("listen ="), "listen = \"0.0.0.0:8080\" # default");
    assert_eq!(
        shown("# key ="),
        "# key = \"***\" # file key (sidecar.toml:7)"
    );
    assert!(toml::from_str::<toml::Table>(&stdout).is_ok(), "{stdout}");

    let (code, stdout, _) = finished(&["config", "show", "-c", path, "--format", "json"]);
    assert_eq!(code, 0);
    let shown: Value = serde_json::from_str(&stdout).unwrap();
    let upstream = json!({
        "value": "http://127.0.0.1:3000",
        "source": "sidecar.toml:5",
        "origin": "config",
    });
    assert_eq!(shown["inbound"]["upstream"], upstream);
    assert_eq!(shown["push"], Value::Null);
    assert!(!stdout.contains(SECRET) && !stdout.contains(&key));
}

#[test]
fn config_show_of_a_bad_file_is_its_report() {
    let path = write_configuration("[app]\nappid = 1\n");
    let (code, stdout, stderr) = finished(&["config", "show", "-c", path.to_str().unwrap()]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("`appid` takes a string"), "{stderr}");
}

#[test]
fn the_environment_says_where_the_configuration_is_unless_an_argument_does() {
    const PASSWORD: &str = "canary-zookeeper-pa55w0rd-45";
    canary(PASSWORD);
    let bad = write_configuration("[app]\nappid = 1\n");
    let bad = bad.to_str().unwrap();
    for command in [
        &["run"][..],
        &["check"],
        &["doctor"],
        &["config", "show"],
        &["explain", "GET", "/"],
        &["rid", "617682e0-09059ac5-34a8e2ea"],
        &["push", "list"],
    ] {
        let (code, stdout, stderr) = finished_with(command, &[("WX_SIDECAR_CONFIG", bad)]);
        assert_eq!(code, 1, "{command:?}: {stderr}");
        let told = stdout + &stderr;
        assert!(
            told.contains("`appid` takes a string"),
            "{command:?}: {told}"
        );
    }
    let good = concat!(env!("CARGO_MANIFEST_DIR"), "/sidecar.toml");
    let (code, _, stderr) = finished_with(&["check", "-c", good], &[("WX_SIDECAR_CONFIG", bad)]);
    assert_eq!(code, 0, "{stderr}");

    let url = format!("zookeeper://shop:{PASSWORD}@zk/");
    let environment = [("WX_SIDECAR_CONFIG", url.as_str())];
    for command in [&["check"][..], &["config", "push", "-c", good]] {
        let (code, _, stderr) = finished_with(command, &environment);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains("znode is missing"), "{stderr}");
        assert!(stderr.ends_with("try '--help'.\n"), "{stderr}");
        assert!(!stderr.contains(PASSWORD), "{stderr}");
    }
    let (_, stdout, _) = finished_with(&["run", "--help"], &environment);
    assert!(stdout.contains("WX_SIDECAR_CONFIG"), "{stdout}");
    assert!(!stdout.contains(PASSWORD), "{stdout}");
}

#[test]
fn what_check_accepts_the_schema_accepts() {
    let stage = Stage::new();
    let mut accepted = vec![include_str!("../sidecar.toml").to_owned()];
    accepted.push(finished(&["init"]).1);
    accepted.push(rig::configuration("https://a", "http://b", "", ""));
    accepted.push(stage.file("wechat.api_security", ""));
    let schema = schema();
    for (section, key, property) in keys(&schema) {
        let before = accepted.len();
        for value in stage.probes(&property) {
            let text = stage.file(&section, &format!("{key} = {value}"));
            if Config::parse(&text, "sidecar.toml", &env).is_ok() {
                accepted.push(text);
            }
        }
        // The one is for Sentinels only, and the other is of many lines.
        let no_probe = matches!(key.as_str(), "master" | "private_key")
            || (section == "store" && !cfg!(feature = "redis"));
        assert!(accepted.len() > before || no_probe, "[{section}] {key}");
    }
    let sentinels = "mode = \"sentinel\"\nmaster = \"mymaster\"";
    accepted.push(stage.file("store", sentinels));
    let verdicts = validate(&schema, &accepted);
    for (text, faults) in accepted.iter().zip(verdicts) {
        assert!(faults.is_empty(), "{faults:?}\n{text}");
    }
}

#[test]
fn what_the_schema_can_tell_it_refuses_and_check_does_too() {
    let stage = Stage::new();
    let cases = [
        ("app", "appid = \"x\""),
        ("app", "appid = 1"),
        ("app", "appid = \"0123456789abcdef0123456789abcdef\""),
        ("app", "secert = \"a\""),
        ("app", "secret = \"\""),
        ("app", "secret = \"a b\""),
        ("app", "secret = []"),
        ("app", "secret = [\"a\", 1]"),
        ("app", "secret = 12"),
        ("app", "secret = { a = \"b\" }"),
        ("app", "secret = \"${NOPE\""),
        ("app", "secret = \"${A-B}\""),
        ("app", "secret = \"a\"\nsecret_file = \"b\""),
        ("app", "env = \"a b\""),
        ("inbound", "colour = 1"),
        ("inbound", "level = \"info\""),
        ("inbound", "timeout = \"30\""),
        ("inbound", "timeout = \"0s\""),
        ("inbound", "timeout = 30"),
        ("inbound", "timeout = 2020-01-01"),
        ("inbound", "drain_delay = \"0\""),
        ("inbound", "body_limit = 10"),
        ("inbound", "body_limit = \"10 MiB\""),
        ("inbound", "header_limit = \"64kib\""),
        ("inbound", "workers = \"4\""),
        ("inbound", "workers = 0"),
        ("inbound", "workers = 257"),
        ("inbound", "workers = 1.5"),
        ("inbound", "max_connections = 0"),
        ("inbound", "max_connections = \"5\""),
        ("inbound", "proxy_protocol = \"yes\""),
        ("inbound", "trusted_proxies = \"10.0.0.0/8\""),
        ("inbound", "trusted_proxies = [1]"),
        ("inbound", "trusted_proxies = [\"proxy\"]"),
        ("inbound", "listen = \"8080\""),
        ("inbound", "listen = \"off\""),
        ("inbound", "upstream = \"https://app:3000\""),
        ("inbound", "upstream = \"http://app:3000/api\""),
        ("inbound", "upstream = \"http://u:p@app\""),
        ("inbound", "upstream = \"app:3000\""),
        ("inbound", "prefix = \"wx\""),
        ("inbound", "auth = \"reqired\""),
        ("inbound", "rate_limit = \"10\""),
        ("inbound", "login_rate_limit = \"10/d\""),
        ("inbound", "escaped_slashes = \"deny\""),
        ("inbound.tls", "cert_file = \"\""),
        ("inbound.tls", "certificate = \"a\""),
        ("session", "key = \"short\""),
        ("session", "key = \"0123456789abcdef\"\nkey_file = \"a\""),
        ("session", "refresh_grace = \"a while\""),
        ("open_data", "max_age = \"never\""),
        ("wechat", "endpoints = []"),
        ("wechat", "endpoints = [\"api.weixin.qq.com\"]"),
        ("wechat", "endpoints = [\"https://a/b\"]"),
        ("wechat", "egress_proxy = \"proxy:3128\""),
        ("wechat", "egress_proxy = \"https://a\""),
        ("wechat", "egress_proxy = \"socks5://a\""),
        (
            "wechat",
            "egress_proxy = \"http://a\"\negress_proxy_file = \"b\"",
        ),
        ("wechat.breaker", "failures = 0"),
        ("wechat.breaker", "failures = 1001"),
        ("wechat.api_security", "paths = []"),
        ("wechat.api_security", "paths = [\"wxa/a\"]"),
        ("wechat.api_security", "sym_algorithm = \"AES\""),
        ("wechat.api_security", "asym_algorithm = \"RSA\""),
        ("wechat.api_security", "sym_sn = \"a b\""),
        ("wechat.api_security", "certificate_sn = []"),
        ("outbound", "listen = \"on\""),
        ("outbound", "caller_token = \"short\""),
        ("outbound", "allow = [\"wxa\"]"),
        ("outbound", "errors = \"problems\""),
        ("outbound", "quota_interval = \"off\""),
        ("push", "token = \"a_token\""),
        ("push", "aes_key = \"abc\""),
        ("push", "mode = \"safe\""),
        ("push", "format = \"yaml\""),
        ("push", "max_age = \"none\""),
        ("push", "deliver = \"wx/push\""),
        ("push", "deliver = \"//host\""),
        ("push", "concurrency = 2000"),
        ("push", "journal = \"\""),
        ("push", "fsync = 1"),
        ("push.route", "kind = \"text\""),
        ("push.route", "event = \"\""),
        ("push.route", "reply = \"never\""),
        ("push.route", "envelope = \"cloudevent\""),
        ("media", "enabled = \"yes\""),
        ("media", "base_url = \"mini.example.com\""),
        ("media", "base_url = \"https://\""),
        ("media", "base_url = \"https://a/?x=1\""),
        ("media", "url_ttl = \"3\""),
        ("media", "memory_cache_size = \"much\""),
        ("media", "cache_dir = \"\""),
        ("media", "video_hosts = [\"*.qq.com\", \"a b\"]"),
        ("media", "video_hosts = [\"*\"]"),
        ("media", "video_hosts = \"*.qq.com\""),
        ("media", "size = \"1MiB\""),
        ("media.max_size", "image = 10"),
        ("media.max_size", "picture = \"1MiB\""),
        ("media.check", "scene = 9"),
        ("route", "path = \"api\""),
        ("route", "methods = [\"get\"]"),
        ("route", "methods = []"),
        ("route", "methods = \"GET\""),
        ("route", "media = \"uploads\""),
        ("route", "login = 1"),
        ("route.text_check", "field = []"),
        ("route.text_check", "field = \"\""),
        ("route.text_check", "field = \"a..b\""),
        ("route.text_check", "field = [\"a\", \".b\"]"),
        ("route.text_check", "field = 7"),
        ("route.text_check", "scene = 0"),
        ("route.text_check", "scene = 5"),
        ("route.text_check", "scene = \"comments\""),
        ("route.text_check", "scene = true"),
        ("route.text_check", "on_review = \"block\""),
        ("route.text_check", "on_failure = \"close\""),
        ("route.text_check", "on_error = \"open\""),
        ("store", "kind = \"rediss\""),
        ("store", "url = []"),
        ("store", "url = \"http://a\""),
        ("store", "mode = \"clusters\""),
        ("store", "master = \"\""),
        ("store", "url = \"redis://a\"\nurl_file = \"b\""),
        ("log", "level = \"warning\""),
        ("log", "colour = true"),
    ];
    let whole = [
        "",
        "[app]\nappid = \"wx0123456789abcdef\"\nsecret = \"a\"\n",
        "colour = 1\n",
        "[colours]\n",
        "[route]\npath = \"/a\"\n",
        "[[route]]\n",
        "[[log]]\nlevel = \"info\"\n",
        "[inbound.tls]\ncert_file = \"a\"\n",
        "[push]\nmode = \"secure\"\n",
        "[[route]]\npath = \"/a\"\n[route.text_check]\nfield = \"a\"\n",
        "[[route]]\npath = \"/a\"\n[route.text_check]\nscene = 2\n",
        "[media]\nbase_url = \"https://a\"\n[media.check]\n",
    ];
    let small = stage.file("", "");
    let whole = whole.iter().enumerate().map(|(i, text)| match i {
        0 | 1 => (*text).to_owned(),
        2 => format!("{text}{small}"),
        _ => format!("{small}{text}"),
    });
    let texts: Vec<String> = cases
        .iter()
        .map(|(section, keys)| stage.file(section, keys))
        .chain(whole)
        .collect();
    let verdicts = validate(&schema(), &texts);
    for (text, faults) in texts.iter().zip(verdicts) {
        assert!(!faults.is_empty(), "the schema accepts this:\n{text}");
        let checked = Config::parse(text, "sidecar.toml", &env);
        assert!(checked.is_err(), "`check` accepts this: {faults:?}\n{text}");
    }
}

#[test]
fn words_and_numbers_of_the_schema_are_those_of_check() {
    let stage = Stage::new();
    // What is told about a value by itself.
    let faults = |section: &str, key: &str, value: &str| {
        let text = stage.file(section, &format!("{key} = {value}"));
        let Err(report) = Config::parse(&text, "sidecar.toml", &env) else {
            return Vec::new();
        };
        let errors = report.diagnostics().map(|(diagnostic, _)| diagnostic);
        let errors = errors.filter(|diagnostic| diagnostic.level == Level::Error);
        errors.map(|error| error.message.clone()).collect()
    };
    let is_no_word = |fault: &String| fault.contains("not one of the words");
    let is_out_of_range = |fault: &String| fault.contains("this must be from 1 to");
    let mut with_words = 0;
    let mut with_numbers = 0;
    for (section, key, property) in keys(&schema()) {
        let place = format!("[{section}] {key}");
        let alternatives = property["anyOf"].as_array();
        let words = alternatives.and_then(|it| it.iter().find_map(|it| it["enum"].as_array()));
        let strange = faults(&section, &key, "\"strange\"");
        match words {
            // A number or this word.
            Some(words) if *words == ["auto"] => {}
            Some(words) => {
                with_words += 1;
                assert!(strange.iter().any(is_no_word), "{place}: {strange:?}");
                for word in words {
                    let faults = faults(&section, &key, &word.to_string());
                    assert!(
                        !faults.iter().any(is_no_word),
                        "{place} = {word}: {faults:?}"
                    );
                }
            }
            None => assert!(!strange.iter().any(is_no_word), "{place}: {strange:?}"),
        }
        let number = alternatives.and_then(|it| it.iter().find(|it| it["type"] == "integer"));
        let number = number.unwrap_or(&property);
        let is_scene = words.is_some_and(|words| words.len() > 1);
        if let (Some(most), false) = (number["maximum"].as_u64(), is_scene) {
            with_numbers += 1;
            let good = faults(&section, &key, &most.to_string());
            let bad = faults(&section, &key, &(most + 1).to_string());
            assert!(!good.iter().any(is_out_of_range), "{place}: {good:?}");
            assert!(bad.iter().any(is_out_of_range), "{place}: {bad:?}");
        }
    }
    assert_eq!((with_words, with_numbers), (23, 8));
}

#[test]
fn the_schema_documents_every_key() {
    let schema = schema();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    let keys = keys(&schema);
    assert!(keys.len() > 120, "{}", keys.len());
    for (section, key, property) in keys {
        let doc = property["description"].as_str().unwrap_or_default();
        assert!(doc.len() > 10, "[{section}] {key}");
    }
    let property = |pointer: &str| schema.pointer(pointer).unwrap();
    let timeout = property("/properties/inbound/properties/timeout");
    assert_eq!(timeout["default"], "30s");
    let timeout = property("/properties/route/items/properties/timeout");
    assert_eq!(
        (&timeout["default"], &timeout["examples"]),
        (&Value::Null, &json!(["5m"]))
    );
    let doc = timeout["description"].as_str().unwrap();
    assert!(
        doc.ends_with("If left out, as `[inbound] timeout`."),
        "{doc}"
    );
    let auth = property("/properties/inbound/properties/auth/anyOf/0/enum");
    assert_eq!(*auth, json!(["required", "optional", "none"]));
}

#[test]
fn init_gives_a_file_that_passes_check_and_keeps_one_that_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sidecar.toml");
    let path = path.to_str().unwrap();
    let (code, stdout, stderr) = finished(&[
        "init",
        "--appid",
        APPID,
        "--upstream",
        "unix:/run/a.sock",
        "-o",
        path,
    ]);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    let (code, _, stderr) = finished(&["check", "-c", path]);
    assert_eq!(code, 0, "{stderr}");
    let written = fs::read_to_string(path).unwrap();
    assert!(
        written.contains(&format!("appid = \"{APPID}\"\n")),
        "{written}"
    );

    let (code, _, stderr) = finished(&["init", "-o", path]);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("is there already; --force replaces it"),
        "{stderr}"
    );
    assert_eq!(fs::read_to_string(path).unwrap(), written);
    let (code, _, stderr) = finished(&["init", "--full", "-o", path, "--force"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(
        fs::read_to_string(path).unwrap(),
        include_str!("../sidecar.toml")
    );
}

#[test]
fn init_says_what_is_wrong_with_what_it_was_given() {
    let (code, stdout, stderr) = finished(&["init", "--appid", "gh_0123456789ab"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("an appid begins with `wx`"), "{stderr}");
    let (code, _, _) = finished(&["init", "--full", "--appid", APPID]);
    assert_eq!(code, 2);
}

/// As bash does when somebody types and presses Tab.
#[test]
fn bash_completes_commands_options_and_their_values() {
    let (code, script, _) = finished(&["completions", "bash"]);
    assert_eq!(code, 0);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("completions.bash");
    fs::write(&path, script).unwrap();
    let complete = |words: &[&str]| {
        let type_and_tab = r#"
            source "$1"; shift
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
            function=$(complete -p wx-sidecar | sed -n 's/.* -F \([^ ]*\) .*/\1/p')
            "$function" wx-sidecar "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let output = Command::new("bash")
            .args(["--norc", "-c", type_and_tab, "bash"])
            .arg(&path)
            .arg("wx-sidecar")
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let words = String::from_utf8(output.stdout).unwrap();
        words.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["ch"]), ["check"]);
    assert_eq!(complete(&["co"]), ["config", "completions"]);
    assert_eq!(complete(&["config", "s"]), ["show"]);
    assert_eq!(complete(&["check", "--f"]), ["--format"]);
    assert_eq!(complete(&["check", "--format", "j"]), ["json"]);
    assert_eq!(complete(&["completions", "z"]), ["zsh"]);
}

#[test]
fn the_scripts_for_other_shells_name_every_command() {
    for shell in ["zsh", "fish"] {
        let (code, script, _) = finished(&["completions", shell]);
        assert_eq!(code, 0);
        for command in ["run", "check", "config", "schema", "init", "errcode"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}

fn canary_key() -> String {
    let key = "ca9a41-a-session-key-in-a-file".to_owned();
    canary(&key);
    key
}

/// `X` is whatever a key may need.
fn env(name: &str) -> Option<String> {
    match name {
        "WX_APP_SECRET" => Some(SECRET.to_owned()),
        "X" => Some("30s".to_owned()),
        _ => None,
    }
}

/// What it takes to write any key of any section: files, and the other keys of its section.
struct Stage {
    files: TempDir,
    agreement: Agreement,
}

impl Stage {
    fn new() -> Self {
        canary(SECRET);
        let files = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        fs::write(files.path().join("cert"), pair.cert.pem()).unwrap();
        fs::write(files.path().join("key"), pair.signing_key.serialize_pem()).unwrap();
        for (name, content) in FILES {
            if !content.is_empty() {
                fs::write(files.path().join(name), content).unwrap();
            }
        }
        Self {
            files,
            agreement: Agreement::international(),
        }
    }

    fn path(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    /// All sorts of values that may fit a key, as they are written.
    fn probes(&self, property: &Value) -> Vec<String> {
        let files = FILES.map(|(name, _)| self.path(name));
        let agreed = self.agreement.section.lines();
        let agreed = agreed.filter_map(|line| Some(line.split_once(" = ")?.1.to_owned()));
        let texts = TEXTS
            .iter()
            .copied()
            .chain(files.iter().map(String::as_str));
        let texts: Vec<String> = texts
            .map(|text| json!(text).to_string())
            .chain(agreed)
            .collect();
        let mut probes: Vec<String> = OTHERS.map(str::to_owned).into();
        if property.to_string().contains("\"array\"") {
            probes.extend(texts.iter().map(|text| format!("[{text}]")));
        }
        if property.to_string().contains("\"pattern\"") {
            probes.extend(texts);
        }
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let words = list(&property["anyOf"]);
        let words = words.iter().flat_map(|it| list(&it["enum"]));
        let told = list(&property["examples"]).into_iter().chain(words);
        probes.extend(told.map(|value| value.to_string()));
        probes
    }

    /// A file that is good without `keys`, which stand in `section` instead of those that are there.
    fn file(&self, section: &str, keys: &str) -> String {
        let (cert, key) = (self.path("cert"), self.path("key"));
        let tls = format!("cert_file = \"{cert}\"\nkey_file = \"{key}\"");
        let agreed = self.agreement.section.split_once('\n').unwrap().1;
        let app = format!("appid = \"{APPID}\"\nsecret = \"${{WX_APP_SECRET}}\"");
        let redis = match keys.starts_with("kind") {
            true => "",
            false => "kind = \"redis\"\nurl = \"rediss://a\"",
        };
        let all = [
            ("app", app.as_str()),
            ("inbound", "upstream = \"http://127.0.0.1:3000\""),
            ("inbound.tls", &tls),
            ("route", "path = \"/a\""),
            ("route.text_check", "field = \"a\"\nscene = 1"),
            ("session", ""),
            ("wechat", ""),
            ("wechat.api_security", agreed),
            ("push", "token = \"abc\"\nmode = \"plaintext\""),
            ("push.route", "deliver = \"/a\""),
            ("media", "base_url = \"https://a\"\ncache_dir = \"/c\""),
            ("media.check", "scene = 1"),
            ("store", redis),
        ];
        let outer = section.split_once('.').map_or("", |(outer, _)| outer);
        let mut text = String::new();
        for (name, usual) in all {
            let is_it = name == section;
            if !is_it && name != outer && !matches!(name, "app" | "inbound") {
                continue;
            }
            let header = match name {
                "route" | "push.route" => format!("[[{name}]]"),
                _ => format!("[{name}]"),
            };
            let keys = if is_it { keys } else { "" };
            text += &format!("{header}\n{}", replaced(usual, keys));
        }
        if !section.is_empty() && !all.iter().any(|(name, _)| *name == section) {
            text += &format!("[{section}]\n{keys}\n");
        }
        text
    }
}

/// `usual`, with `keys` instead of those of the same name, and of a secret's other form.
fn replaced(usual: &str, keys: &str) -> String {
    fn name(line: &str) -> &str {
        let name = line.split_once(" = ").map_or(line, |(name, _)| name);
        name.strip_suffix("_file").unwrap_or(name)
    }
    let stays = |line: &&str| !keys.lines().any(|new| name(new) == name(line));
    let kept: Vec<&str> = usual.lines().filter(stays).collect();
    format!("{}\n{keys}\n", kept.join("\n"))
}

fn schema() -> Value {
    let (code, stdout, stderr) = finished(&["schema"]);
    assert_eq!(code, 0, "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// Section, key and property of every key.
fn keys(schema: &Value) -> Vec<(String, String, Value)> {
    fn walk(
        section: &str,
        properties: &Map<String, Value>,
        found: &mut Vec<(String, String, Value)>,
    ) {
        for (name, property) in properties {
            let table = property
                .get("items")
                .filter(|items| items.get("properties").is_some());
            match table.unwrap_or(property)["properties"].as_object() {
                Some(properties) => {
                    let inner = [section, name].join(if section.is_empty() { "" } else { "." });
                    walk(&inner, properties, found);
                }
                None => found.push((section.to_owned(), name.clone(), property.clone())),
            }
        }
    }
    let mut found = Vec::new();
    walk("", schema["properties"].as_object().unwrap(), &mut found);
    found
}

/// What a validator finds wrong with each text.
fn validate(schema: &Value, texts: &[String]) -> Vec<Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let documents: Vec<Value> = texts
        .iter()
        .map(|text| {
            let table: toml::Table = toml::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
            serde_json::to_value(table).unwrap()
        })
        .collect();
    let write = |name: &str, value: &Value| {
        let path = directory.path().join(name);
        fs::write(&path, value.to_string()).unwrap();
        path.display().to_string()
    };
    let schema = write("schema.json", schema);
    let documents = write("documents.json", &documents.into());
    let script = Script::start(Kind::Schema, "validate.py", &[&schema, &documents]);
    serde_json::from_str(&script.line()).unwrap()
}
