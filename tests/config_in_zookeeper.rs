//! Sidecars whose configuration is in ZooKeeper: they change with it, together, and nothing that happens to ZooKeeper or in
//! it takes from them what they have.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Builder;
use wx_sidecar::Sidecar;
use wx_sidecar::config::Loaded;
use wx_sidecar::source::{Feed, Source};
use wx_sidecar::zookeeper::{Over, Znode, ZookeeperError};

use crate::fake_app::FakeApp;
use crate::http_client::{Client, Response};
use crate::patience::{PATIENCE, eventually};
use crate::process::{Run, finished, finished_with, write_configuration};
use crate::rig::{self, canary, metric_at};
use crate::zookeeper::read;
use crate::zookeeper_server::{Network, SESSION_TIMEOUT, Server};

/// Found in an output, it is an incident.
const PASSWORD: &str = "canary-zookeeper-pa55w0rd-44";
const UP: &str = "wx_sidecar_config_source_up";
const SUCCESSFUL: &str = "wx_sidecar_config_last_reload_successful";
const FAILURES: &str = "wx_sidecar_config_loads_total{result=\"failure\"}";
/// For how long ZooKeeper's answer is waited for when somebody asks for a reload.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// A configuration in which only `/name` is open to everybody.
fn text_for(app: &FakeApp, name: &str) -> String {
    let route = format!("[[route]]\npath = \"/{name}\"\nauth = \"none\"\n");
    let text = rig::configuration("https://127.0.0.1:1", &app.url(), "", &route);
    rig::replaced(&text, "workers = 2", "workers = 1")
}

/// Writes it, and again if the connection broke meanwhile: sessions are short, and a machine that stands still for longer
/// ends them. Says the version that the node has then.
fn write(url: &str, text: &str) -> i32 {
    let znode = Znode::parse(url).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut version = None;
    eventually("it is written", || {
        let writing = znode.write(text.as_bytes(), Over::Anything, PATIENCE);
        version = match runtime.block_on(writing) {
            Ok(version) => Some(version),
            Err(
                ZookeeperError::Uncertain { .. }
                | ZookeeperError::Unreachable(_)
                | ZookeeperError::Refused(_),
            ) => None,
            Err(error) => panic!("{error}"),
        };
        version.is_some()
    });
    version.unwrap()
}

/// Whether this says that a session with ZooKeeper did not come about or has ended, as on a machine that stands still.
fn is_out_of_reach(said: &str) -> bool {
    // The number is that of a session that has expired.
    let reasons = [
        "cannot be reached",
        "connection to ZooKeeper broke",
        "refuses with error -112",
    ];
    reasons.iter().any(|reason| said.contains(reason))
}

/// What a command comes to once it has reached ZooKeeper. Whoever repeats what is there loses nothing. All is kept that it
/// has said on stderr.
fn reaching(command: impl Fn() -> (i32, String, String)) -> (i32, String, String) {
    let (mut code, mut stdout, mut said) = (0, String::new(), String::new());
    eventually("ZooKeeper is reached", || {
        let stderr;
        (code, stdout, stderr) = command();
        said += &stderr;
        !is_out_of_reach(&stderr)
    });
    (code, stdout, said)
}

/// What comes of beginning by what a ZooKeeper holds that runs.
fn begun(url: &str, last_good: Option<PathBuf>) -> Result<(Loaded, Feed), String> {
    let source = url.parse::<Source>().unwrap().keeping_last_good(last_good);
    let mut begun = None;
    eventually("ZooKeeper is reached", || {
        let outcome = source.begin().map_err(|report| report.to_string());
        let is_lost = outcome.as_ref().is_err_and(|why| is_out_of_reach(why));
        begun = Some(outcome);
        !is_lost
    });
    begun.unwrap()
}

