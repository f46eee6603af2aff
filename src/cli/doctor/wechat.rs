//! WeChat: is it found, reached, believed; does it know us; and does it let this machine in?

use std::net::IpAddr;
use std::time::Duration;

use super::Findings;
use crate::config::{App, Config, Wechat};
use crate::error::{Error, Language};
use crate::gateway::probe::{self, Skew};
use crate::wechat::errcode::{self, Class};

/// How far clocks may be apart: signatures, tokens and pushes are judged by the time of day.
const APART: Duration = Duration::from_secs(5);
const TOO_FAR_APART: Duration = Duration::from_secs(60);

/// What WeChat says to one AppSecret.
enum Said {
    Taken,
    /// It does not look at it, because of the address that it is shown from.
    NotFromThere(Error),
    Refused(Error),
    /// It says nothing of it.
    Nothing(Error),
}

pub(super) async fn examine(config: &Config, findings: &mut Findings) {
    let wechat = &config.wechat;
    examine_names(wechat, findings).await;
    let mut reached = false;
    let mut skew = None;
    for endpoint in &wechat.endpoints {
        let name = format!("connection to {endpoint}");
        match probe::reach(wechat, endpoint).await {
            Ok(answer) => {
                reached = true;
                skew = skew.or(answer.ahead);
                let tls = if endpoint.tls {
                    "TLS is good"
                } else {
                    "without TLS"
                };
                let way = match &wechat.egress_proxy {
                    Some(proxy) => {
                        format!(", through the egress proxy {}:{}", proxy.host, proxy.port)
                    }
                    None => String::new(),
                };
                findings.good(name, format!("it answers; {tls}{way}"));
            }
            Err(trouble) => findings.bad(name, trouble.why, trouble.fix),
        }
    }
    match (reached, skew) {
        (false, _) => {
            for name in ["clock", "appid and secret", "egress address"] {
                findings.unknown(name, "not known, because no endpoint of WeChat's answers");
            }
            return;
        }
        (true, None) => findings.unknown("clock", "not known: WeChat's answer has no Date"),
        (true, Some(skew)) => judge_clock(skew, findings),
    }
    examine_secrets(&config.app, wechat, findings).await;
}

/// Names that are looked up here: those of the endpoints, or of the proxy that looks theirs up.
async fn examine_names(wechat: &Wechat, findings: &mut Findings) {
    let mut hosts: Vec<&str> = Vec::new();
    match &wechat.egress_proxy {
        Some(proxy) => hosts.push(&proxy.host),
        None => {
            for endpoint in &wechat.endpoints {
                if !hosts.contains(&endpoint.host.as_str()) {
                    hosts.push(&endpoint.host);
                }
            }
        }
    }
    for host in hosts {
        let name = format!("DNS of {host}");
        if host.parse::<IpAddr>().is_ok() {
            findings.unknown(name, "it is an address");
            continue;
        }
        match probe::look_up(host, wechat.connect_timeout).await {
            Ok(addresses) if !addresses.is_empty() => {
                let some: Vec<String> = addresses.iter().take(4).map(IpAddr::to_string).collect();
                findings.good(name, some.join(", "));
            }
            Ok(_) => findings.bad(name, "it leads to no address", DNS),
            Err(why) => findings.bad(name, why, DNS),
        }
    }
}

const DNS: &str =
    "see the name servers of this machine or pod (/etc/resolv.conf), and whether they may be asked";

fn judge_clock(skew: Skew, findings: &mut Findings) {
    let seconds = skew.size().as_secs();
    let told = match skew {
        Skew::Ahead(_) => format!("{seconds} s ahead of WeChat's"),
        Skew::Behind(_) => format!("{seconds} s behind WeChat's"),
    };
    let fix = "have it set by NTP (timedatectl set-ntp true; in a container, on its host)";
    match skew.size() {
        // WeChat says whole seconds, and its answer was on its way.
        size if size <= APART => findings.good("clock", told),
        size if size <= TOO_FAR_APART => findings.doubtful("clock", told, fix),
        _ => {
            let told =
                format!("{told}: pushes are refused as stale, and tokens end at another time");
            findings.bad("clock", told, fix);
        }
    }
}

async fn examine_secrets(app: &App, wechat: &Wechat, findings: &mut Findings) {
    let mut said = Vec::new();
    for secret in &app.secrets {
        said.push(Said::of(probe::try_secret(app, secret, wechat).await));
    }
    let several = said.len() > 1;
    let taken = said.iter().any(|said| matches!(said, Said::Taken));
    for (at, one) in said.iter().enumerate() {
        let name = match several {
            true => format!("appid and secret {} of {}", at + 1, said.len()),
            false => "appid and secret".to_owned(),
        };
        one.note(name, taken, findings);
    }
    let refusal = said.iter().find_map(|said| match said {
        Said::NotFromThere(error) => Some(error),
        _ => None,
    });
    match refusal {
        Some(error) => note_address(error, findings),
        None if taken => {
            findings.good(
                "egress address",
                "WeChat gives access_tokens to this machine",
            );
        }
        None => findings.unknown(
            "egress address",
            "not known: WeChat has not come to look at it",
        ),
    }
}

