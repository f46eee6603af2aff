//! A real Prometheus, with a directory and a port of its own, which scrapes what a test tells it to.
//!
//! Debian's package would start a server for the whole machine. So `make test-tools` only unpacks it, into the target
//! directory; one that is installed serves as well.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http_client::Client;
use crate::patience::eventually;

/// A server. It ends, by its process id, when it is dropped.
pub(crate) struct Prometheus {
    process: Child,
    address: String,
    directory: TempDir,
    /// How many it has to scrape.
    targets: usize,
}

/// What is to be scraped, and the labels that the place it runs in gives it.
pub(crate) struct Target {
    pub(crate) admin: String,
    pub(crate) labels: Value,
}

/// So long ago, every scrape that had begun has ended.
const SETTLED: Duration = Duration::from_secs(2);

/// What an instant query gives: labels and a value.
pub(crate) type Sample = (Value, f64);

impl Prometheus {
    pub(crate) fn start(targets: &[Target], rules: Option<&Path>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let group = |target: &Target| json!({ "targets": [target.admin], "labels": target.labels });
        let config = json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
            "rule_files": Vec::from_iter(rules),
            "scrape_configs": [{
                "job_name": "any-name",
                "static_configs": Vec::from_iter(targets.iter().map(group)),
            }],
        });
        // JSON is YAML.
        let path = directory.path().join("prometheus.yml");
        fs::write(&path, config.to_string()).unwrap();
        let stderr = directory.path().join("stderr");
        let process = Command::new(tool("prometheus"))
            .arg(format!("--config.file={}", path.display()))
            .arg("--storage.tsdb.path=data")
            .arg("--web.listen-address=127.0.0.1:0")
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .expect("Prometheus is there; `make test-tools` fetches it");
        let mut server = Self {
            process,
            address: String::new(),
            directory,
            targets: targets.len(),
        };
        eventually("Prometheus listens", || {
            server.address = listens_at(&server.log()).unwrap_or_default();
            !server.address.is_empty()
        });
        eventually("Prometheus is ready", || {
            let mut client = Client::connect(&*server.address);
            client.request("GET", "/-/ready", &[], b"").status == 200
        });
        server
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("stderr")).unwrap()
    }

    /// What its API answers to a GET.
    pub(crate) fn get(&self, target: &str) -> Value {
        let answer = Client::connect(&*self.address).request("GET", target, &[], b"");
        answer.json()
    }

    /// An instant query; an error is its fault, and panics. It is of a moment, not long ago, at which every target had
    /// answered: what belongs to one that was held up is gone until it answers again.
    pub(crate) fn query(&self, expr: &str) -> Vec<Sample> {
        let mut then = SystemTime::now();
        eventually("all targets answer", || {
            then = SystemTime::now() - SETTLED;
            let up = self.query_at("up", then);
            up.len() == self.targets && up.iter().all(|(_, value)| *value == 1.0)
        });
        self.query_at(expr, then)
    }

    fn query_at(&self, expr: &str, time: SystemTime) -> Vec<Sample> {
        let time = time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let body = format!("query={}&time={time:.3}", percent_encoded(expr));
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        let mut client = Client::connect(&*self.address);
        let answer = client.request("POST", "/api/v1/query", &headers, body.as_bytes());
        let answer = answer.json();
        assert_eq!(answer["status"], "success", "{expr}: {answer}");
        let data = &answer["data"];
        assert_eq!(data["resultType"], "vector", "{expr}");
        let sample = |sample: &Value| {
            let value = sample["value"][1].as_str().unwrap();
            (sample["metric"].clone(), value.parse().unwrap())
        };
        data["result"]
            .as_array()
            .unwrap()
            .iter()
            .map(sample)
            .collect()
    }

    /// Waits until every target has been scraped so many times more.
    pub(crate) fn scrapes(&self, times: usize) {
        // Only those that it has got something from: `up` is 0 for the others.
        let scraped = |time| self.query_at("sum_over_time(up[1h])", time);
        let before = scraped(SystemTime::now());
        eventually("it goes on to scrape", || {
            // As far as queries look.
            let now = scraped(SystemTime::now() - SETTLED);
            let since = |labels: &Value, count: f64| {
                let old = before.iter().find(|(of, _)| of == labels);
                count - old.map_or(0.0, |(_, old)| *old)
            };
            now.len() == self.targets
                && now
                    .iter()
                    .all(|(labels, count)| since(labels, *count) >= times as f64)
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn listens_at(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("msg=\"Listening on\" address=")?;
    Some(rest.split_once('\n')?.0.to_owned())
}

fn percent_encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Where a program of the package is.
fn tool(name: &str) -> PathBuf {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let target = temporary.parent().expect("it lies in target");
    let unpacked = target.join("test-tools/usr/bin").join(name);
    if unpacked.exists() {
        return unpacked;
    }
    PathBuf::from(name)
}

/// Runs promtool in `k8s/monitoring`; what it printed if it was content, and a panic if not.
pub(crate) fn promtool(arguments: &[&str], input: &str) -> String {
    let mut process = Command::new(tool("promtool"))
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/k8s/monitoring"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is there; `make test-tools` fetches it");
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = process.wait_with_output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8(printed).unwrap();
    assert!(output.status.success(), "{arguments:?}: {printed}");
    printed
}
