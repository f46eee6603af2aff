//! The sidecar is killed while messages come in and go out, and nothing that was acknowledged is lost.
//!
//! The small form of `make ledger`, which does the same a hundred times.

#[path = "../benches/ledger/run.rs"]
mod ledger;

use crate::rig::{canary, keep};
use ledger::wechat::{AES_KEY, SECRET, TOKEN};
use ledger::{Inbox, Options, run};

#[test]
fn five_kills_under_load_lose_no_message_and_change_no_order() {
    for secret in [AES_KEY, SECRET, TOKEN] {
        canary(secret);
    }
    let directory = tempfile::tempdir().unwrap();
    let report = run(&Options {
        kills: 5,
        rate: 150.0,
        users: 24,
        seed: 5,
        inbox: Inbox::Journal,
        directory: directory.path().to_owned(),
    });
    let report = report.unwrap_or_else(|why| panic!("{why}"));
    keep("push-kill.log", report.said());
    assert!(report.is_good(), "{report}\n{}", report.said());
}
