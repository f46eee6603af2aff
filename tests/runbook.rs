//! What `k8s/README.md` and the runbook tell operators to type and to look at: it exists, and the configuration that the
//! manifests ship answers it.
//!
//! Documents go stale where nothing reads them, and whoever reads these has no time to find that out.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use wx_sidecar::telemetry::families::TABLE;

use crate::http_client::Client;
use crate::k8s::{manifests, named, objects, pods};
use crate::process::{Run, finished, finished_with};
use crate::rig::{SECRET, canary};

const DOCUMENTS: [&str; 2] = ["README.md", "monitoring/RUNBOOK.md"];
/// Where the shipped configurations look for the keys of the Secret.
const MOUNT: &str = "/var/run/secrets/wx/";
const TOKEN: &str = "ca9a41-admin-token-of-the-runbook";
/// Names in code that are neither keys nor metrics of ours.
const OTHERS: [&str; 5] = [
    "access_token",
    "auth_config",
    "container_cpu_cfs_throttled_periods_total",
    "force_refresh",
    "rate_quota",
];

fn document(name: &str) -> String {
    fs::read_to_string(manifests(name)).unwrap()
}

/// The prose of a document and, apart from it, its code: what is between backticks, and the lines of shell blocks without their
/// comments.
fn prose_and_code(text: &str) -> (String, Vec<String>) {
    let (mut prose, mut code) = (String::new(), Vec::new());
    let mut block = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), block) {
            (Some(language), None) => block = Some(language),
            (Some(_), Some(_)) => block = None,
            (None, Some("sh")) => code.push(without_comment(line).to_owned()),
            (None, Some(_)) => {}
            (None, None) => prose = prose + line + " ",
        }
    }
    let pieces: Vec<&str> = prose.split('`').collect();
    assert_eq!(pieces.len() % 2, 1, "a backtick is alone");
    code.extend(pieces.iter().skip(1).step_by(2).map(|it| (*it).to_owned()));
    (pieces.into_iter().step_by(2).collect(), code)
}

fn code() -> Vec<String> {
    let all = DOCUMENTS.map(|name| prose_and_code(&document(name)).1);
    all.concat()
}

fn without_comment(line: &str) -> &str {
    line.split(" #").next().unwrap_or_default().trim()
}

/// The arguments of the sidecar's binary in a command, if it is run there: here, or in a pod.
fn arguments(command: &str) -> Option<Vec<&str>> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let is_run = |place: usize| place == 0 || words[place - 1] == "--";
    let place = (0..words.len())
        .find(|place| is_run(*place) && ["wx-sidecar", "/wx-sidecar"].contains(&words[*place]))?;
    let own = words[place + 1..].iter();
    let own = own.take_while(|word| !["|", "<", ">", "&"].contains(word));
    Some(own.copied().collect())
}

#[test]
fn every_command_of_the_sidecar_exists_and_takes_what_it_is_shown_with() {
    let code = code();
    let commands: BTreeSet<Vec<&str>> = code.iter().filter_map(|it| arguments(it)).collect();
    let commands: Vec<_> = commands.iter().filter(|it| !it.is_empty()).collect();
    assert!(commands.len() > 8, "{commands:?}");
    for command in commands {
        // What is in capitals stands for something. The help is printed when all before it has been understood.
        let mut words = command.clone();
        for word in &mut words {
            if word.bytes().all(|byte| byte.is_ascii_uppercase()) {
                *word = "1";
            }
        }
        words.push("--help");
        let (code, _, stderr) = finished(&words);
        assert_eq!(code, 0, "{command:?}: {stderr}");
    }
    let (_, help, _) = finished(&["inject", "--help"]);
    for flag in code.iter().filter(|it| it.starts_with("--")) {
        let name = flag.split([' ', '=']).next().unwrap();
        assert!(
            help.contains(&format!("{name} ")) || help.contains(&format!("{name}\n")),
            "{flag}"
        );
    }
}

/// A place of the configuration: a section, perhaps a key in it, perhaps a value.
struct Setting<'a> {
    section: &'a str,
    key: Option<&'a str>,
    value: Option<&'a str>,
}

impl<'a> Setting<'a> {
    fn parse(code: &'a str) -> Option<Self> {
        let (section, rest) = code.strip_prefix('[')?.split_once(']')?;
        let (key, value) = match rest.split_once('=') {
            Some((key, value)) => (key.trim(), Some(value.trim())),
            None => (rest.trim(), None),
        };
        Some(Self {
            section,
            key: (!key.is_empty()).then_some(key),
            value,
        })
    }
}