impl Said {
    fn of(outcome: Result<(), Error>) -> Self {
        let Err(error) = outcome else {
            return Self::Taken;
        };
        let meaning = error
            .fault()
            .map(|fault| (fault.meaning.code, fault.meaning.class));
        match meaning {
            Some((code, _)) if is_about_address(code) => Self::NotFromThere(error),
            Some((_, Class::Transient | Class::RateQuota)) | None => Self::Nothing(error),
            Some(_) => Self::Refused(error),
        }
    }

    fn note(&self, name: String, another_is_taken: bool, findings: &mut Findings) {
        match self {
            Self::Taken => findings.good(name, "WeChat gives an access_token for them"),
            Self::NotFromThere(_) => findings.unknown(
                name,
                "not known, because WeChat refuses this machine's address first",
            ),
            Self::Refused(error) if another_is_taken => findings.doubtful(
                name,
                told(error),
                "another one is taken, so nothing fails; when the rotation is over, take this one out of [app] secret",
            ),
            Self::Refused(error) => findings.bad(name, told(error), advice(error)),
            Self::Nothing(error) => findings.doubtful(name, told(error), advice(error)),
        }
    }
}

fn is_about_address(code: i64) -> bool {
    matches!(code, 40164 | 61004 | 89501 | 89503..=89507)
}

fn note_address(error: &Error, findings: &mut Findings) {
    let errmsg = error.fault().map_or("", |fault| &fault.errmsg);
    match address_in(errmsg) {
        Some(ip) => findings.bad(
            "egress address",
            format!("WeChat sees {ip}; {}", told(error)),
            format!(
                "put {ip} on the IP whitelist at mp.weixin.qq.com → 开发管理 → 开发设置 → IP白名单; it takes some minutes"
            ),
        ),
        None => findings.bad("egress address", told(error), advice(error)),
    }
}

/// The address that WeChat says it saw: `invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist`.
fn address_in(errmsg: &str) -> Option<IpAddr> {
    let (_, rest) = errmsg.split_once("invalid ip ")?;
    let word = rest.split([' ', ',']).next()?;
    word.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

fn told(error: &Error) -> String {
    match error.fault() {
        Some(fault) => format!("{} (errcode {})", fault.meaning.en, fault.meaning.code),
        None => error.to_string(),
    }
}

fn advice(error: &Error) -> String {
    let code = error.fault().map(|fault| fault.meaning.code);
    let advice = match code {
        Some(40013) => {
            Some("compare [app] appid with the AppID at mp.weixin.qq.com → 开发管理 → 开发设置")
        }
        Some(40001 | 40125) => Some(
            "compare [app] secret with mp.weixin.qq.com → 开发管理 → 开发设置 → AppSecret; it is shown once, and a reset voids the one before",
        ),
        Some(code) => error
            .hint(Language::English)
            .or_else(|| errcode::advice(code)),
        None => error.hint(Language::English),
    };
    match (advice, code) {
        (Some(advice), _) => advice.to_owned(),
        (None, Some(code)) => format!("wx-sidecar errcode {code} tells more"),
        (None, None) => "try again; if it stays, WeChat or the way to it is disturbed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(skew: Skew) -> String {
        let mut findings = Findings::default();
        judge_clock(skew, &mut findings);
        findings.checks[0].line(false)
    }

    #[test]
    fn a_clock_is_warned_of_and_then_refused() {
        let by = Duration::from_secs;
        assert!(judged(Skew::Ahead(by(5))).starts_with("✓ clock: 5 s ahead"));
        assert!(judged(Skew::Behind(by(6))).starts_with("! clock: 6 s behind"));
        assert!(judged(Skew::Behind(by(60))).starts_with("! "));
        assert!(judged(Skew::Ahead(by(61))).starts_with("✗ clock: 61 s ahead"));
    }

    #[test]
    fn the_address_that_wechat_saw_is_found() {
        for (errmsg, ip) in [
            (
                "invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist",
                Some("1.2.3.4"),
            ),
            (
                "invalid ip ::ffff:1.2.3.4, not in whitelist",
                Some("1.2.3.4"),
            ),
            (
                "invalid ip 2001:db8::1 ipv6 2001:db8::1, not in whitelist",
                Some("2001:db8::1"),
            ),
            ("invalid ip somewhere", None),
            ("not in whitelist", None),
        ] {
            assert_eq!(address_in(errmsg).map(|ip| ip.to_string()).as_deref(), ip);
        }
    }
}
