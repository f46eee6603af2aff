//! The parameters of a call: what the app need not have written goes, everything else stays as it came, to the byte.
//!
//! SDKs write an access_token of their own into every URL, and cloud code a `cloudbase_access_token`; both would reach
//! WeChat beside ours, and nobody knows which of two it takes. Names are compared decoded, because WeChat decodes them.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::domain::AppId;
use crate::error::{Error, Kind};

/// A query, taken apart.
pub(crate) struct Parameters {
    /// Without credentials.
    kept: String,
    shown: Shown,
}

/// What a caller shows to prove who it is.
#[derive(Default)]
pub(crate) struct Shown {
    /// `access_token`, or the AppSecret that an SDK believes in.
    pub(crate) tokens: Vec<Zeroizing<String>>,
}

impl Parameters {
    /// Takes credentials out, those of `also` among them, and CloudRun's `from_appid`.
    ///
    /// # Errors
    /// If the call is to be made in the name of another app.
    pub(crate) fn parse(query: &str, also: &[&str], appid: &AppId) -> Result<Self, Error> {
        let mut kept = String::with_capacity(query.len());
        let mut shown = Shown::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name), || {
                Zeroizing::new(decoded(value).into_owned())
            });
            match &*name {
                "access_token" | "cloudbase_access_token" => shown.tokens.push(value()),
                "from_appid" => is_ours(&value(), appid)?,
                name if also.contains(&name) => {
                    if matches!(name, "secret" | "appsecret") {
                        shown.tokens.push(value());
                    }
                    if name == "appid" {
                        is_ours(&value(), appid)?;
                    }
                }
                _ => {
                    if !kept.is_empty() {
                        kept.push('&');
                    }
                    kept.push_str(pair);
                }
            }
        }
        Ok(Self { kept, shown })
    }

    /// The value of a parameter that stayed, decoded.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.kept.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key) == name).then(|| decoded(value).into_owned())
        })
    }

    pub(crate) fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Takes out all parameters of these names, for the sidecar knows better.
    pub(crate) fn remove(&mut self, names: &[&str]) {
        let pairs = self.kept.split('&').filter(|pair| {
            let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
            !pair.is_empty() && !names.contains(&&*decoded(name))
        });
        self.kept = pairs.collect::<Vec<_>>().join("&");
    }

    /// Adds a parameter.
    pub(crate) fn push(&mut self, name: &str, value: &str) {
        if !self.kept.is_empty() {
            self.kept.push('&');
        }
        self.kept.push_str(name);
        self.kept.push('=');
        self.kept
            .push_str(&crate::wechat::api::percent_encode(value));
    }

    pub(crate) fn into_kept(self) -> String {
        self.kept
    }
}

fn is_ours(appid: &str, ours: &AppId) -> Result<(), Error> {
    if appid == ours.as_str() {
        return Ok(());
    }
    let detail = (
        format!("this sidecar calls WeChat as {ours} and as no other app"),
        format!("本 sidecar 只以 {ours} 的身份调用微信"),
    );
    Err(Error::downstream(Kind::BadRequest, detail).with_hint((
        "run a sidecar for the other app, too, and call that one",
        "请为另一个小程序也运行一个 sidecar，并调用它",
    )))
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appid() -> AppId {
        AppId::parse("wx0123456789abcdef").unwrap()
    }

    fn parse(query: &str) -> Parameters {
        Parameters::parse(query, &[], &appid()).unwrap()
    }

    #[test]
    fn tokens_go_in_every_spelling_and_the_rest_stays_to_the_byte() {
        for (query, kept, tokens) in [
            ("", "", 0),
            ("a=1&b=%2f+%20&c", "a=1&b=%2f+%20&c", 0),
            ("access_token=x&type=image", "type=image", 1),
            (
                "type=image&access%5Ftoken=x&%61ccess_token=y",
                "type=image",
                2,
            ),
            ("cloudbase_access_token=x&&a=b", "a=b", 1),
            ("access_token&a=b=c", "a=b=c", 1),
            ("from_appid=wx0123456789abcdef&a=b", "a=b", 0),
            (
                "xaccess_token=x&Access_Token=y",
                "xaccess_token=x&Access_Token=y",
                0,
            ),
        ] {
            let parameters = parse(query);
            assert_eq!(parameters.shown().tokens.len(), tokens, "{query}");
            assert_eq!(parameters.into_kept(), kept, "{query}");
        }
    }

    #[test]
    fn a_call_in_another_apps_name_is_refused() {
        assert!(Parameters::parse("from_appid=wxfedcba9876543210", &[], &appid()).is_err());
        let also = ["appid", "secret"];
        assert!(Parameters::parse("appid=wxfedcba9876543210", &also, &appid()).is_err());
        let login = Parameters::parse(
            "appid=wx0123456789abcdef&secret=s&js_code=c&grant_type=authorization_code",
            &also,
            &appid(),
        );
        let login = login.unwrap();
        assert_eq!(login.shown().tokens.len(), 1);
        assert_eq!(login.into_kept(), "js_code=c&grant_type=authorization_code");
    }

    #[test]
    fn a_parameter_can_be_read_replaced_and_not_injected() {
        let mut parameters = parse("openid=o%2D1&signature=old&x=1");
        assert_eq!(parameters.get("openid").as_deref(), Some("o-1"));
        parameters.remove(&["signature", "openid"]);
        parameters.push("signature", "a&b=c");
        assert_eq!(parameters.into_kept(), "x=1&signature=a%26b%3Dc");
    }
}