/// A sidecar as `run` starts it.
fn begin(url: &str, last_good: Option<PathBuf>) -> Sidecar {
    let (loaded, feed) = begun(url, last_good).unwrap_or_else(|report| panic!("{report}"));
    let sidecar = Sidecar::start(loaded.config).unwrap();
    sidecar.follow(feed, &loaded.effective);
    sidecar
}

fn get(sidecar: &Sidecar, name: &str) -> Response {
    let mut client = Client::connect(sidecar.inbound_addr());
    client.request("GET", &format!("/{name}"), &[], b"")
}

fn opens(sidecar: &Sidecar, name: &str) {
    eventually(name, || get(sidecar, name).status == 200);
}

fn metric(sidecar: &Sidecar, series: &str) -> f64 {
    metric_at(sidecar.admin_addr(), series)
}

/// What `GET /config` at the admin listener tells.
fn told(sidecar: &Sidecar) -> Value {
    let mut client = Client::connect(sidecar.admin_addr());
    client.request("GET", "/config", &[], b"").json()
}

#[test]
fn a_sidecar_changes_with_its_znode_and_keeps_what_it_has_when_that_is_gone_or_bad() {
    canary(PASSWORD);
    let (server, app) = (Server::shared(), FakeApp::agreeable());
    let url = server
        .url("/shops/config")
        .replace("://", &format!("://shop:{PASSWORD}@"));
    write(&url, &text_for(&app, "a"));
    let sidecar = begin(&url, None);
    opens(&sidecar, "a");
    eventually("its source is up", || metric(&sidecar, UP) == 1.0);
    let source = server.url("/shops/config").replace("://", "://shop:***@");
    assert_eq!(told(&sidecar)["source"], source);

    write(&url, &text_for(&app, "b"));
    opens(&sidecar, "b");
    assert_eq!(get(&sidecar, "a").status, 401);

    let failures = metric(&sidecar, FAILURES);
    write(&url, "[app]\nappid = 7\n");
    eventually("it is refused", || metric(&sidecar, FAILURES) > failures);
    assert_eq!(metric(&sidecar, SUCCESSFUL), 0.0);
    assert_eq!(get(&sidecar, "b").status, 200);
    // It is counted before it is told, also below.
    eventually("it is told why", || {
        let refused = told(&sidecar)["refused"].to_string();
        refused.contains(&source) && refused.contains(":2:")
    });

    server.command_line(&format!(
        "addauth digest shop:{PASSWORD}\ndelete /shops/config"
    ));
    eventually("its source is gone", || metric(&sidecar, UP) == 0.0);
    assert_eq!(get(&sidecar, "b").status, 200);
    eventually("it is told why", || told(&sidecar)["unread"].is_string());

    write(&url, &text_for(&app, "c"));
    opens(&sidecar, "c");
    eventually("its source is up", || metric(&sidecar, UP) == 1.0);
    // It is in use before it is counted.
    eventually("it is loaded", || metric(&sidecar, SUCCESSFUL) == 1.0);
    eventually("it can be read", || told(&sidecar)["unread"].is_null());
}

/// A change comes by itself, but within a fifth of a second; who asks must not get what was before.
#[test]
fn whoever_asks_for_a_reload_gets_what_the_znode_holds_now() {
    let (server, app) = (Server::shared(), FakeApp::agreeable());
    let url = server.url("/asked/config");
    write(&url, &text_for(&app, "start"));
    let sidecar = begin(&url, None);
    let ask = || Client::connect(sidecar.admin_addr()).request("POST", "/reload", &[], b"");
    eventually("its source is up", || metric(&sidecar, UP) == 1.0);
    for round in 0..10 {
        let name = format!("round{round}");
        write(&url, &text_for(&app, &name));
        // If ZooKeeper takes longer than it is waited for, that is told.
        eventually("ZooKeeper answers in time", || {
            let asked = Instant::now();
            let status = ask().status;
            let is_in_time = asked.elapsed() < ANSWERED_WITHIN;
            assert!(status == 200 || !is_in_time, "{name}: {status}");
            status == 200
        });
        assert_eq!(get(&sidecar, &name).status, 200, "{name}");
    }
}

