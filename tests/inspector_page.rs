//! The inspector's page and its phone in a real browser, before a running `wx-sidecar dev`. What is done there and what has to be on the
//! screen is in `tests/apps/inspector/flows.test.js`; the screenshots it takes are kept in `target/test-output/inspector/`.

use serde_json::json;

use crate::backends::{Kind, Script};
use crate::dev::Dev;
use crate::rig::output_directory;

#[test]
fn the_page_shows_what_the_phone_does_and_what_it_causes() {
    let dev = Dev::new();
    let pictures = output_directory().join("inspector");
    std::fs::remove_dir_all(&pictures).ok();
    let place = json!({
        "page": format!("http://{}/inspector/", dev.admin),
        "pictures": pictures,
    });
    let script = Script::start(Kind::Inspector, "flows.test.js", &[&place.to_string()]);
    script.passes(25);
    for theme in ["light", "dark"] {
        let taken = std::fs::read_dir(&pictures).expect("pictures were taken");
        let names: Vec<_> = taken.flatten().map(|it| it.file_name()).collect();
        let of_theme = |name: &&std::ffi::OsString| name.to_string_lossy().contains(theme);
        assert!(
            names.iter().any(|name| of_theme(&name)),
            "{theme}: {names:?}"
        );
    }
}
