//! What the app pays for never handling an access_token, and how the outbound side behaves when WeChat does not.
//!
//! Three processes beside this one's load: the simulator over HTTPS, the sidecar, and nothing else. Each round makes the same
//! calls directly, by HTTPS and with the token at hand, and through the sidecar, in clear and without one; what is told is the
//! median of the rounds. CPU is the kernel's account of each process. Absolute times are this machine's; ratios are worth
//! more.
//!
//! `--quick` makes fewer calls and has WeChat down for ten seconds instead of a minute.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

#[path = "proxy/process.rs"]
#[allow(dead_code, reason = "it is the other bench's, which needs more of it")]
mod process;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use process::{CpuTime, Process, free_address};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_wx-sidecar");
const APPID: &str = "wx0123456789abcdef";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const CLIENTS: usize = 16;
const SMALL: &str = "/cgi-bin/get_api_domain_ip";
const UPLOAD: &str = "/cgi-bin/media/upload";
const ACTS: &str = "/cgi-bin/message/custom/send";
const UPLOAD_LEN: usize = 100 * 1024;

type Pool = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut stage = Stage::set();
        stage.warm_up().await;
        let (rounds, calls) = if quick { (5, 1_000) } else { (15, 3_000) };
        stage
            .compare("small GET", Job::small(), rounds, calls)
            .await;
        stage
            .compare("100 KiB upload", Job::upload(), rounds, calls / 10)
            .await;
        stage.burst_of_dead_tokens().await;
        let down = Duration::from_secs(if quick { 10 } else { 60 });
        stage.wechat_goes_down(down).await;
    });
}

/// The simulator, the sidecar, and a way to both.
struct Stage {
    folder: TempDir,
    sim_at: SocketAddr,
    outbound: SocketAddr,
    admin: SocketAddr,
    sim: Process,
    sidecar: Process,
    pool: Pool,
}

#[derive(Clone)]
struct Job {
    method: Method,
    path: &'static str,
    body: Bytes,
    content_type: &'static str,
}

/// What one round of calls took.
struct Spent {
    /// Of this process, in microseconds a call.
    ours: f64,
    sidecars: f64,
    latencies: Vec<Duration>,
}

impl Job {
    fn small() -> Self {
        Self {
            method: Method::GET,
            path: SMALL,
            body: Bytes::new(),
            content_type: "application/json",
        }
    }

    fn upload() -> Self {
        let head = "--b\r\nContent-Disposition: form-data; name=\"media\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n";
        let mut body = head.as_bytes().to_vec();
        body.resize(body.len() + UPLOAD_LEN, 7);
        body.extend_from_slice(b"\r\n--b--\r\n");
        Self {
            method: Method::POST,
            path: UPLOAD,
            body: body.into(),
            content_type: "multipart/form-data; boundary=b",
        }
    }

    fn to(&self, base: &str, token: Option<&str>) -> Request<Full<Bytes>> {
        let token = token.map_or(String::new(), |token| format!("&access_token={token}"));
        Request::builder()
            .method(&self.method)
            .uri(format!("{base}{}?type=image{token}", self.path))
            .header(CONTENT_TYPE, self.content_type)
            .body(Full::new(self.body.clone()))
            .unwrap()
    }
}

impl Stage {
    fn set() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("wechat.crt", &certified.cert.pem());
        write("wechat.key", &certified.signing_key.serialize_pem());
        let (sim_at, outbound, admin) = (free_address(), free_address(), free_address());
        let config = format!(
            "[app]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\n\
             [inbound]\nlisten = \"{}\"\nupstream = \"http://127.0.0.1:9\"\n\
             [wechat]\nendpoints = [\"https://localhost:{}\"]\nca_file = \"wechat.crt\"\n\
             [outbound]\nlisten = \"{outbound}\"\n[admin]\nlisten = \"{admin}\"\n[log]\nlevel = \"error\"\n",
            free_address(),
            sim_at.port(),
        );
        write("sidecar.toml", &config);
        let sim = start_sim(folder.path(), sim_at);
        let mut run = Command::new(BINARY);
        run.arg("run")
            .arg("-c")
            .arg(folder.path().join("sidecar.toml"));
        let sidecar = Process::spawn("sidecar", &mut run, folder.path()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        let pem = certified.cert.pem();
        roots
            .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        Self {
            folder,
            sim_at,
            outbound,
            admin,
            sim,
            sidecar,
            pool: Client::builder(TokioExecutor::new()).build(connector),
        }
    }