#[test]
fn whoever_asks_for_a_reload_that_zookeeper_does_not_answer_in_time_is_told_so() {
    let (server, app) = (Server::start(), FakeApp::agreeable());
    let network = Network::before(&server);
    let direct = server.url("/config");
    write(&direct, &text_for(&app, "a"));
    let through = format!("zookeeper://127.0.0.1:{}/config", network.port);
    let sidecar = begin(&through, None);
    let ask = || Client::connect(sidecar.admin_addr()).request("POST", "/reload", &[], b"");
    eventually("it reloads", || ask().status == 200);
    network.cut();
    write(&direct, &text_for(&app, "b"));
    let told = ask();
    assert_eq!(told.status, 503, "{}", told.text());
    let text = told.text();
    assert!(
        text.contains("its source cannot be read: ZooKeeper "),
        "{text}"
    );
    assert_eq!(get(&sidecar, "a").status, 200);
    network.mend();
    eventually("it reloads", || ask().status == 200);
    assert_eq!(get(&sidecar, "b").status, 200);
}

#[test]
fn whoever_asks_for_a_reload_while_zookeeper_is_away_is_told_so() {
    let (server, app) = (Server::start(), FakeApp::agreeable());
    let url = server.url("/config");
    write(&url, &text_for(&app, "a"));
    let sidecar = begin(&url, None);
    eventually("its source is up", || metric(&sidecar, UP) == 1.0);
    drop(server);
    eventually("its source is away", || metric(&sidecar, UP) == 0.0);
    let told = Client::connect(sidecar.admin_addr()).request("POST", "/reload", &[], b"");
    assert_eq!(told.status, 503);
    let text = told.text();
    assert!(text.contains("its source cannot be read"), "{text}");
    assert!(!text.contains("not reloaded"), "{text}");
    assert_eq!(get(&sidecar, "a").status, 200);
    assert_eq!(metric(&sidecar, SUCCESSFUL), 1.0);
}

#[test]
fn twenty_sidecars_change_together() {
    let (server, app) = (Server::shared(), FakeApp::agreeable());
    let url = server.url("/whole/twenty");
    write(&url, &text_for(&app, "a"));
    let sidecars: Vec<_> = (0..20).map(|_| begin(&url, None)).collect();
    for name in ["b", "c"] {
        write(&url, &text_for(&app, name));
        let wrote = Instant::now();
        for sidecar in &sidecars {
            opens(sidecar, name);
        }
        rig::keep("zookeeper-twenty.log", &format!("{:?}", wrote.elapsed()));
    }
}

#[test]
fn a_sidecar_begins_with_the_last_good_configuration_and_takes_the_next_one_when_zookeeper_is_back()
{
    let (mut server, app) = (Server::start(), FakeApp::agreeable());
    let url = server.url("/config");
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("last-good.toml");
    let last_good = || fs::read_to_string(&copy).unwrap_or_default();

    write(&url, &text_for(&app, "a"));
    let sidecar = begin(&url, Some(copy.clone()));
    eventually("it is kept", || last_good() == text_for(&app, "a"));
    write(&url, &text_for(&app, "b"));
    opens(&sidecar, "b");
    eventually("it is kept", || last_good() == text_for(&app, "b"));
    assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o777, 0o600);
    let failures = metric(&sidecar, FAILURES);
    write(&url, "no configuration");
    eventually("it is refused", || metric(&sidecar, FAILURES) > failures);
    assert_eq!(last_good(), text_for(&app, "b"), "what is bad is not kept");
    drop(sidecar);

    write(&url, &text_for(&app, "c"));
    server.process.kill();
    let refused = url.parse::<Source>().unwrap().begin();
    let report = refused.map(|_| ()).unwrap_err().to_string();
    assert!(report.contains("cannot be reached"), "{report}");
    let sidecar = begin(&url, Some(copy.clone()));
    opens(&sidecar, "b");
    eventually("its source is down", || {
        told(&sidecar)["unread"].is_string() && metric(&sidecar, UP) == 0.0
    });
    server.restart();
    opens(&sidecar, "c");
    eventually("it is kept", || last_good() == text_for(&app, "c"));
}

