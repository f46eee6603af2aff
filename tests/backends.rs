//! The apps behind the sidecar: real ones, in Express and in Flask (`tests/apps/`), as people write them for CloudRun; and
//! scripts that use what others have written, such as SDKs.
//!
//! Their dependencies are installed once into `target/test-apps/` and again when a manifest changes; what is missing to
//! do so fails the test, never skips it. What an app prints goes to `target/test-output/`, named after the test.
//! An app lives as long as its [`App`], even when the test binary is killed or keeps it in a `static`: see [`LEASH`].

#![allow(
    dead_code,
    reason = "the vocabulary of the integration tests, not all of it in use at any time"
)]

use crate::daemon::free_port;
use crate::http_client::{Client, Response, chunked};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// How long an app may take to start, on a machine that is busy with others.
const START: Duration = Duration::from_secs(120);
/// How long one test of a script may take, on a machine that is busy with others.
const ONE_TEST: Duration = Duration::from_secs(120);
/// The same for one that is compiled first.
const COMPILED_START: Duration = Duration::from_secs(240);
/// How long an app may take to end; its requests in flight included, when it ends gracefully.
const END: Duration = Duration::from_secs(60);

/// Runs `"$@"`, sends it the signals whose names it reads, and kills the whole process group once there is nothing more
/// to read: when the [`App`] is dropped or, as the system closes pipes, when the test binary is gone in whatever way.
const LEASH: &str =
    r#""$@" & exec >/dev/null; while read -r signal; do kill -s "$signal" $!; done; kill -KILL 0"#;

/// Which app. Express and Flask have the same routes and, but for the pages of their frameworks' own errors, the same answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Express on Node, which closes a connection idle for 5 s, its default.
    Express,
    /// WebSocket and gRPC on Node, with other routes than the two: see `app.js`.
    Streams,
    /// No app, but scripts on Node: what others make of our formats.
    Identity,
    /// Flask on gunicorn, which closes a connection idle for 75 s and joins `X_WX_OPENID` to `X-WX-OPENID`: see
    /// `gunicorn.conf.py`.
    Flask,
    /// No app, but a script: what wechatpy makes of our outbound side.
    SdkWechatpy,
    /// The same with WxJava.
    SdkWxJava,
    /// The same with silenceper/wechat.
    SdkGo,
    /// The same with EasyWeChat for Node.
    SdkEasyWechat,
    /// No app, but WeChat's servers, as wechatpy encrypts.
    PushWechatpy,
    /// The same as WxJava encrypts.
    PushWxJava,
    /// The same as the package for Node of WeChat's makers encrypts.
    PushNode,
    /// Express with a route for pushes, and a ledger of them at `LEDGER`.
    PushExpress,
    /// The same in Flask.
    PushFlask,
    /// No app, but a script: what validators make of the schema of our configuration.
    Schema,
    /// No app, but the OpenTelemetry Collector, which writes what it gets to the file `SPANS`.
    Otelcol,
    /// No app, but a program: what Kustomize makes of our manifests.
    Kustomize,
    /// No app, but a script: what Kubernetes' schemas say of them.
    Kubernetes,
    /// No app, but tests on Node: the phone's side of it, `examples/miniprogram`.
    Miniprogram,
    /// No app, but a script that drives a browser: the inspector's page.
    Inspector,
}

/// What a kind is written for.
enum Platform {
    Node,
    Python,
    Java,
    Go,
}

impl Kind {
    /// For tests that hold for any app of the usual kind.
    pub(crate) const ALL: [Kind; 2] = [Kind::Express, Kind::Flask];