    fn direct(&self) -> String {
        format!("https://localhost:{}", self.sim_at.port())
    }

    fn through(&self) -> String {
        format!("http://{}", self.outbound)
    }

    async fn warm_up(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let answered = self.pool.request(Job::small().to(&self.through(), None));
            match answered.await {
                Ok(answer) if answer.status() == 200 => return,
                _ if Instant::now() > until => {
                    panic!("{}\n{}", self.sidecar.last_words(), self.sim.last_words())
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn json(&self, url: &str, body: Option<Value>) -> Value {
        let method = if body.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        let body = body.map_or(Bytes::new(), |body| body.to_string().into());
        let request = Request::builder().method(method).uri(url);
        let answer = self
            .pool
            .request(request.body(Full::new(body)).unwrap())
            .await;
        let body = answer.unwrap().into_body().collect().await.unwrap();
        serde_json::from_slice(&body.to_bytes()).unwrap()
    }

    /// The token as an app would have it at hand.
    async fn token(&self) -> String {
        let asked = json!({"grant_type": "client_credential", "appid": APPID, "secret": SECRET});
        let url = format!("{}/cgi-bin/stable_token", self.direct());
        let told = self.json(&url, Some(asked)).await;
        told["access_token"].as_str().unwrap().to_owned()
    }

    async fn compare(&self, name: &str, job: Job, rounds: usize, calls: usize) {
        let token = self.token().await;
        let (mut direct, mut through) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            direct.push(self.round(&job, &self.direct(), Some(&token), calls).await);
            through.push(self.round(&job, &self.through(), None, calls).await);
        }
        println!("\n{name}, {CLIENTS} at once, medians of {rounds} rounds of {calls} calls");
        println!("{:<34}{:>12}{:>12}{:>10}", "", "direct", "sidecar", "ratio");
        let row = |what: &str, of: &dyn Fn(&Spent) -> f64| {
            let a = median(direct.iter().map(of));
            let b = median(through.iter().map(of));
            let ratio = median(direct.iter().zip(&through).map(|(a, b)| of(b) / of(a)));
            println!("{what:<34}{a:>12.1}{b:>12.1}{ratio:>10.2}");
        };
        row("the app's CPU, µs a call", &|spent| spent.ours);
        row("with the sidecar's, µs a call", &|spent| {
            spent.ours + spent.sidecars
        });
        row("p50, µs", &|spent| spent.quantile(0.5));
        row("p99, µs", &|spent| spent.quantile(0.99));
    }

    async fn round(&self, job: &Job, base: &str, token: Option<&str>, calls: usize) -> Spent {
        let (ours, theirs) = ([std::process::id()], self.sidecar.tree());
        let before = (CpuTime::of(&ours), CpuTime::of(&theirs));
        let left = Arc::new(AtomicUsize::new(calls));
        let clients = (0..CLIENTS).map(|_| {
            let (left, pool, job) = (Arc::clone(&left), self.pool.clone(), job.clone());
            let (base, token) = (base.to_owned(), token.map(str::to_owned));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                    .is_ok()
                {
                    let began = Instant::now();
                    let answer = pool.request(job.to(&base, token.as_deref())).await.unwrap();
                    assert_eq!(answer.status(), 200);
                    let body = answer.into_body().collect().await.unwrap().to_bytes();
                    latencies.push(began.elapsed());
                    assert!(!body.windows(9).any(|it| it == b"\"errcode\""), "{body:?}");
                }
                latencies
            })
        });
        let mut latencies = Vec::new();
        for client in clients.collect::<Vec<_>>() {
            latencies.extend(client.await.unwrap());
        }
        latencies.sort_unstable();
        let spent =
            |pids: &[u32], before| CpuTime::of(pids).since(before).microseconds() / calls as f64;
        Spent {
            ours: spent(&ours, before.0),
            sidecars: spent(&theirs, before.1),
            latencies,
        }
    }