#[test]
fn a_process_that_stood_still_longer_than_its_session_follows_again() {
    let (server, app) = (Server::shared(), FakeApp::agreeable());
    let url = server.url("/whole/still");
    write(&url, &text_for(&app, "a"));
    let run = Run::under(&[], Path::new(&url));
    let opens = |name: &str| {
        eventually(name, || {
            let mut client = Client::connect(run.inbound);
            client.request("GET", &format!("/{name}"), &[], b"").status == 200
        });
    };
    opens("a");
    run.process.signal("STOP");
    let stopped = Instant::now();
    write(&url, &text_for(&app, "b"));
    let expired = SESSION_TIMEOUT + Duration::from_secs(1);
    eventually("its session has expired", || stopped.elapsed() > expired);
    run.process.signal("CONT");
    opens("b");
}

#[test]
fn a_sidecar_begins_with_the_last_good_configuration_if_the_znode_holds_a_bad_one() {
    let (server, app) = (Server::shared(), FakeApp::agreeable());
    let url = server.url("/whole/bad-at-the-start");
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("last-good.toml");
    write(&url, "[app]\nappid = 7\n");
    let refused = |copy: Option<&PathBuf>| begun(&url, copy.cloned()).map(|_| ()).unwrap_err();
    let report = refused(None);
    assert!(report.contains(&format!("{url}:2:")), "{report}");
    let report = refused(Some(&copy));
    assert!(report.contains("`appid` takes a string"), "{report}");
    assert!(report.contains("the last good copy"), "{report}");
    fs::write(&copy, "[app]\n").unwrap();
    let report = refused(Some(&copy));
    assert!(report.contains("`appid` takes a string"), "{report}");
    assert!(report.contains("is not valid either"), "{report}");

    fs::write(&copy, text_for(&app, "a")).unwrap();
    let sidecar = begin(&url, Some(copy.clone()));
    opens(&sidecar, "a");
    eventually("what the node holds is refused", || {
        metric(&sidecar, SUCCESSFUL) == 0.0
    });
    // It is counted before it is told.
    eventually("it is told why", || {
        let refused = told(&sidecar)["refused"].to_string();
        refused.contains(&format!("{url}:2:"))
    });
    assert_eq!(fs::read_to_string(&copy).unwrap(), text_for(&app, "a"));
    write(&url, &text_for(&app, "b"));
    opens(&sidecar, "b");
    // It is in use before it is counted.
    eventually("it is loaded", || metric(&sidecar, SUCCESSFUL) == 1.0);
}

#[test]
fn the_log_says_that_a_sidecar_has_begun_with_the_last_good_configuration() {
    let (server, app) = (Server::shared(), FakeApp::agreeable());
    let url = server.url("/whole/bad-and-logged");
    write(&url, "no configuration");
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("last-good.toml");
    fs::write(&copy, text_for(&app, "a")).unwrap();
    let arguments = ["--last-good", copy.to_str().unwrap()];
    let mut line = String::new();
    eventually("ZooKeeper is reached", || {
        let run = Run::with(&[], Path::new(&url), &arguments);
        line = run.process.line_with("last good configuration");
        !is_out_of_reach(&line)
    });
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["source"], url);
    assert!(
        event["report"].as_str().unwrap().contains("not TOML"),
        "{line}"
    );
}

