//! Real Redis servers, Sentinels among them, and a proxy that stands in front of one and misbehaves.
//!
//! Each server has a port and a directory of its own and ends with the test.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use redis::{Connection, FromRedisValue};
use tempfile::TempDir;

use crate::daemon::{Daemon, free_port};
use crate::patience::{dawdle, eventually};
use crate::rig::keep;

/// A server. It ends when it is dropped.
pub(crate) struct Server {
    program: &'static str,
    arguments: Vec<String>,
    directory: TempDir,
    pub(crate) port: u16,
    password: Option<&'static str>,
    pub(crate) process: Daemon,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut server = Self::prepare("redis-server", arguments);
        server.restart();
        server
    }

    /// A server that wants this password.
    pub(crate) fn with_password(password: &'static str) -> Self {
        let mut server = Self::prepare("redis-server", &["--requirepass", password]);
        server.password = Some(password);
        server.restart();
        server
    }

    /// A server that speaks TLS, and nothing else.
    pub(crate) fn with_tls(certificate: &str, key: &str) -> Self {
        let mut server = Self::prepare("redis-server", &[]);
        let (cert_file, key_file) = (server.path("cert.pem"), server.path("key.pem"));
        fs::write(&cert_file, certificate).unwrap();
        fs::write(&key_file, key).unwrap();
        let port = server.port.to_string();
        server.arguments = [
            "--port",
            "0",
            "--tls-port",
            &port,
            "--save",
            "",
            "--tls-auth-clients",
            "no",
            "--tls-cert-file",
            &cert_file,
            "--tls-key-file",
            &key_file,
            "--tls-ca-cert-file",
            &cert_file,
        ]
        .map(str::to_owned)
        .to_vec();
        server.spawn();
        eventually("it listens", || TcpStream::connect(server.place()).is_ok());
        server
    }

    /// One that watches `master` and calls it `mymaster`. It takes a while to believe that one is down: a machine that stands
    /// still does not make it so.
    pub(crate) fn sentinel(master: &Server) -> Self {
        let mut server = Self::prepare("redis-sentinel", &[]);
        let configuration = server.path("sentinel.conf");
        let text = format!(
            "port {}\nsentinel monitor mymaster 127.0.0.1 {} 1\nsentinel down-after-milliseconds mymaster 12000\n\
             sentinel failover-timeout mymaster 3000\n",
            server.port, master.port
        );
        fs::write(&configuration, text).unwrap();
        server.arguments = vec![configuration];
        server.restart();
        server
    }

    fn prepare(program: &'static str, arguments: &[&str]) -> Self {
        let port = free_port();
        let own = ["--port", &port.to_string(), "--save", ""].map(str::to_owned);
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        Self {
            program,
            arguments: own.into_iter().chain(arguments).collect(),
            directory: tempfile::tempdir().unwrap(),
            port,
            password: None,
            process: Daemon::default(),
        }
    }

    fn path(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    /// Starts it, empty, in its old place.
    pub(crate) fn restart(&mut self) {
        self.spawn();
        eventually("it answers", || self.try_connect().is_some());
    }

    fn spawn(&mut self) {
        let output = fs::File::create(self.path("output")).unwrap();
        self.process.start(
            Command::new(self.program)
                .args(&self.arguments)
                .current_dir(self.directory.path())
                .stdin(Stdio::null())
                .stdout(output),
        );
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn place(&self) -> (&'static str, u16) {
        ("127.0.0.1", self.port)
    }

    pub(crate) fn url(&self) -> String {
        let password = self.password.map_or(String::new(), |it| format!(":{it}@"));
        format!("redis://{password}127.0.0.1:{}", self.port)
    }

    fn try_connect(&self) -> Option<Connection> {
        let client = redis::Client::open(self.url()).unwrap();
        let connection = client.get_connection_with_timeout(Duration::from_secs(10));
        let mut connection = connection.ok()?;
        redis::cmd("PING").query::<String>(&mut connection).ok()?;
        Some(connection)
    }

    /// A connection to a server that runs.
    fn connection(&self) -> Connection {
        let mut connection = None;
        eventually("it answers", || {
            connection = self.try_connect();
            connection.is_some()
        });
        connection.expect("it answers")
    }

    /// A command, such as `CONFIG SET maxmemory 1`.
    pub(crate) fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        let mut connection = self.connection();
        let mut words = command.split(' ').map(|word| match word {
            "''" => "",
            word => word,
        });
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        command.query(&mut connection).unwrap()
    }

    /// Writes all names and values down as an output that must not hold a secret, and says how many there were.
    pub(crate) fn keep_values(&self) -> usize {
        let mut connection = self.connection();
        let names: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
        for name in &names {
            let value: Vec<u8> = redis::cmd("DUMP").arg(name).query(&mut connection).unwrap();
            let hex = wx_sidecar::crypto::hex(&value);
            let text = String::from_utf8_lossy(&value);
            keep("redis-values.log", &format!("{name} {text} {hex}"));
        }
        names.len()
    }
}

/// What a proxy does with what Redis answers.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// Passes it on.
    Honest,
    /// Passes it on, this late.
    Late(Duration),
    /// Passes this on instead, and closes.
    Instead(Vec<u8>),
    /// Passes half of each answer on, and then nothing.
    Half,
}

/// A proxy in front of a server. Connections that exist keep to a new manner as well.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    manner: Arc<Mutex<Manner>>,
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) fn in_front_of(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let manner = Arc::new(Mutex::new(Manner::Honest));
        let connections = Arc::new(AtomicUsize::new(0));
        let (place, shared, count) = (
            server.place(),
            Arc::clone(&manner),
            Arc::clone(&connections),
        );
        // It ends with the process of the tests.
        thread::spawn(move || {
            for downstream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let Ok(upstream) = TcpStream::connect(place) else {
                    continue;
                };
                let questions = (
                    downstream.try_clone().unwrap(),
                    upstream.try_clone().unwrap(),
                );
                thread::spawn(move || carry(questions.0, questions.1, &Mutex::new(Manner::Honest)));
                let manner = Arc::clone(&shared);
                thread::spawn(move || carry(upstream, downstream, &manner));
            }
        });
        Self {
            port,
            manner,
            connections,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, manner: &Mutex<Manner>) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let manner = manner.lock().unwrap().clone();
        let written = match manner {
            Manner::Honest => to.write_all(&buffer[..count]),
            Manner::Late(by) => {
                dawdle(by);
                to.write_all(&buffer[..count])
            }
            Manner::Half => to.write_all(&buffer[..count / 2]),
            Manner::Instead(answer) => {
                let _gone = to.write_all(&answer);
                break;
            }
        };
        if written.is_err() {
            break;
        }
    }
    // Whatever has ended, it has ended for both.
    let _gone = to.shutdown(std::net::Shutdown::Both);
    let _gone = from.shutdown(std::net::Shutdown::Both);
}