    fn name(self) -> &'static str {
        match self {
            Kind::Express => "express",
            Kind::Streams => "streams",
            Kind::Identity => "identity",
            Kind::Flask => "flask",
            Kind::SdkWechatpy => "sdk-wechatpy",
            Kind::SdkWxJava => "sdk-wxjava",
            Kind::SdkGo => "sdk-go",
            Kind::SdkEasyWechat => "sdk-easywechat",
            Kind::PushWechatpy => "push-wechatpy",
            Kind::PushWxJava => "push-wxjava",
            Kind::PushNode => "push-node",
            Kind::PushExpress => "push-express",
            Kind::PushFlask => "push-flask",
            Kind::Schema => "schema",
            Kind::Otelcol => "otelcol",
            Kind::Kustomize => "kustomize",
            Kind::Kubernetes => "kubernetes",
            Kind::Miniprogram => "miniprogram",
            Kind::Inspector => "inspector",
        }
    }

    /// The kind whose dependencies it uses: its own, or those that another has installed anyway.
    fn dependencies(self) -> Kind {
        match self {
            Kind::PushWechatpy => Kind::SdkWechatpy,
            Kind::PushExpress => Kind::Express,
            Kind::PushFlask => Kind::Flask,
            Kind::Miniprogram => Kind::Streams,
            own => own,
        }
    }

    fn platform(self) -> Platform {
        match self {
            Kind::Express | Kind::Streams | Kind::Identity | Kind::SdkEasyWechat => Platform::Node,
            Kind::PushNode | Kind::PushExpress => Platform::Node,
            Kind::Miniprogram | Kind::Inspector => Platform::Node,
            Kind::Flask | Kind::SdkWechatpy => Platform::Python,
            Kind::PushWechatpy | Kind::PushFlask => Platform::Python,
            Kind::Schema | Kind::Kubernetes => Platform::Python,
            Kind::SdkWxJava | Kind::PushWxJava => Platform::Java,
            Kind::SdkGo | Kind::Kustomize | Kind::Otelcol => Platform::Go,
        }
    }

    /// The app's folder in the repository.
    fn source(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/apps")
            .join(self.name())
    }

    /// Runs the app, or a script of the name.
    fn command(self, installed: &Path, script: Option<&str>) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", LEASH, "sh"]).current_dir(self.source());
        match self.platform() {
            Platform::Node => {
                command.args(["node", script.unwrap_or("app.js")]);
                command
                    .env("NODE_ENV", "production")
                    .env("NODE_PATH", installed.join("node_modules"));
            }
            Platform::Python => {
                command.arg(installed.join("venv/bin/python"));
                match script {
                    Some(script) => command.arg(script),
                    None => command.args(["-m", "gunicorn", "app:app"]),
                };
                command
                    .env("PYTHONDONTWRITEBYTECODE", "1")
                    .env_remove("GUNICORN_CMD_ARGS");
            }
            Platform::Java => {
                // It compiles the source by itself, in memory.
                command.arg("java").arg("-cp");
                command.arg(installed.join("lib/*")).args(script);
            }
            Platform::Go => {
                command.arg(installed.join("app"));
            }
        }
        command
    }
}

/// A running app. Dropping it kills it.
pub(crate) struct App {
    addr: SocketAddr,
    leash: Child,
    /// What it prints. Disconnected once each of its processes has gone.
    lines: Receiver<String>,
}

impl App {
    /// Starts an app on this port of 127.0.0.1, or on a free one that nobody else gets when the app has gone, and waits
    /// until it listens. Panics, showing what the app wrote to stderr, when it does not.
    pub(crate) fn start(kind: Kind, port: Option<u16>) -> App {
        App::try_start(kind, port).unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`App::start`], with more variables of its environment.
    pub(crate) fn start_with(kind: Kind, port: Option<u16>, settings: &[(&str, &Path)]) -> App {
        App::try_start_with(kind, port, settings).unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`App::start`], with the message.
    pub(crate) fn try_start(kind: Kind, port: Option<u16>) -> Result<App, String> {
        App::try_start_with(kind, port, &[])
    }

    fn try_start_with(
        kind: Kind,
        port: Option<u16>,
        settings: &[(&str, &Path)],
    ) -> Result<App, String> {
        let installed = install_once(kind)?;
        let mut command = kind.command(&installed, None);
        command
            .env("PORT", port.unwrap_or_else(free_port).to_string())
            .envs(settings.iter().copied());
        App::launch(command, kind.name(), START)
    }

    /// Starts what a line for a shell starts in the root of the repository, on a free port.
    pub(crate) fn of_line(name: &str, line: &str, settings: &[(&str, &str)]) -> App {
        let mut command = Command::new("sh");
        // PHP's server tells its port on stderr.
        let line = format!("exec 2>&1; {line}");
        command
            .args(["-c", LEASH, "sh", "sh", "-c", &line])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PORT", "0")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(settings.iter().copied());
        App::launch(command, name, COMPILED_START).unwrap_or_else(|error| panic!("{error}"))
    }

