//! What identity costs: decryption beside OpenSSL in the same run, a token, and whether a failure tells by its time what was
//! wrong. `make bench-identity`, a minute on one core.
//!
//! Throughput is that of the whole of what a request takes (AES, padding, JSON, watermark), and of AES alone. Each figure is
//! the median of nine rounds, which take turns with OpenSSL's.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use aes::Aes128;
use aes::cipher::{Array, BlockModeEncrypt, KeyIvInit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use wx_sidecar::clock::Timestamp;
use wx_sidecar::crypto::cbc;
use wx_sidecar::domain::{AppId, SessionKey};
use wx_sidecar::secret::Secret;
use wx_sidecar::sim::{OpenDataKind, OpenDataOrder, Options, Simulator};
use wx_sidecar::wechat::open_data::{Accepted, Encrypted};
use wx_sidecar::{Config, Sidecar};

const APPID: &str = "wx0123456789abcdef";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const KEY: [u8; 16] = *b"0123456789abcdef";
const IV: [u8; 16] = [7; 16];
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(300);
/// Requests of each kind for the statistic of failures.
const FAILURES: usize = 400;

fn main() {
    decryption();
    let wechat = Simulator::start(Options::local(
        AppId::parse(APPID).expect("an appid"),
        Secret::new(SECRET),
    ))
    .expect("the simulator starts");
    let config = format!(
        "[app]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\n[inbound]\nlisten = \"127.0.0.1:0\"\n\
         upstream = \"http://127.0.0.1:9\"\nworkers = 1\n[wechat]\nendpoints = [\"{}\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n",
        wechat.url()
    );
    let config = Config::from_toml(&config).expect("the configuration is right");
    let sidecar = Sidecar::start(config).expect("the sidecar starts");
    let mut client = Client::connect(&sidecar);
    let login = json!({ "code": wechat.issue_code("alice") });
    let (_, session) = client.post("/wx/login", "", &login);
    let token = session["access_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    token_cost(&sidecar, &token);
    failures(&wechat, &mut client, &token);
}

/// Decrypts payloads of two lengths.
fn decryption() {
    let appid = AppId::parse(APPID).expect("an appid");
    let key = SessionKey::from_bytes(KEY);
    let accepted = Accepted {
        appid: &appid,
        now: Timestamp::from_millis(0),
        max_age: None,
    };
    println!("decryption, MB/s of ciphertext on one core (median of {ROUNDS})");
    for length in [200, 64 * 1024] {
        let ciphertext = encrypt(&payload(length));
        let encrypted = Encrypted::parse(&STANDARD.encode(&ciphertext), &STANDARD.encode(IV));
        let encrypted = encrypted.expect("it is well-formed");
        let mut figures: [Vec<f64>; 3] = Default::default();
        for _ in 0..ROUNDS {
            figures[0].push(throughput(ciphertext.len(), || {
                black_box(encrypted.decrypt(&key, accepted).is_ok());
            }));
            let mut buffer = ciphertext.clone();
            figures[1].push(throughput(ciphertext.len(), || {
                black_box(cbc::decrypt(&KEY, &IV, black_box(&mut buffer)));
            }));
            figures[2].extend(openssl(ciphertext.len()));
        }
        let [whole, aes, openssl] = figures.map(median);
        println!(
            "  {length:>6} B: request {whole:.0}, AES alone {aes:.0}, openssl speed {openssl:.0}; \
             ratio to openssl {:.2} and {:.2}",
            whole / openssl,
            aes / openssl
        );
    }
}

/// Verifies a token that no connection remembers.
fn token_cost(sidecar: &Sidecar, token: &str) {
    let figures = (0..ROUNDS).map(|_| {
        let (mut count, began) = (0u32, Instant::now());
        while began.elapsed() < ROUND {
            for _ in 0..100 {
                black_box(sidecar.verify(black_box(token)).is_ok());
            }
            count += 100;
        }
        began.elapsed().as_nanos() as f64 / f64::from(count)
    });
    println!("token: verified in {:.0} ns", median(figures.collect()));
}

/// Whether the time of a failure depends on what was wrong: Welch's t of each pair of kinds, with requests that take turns.
fn failures(wechat: &Simulator, client: &mut Client, token: &str) {
    let order = |change: fn(&mut OpenDataOrder)| {
        let mut order = OpenDataOrder::new("alice", OpenDataKind::WeRun);
        change(&mut order);
        let made = wechat.encrypt(&order).expect("alice has logged in");
        json!({ "encryptedData": made.encrypted_data, "iv": made.iv })
    };
    let foreign = order(|order| order.appid = Some("wxfedcba9876543210".to_owned()));
    let no_json = order(|order| order.text = Some("x".repeat(2000)));
    let mut padding = foreign.clone();
    let mut data = STANDARD
        .decode(padding["encryptedData"].as_str().expect("text"))
        .expect("base64");
    let last = data.len() - 17;
    data[last] ^= 0x80;
    padding["encryptedData"] = json!(STANDARD.encode(data));
    let kinds = [
        ("padding", padding),
        ("JSON", no_json),
        ("watermark", foreign),
    ];
    let mut micros: [Vec<f64>; 3] = Default::default();
    for _ in 0..FAILURES {
        for (kind, times) in kinds.iter().zip(&mut micros) {
            let began = Instant::now();
            let (status, _) = client.post("/wx/open-data", token, &kind.1);
            times.push(began.elapsed().as_secs_f64() * 1e6);
            assert_eq!(status, 401, "{}", kind.0);
        }
    }
    println!(
        "failures: Welch's t over {FAILURES} requests of each kind (|t| < 4.5 is no difference)"
    );
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        println!(
            "  {:>9} and {:<9} t = {:+.2}, medians {:.0} and {:.0} µs",
            kinds[a].0,
            kinds[b].0,
            welch(&micros[a], &micros[b]),
            median(micros[a].clone()),
            median(micros[b].clone()),
        );
    }
}

fn payload(length: usize) -> String {
    let frame = |fill: &str| {
        format!(r#"{{"fill":"{fill}","watermark":{{"timestamp":1,"appid":"{APPID}"}}}}"#)
    };
    frame(&"x".repeat(length - frame("").len()))
}

fn encrypt(text: &str) -> Vec<u8> {
    let pad = 16 - text.len() % 16;
    let mut data = [text.as_bytes(), &vec![pad as u8; pad][..]].concat();
    let (blocks, _) = Array::slice_as_chunks_mut(&mut data);
    ::cbc::Encryptor::<Aes128>::new(&KEY.into(), &IV.into()).encrypt_blocks(blocks);
    data
}

/// Megabytes in a second.
fn throughput(bytes: usize, mut work: impl FnMut()) -> f64 {
    let (mut count, began) = (0usize, Instant::now());
    while began.elapsed() < ROUND {
        for _ in 0..16 {
            work();
        }
        count += 16;
    }
    (count * bytes) as f64 / began.elapsed().as_secs_f64() / 1e6
}

/// The same of OpenSSL, if it is installed.
fn openssl(bytes: usize) -> Option<f64> {
    let output = Command::new("openssl")
        .args(["speed", "-elapsed", "-seconds", "1", "-decrypt", "-bytes"])
        .arg(bytes.to_string())
        .args(["-evp", "aes-128-cbc"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let figure = text.lines().last()?.split_whitespace().last()?;
    let kilobytes: f64 = figure.strip_suffix('k')?.parse().ok()?;
    Some(kilobytes / 1e3)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn welch(a: &[f64], b: &[f64]) -> f64 {
    let moments = |x: &[f64]| {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (x.len() - 1) as f64;
        (mean, variance / x.len() as f64)
    };
    let ((mean_a, a), (mean_b, b)) = (moments(a), moments(b));
    (mean_a - mean_b) / (a + b).sqrt()
}

/// A connection that stays.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(sidecar: &Sidecar) -> Self {
        let stream = TcpStream::connect(sidecar.inbound_addr().to_string()).expect("it listens");
        stream.set_nodelay(true).expect("a socket option");
        Self(BufReader::new(stream))
    }

    fn post(&mut self, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0
            .get_mut()
            .write_all(request.as_bytes())
            .expect("it takes requests");
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("it answers");
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().expect("a status");
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("the whole answer");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }
}
