//! What README.md says works as it says, in both languages: the quick start's commands, the apps that are to be copied, the
//! configurations; and its list of keys is that of the schema.
//!
//! `UPDATE_DOCS=1 cargo test --test integration -- readme::` writes the list anew.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::backends::App;
use crate::daemon::free_port;
use crate::dev::Dev;
use crate::http_client::Client;
use crate::patience::eventually;
use crate::process::{BINARY, finished, once_it_has_come, write_configuration};
use crate::rig::{Session, canary};

const ENGLISH: &str = include_str!("../README.md");
const CHINESE: &str = include_str!("../README.zh-CN.md");
/// The list of keys is between these.
const FROM: &str = "<!-- configuration: generated, see UPDATE_DOCS -->\n";
const TO: &str = "<!-- /configuration -->\n";

/// What stands between fences with this language, in order.
fn blocks<'r>(text: &'r str, language: &str) -> Vec<&'r str> {
    let fence = format!("```{language}\n");
    let starts = text.split(&fence).skip(1);
    starts
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .collect()
}

#[test]
fn the_commands_of_the_quick_start_do_what_it_says() {
    let dev = Dev::new();
    let (_, rest) = ENGLISH.split_once("\n## Quick start").unwrap();
    let (section, _) = rest.split_once("\n## ").unwrap();
    let mut commands = blocks(section, "sh");
    assert!(commands.remove(0).starts_with("make dev "));
    let script: String = commands.iter().map(|it| format!("{it}\necho\n")).collect();
    let script = once_it_has_come(&script)
        .replace("127.0.0.1:8080", &dev.sidecar.to_string())
        .replace("127.0.0.1:8081", &dev.outbound.to_string())
        .replace("127.0.0.1:9902", &dev.simulator.to_string())
        .replace("target/debug/wx-sidecar", BINARY);
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-euc", &script]).current_dir(folder.path());
    let output = shell.env("no_proxy", "*").output().expect("run sh");
    let said = String::from_utf8(output.stdout).expect("answers in UTF-8");
    assert!(output.status.success(), "{said}");
    let answers = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
    let answers: Vec<Value> = answers.map_while(Result::ok).collect();
    assert_eq!(answers[0]["message"], "hello, I know you", "{said}");
    assert_eq!(answers[0]["appid"], "wx0123456789abcdef");
    let number = answers[1]["phoneNumber"].as_str();
    canary(number.unwrap_or_else(|| panic!("no phone number: {said}")));
    assert!(said.contains("\"Content\": \"hello\""), "{said}");
    let file = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(file("code.jpg").starts_with(b"\xff\xd8"), "a JPEG");
    assert_eq!(file("back.jpg"), file("code.jpg"));
}

#[test]
fn the_app_in_node_works_as_it_is_printed() {
    works_as_printed("Node", "js");
}

#[test]
fn the_app_in_python_works_as_it_is_printed() {
    works_as_printed("Python", "python");
}

#[test]
fn the_app_in_php_works_as_it_is_printed() {
    works_as_printed("PHP", "php");
}

#[test]
fn the_app_in_go_works_as_it_is_printed() {
    works_as_printed("Go", "go");
}

#[test]
fn the_app_in_java_works_as_it_is_printed() {
    works_as_printed("Java", "java");
}

/// An app's file, its text, and the command that runs it.
fn printed<'r>(readme: &'r str, name: &str, language: &str) -> (&'r str, &'r str, &'r str) {
    let (before, rest) = readme
        .split_once(&format!("\n**{name}**"))
        .expect("the README has an app in the language");
    let file = rest.lines().next().unwrap().split('`').nth(1).unwrap();
    let (_, command) = before.rsplit_once("<code>").unwrap();
    let (command, _) = command.split_once("</code>").unwrap();
    (file, blocks(rest, language)[0], command)
}

fn works_as_printed(name: &str, language: &str) {
    let (file, text, command) = printed(ENGLISH, name, language);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(file), text).unwrap();
    let port = free_port();
    // What it calls is not there yet, and it is not there for what calls it.
    let outbound = format!("127.0.0.1:{}", free_port());
    let folder = folder.path().display();
    let line = format!(
        "export PORT={port}; cd {folder}; echo listening on http://127.0.0.1:{port}; exec {command}"
    );
    let app = App::of_line(name, &line, &[("WECHAT", &format!("http://{outbound}"))]);
    let dev = Dev::with(&["--upstream", &app.url()], &outbound);
    eventually("the app listens", || {
        std::net::TcpStream::connect(app.addr()).is_ok()
    });
    let code = Client::connect(dev.simulator).request(
        "GET",
        "/_sim/code?user=alice&format=text",
        &[],
        b"",
    );
    let mut phone = Client::connect(dev.sidecar);
    let login = json!({ "code": code.text().trim() }).to_string();
    let session = Session::of(
        &phone
            .request("POST", "/wx/login", &[], login.as_bytes())
            .json(),
    );
    let bearer = session.bearer();
    let headers = [
        ("Authorization", &*bearer),
        ("X-WX-OPENID", "somebody-else"),
    ];
    let told = phone.request("GET", "/", &headers, b"").json();
    assert_eq!(told["openid"], session.openid.as_str(), "{name}");
    let code = phone.request("GET", "/qrcode", &headers, b"");
    assert_eq!(code.status, 200, "{name}: {}", code.text());
    assert_eq!(code.header("content-type"), Some("image/jpeg"));
    assert!(code.body.starts_with(b"\xff\xd8"), "a JPEG");
}