    fn launch(mut command: Command, name: &str, patience: Duration) -> Result<App, String> {
        let stderr = output_file(&format!("{name}.stderr"));
        let mut leash = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr).expect("create an output file"))
            .spawn()
            .expect("run sh");
        let lines = tee(
            leash.stdout.take().expect("a piped stdout"),
            &stderr.with_extension("stdout"),
        );
        // From here on an early return kills what was started.
        let mut app = App {
            addr: (Ipv4Addr::LOCALHOST, 0).into(),
            leash,
            lines,
        };
        match app.wait_for_port(patience) {
            Ok(port) => {
                app.addr.set_port(port);
                Ok(app)
            }
            Err(error) => {
                let stderr = fs::read_to_string(&stderr).unwrap_or_default();
                Err(format!("the app in {name} {error}; its stderr:\n{stderr}"))
            }
        }
    }

    /// The next line that it prints.
    pub(crate) fn line(&self) -> String {
        self.lines
            .recv_timeout(START)
            .expect("the app prints a line")
    }

    fn wait_for_port(&self, patience: Duration) -> Result<u16, String> {
        let deadline = Instant::now() + patience;
        let mut said = String::new();
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    if let Some(port) = announced_port(&line) {
                        return Ok(port);
                    }
                    said += &line;
                    said.push('\n');
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("is not ready after {patience:?}\n{said}"));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("ended before it was ready\n{said}"));
                }
            }
        }
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    /// The address it listens on.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What to write as `upstream` in a configuration.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Kills all its processes (SIGKILL) and returns once the port refuses connections.
    pub(crate) fn kill(&mut self) {
        self.let_go();
        self.wait_until_gone();
    }

    /// Asks it to end (SIGTERM to its main process, as a container's end does) and returns once it has, having finished
    /// the requests in flight.
    pub(crate) fn terminate(&mut self) {
        self.ask_to_end();
        self.wait_until_gone();
    }

    /// As [`App::terminate`], without waiting.
    pub(crate) fn ask_to_end(&mut self) {
        let leash = self.leash.stdin.as_mut().expect("an app not yet killed");
        leash.write_all(b"TERM\n").expect("write to the leash");
    }

    fn let_go(&mut self) {
        drop(self.leash.stdin.take());
        self.leash.wait().expect("wait for the leash");
    }

    /// Returns once all its processes have ended and the port refuses connections.
    pub(crate) fn wait_until_gone(&self) {
        let deadline = Instant::now() + END;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the app on {} has not ended in {END:?}", self.addr)
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // A dying process closes its stdout before its listener, if only by microseconds.
        while TcpStream::connect(self.addr).is_ok() {
            assert!(
                Instant::now() < deadline,
                "somebody still listens on {}",
                self.addr
            );
            thread::yield_now();
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// The port in `listening on 3000`, or in a line with a URL such as `http://127.0.0.1:3000`.
fn announced_port(line: &str) -> Option<u16> {
    let (_, told) = line
        .split_once("http://127.0.0.1:")
        .or_else(|| line.split_once("listening on "))?;
    let digits = told.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// A script of an app's folder, running on Node.
pub(crate) struct Script {
    leash: Child,
    lines: Receiver<String>,
    /// Where its stderr goes.
    output: PathBuf,
}

impl Script {
    pub(crate) fn start(kind: Kind, name: &str, arguments: &[&str]) -> Self {
        let installed = install_once(kind).unwrap_or_else(|error| panic!("{error}"));
        let output = output_file(&format!("{name}.stderr"));
        let mut leash = kind
            .command(&installed, Some(name))
            .args(arguments)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&output).expect("create an output file"))
            .spawn()
            .expect("run sh");
        let stdout = leash.stdout.take().expect("a piped stdout");
        let lines = tee(stdout, &output.with_extension("stdout"));
        Self {
            leash,
            lines,
            output,
        }
    }

    /// The next line that it prints.
    pub(crate) fn line(&self) -> String {
        self.line_within(START)
    }

    fn line_within(&self, limit: Duration) -> String {
        let line = self.lines.recv_timeout(limit);
        line.unwrap_or_else(|why| {
            let said = fs::read_to_string(&self.output).unwrap_or_default();
            panic!("the script printed no line ({why}):\n{said}")
        })
    }
}

impl Script {
    /// Reads to the line that says how many tests were begun, and how many passed: all, and so many at the least.
    pub(crate) fn passes(&self, at_least: u64) {
        let mut said = String::new();
        let summary = loop {
            let line = self.line_within(ONE_TEST);
            if line.starts_with("{\"begun\":") {
                break serde_json::from_str::<serde_json::Value>(&line).expect("it is JSON");
            }
            said += &line;
            said.push('\n');
        };
        assert_eq!(summary["begun"], summary["passed"], "{said}");
        assert!(summary["begun"].as_u64() >= Some(at_least), "{summary}");
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.leash.stdin.take());
        self.leash.wait().expect("wait for the leash");
    }
}