/// A configuration with a key in the place of what it says of that.
fn with(text: &str, section: &str, key: &str, value: &str) -> String {
    let header = format!("[{section}]");
    let is_there = text.lines().any(|line| line == header);
    let mut own = String::new();
    let mut is_inside = false;
    for line in text.lines() {
        if line.starts_with('[') {
            is_inside = line == header;
        }
        if !(is_inside && line.starts_with(&format!("{key} ="))) {
            own = own + line + "\n";
        }
        if line == header {
            own = format!("{own}{key} = {value}\n");
        }
    }
    match is_there {
        true => own,
        false => format!("{own}\n{header}\n{key} = {value}\n"),
    }
}

#[test]
fn every_key_of_the_configuration_is_one_and_every_value_is_taken() {
    let (_, schema, _) = finished(&["schema"]);
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let shipped = Shipped::new();
    let code = code();
    let settings: Vec<_> = code
        .iter()
        .filter_map(|it| Some((it, Setting::parse(it)?)))
        .collect();
    assert!(settings.iter().any(|(_, it)| it.value.is_some()));
    for (written, setting) in settings {
        let steps = setting.section.split('.').chain(setting.key);
        let found = steps.fold(&schema, |place, step| &place["properties"][step]);
        assert!(found.is_object(), "{written}");
        let (Some(key), Some(value)) = (setting.key, setting.value) else {
            continue;
        };
        let text = with(&shipped.text, setting.section, key, &shipped.here(value));
        let (code, _, stderr) = shipped.checked(&text);
        assert_eq!(
            (code, stderr.contains("warning")),
            (0, false),
            "{written}: {stderr}"
        );
    }
}

#[test]
fn every_name_in_code_is_a_key_or_a_metric() {
    let (_, schema, _) = finished(&["schema"]);
    let is_of_a_name =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let mut metrics = 0;
    for name in code() {
        if !name.contains('_') || !name.bytes().all(is_of_a_name) || OTHERS.contains(&&*name) {
            continue;
        }
        if name.starts_with("wx_sidecar_") {
            metrics += 1;
            assert!(TABLE.iter().any(|family| family.name == name), "{name}");
        } else {
            assert!(schema.contains(&format!("\"{name}\":")), "{name}");
        }
    }
    assert!(metrics > 0);
}

#[test]
fn the_runbook_says_which_configuration_the_image_means_and_what_to_do_if_the_pod_has_another() {
    let image = document("Dockerfile");
    let (_, meant) = image.split_once("WX_SIDECAR_CONFIG=").unwrap();
    let meant = meant.lines().next().unwrap();
    let (_, code) = prose_and_code(&document("monitoring/RUNBOOK.md"));
    for said in [meant, "WX_SIDECAR_CONFIG", "run -c zookeeper://...", "-c"] {
        assert!(code.iter().any(|it| it == said), "{said}");
    }
}

#[test]
fn every_panel_that_the_runbook_points_at_is_on_the_dashboard() {
    let (prose, _) = prose_and_code(&document("monitoring/RUNBOOK.md"));
    let dashboard = document("monitoring/grafana-dashboard.json");
    let quoted: Vec<&str> = prose.split('"').skip(1).step_by(2).collect();
    let named = quoted
        .iter()
        .filter(|it| it.starts_with(|first: char| first.is_ascii_uppercase()));
    let named: Vec<_> = named.collect();
    assert!(named.len() > 8, "{quoted:?}");
    for title in named {
        let is_there = ["\"", ", p9"]
            .iter()
            .any(|end| dashboard.contains(&format!("\"title\": \"{title}{end}")));
        assert!(is_there, "{title}");
    }
}

#[test]
fn the_admin_side_of_the_shipped_configuration_answers_what_the_documents_ask_of_it() {
    let shipped = Shipped::new();
    let (checked, _, stderr) = shipped.checked(&shipped.text);
    assert_eq!(checked, 0, "{stderr}");
    let ports = [
        "env",
        "WX_SIDECAR_PORT=0",
        "WX_APP_PORT=1",
        "WX_OUTBOUND_PORT=0",
    ];
    let run = Run::under(&ports, &shipped.path);
    let bearer = format!("Bearer {TOKEN}");
    let code = code();
    let asked: Vec<&String> = code
        .iter()
        .filter(|it| it.contains("curl ") && it.contains("localhost:9901"))
        .collect();
    assert!(asked.len() >= 3, "{asked:?}");
    for command in asked {
        let (_, target) = command.split_once("localhost:9901").unwrap();
        let target = target.split([' ', '"']).next().unwrap();
        let method = if command.contains("-X POST") {
            "POST"
        } else {
            "GET"
        };
        let ask = |headers: &[(&str, &str)]| {
            Client::connect(run.admin)
                .request(method, target, headers, b"")
                .status
        };
        let shows = command.contains("-H \"Authorization: Bearer $TOKEN\"");
        assert_eq!(ask(&[]), if shows { 401 } else { 200 }, "{command}");
        if shows {
            assert_eq!(ask(&[("Authorization", &bearer)]), 200, "{command}");
        }
    }
    // What the commands that are run in the pod ask for.
    for (method, target) in [
        ("GET", "/push/dead-letters"),
        ("POST", "/push/dead-letters/replay"),
        ("GET", "/push/inbox"),
    ] {
        let answer =
            Client::connect(run.admin).request(method, target, &[("Authorization", &bearer)], b"");
        assert!(
            ![401, 403].contains(&answer.status),
            "{target}: {}",
            answer.text()
        );
    }
}