#[test]
fn both_languages_print_the_same_apps_and_configurations() {
    for language in ["js", "python", "php", "go", "java", "csharp"] {
        let without_comments = |text: &str| {
            let lines = text.lines().map(|line| {
                let code = line.split(" // ").next().unwrap_or_default();
                code.split("  # ")
                    .next()
                    .unwrap_or_default()
                    .trim_end()
                    .to_owned()
            });
            lines.collect::<Vec<_>>()
        };
        let of = |readme| -> Vec<_> {
            let all = blocks(readme, language).into_iter();
            all.map(without_comments).collect()
        };
        assert_eq!(of(ENGLISH), of(CHINESE), "{language}");
        assert!(!blocks(ENGLISH, language).is_empty(), "{language}");
    }
}

#[test]
fn every_configuration_that_is_printed_passes_check() {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["mini.example.com".to_owned()]).unwrap();
    let place = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    let certificate = place("tls.crt", &pair.cert.pem());
    let key = place("tls.key", &pair.signing_key.serialize_pem());
    for readme in [ENGLISH, CHINESE] {
        let all = blocks(readme, "toml");
        assert!(all.len() >= 6, "{}", all.len());
        for printed in all {
            let mut text = printed
                .replace("/var/run/secrets/tls/tls.crt", &certificate)
                .replace("/var/run/secrets/tls/tls.key", &key)
                .replace("/var/lib/wx-sidecar", &folder.path().display().to_string());
            for (section, more) in [
                (
                    "[app]",
                    "appid = \"wx0123456789abcdef\"\nsecret = \"${WX_APP_SECRET}\"",
                ),
                ("[inbound]", "upstream = \"http://127.0.0.1:3000\""),
                ("[media]", "base_url = \"https://mini.example.com\""),
            ] {
                // What the text around says that it needs.
                if !text.lines().any(|line| line.trim() == section) {
                    text = format!("{section}\n{more}\n{text}");
                }
            }
            let config = write_configuration(&text);
            let mut command = Command::new(BINARY);
            command.args(["check", "-c", config.to_str().unwrap()]);
            for (name, value) in [
                ("WX_APP_SECRET", crate::rig::SECRET),
                ("WX_PUSH_TOKEN", "pushtoken"),
                (
                    "WX_PUSH_AES_KEY",
                    "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
                ),
                ("REDIS_PASSWORD", "redis-password"),
            ] {
                command.env(name, value);
            }
            let output = command.output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{printed}\n{told}");
        }
    }
}

#[test]
fn the_list_of_keys_is_that_of_the_schema() {
    let (code, schema, _) = finished(&["schema"]);
    assert_eq!(code, 0);
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut expected = String::new();
    list("", &schema, &mut expected);
    let (before, rest) = ENGLISH.split_once(FROM).expect("the mark is there");
    let (block, after) = rest.split_once(TO).expect("the end mark is there");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        fs::write(path, [before, FROM, &expected, TO, after].concat()).unwrap();
        return;
    }
    assert!(
        block == expected,
        "the schema has changed; write the README anew with UPDATE_DOCS=1"
    );
}

/// The keys of a table, and those of the tables in it.
fn list(name: &str, table: &Value, out: &mut String) {
    let mut inner = Vec::new();
    let mut rows = String::new();
    for (key, property) in table["properties"].as_object().unwrap() {
        let (element, is_list) = match property["items"]["properties"].is_object() {
            true => (&property["items"], true),
            false => (property, false),
        };
        if element["properties"].is_object() {
            let full =
                [name, key]
                    .iter()
                    .filter(|it| !it.is_empty())
                    .fold(String::new(), |all, part| match all.is_empty() {
                        true => (*part).to_owned(),
                        false => format!("{all}.{part}"),
                    });
            inner.push((full, element, is_list, property));
            continue;
        }
        let description = property["description"].as_str().unwrap_or_default();
        rows += &format!(
            "| `{key}` | {} | {} | {} |\n",
            takes(property),
            shown(property),
            description.replace('|', "\\|").replace('\n', " ")
        );
    }
    if !rows.is_empty() {
        *out += "\n| key | takes | default | |\n| --- | --- | --- | --- |\n";
        *out += &rows;
    }
    for (full, element, is_list, property) in inner {
        let header = match is_list {
            true => format!("[[{full}]]"),
            false => format!("[{full}]"),
        };
        let description = property["description"].as_str().unwrap_or_default();
        *out += &format!("\n**`{header}`** {description}\n");
        list(&full, element, out);
    }
}

/// What may be written.
fn takes(property: &Value) -> String {
    let of_words = |choice: &Value| {
        let words = choice["enum"].as_array()?;
        Some(
            words
                .iter()
                .map(|it| format!("`{it}`"))
                .collect::<Vec<_>>()
                .join(", "),
        )
    };
    let range = |of: &Value| match (of["minimum"].as_i64(), of["maximum"].as_i64()) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        _ => "a number".to_owned(),
    };
    match property["type"].as_str() {
        Some("string") => "text".to_owned(),
        Some("boolean") => "`true`, `false`".to_owned(),
        Some("integer") => range(property),
        Some("array") => "a list".to_owned(),
        _ => {
            let choices = property["anyOf"].as_array().unwrap();
            let mut all: Vec<String> = choices.iter().filter_map(of_words).collect();
            for choice in choices {
                match choice["type"].as_str() {
                    Some("integer") => all.push(range(choice)),
                    Some("array") => all.push("text or a list".to_owned()),
                    _ => {}
                }
            }
            match all.is_empty() {
                true => "text".to_owned(),
                false => all.join(", "),
            }
        }
    }
}

/// The default, or an example where there is none.
fn shown(property: &Value) -> String {
    let or_example = match &property["default"] {
        Value::Null => &property["examples"][0],
        _ => return format!("`{}`", property["default"]),
    };
    match or_example {
        Value::Null => String::new(),
        example => format!("none; such as `{example}`"),
    }
}