/// Copies what a process prints into a file and hands it on by lines.
fn tee(stdout: ChildStdout, path: &Path) -> Receiver<String> {
    let mut copy = File::create(path).expect("create an output file");
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            writeln!(copy, "{line}").expect("write an output file");
            // The app goes on printing when nobody listens any more.
            sender.send(line).ok();
        }
    });
    lines
}

/// A path in `target/test-output/` for what a process of this test prints: `<test>.<name>`, and from the
/// second of a name on `<test>.2.<name>`.
pub(crate) fn output_file(name: &str) -> PathBuf {
    static TAKEN: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());
    let folder = target().join("test-output");
    fs::create_dir_all(&folder).expect("create target/test-output");
    let thread = thread::current();
    let test = thread.name().unwrap_or("unnamed").replace("::", ".");
    let mut taken = TAKEN.lock().expect("no test panics while it names a file");
    let times = taken.entry(format!("{test}.{name}")).or_default();
    *times += 1;
    match *times {
        1 => folder.join(format!("{test}.{name}")),
        times => folder.join(format!("{test}.{times}.{name}")),
    }
}

/// Cargo's target folder.
fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("a folder in the target folder")
}

/// Installs an app's dependencies, unless this was done before, and says where they are.
fn install_once(kind: Kind) -> Result<PathBuf, String> {
    type Once = OnceLock<Result<PathBuf, String>>;
    static EXPRESS: Once = Once::new();
    static FLASK: Once = Once::new();
    static STREAMS: Once = Once::new();
    static IDENTITY: Once = Once::new();
    static SDK_WECHATPY: Once = Once::new();
    static SDK_WXJAVA: Once = Once::new();
    static SDK_GO: Once = Once::new();
    static SDK_EASYWECHAT: Once = Once::new();
    static PUSH_WXJAVA: Once = Once::new();
    static PUSH_NODE: Once = Once::new();
    static SCHEMA: Once = Once::new();
    static OTELCOL: Once = Once::new();
    static KUSTOMIZE: Once = Once::new();
    static KUBERNETES: Once = Once::new();
    static INSPECTOR: Once = Once::new();
    let installed = match kind {
        Kind::Express | Kind::PushExpress => &EXPRESS,
        Kind::Flask | Kind::PushFlask => &FLASK,
        Kind::Streams | Kind::Miniprogram => &STREAMS,
        Kind::Identity => &IDENTITY,
        Kind::SdkWechatpy | Kind::PushWechatpy => &SDK_WECHATPY,
        Kind::SdkWxJava => &SDK_WXJAVA,
        Kind::SdkGo => &SDK_GO,
        Kind::SdkEasyWechat => &SDK_EASYWECHAT,
        Kind::PushWxJava => &PUSH_WXJAVA,
        Kind::PushNode => &PUSH_NODE,
        Kind::Schema => &SCHEMA,
        Kind::Otelcol => &OTELCOL,
        Kind::Kustomize => &KUSTOMIZE,
        Kind::Kubernetes => &KUBERNETES,
        Kind::Inspector => &INSPECTOR,
    };
    installed
        .get_or_init(|| install(kind.dependencies()))
        .clone()
}

