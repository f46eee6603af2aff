//! A network in which TCP sends as fast as it can.
//!
//! Where the machine's congestion control is BBR, the kernel paces each connection by timers, on the loopback interface too:
//! most of a server's CPU is theirs then, and how much is luck. In a network namespace of its own the bench has another one.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

const CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
/// Makes the namespace ready. Reno is what every kernel lets everybody choose.
const SETTLE: &str = "ip link set lo up && echo reno > /proc/sys/net/ipv4/tcp_congestion_control";

/// TCP's congestion control here.
pub(crate) fn control() -> String {
    let name = fs::read_to_string(CONTROL).unwrap_or_default();
    name.trim().to_owned()
}

pub(crate) fn is_paced() -> bool {
    control().starts_with("bbr")
}

/// Starts this program anew in a network of its own if that of the machine paces. Where it may not, it goes on as it is.
pub(crate) fn leave_a_paced_one() {
    let Ok(own) = std::env::current_exe() else {
        return;
    };
    if !is_paced() {
        return;
    }
    // As root, and as somebody who is root in a namespace of users.
    for how in [["--net"].as_slice(), &["--net", "--map-root-user"]] {
        let tried = Command::new("unshare")
            .args(how)
            .args(["sh", "-c", SETTLE])
            .stderr(Stdio::null())
            .status();
        if tried.is_ok_and(|status| status.success()) {
            let script = format!("{SETTLE} && exec \"$0\" \"$@\"");
            let mut anew = Command::new("unshare");
            anew.args(how).args(["sh", "-c", &script]).arg(&own);
            // It comes back only if that failed.
            let _error = anew.args(std::env::args_os().skip(1)).exec();
        }
    }
}