    /// All access_tokens die at once, and a thousand calls come before anybody knows.
    async fn burst_of_dead_tokens(&self) {
        let counted = async |path: &str| {
            let calls = self
                .json(&format!("{}/_sim/calls", self.direct()), None)
                .await;
            calls["counts"][path].as_u64().unwrap_or(0)
        };
        let (fetches, calls) = (counted("/cgi-bin/stable_token").await, counted(SMALL).await);
        let clock = format!("{}/_sim/clock", self.direct());
        self.json(&clock, Some(json!({ "advance_s": 7200 }))).await;
        let burst = (0..1000).map(|_| {
            let (pool, base) = (self.pool.clone(), self.through());
            tokio::spawn(async move {
                let answer = pool.request(Job::small().to(&base, None)).await.unwrap();
                let refused = answer.headers().contains_key("x-wx-errcode");
                (answer.status().as_u16(), refused)
            })
        });
        let (mut ok, mut refused) = (0, 0);
        for call in burst.collect::<Vec<_>>() {
            match call.await.unwrap() {
                (200, false) => ok += 1,
                _ => refused += 1,
            }
        }
        println!("\n1,000 calls at once with a token that is dead at WeChat");
        println!("answered {ok}, refused {refused}");
        println!(
            "WeChat saw {} calls and {} token fetches",
            counted(SMALL).await - calls,
            counted("/cgi-bin/stable_token").await - fetches
        );
    }

    /// 500 calls a second while WeChat is gone, and after.
    async fn wechat_goes_down(&mut self, down: Duration) {
        let failed = self.failed_attempts().await;
        self.sim.stop(Duration::from_secs(2));
        let began = Instant::now();
        let mut refused: Vec<Duration> = Vec::new();
        let mut calls = Vec::new();
        let mut ticks = tokio::time::interval(Duration::from_millis(2));
        let mut back_at = None;
        let mut let_through = 0.0;
        let (mut first_success, mut last_refusal) = (None, None);
        while began.elapsed() < down + Duration::from_secs(12) {
            ticks.tick().await;
            if back_at.is_none() && began.elapsed() > down {
                let_through = self.failed_attempts().await - failed;
                self.sim = start_sim(self.folder.path(), self.sim_at);
                back_at = Some(Instant::now());
            }
            let (pool, base) = (self.pool.clone(), self.through());
            calls.push(tokio::spawn(async move {
                let job = Job {
                    method: Method::POST,
                    path: ACTS,
                    body: Bytes::from_static(b"{}"),
                    content_type: "application/json",
                };
                let began = Instant::now();
                let status = pool.request(job.to(&base, None)).await.unwrap().status();
                (began, status.as_u16(), began.elapsed())
            }));
        }
        let back_at = back_at.unwrap();
        let total = calls.len();
        for call in calls {
            let (began, status, took) = call.await.unwrap();
            let ended = began + took;
            match status {
                200 if ended > back_at => {
                    first_success.get_or_insert(ended - back_at);
                }
                200 => {}
                _ => {
                    refused.push(took);
                    if ended > back_at {
                        last_refusal = Some(ended - back_at);
                    }
                }
            }
        }
        refused.sort_unstable();
        let at = |q: f64| refused[((refused.len() - 1) as f64 * q) as usize].as_micros();
        println!(
            "\nWeChat down for {} s at 500 calls/s ({total} calls)",
            down.as_secs()
        );
        println!(
            "refused {} calls, p50 {} µs, p99 {} µs",
            refused.len(),
            at(0.5),
            at(0.99)
        );
        println!("attempts that reached out to WeChat while it was down: {let_through}");
        println!(
            "first success {first_success:?} after WeChat was started again, last refusal {last_refusal:?}"
        );
    }

    /// Calls to WeChat that found nobody, as the sidecar counts them.
    async fn failed_attempts(&self) -> f64 {
        let url = format!("http://{}/metrics", self.admin);
        let request = Request::builder().uri(url).body(Full::default()).unwrap();
        let page = self.pool.request(request).await.unwrap().into_body();
        let page = page.collect().await.unwrap().to_bytes();
        let page = String::from_utf8_lossy(&page).into_owned();
        let counts = page.lines().filter(|line| {
            line.starts_with("wx_sidecar_wx_api_requests_total")
                && ["unreachable", "timeout", "invalid"]
                    .iter()
                    .any(|outcome| line.contains(&format!("errcode=\"{outcome}\"")))
        });
        counts
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

impl Spent {
    fn quantile(&self, q: f64) -> f64 {
        let place = ((self.latencies.len() - 1) as f64 * q) as usize;
        self.latencies[place].as_secs_f64() * 1e6
    }
}

fn start_sim(folder: &Path, at: SocketAddr) -> Process {
    let mut sim = Command::new(BINARY);
    sim.args(["sim", "--listen", &at.to_string(), "--secret", SECRET]);
    sim.arg("--tls-cert").arg(folder.join("wechat.crt"));
    sim.arg("--tls-key").arg(folder.join("wechat.key"));
    Process::spawn("sim", &mut sim, folder).unwrap()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