fn install(kind: Kind) -> Result<PathBuf, String> {
    let folder = target().join("test-apps").join(kind.name());
    fs::create_dir_all(&folder).expect("create target/test-apps");
    // Other test binaries, and other runs of this one, wait here; the lock goes with the file at the end.
    let lock = File::create(folder.join("lock")).expect("create a lock file");
    lock.lock().expect("lock a file");
    let (manifests, version): (&[&str], _) = match kind.platform() {
        Platform::Node => (&["package.json", "package-lock.json"], "node --version"),
        Platform::Python => (&["requirements.txt"], "python3 --version"),
        Platform::Java => (&["pom.xml"], "javac -version"),
        Platform::Go => (&["go.mod", "go.sum", "main.go"], "go version"),
    };
    let mut wanted = step(kind, Command::new("sh").args(["-c", version]))?;
    for manifest in manifests {
        wanted += &fs::read_to_string(kind.source().join(manifest))
            .expect("read a manifest of tests/apps");
    }
    let stamp = folder.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    fs::remove_file(&stamp).ok();
    match kind.platform() {
        Platform::Node => {
            for manifest in manifests {
                fs::copy(kind.source().join(manifest), folder.join(manifest))
                    .expect("copy a manifest of tests/apps");
            }
            step(
                kind,
                Command::new("npm")
                    .args([
                        "ci",
                        "--omit=dev",
                        "--ignore-scripts",
                        "--no-audit",
                        "--no-fund",
                    ])
                    .current_dir(&folder),
            )?;
        }
        Platform::Python => {
            let venv = folder.join("venv");
            step(
                kind,
                Command::new("python3")
                    .args(["-m", "venv", "--clear"])
                    .arg(&venv),
            )?;
            let pip = [
                "-m",
                "pip",
                "install",
                "--disable-pip-version-check",
                "--no-compile",
                "-r",
            ];
            let requirements = kind.source().join("requirements.txt");
            step(
                kind,
                Command::new(venv.join("bin/python"))
                    .args(pip)
                    .arg(requirements),
            )?;
        }
        Platform::Java => {
            let library = folder.join("lib");
            fs::remove_dir_all(&library).ok();
            let mut output = OsString::from("-DoutputDirectory=");
            output.push(&library);
            step(
                kind,
                Command::new("mvn")
                    .args(["-B", "-q", "dependency:copy-dependencies"])
                    .arg("-DincludeScope=runtime")
                    .arg(output)
                    .current_dir(kind.source()),
            )?;
        }
        Platform::Go => {
            step(
                kind,
                Command::new("go")
                    .args(["build", "-buildvcs=false", "-o"])
                    .arg(folder.join("app"))
                    .env("CGO_ENABLED", "0")
                    .current_dir(kind.source()),
            )?;
        }
    }
    fs::write(stamp, wanted).expect("write a stamp");
    Ok(folder)
}

/// Runs a step of an installation and gives its stdout; a failure says what to do.
fn step(kind: Kind, command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output();
    let failed = |why: String| {
        let packages = match kind.platform() {
            Platform::Node => "nodejs npm",
            Platform::Python => "python3 python3-venv",
            Platform::Java => "default-jdk-headless maven",
            Platform::Go => "golang-go",
        };
        format!(
            "cannot install the test app in {kind:?}: {command:?} {why}\ntry: apt-get install {packages}"
        )
    };
    let output = output.map_err(|error| failed(format!("does not run: {error}")))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!(
        "ended with {}:\n{stdout}{stderr}",
        output.status
    )))
}

/// What the app saw of a request, from its answer to `/echo` or any path below.
#[derive(Debug)]
pub(crate) struct Echo {
    pub(crate) method: String,
    /// The target, not decoded.
    pub(crate) url: String,
    /// In order, under the names the framework gives: as received in Express, `HTTP_X_WX_OPENID` in Flask, where two
    /// lines of a name are one value, joined by a comma.
    pub(crate) headers: Vec<(String, String)>,
}