#[test]
fn the_same_content_written_again_is_not_loaded_again() {
    const LOADS: &str = "wx_sidecar_config_loads_total{result=\"success\"}";
    let (server, app) = (Server::shared(), FakeApp::agreeable());
    let network = Network::before(&server);
    let url = server.url("/whole/the-same");
    write(&url, &text_for(&app, "a"));
    let port = network.port;
    let sidecar = begin(
        &format!("zookeeper://127.0.0.1:{port}/whole/the-same"),
        None,
    );
    let loads = metric(&sidecar, LOADS);
    // When the source is there again it is looked at, with what it holds then.
    network.cut();
    eventually("its source is down", || metric(&sidecar, UP) == 0.0);
    assert!(write(&url, &text_for(&app, "a")) >= 1);
    network.mend();
    eventually("its source is up", || metric(&sidecar, UP) == 1.0);
    assert_eq!(metric(&sidecar, LOADS), loads);
    write(&url, &text_for(&app, "b"));
    opens(&sidecar, "b");
    // It is in use before it is counted.
    eventually("it is counted", || metric(&sidecar, LOADS) > loads);
    assert_eq!(metric(&sidecar, LOADS), loads + 1.0);
}

#[test]
fn what_is_pushed_is_there_and_a_sidecar_takes_it_over() {
    canary(PASSWORD);
    let (server, app) = (Server::shared(), FakeApp::agreeable());
    let bare = server.url("/pushed/config");
    let url = bare.replace("://", &format!("://shop:{PASSWORD}@"));
    let shown = bare.replace("://", "://shop:***@");
    let push = |name: &str, environment: &[(&str, &str)]| {
        let file = write_configuration(&text_for(&app, name));
        let arguments = ["config", "push", "-c", file.to_str().unwrap(), &url];
        // The environment stands for the argument that is missing.
        let count = arguments.len() - environment.len();
        reaching(|| finished_with(&arguments[..count], environment))
    };
    let (code, stdout, stderr) = push("a", &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stdout, format!("{shown}: version 0\n"));
    assert!(stderr.contains("is created with "), "{stderr}");
    assert!(!stderr.contains("everybody"), "{stderr}");
    assert_eq!(read(&url).unwrap().0, text_for(&app, "a").as_bytes());

    let sidecar = begin(&url, None);
    opens(&sidecar, "a");
    let (code, stdout, stderr) = push("b", &[("WX_SIDECAR_CONFIG", &url)]);
    assert_eq!((code, stdout), (0, format!("{shown}: version 1\n")));
    assert!(
        stderr.contains("over version 0: 1 line new, 1 line gone"),
        "{stderr}"
    );
    opens(&sidecar, "b");

    let (code, stdout, stderr) = push("b", &[]);
    assert_eq!((code, stdout), (0, format!("{shown}: version 1\n")));
    assert!(stderr.contains("nothing is written"), "{stderr}");
    assert_eq!(read(&url).unwrap().1, 1);
}

