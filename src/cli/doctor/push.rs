//! Messages that WeChat pushes: would its handshake be answered, and would what it encrypts be read?
//!
//! The sidecar that runs is asked as WeChat asks it, if it can be. If it does not run, what its configuration would make it
//! say is all that can be known, and that is said.

use std::net::{IpAddr, Ipv4Addr};

use super::ask::{self, Place, Unanswered};
use super::{Findings, PATIENCE};
use crate::clock::Clock;
use crate::config::{Config, Push};
use crate::push::rehearsal::{Handshake, receive_with_each_key};

const HANDSHAKE: &str = "push handshake";
const KEYS: &str = "push keys";

pub(super) fn examine(config: &Config, findings: &mut Findings) {
    let Some(push) = &config.push else {
        for name in [HANDSHAKE, KEYS] {
            findings.unknown(name, "there is no [push]");
        }
        return;
    };
    let now = Clock::System.now();
    let handshake = Handshake::new(push, now);
    match handshake.is_answered(&config.app.appid, push) {
        Ok(()) => ask_sidecar(config, &handshake, findings),
        Err(why) => findings.bad(HANDSHAKE, why, "see [push] token"),
    }
    match receive_with_each_key(&config.app.appid, push, now) {
        Ok(0) => findings.unknown(KEYS, "none is needed: [push] mode is \"plaintext\""),
        Ok(count) => findings.good(
            KEYS,
            format!("a message that is encrypted with {} is read", either(count)),
        ),
        Err(why) => findings.bad(KEYS, why, "see [push] aes_key"),
    }
    remind(push, findings);
}

/// The handshake as WeChat does it, with the sidecar that runs here.
fn ask_sidecar(config: &Config, handshake: &Handshake, findings: &mut Findings) {
    let inbound = &config.inbound;
    let by_configuration = |why: &str| {
        format!("the configuration would answer it; the sidecar was not asked, because {why}")
    };
    if inbound.tls.is_some() {
        return findings.good(HANDSHAKE, by_configuration("it speaks TLS"));
    }
    let Some(place) = Place::of_listener(&inbound.listen) else {
        return findings.good(
            HANDSHAKE,
            by_configuration("its port is chosen when it starts"),
        );
    };
    let target = format!("{}/push?{}", inbound.prefix, handshake.query);
    let here = match &place {
        Place::Tcp(host, _) => Some(host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))),
        Place::Unix(_) => None,
    };
    let mut request = ask::get(&target);
    if inbound.proxy_protocol && inbound.trusted_proxies.trusts(here) {
        request.insert_str(0, "PROXY UNKNOWN\r\n");
    }
    let at = &inbound.listen;
    let stale = "have it read this configuration: SIGHUP, or a restart";
    match ask::ask(&place, &request, PATIENCE) {
        Ok(answer) if answer.status == 200 && answer.body == handshake.echostr => {
            findings.good(HANDSHAKE, format!("the sidecar at {at} answers it"));
        }
        Ok(answer) if answer.status == 401 => findings.bad(
            HANDSHAKE,
            format!("the sidecar at {at} refuses a handshake with the configured token; it runs with another one"),
            stale,
        ),
        Ok(answer) => findings.bad(
            HANDSHAKE,
            format!("what listens at {at} answers HTTP {} and not as a sidecar with this configuration", answer.status),
            stale,
        ),
        Err(Unanswered::NotThere(_)) => {
            findings.good(HANDSHAKE, by_configuration("it does not run"));
        }
        Err(Unanswered::NotHttp(why)) => findings.bad(
            HANDSHAKE,
            format!("what listens at {at} is no sidecar: {why}"),
            "have [inbound] listen on another port",
        ),
    }
}

/// What only WeChat's console knows.
fn remind(push: &Push, findings: &mut Findings) {
    let mode = match push.mode {
        crate::config::PushMode::Plaintext => "明文模式",
        crate::config::PushMode::Compatible => "兼容模式",
        crate::config::PushMode::Secure => "安全模式",
    };
    findings.unknown(
        "push console",
        format!("whether mp.weixin.qq.com has the same Token and EncodingAESKey, and {mode}, shows only when WeChat pushes"),
    );
}

fn either(count: usize) -> String {
    match count {
        1 => "the key".to_owned(),
        count => format!("either of the {count} keys"),
    }
}
