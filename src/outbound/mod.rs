//! The app's calls to WeChat, as the app makes them: where they lead, who may make them, what they may carry.
//!
//! All of it is decided before anything is sent, on values: `target` says which API is meant and refuses what could lead
//! elsewhere, `caller` knows who may call and gives out tokens that are worth nothing anywhere else, `query` and `headers`
//! take away what the app need not have written, `signing` adds what it cannot write. Calling is the gateway's, and putting it all together the server's.

mod caller;
mod headers;
mod query;
mod signing;
mod target;

pub(crate) use caller::{Asked, Callers};
pub(crate) use headers::{for_app, for_wechat};
pub(crate) use query::Parameters;
pub(crate) use signing::{Signing, unknown_user};
pub(crate) use target::Target;

use crate::config;
use crate::error::{Error, Kind, WechatFault};
use crate::path::Pattern;
use crate::wechat::errcode;

/// CloudRun's errcode for a path that is not in the list of those that may be called.
const NOT_IN_LIST: i64 = 85107;

/// Which APIs may be called.
pub(crate) struct Rules {
    allow: Vec<(String, Pattern)>,
    deny: Vec<(String, Pattern)>,
}

impl Rules {
    pub(crate) fn new(outbound: &config::Outbound) -> Self {
        let patterns = |texts: &[String]| {
            let both = texts
                .iter()
                .map(|text| (text.clone(), Pattern::parse(text)));
            both.collect()
        };
        Self {
            allow: patterns(&outbound.allow),
            deny: patterns(&outbound.deny),
        }
    }

    /// Whether `path` may be called.
    ///
    /// # Errors
    /// If not: which line of the configuration says so, or which is missing.
    pub(crate) fn admit(&self, path: &str) -> Result<(), Error> {
        let matching = |list: &[(String, Pattern)]| {
            let found = list
                .iter()
                .find(|(_, pattern)| pattern.matches(path.as_bytes()));
            found.map(|(text, _)| text.clone())
        };
        if let Some(pattern) = matching(&self.deny) {
            let hint = (
                format!("take \"{pattern}\" out of `deny` below [outbound] in sidecar.toml"),
                format!("请从 sidecar.toml 中 [outbound] 的 `deny` 中去掉 \"{pattern}\""),
            );
            return Err(denied().with_hint(hint));
        }
        if matching(&self.allow).is_none() {
            let hint = (
                format!("add \"{path}\" to `allow` below [outbound] in sidecar.toml"),
                format!("请在 sidecar.toml 中 [outbound] 的 `allow` 中加入 \"{path}\""),
            );
            return Err(denied().with_hint(hint));
        }
        Ok(())
    }
}

fn denied() -> Error {
    let fault = WechatFault {
        meaning: errcode::meaning(NOT_IN_LIST),
        errmsg: "this path is not allowed by the sidecar's configuration".to_owned(),
        rid: None,
    };
    let detail = (
        "this path is not allowed by the sidecar's configuration",
        "sidecar 的配置不允许调用该路径",
    );
    Error::downstream(Kind::CallDenied, detail).with_fault(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str], deny: &[&str]) -> Rules {
        let patterns = |texts: &[&str]| {
            let both = texts
                .iter()
                .map(|text| ((*text).to_owned(), Pattern::parse(text)));
            both.collect()
        };
        Rules {
            allow: patterns(allow),
            deny: patterns(deny),
        }
    }

    fn hint(outcome: Result<(), Error>) -> String {
        let error = outcome.unwrap_err();
        assert_eq!(error.status(), 403);
        let problem = error.to_problem("request-1", crate::error::Language::English);
        let problem: serde_json::Value = serde_json::from_slice(&problem).unwrap();
        assert_eq!(problem["errcode"], 85107);
        problem["hint"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_call_that_is_not_allowed_is_told_the_line_to_add() {
        let rules = rules(&["/wxa/**"], &[]);
        assert!(rules.admit("/wxa/getwxacode").is_ok());
        assert_eq!(
            hint(rules.admit("/cgi-bin/message/custom/send")),
            "add \"/cgi-bin/message/custom/send\" to `allow` below [outbound] in sidecar.toml"
        );
    }

    #[test]
    fn what_is_denied_is_denied_whatever_is_allowed() {
        let rules = rules(&["/**"], &["/wxa/release", "/cgi-bin/clear_quota/**"]);
        assert!(rules.admit("/wxa/getwxacode").is_ok());
        for path in [
            "/wxa/release",
            "/cgi-bin/clear_quota",
            "/cgi-bin/clear_quota/v2",
        ] {
            assert!(hint(rules.admit(path)).starts_with("take "), "{path}");
        }
    }
}
