//! The main job: a phone logs in and the app is told who it is.

use crate::backends::{App, Kind};
use crate::rig::Rig;

#[test]
fn an_express_app_is_told_who_is_calling() {
    let app = App::start(Kind::Express, None);
    let rig = Rig::new(&app.url());
    let alice = rig.login("alice");
    let answer = rig.get_as(&alice, "/api/whoami");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["openid"], alice.openid.as_str());
}