impl Echo {
    /// Reads the answer; panics when it is none.
    pub(crate) fn of(response: &Response) -> Echo {
        let json = response.json();
        let string =
            |value: &serde_json::Value| value.as_str().expect("a string in an echo").to_owned();
        let headers = json["headers"].as_array().expect("headers in an echo");
        Echo {
            method: string(&json["method"]),
            url: string(&json["url"]),
            headers: headers
                .iter()
                .map(|pair| (string(&pair[0]), string(&pair[1])))
                .collect(),
        }
    }

    /// The values of all headers that any backend could take for this one: names are compared in lower case, with `-`
    /// for all that is no letter and no digit, and without CGI's `HTTP_`.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let same = |(other, _): &&(String, String)| fold(other) == fold(name);
        self.headers
            .iter()
            .filter(same)
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

fn fold(name: &str) -> String {
    let name = name.strip_prefix("HTTP_").unwrap_or(name);
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect()
}

/// What `/api/download?bytes=<length>` answers.
pub(crate) fn download(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

/// As `/api/upload` and `/api/form` write it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    wx_sidecar::crypto::hex(digest.as_ref())
}

/// A form for `/api/form`, with its Content-Type: text fields, then a file in the field `file`.
pub(crate) fn form(
    fields: &[(&str, &str)],
    filename: &str,
    content: &[u8],
) -> (&'static str, Vec<u8>) {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part = format!(
            "--limit-of-a-part\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        );
        body.extend_from_slice(part.as_bytes());
    }
    let head = format!(
        "--limit-of-a-part\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{filename}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(content);
    body.extend_from_slice(b"\r\n--limit-of-a-part--\r\n");
    ("multipart/form-data; boundary=limit-of-a-part", body)
}

mod answer_as_written {
    use super::*;
    use serde_json::json;
    use std::net::TcpListener;

    const JSON: (&str, &str) = ("Content-Type", "application/json");
    const USER: [(&str, &str); 4] = [
        ("X-WX-OPENID", "oUser_of-this-test"),
        ("X-WX-APPID", "wx0123456789abcdef"),
        ("X-WX-SOURCE", "wx_client"),
        ("X-WX-ENV", "test"),
    ];

    /// How long a connection idles before Express closes it; here none does unless the machine stands still.
    const IDLE: Duration = Duration::from_secs(5);

    /// A connection to an app, which no answer may close.
    struct Lasting {
        app: SocketAddr,
        client: Client,
        /// When the last request was sent: since then it may have idled.
        asked: Instant,
    }

    impl Lasting {
        fn to(app: &App) -> Self {
            Self {
                app: app.addr(),
                client: Client::connect(app.addr()),
                asked: Instant::now(),
            }
        }

        fn request(
            &mut self,
            method: &str,
            target: &str,
            headers: &[(&str, &str)],
            body: &[u8],
        ) -> Response {
            let asked = Instant::now();
            let mut answer = self.client.try_request(method, target, headers, body);
            // What was closed for having idled has seen nothing of the request.
            if answer.is_err() && self.asked.elapsed() >= IDLE {
                self.client = Client::connect(self.app);
                answer = self.client.try_request(method, target, headers, body);
            }
            self.asked = asked;
            answer.unwrap_or_else(|error| panic!("no response to {method} {target}: {error}"))
        }
    }

    fn answers_as_written(kind: Kind) {
        let app = App::start(kind, None);
        let mut client = Lasting::to(&app);
        knows_the_caller_by_its_headers(&mut client);
        counts_per_caller(&mut client);
        takes_bodies(&mut client);
        gives_bodies(&mut client);
        fails_by_its_framework(&mut client);
        echoes_what_it_saw(&mut client);
    }

    #[test]
    fn express_app_answers_as_written() {
        answers_as_written(Kind::Express);
    }

    #[test]
    fn flask_app_answers_as_written() {
        answers_as_written(Kind::Flask);
    }

