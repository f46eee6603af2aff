//! What `examples/` holds works as it stands: the phone's helper and the sample Mini Program on Node with a phone made
//! for the purpose (`tests/apps/miniprogram/`), and the backends in every language behind `wx-sidecar dev`.
//!
//! How a backend is run, and what a newcomer types, is read from the README beside the backends, so that it cannot say
//! what does not work.

use std::time::Duration;

use serde_json::{Value, json};

use crate::backends::{Kind, Script};
use crate::fake_app::{FakeApp, OK};
use crate::rig::Rig;

/// What the helper's tests need of a configuration.
const ROUTES: &str = "[[route]]\npath = \"/public/**\"\nauth = \"none\"\n\
     [[route]]\npath = \"/auth/login\"\nlogin = true\n";

#[test]
fn the_phones_helper_keeps_its_promises() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("app.sock");
    let rig = Rig::with(&format!("unix:{}", socket.display()), "", ROUTES);
    let clock = rig.clock.clone();
    let control = FakeApp::start(move |connection| {
        while let Some(request) = connection.read_request().filter(|it| it.complete) {
            let seconds = String::from_utf8_lossy(&request.body);
            clock.advance(Duration::from_secs(seconds.parse().unwrap()));
            connection.write(OK);
        }
    });
    let place = json!({
        "sidecar": format!("http://{}", rig.address()),
        "simulator": rig.sim.url(),
        "control": control.url(),
        "app": socket,
        "folder": folder.path(),
    });
    all_pass("helper.test.js", &place, 30);
}

/// Runs tests on Node, which are at least so many, and shows what they say if one fails.
fn all_pass(tests: &str, place: &Value, at_least: u64) {
    let script = Script::start(Kind::Miniprogram, tests, &[&place.to_string()]);
    let mut said = String::new();
    let summary = loop {
        let line = script.line();
        if line.starts_with("{\"begun\":") {
            break serde_json::from_str::<Value>(&line).unwrap();
        }
        said += &line;
        said.push('\n');
    };
    assert_eq!(summary["begun"], summary["passed"], "{said}");
    assert!(summary["begun"].as_u64() >= Some(at_least), "{summary}");
}
