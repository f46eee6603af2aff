//! Real ZooKeeper servers, alone and as an ensemble, ZooKeeper's own command line, and a network that can be cut.
//!
//! Each server has ports and a directory of its own and ends with the last test that holds it. It
//! keeps its data over a restart unless told otherwise. Sessions are short and the heap is small, so that a test waits
//! for neither.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::daemon::{Daemon, free_port};
use crate::patience::eventually;

/// Where Debian's package puts the library; what it needs is named in it.
const LIBRARY: &str = "/usr/share/java/zookeeper.jar";
/// A virtual machine that starts quickly and stays small. `jute.maxbuffer` is raised, so that a node can hold more than a
/// configuration may have.
const JAVA: [&str; 7] = [
    "-Xmx64m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dzookeeper.forceSync=no",
    "-Djute.maxbuffer=8388608",
    "-cp",
    LIBRARY,
];
const CONFIGURATION: &str = "tickTime=200\ninitLimit=50\nsyncLimit=10\nmaxSessionTimeout=10000\nmaxClientCnxns=0\n\
    clientPortAddress=127.0.0.1\nadmin.enableServer=false\n4lw.commands.whitelist=srvr\n";
/// What any session here has expired after.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// A server. It ends when it is dropped.
pub(crate) struct Server {
    directory: TempDir,
    pub(crate) port: u16,
    pub(crate) process: Daemon,
}

/// Three servers that elect one among them. One that has lost the others serves those who would read what it has.
pub(crate) struct Ensemble {
    pub(crate) servers: Vec<Server>,
}

/// A network between a client and a server, which can be cut: nobody is told, and nothing gets through.
pub(crate) struct Network {
    pub(crate) port: u16,
    is_cut: Arc<(Mutex<bool>, Condvar)>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let mut server = Self::prepare("");
        server.restart();
        server
    }

    /// One for all tests that do it no harm and keep to paths of their own.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    fn prepare(more: &str) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        let text = format!(
            "{CONFIGURATION}clientPort={port}\ndataDir={}\n{more}",
            data.display()
        );
        fs::write(directory.path().join("zoo.cfg"), text).unwrap();
        Self {
            directory,
            port,
            process: Daemon::default(),
        }
    }

    /// Starts it in its old place, with what it had.
    pub(crate) fn restart(&mut self) {
        self.spawn();
        eventually("ZooKeeper serves", || self.mode().is_some());
    }

    /// Has it forget everything; it does not run then.
    pub(crate) fn wipe(&mut self) {
        self.process.kill();
        let data = self.data();
        fs::remove_dir_all(&data).unwrap();
        fs::create_dir(&data).unwrap();
    }

    fn spawn(&mut self) {
        let output = fs::File::create(self.directory.path().join("output")).unwrap();
        self.process.start(
            Command::new("java")
                .args(JAVA)
                .arg("-Dreadonlymode.enabled=true")
                .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
                .arg(self.directory.path().join("zoo.cfg"))
                .current_dir(self.directory.path())
                .stdin(Stdio::null())
                .stdout(output.try_clone().unwrap())
                .stderr(output),
        );
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Where a znode is on this server.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("zookeeper://127.0.0.1:{}{path}", self.port)
    }

    /// What it is in its ensemble; nothing if it does not serve.
    pub(crate) fn mode(&self) -> Option<String> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let patience = Some(Duration::from_secs(1));
        connection.set_read_timeout(patience).unwrap();
        connection.write_all(b"srvr").ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "));
        mode.map(str::to_owned)
    }

    /// Has ZooKeeper's own command line do this, a command in each line; and again if its connection broke or its session
    /// expired meanwhile, as sessions are short. What was done by then cannot be done once more, and need not.
    pub(crate) fn command_line(&self, commands: &str) {
        let mut may_be_done = false;
        eventually("the command line is heard", || {
            let output = self.try_command_line(commands);
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let is_lost = ["ConnectionLoss", "Session expired"]
                .iter()
                .any(|why| said.contains(why));
            let is_done = output.status.success() || may_be_done;
            assert!(is_done || is_lost, "{said}");
            may_be_done = is_lost;
            !is_lost
        });
    }

    fn try_command_line(&self, commands: &str) -> Output {
        let mut process = Command::new("java")
            .args(JAVA)
            .arg("org.apache.zookeeper.ZooKeeperMain")
            .args(["-server", &format!("127.0.0.1:{}", self.port)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Java is installed; `make test-tools` does it, and ZooKeeper too");
        let mut input = process.stdin.take().unwrap();
        input
            .write_all(format!("{commands}\nquit\n").as_bytes())
            .unwrap();
        drop(input);
        process.wait_with_output().unwrap()
    }
}

impl Ensemble {
    pub(crate) fn start() -> Self {
        let peers: String = (1..=3)
            .map(|id| format!("server.{id}=127.0.0.1:{}:{}\n", free_port(), free_port()))
            .collect();
        let mut ensemble = Self {
            servers: (1..=3).map(|_| Server::prepare(&peers)).collect(),
        };
        for (server, id) in ensemble.servers.iter().zip(1..) {
            fs::write(server.data().join("myid"), format!("{id}\n")).unwrap();
        }
        ensemble.restart();
        ensemble
    }

    /// Starts all that do not run.
    pub(crate) fn restart(&mut self) {
        for server in &mut self.servers {
            if !server.process.runs() {
                server.spawn();
            }
        }
        eventually("the ensemble serves", || {
            self.servers.iter().all(|server| server.mode().is_some())
        });
    }

    /// Which of them leads.
    pub(crate) fn leader(&self) -> usize {
        let is_leader = |server: &Server| server.mode().as_deref() == Some("leader");
        let mut leader = None;
        eventually("one leads", || {
            leader = self.servers.iter().position(is_leader);
            leader.is_some()
        });
        leader.unwrap()
    }

    /// Where a znode is, by all servers.
    pub(crate) fn url(&self, path: &str) -> String {
        let servers: Vec<_> = self
            .servers
            .iter()
            .map(|server| format!("127.0.0.1:{}", server.port))
            .collect();
        format!("zookeeper://{}{path}", servers.join(","))
    }
}

impl Network {
    pub(crate) fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_cut = Arc::<(Mutex<bool>, Condvar)>::default();
        let (shared, server) = (Arc::clone(&is_cut), server.port);
        // It ends with the process of the tests.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
                    continue;
                };
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                for (from, to) in [(client, server), back] {
                    let is_cut = Arc::clone(&shared);
                    thread::spawn(move || carry(from, to, &is_cut));
                }
            }
        });
        Self { port, is_cut }
    }

    pub(crate) fn cut(&self) {
        *self.is_cut.0.lock().unwrap() = true;
    }

    /// What was sent in the meantime arrives.
    pub(crate) fn mend(&self) {
        *self.is_cut.0.lock().unwrap() = false;
        self.is_cut.1.notify_all();
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, (is_cut, changed): &(Mutex<bool>, Condvar)) {
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer);
        drop(changed.wait_while(is_cut.lock().unwrap(), |is_cut| *is_cut));
        let Ok(count @ 1..) = read else { break };
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _gone = to.shutdown(Shutdown::Both);
    let _gone = from.shutdown(Shutdown::Both);
}