    fn knows_the_caller_by_its_headers(client: &mut Lasting) {
        let stranger = client.request("GET", "/api/whoami", &USER[..2], b"");
        assert_eq!(
            (stranger.status, stranger.json()),
            (401, json!({"error": "not from WeChat"}))
        );
        let mut me = json!({
            "openid": "oUser_of-this-test", "appid": "wx0123456789abcdef", "source": "wx_client", "env": "test",
        });
        assert_eq!(client.request("GET", "/api/whoami", &USER, b"").json(), me);
        me["unionid"] = "uUser".into();
        let with_unionid = [&USER[..], &[("x-wx-unionid", "uUser")]].concat();
        assert_eq!(
            client
                .request("GET", "/api/whoami", &with_unionid, b"")
                .json(),
            me
        );

        let hello = client.request("GET", "/public/hello", &[], b"").json();
        assert_eq!(hello, json!({"hello": "world", "openid": null}));
        let hello = client.request("GET", "/public/hello", &USER, b"").json();
        assert_eq!(
            hello,
            json!({"hello": "world", "openid": "oUser_of-this-test"})
        );

        let user = [&USER[..], &[JSON]].concat();
        let login = client.request(
            "POST",
            "/auth/login",
            &user,
            br#"{"code":"c","nickname":"n"}"#,
        );
        assert_eq!(
            (login.status, login.json()),
            (200, json!({"welcome": "oUser_of-this-test"}))
        );
        let login = client.request(
            "POST",
            "/auth/login",
            &user,
            br#"{"code":"c","nickname":"banned"}"#,
        );
        assert_eq!(
            (login.status, login.json()),
            (403, json!({"error": "banned"}))
        );
        assert_eq!(
            client.request("POST", "/auth/login", &[JSON], b"{}").status,
            401
        );
    }