#[test]
fn the_secret_that_is_made_has_every_key_that_a_shipped_configuration_reads() {
    let files = files_of(&manifests(""));
    let read: BTreeSet<String> = files
        .iter()
        .filter(|(path, _)| path.ends_with("sidecar.toml"))
        .flat_map(|(_, text)| text.lines().filter(|line| !line.starts_with('#')))
        .flat_map(|line| line.split('"'))
        .filter_map(|word| Some(word.strip_prefix(MOUNT)?.to_owned()))
        .collect();
    assert_eq!(Vec::from_iter(&read), ["admin-token", "secret"]);
    let mut made = 0;
    for (path, text) in &files {
        let whole = text.replace("\\\n#", " ").replace("\\\n", " ");
        for command in whole
            .lines()
            .filter(|line| line.contains("create secret generic wx-sidecar"))
        {
            made += 1;
            for key in &read {
                assert!(
                    command.contains(&format!("--from-literal={key}=")),
                    "{path:?}: {command}"
                );
            }
        }
    }
    assert!(made >= 6, "{made}");
}

fn files_of(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files_of(&path)),
            false => found.push((path.clone(), fs::read_to_string(&path).unwrap())),
        }
    }
    found
}

#[test]
fn the_line_that_names_your_image_names_it() {
    let directory = TempDir::new().unwrap();
    let copied = Command::new("cp")
        .arg("-r")
        .arg(manifests(""))
        .arg(directory.path().join("k8s"))
        .status();
    assert!(copied.unwrap().success());
    let (_, code) = prose_and_code(&document("README.md"));
    let lines: Vec<_> = code
        .iter()
        .filter(|it| it.starts_with("IMAGE=") || it.starts_with("sed "))
        .collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let script = format!("{}\n{}", lines[0], lines[1]);
    let ran = Command::new("sh")
        .args(["-e", "-c", &script])
        .current_dir(directory.path())
        .status();
    assert!(ran.unwrap().success());
    let objects = objects(&[directory.path().join("k8s/examples/shop")]).remove(0);
    let pod = objects
        .iter()
        .find(|it| it["kind"] == "Deployment")
        .and_then(pods)
        .unwrap();
    let image = lines[0].strip_prefix("IMAGE=").unwrap();
    let expected = format!("{image}:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        named(&pod["spec"]["initContainers"], "wx-sidecar")["image"],
        expected.as_str()
    );
}

/// The configuration of the base, with a Secret that is here.
struct Shipped {
    directory: TempDir,
    path: PathBuf,
    text: String,
}

impl Shipped {
    fn new() -> Self {
        canary(SECRET);
        canary(TOKEN);
        let directory = TempDir::new().unwrap();
        for (key, content) in [
            ("secret", SECRET),
            ("secret-old", SECRET),
            ("admin-token", TOKEN),
        ] {
            let file = directory.path().join(key);
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
        }
        let path = directory.path().join("sidecar.toml");
        let mut shipped = Self {
            directory,
            path,
            text: String::new(),
        };
        let base = document("base/sidecar.toml");
        let base = base.replace("0.0.0.0:${WX_SIDECAR_PORT}", "127.0.0.1:${WX_SIDECAR_PORT}");
        shipped.text = shipped.here(&base.replace("0.0.0.0:9901", "127.0.0.1:0"));
        fs::write(&shipped.path, &shipped.text).unwrap();
        shipped
    }

    /// With the Secret where it is here.
    fn here(&self, text: &str) -> String {
        let here = format!("{}/", self.directory.path().display());
        text.replace(MOUNT, &here)
    }

    fn checked(&self, text: &str) -> (i32, String, String) {
        let path = self.directory.path().join("checked.toml");
        fs::write(&path, text).unwrap();
        let ports = [
            ("WX_SIDECAR_PORT", "8080"),
            ("WX_APP_PORT", "3000"),
            ("WX_OUTBOUND_PORT", "8081"),
        ];
        finished_with(&["check", "-c", path.to_str().unwrap()], &ports)
    }
}
