//! Sidecars whose configuration is in ZooKeeper: they change with it, together, and nothing that happens to ZooKeeper or in
//! it takes from them what they have.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use wx_sidecar::Sidecar;
use wx_sidecar::source::Source;

use crate::fake_app::FakeApp;
use crate::http_client::{Client, Response};
use crate::patience::eventually;
use crate::process::{Run, finished};
use crate::rig::{self, canary, metric_at};
use crate::zookeeper::write;
use crate::zookeeper_server::{SESSION_TIMEOUT, Server};

/// Found in an output, it is an incident.
const PASSWORD: &str = "canary-zookeeper-pa55w0rd-44";
const UP: &str = "wx_sidecar_config_source_up";
const SUCCESSFUL: &str = "wx_sidecar_config_last_reload_successful";
const FAILURES: &str = "wx_sidecar_config_loads_total{result=\"failure\"}";

/// A configuration in which only `/name` is open to everybody.
fn text_for(app: &FakeApp, name: &str) -> String {
    let route = format!("[[route]]\npath = \"/{name}\"\nauth = \"none\"\n");
    let text = rig::configuration("https://127.0.0.1:1", &app.url(), "", &route);
    rig::replaced(&text, "workers = 2", "workers = 1")
}

/// A sidecar as `run` starts it.
fn begin(url: &str, last_good: Option<PathBuf>) -> Sidecar {
    let source = url.parse::<Source>().unwrap().keeping_last_good(last_good);
    let (loaded, feed) = source.begin().unwrap_or_else(|report| panic!("{report}"));
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
    let refused = told(&sidecar)["refused"].to_string();
    assert!(
        refused.contains(&source) && refused.contains(":2:"),
        "{refused}"
    );

    server.command_line(&format!(
        "addauth digest shop:{PASSWORD}\ndelete /shops/config"
    ));
    eventually("its source is gone", || metric(&sidecar, UP) == 0.0);
    assert_eq!(get(&sidecar, "b").status, 200);
    assert!(told(&sidecar)["unread"].is_string());

    write(&url, &text_for(&app, "c"));
    opens(&sidecar, "c");
    eventually("its source is up", || metric(&sidecar, UP) == 1.0);
    assert_eq!(metric(&sidecar, SUCCESSFUL), 1.0);
    assert!(told(&sidecar)["unread"].is_null());
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
    server.kill();
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
fn check_reads_a_znode_and_tells_what_is_wrong_with_it() {
    let (server, app) = (Server::shared(), FakeApp::agreeable());
    let url = server.url("/whole/checked");
    let check = || finished(&["check", "-c", &url]);
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