    fn counts_per_caller(client: &mut Lasting) {
        let user = [&USER[..], &[JSON]].concat();
        let other = [("X-WX-OPENID", "oOther"), ("X-WX-SOURCE", "wx_client")];
        let mut count = |method, headers: &[_], body: &str| {
            let response = client.request(method, "/api/count", headers, body.as_bytes());
            (response.status, response.json()["data"].as_u64())
        };
        assert_eq!(count("GET", &user, ""), (200, Some(0)));
        assert_eq!(count("POST", &user, r#"{"action":"inc"}"#), (200, Some(1)));
        assert_eq!(count("POST", &user, r#"{"action":"inc"}"#), (200, Some(2)));
        assert_eq!(count("GET", &user, ""), (200, Some(2)));
        assert_eq!(count("GET", &other, ""), (200, Some(0)));
        assert_eq!(
            count("POST", &user, r#"{"action":"clear"}"#),
            (200, Some(0))
        );
        assert_eq!(count("POST", &user, r#"{"action":"?"}"#), (400, None));
        assert_eq!(count("GET", &[], ""), (401, None));
    }

    fn takes_bodies(client: &mut Lasting) {
        let content = download(300_000);
        let taken = json!({"bytes": content.len(), "sha256": sha256(&content), "content_type": "image/png"});
        let sized = client.request(
            "POST",
            "/api/upload",
            &[("Content-Type", "image/png")],
            &content,
        );
        assert_eq!(sized.json(), taken);
        let headers = [
            ("Content-Type", "image/png"),
            ("Transfer-Encoding", "chunked"),
        ];
        let in_chunks = client.request(
            "POST",
            "/api/upload",
            &headers,
            &chunked(&[&content[..7], &content[7..]]),
        );
        assert_eq!(in_chunks.json(), taken);
        let empty = client.request("POST", "/api/upload", &[], b"").json();
        assert_eq!(
            empty,
            json!({"bytes": 0, "sha256": sha256(b""), "content_type": null})
        );

        let (content_type, body) = form(&[("title", "标题"), ("n", "1")], "照片 1.jpg", &content);
        let response = client.request(
            "POST",
            "/api/form",
            &[("Content-Type", content_type)],
            &body,
        );
        let fields = json!({"title": "标题", "n": "1"});
        let taken = json!({
            "filename": "照片 1.jpg", "bytes": content.len(), "sha256": sha256(&content), "fields": fields,
        });
        assert_eq!(response.json(), taken);

        let object = json!({"text": "中文 \u{1f600}", "list": [1, 2.5, null, true]});
        let response = client.request("POST", "/api/json", &[JSON], object.to_string().as_bytes());
        assert_eq!(response.json(), object);
        assert_eq!(
            client.request("POST", "/api/json", &[JSON], b"{").status,
            400
        );
        assert_eq!(
            client
                .request(
                    "POST",
                    "/api/json",
                    &[("Content-Type", "text/plain")],
                    b"{}"
                )
                .status,
            415
        );
    }

    fn gives_bodies(client: &mut Lasting) {
        for length in [0, 1, 251 * 256, 1_000_003] {
            let sized = client.request("GET", &format!("/api/download?bytes={length}"), &[], b"");
            assert_eq!(
                sized.header("content-length"),
                Some(length.to_string().as_str())
            );
            assert!(sized.body == download(length), "{length} bytes");
            let in_chunks = client.request(
                "GET",
                &format!("/api/download?bytes={length}&chunked=1"),
                &[],
                b"",
            );
            assert_eq!(in_chunks.header("transfer-encoding"), Some("chunked"));
            assert!(
                in_chunks.body == download(length),
                "{length} bytes in chunks"
            );
        }
        let head = client.request("HEAD", "/api/download?bytes=5", &[], b"");
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, Some("5"))
        );
    }

    fn fails_by_its_framework(client: &mut Lasting) {
        assert_eq!(client.request("GET", "/api/missing", &[], b"").status, 404);
        assert_eq!(client.request("GET", "/api/boom", &[], b"").status, 500);
        assert_eq!(
            client.request("GET", "/api/slow?ms=1", &[], b"").json(),
            json!({"slept_ms": 1})
        );
    }

    fn echoes_what_it_saw(client: &mut Lasting) {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let echo =
                Echo::of(&client.request(method, "/echo?a=%20b&c", &[("X-One", "1")], b"body"));
            assert_eq!(
                (echo.method.as_str(), echo.url.as_str()),
                (method, "/echo?a=%20b&c")
            );
            assert_eq!(echo.values("x-one"), ["1"]);
            assert_eq!(echo.values("content-length"), ["4"]);
        }
        for target in ["/echo/", "/echo/a%2Fb//c", "/echo/%E4%B8%AD"] {
            assert_eq!(
                Echo::of(&client.request("GET", target, &[], b"")).url,
                target
            );
        }
        assert_eq!(client.request("HEAD", "/echo", &[], b"").status, 200);
        // A spelling that only folds to the header is seen too, whether the app joins the two or not.
        let twins = [("X-WX-OPENID", "real"), ("X_WX_OPENID", "forged")];
        let echo = Echo::of(&client.request("GET", "/echo", &twins, b""));
        assert_eq!(echo.values("x-wx-openid").join(","), "real,forged");
    }

    #[test]
    fn a_killed_app_refuses_connections_and_starts_again_on_its_port() {
        for kind in Kind::ALL {
            let mut app = App::start(kind, None);
            let (addr, port) = (app.addr(), app.port());
            let mut client = Client::connect(addr);
            client.request("GET", "/public/hello", &[], b"");
            app.kill();
            assert!(client.is_closed());
            assert!(Client::try_connect(addr).is_err());
            app.kill();
            let again = App::start(kind, Some(port));
            assert_eq!(again.port(), port);
            assert_eq!(
                Client::connect(addr)
                    .request("GET", "/public/hello", &[], b"")
                    .status,
                200
            );
        }
    }

    #[test]
    fn a_terminated_app_finishes_its_request() {
        for kind in Kind::ALL {
            let mut app = App::start(kind, None);
            let mut client = Client::connect(app.addr());
            // The app has begun to answer, and waits for the rest of the request, when it is asked to end.
            client.send(b"POST /api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
            assert_eq!(
                client.read_through(b"\r\n\r\n"),
                b"HTTP/1.1 100 Continue\r\n\r\n"
            );
            app.ask_to_end();
            client.send(b"hello");
            assert_eq!(client.read_response(false).json()["bytes"], 5);
            app.wait_until_gone();
            assert!(client.is_closed());
        }
    }

    #[test]
    fn an_app_that_cannot_start_says_why() {
        let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = occupied.local_addr().unwrap().port();
        let error = App::try_start(Kind::Express, Some(port)).err().unwrap();
        assert!(
            error.contains("ended before it was ready") && error.contains("EADDRINUSE"),
            "{error}"
        );
    }
}