#[test]
fn what_should_not_be_pushed_is_not_written() {
    let (server, app) = (Server::shared(), FakeApp::agreeable());
    let url = server.url("/whole/pushed");
    let push = |text: &str, more: &[&str]| {
        let file = write_configuration(text);
        let arguments = ["config", "push", "-c", file.to_str().unwrap(), &url];
        reaching(|| finished(&[&arguments, more].concat()))
    };
    let refused = |text: &str, more: &[&str], why: &str| {
        let before = read(&url);
        let (code, stdout, stderr) = push(text, more);
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
        assert_eq!(read(&url), before);
    };
    let (a, b) = (text_for(&app, "a"), text_for(&app, "b"));
    refused("[app]\nappid = 7\n", &[], "`appid` takes a string");
    refused(&a, &["--if-version", "0"], "there is no node");
    let (code, _, stderr) = push(&a, &[]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stderr.contains("everybody who reaches ZooKeeper can read [app] secret"),
        "{stderr}"
    );
    assert!(!stderr.contains(rig::SECRET), "{stderr}");

    // Two have looked at version 0. The first one wins, and whoever repeats what is there loses nothing.
    assert_eq!(push(&b, &["--if-version", "0"]).0, 0);
    refused(&a, &["--if-version", "0"], "version 1 is there and not 0");
    assert_eq!(push(&b, &["--if-version", "0"]).0, 0);

    let other = rig::replaced(&a, rig::APPID, "wxfedcba9876543210");
    refused(&other, &[], "another Mini Program");
    assert_eq!(push(&other, &["--force"]).1, format!("{url}: version 2\n"));
    // What is no configuration is nobody's.
    write(&url, "[[[");
    assert_eq!(push(&a, &[]).0, 0);
    let text = format!("{a}[session]\nkey_file = \"a-key\"\n");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sidecar.toml");
    fs::write(
        directory.path().join("a-key"),
        "key of sixteen and more, pushed",
    )
    .unwrap();
    fs::write(&file, text).unwrap();
    let arguments = ["config", "push", "-c", file.to_str().unwrap(), &url];
    let (code, _, stderr) = reaching(|| finished(&arguments));
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stderr.contains("[session] key_file are relative"),
        "{stderr}"
    );
    let (code, _, stderr) = finished(&["config", "push", "-c", &url, &url]);
    assert_eq!(code, 2, "{stderr}");
}

#[test]
fn of_those_who_push_at_once_one_wins_and_the_others_are_told() {
    let (server, app) = (Server::shared(), FakeApp::agreeable());
    let url = server.url("/whole/pushed-at-once");
    let before = write(&url, &text_for(&app, "before"));
    let version = before.to_string();
    let directory = tempfile::tempdir().unwrap();
    let files: Vec<_> = (0..6)
        .map(|number| {
            let file = directory.path().join(format!("{number}.toml"));
            fs::write(&file, text_for(&app, &format!("after-{number}"))).unwrap();
            file
        })
        .collect();
    let name = std::thread::current().name().unwrap().to_owned();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let pushes = files.iter().map(|file| {
            let arguments = ["config", "push", "--if-version", &version, "-c"];
            let arguments = [&arguments[..], &[file.to_str().unwrap(), &url]].concat();
            // Outputs are kept by the name of the thread.
            let name = format!("{name}.{}", file.file_stem().unwrap().display());
            let thread = std::thread::Builder::new().name(name);
            thread
                .spawn_scoped(scope, move || reaching(|| finished(&arguments)))
                .unwrap()
        });
        let pushes: Vec<_> = pushes.collect();
        let ended = pushes.into_iter().map(|push| push.join().unwrap());
        ended.collect()
    });
    let won = outcomes.iter().position(|(code, ..)| *code == 0).unwrap();
    for (number, (code, _, stderr)) in outcomes.iter().enumerate() {
        assert_eq!(*code == 0, number == won, "{stderr}");
        assert!(
            number == won || stderr.contains("somebody else"),
            "{stderr}"
        );
    }
    let expected = text_for(&app, &format!("after-{won}"));
    assert_eq!(read(&url).unwrap(), (expected.into_bytes(), before + 1));
}

#[test]
fn check_reads_a_znode_and_tells_what_is_wrong_with_it() {
    let (server, app) = (Server::shared(), FakeApp::agreeable());
    let url = server.url("/whole/checked");
    let check = || reaching(|| finished(&["check", "-c", &url]));
    let (code, _, stderr) = check();
    assert_eq!(code, 1);
    assert!(stderr.contains("no node /whole/checked"), "{stderr}");
    write(&url, &text_for(&app, "a"));
    assert_eq!(check().0, 0);
    write(&url, "[app]\nappid = 7\n");
    let (code, _, stderr) = check();
    assert_eq!(code, 1);
    assert!(stderr.contains(&format!("{url}:2:")), "{stderr}");
    let (code, _, stderr) = finished(&["check", "-c", "zookeeper://127.0.0.1:2181"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("path of the znode is missing"), "{stderr}");
}
