//! API security around calls: what is to be sent instead of the plain call, and what the answer says once it is believed.
//!
//! The form is in `wechat::api_security`; here it gets its time, its random bytes and its place.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::crypto;
use crate::domain::AppId;
use crate::error::{Error, Kind, Sentence, Side};
use crate::telemetry::throttle::Throttle;
use crate::wechat::api_security::{ApiSecurity, Nonces, Refused, Request, url_of};

/// Seals calls and opens answers, for the APIs that are configured.
pub(super) struct Envelope {
    security: Arc<ApiSecurity>,
    appid: AppId,
    clock: Clock,
    renewals: Throttle<()>,
}

/// A call as it is to be made, by POST.
pub(super) struct Sealed {
    /// The access_token, and nothing else.
    pub(super) query: Zeroizing<String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Envelope {
    pub(super) fn new(security: Arc<ApiSecurity>, appid: AppId, clock: Clock) -> Self {
        Self {
            security,
            appid,
            clock,
            renewals: Throttle::default(),
        }
    }

    /// Whether calls at `path` are made in this form.
    pub(super) fn is_for(&self, path: &str) -> bool {
        self.security.paths.contain(path)
    }

    /// Encrypts and signs a call.
    ///
    /// # Errors
    /// If it cannot have this form.
    pub(super) fn seal(&self, path: &str, query: &str, body: &[u8]) -> Result<Sealed, Error> {
        let (shown, rest): (Vec<&str>, Vec<&str>) = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .partition(|pair| pair.starts_with("access_token="));
        let pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = rest
            .into_iter()
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decoded(name), decoded(value))
            })
            .collect();
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (&**n, &**v)).collect();
        let request = Request {
            url: &url_of(path),
            query: &pairs,
            body,
        };
        let nonces = Nonces {
            n: crypto::random(),
            iv: crypto::random(),
        };
        let sealed = self
            .security
            .seal(&self.appid, &request, self.clock.now(), &nonces)
            .map_err(|why| {
                Error::downstream(Kind::BadRequest, Sentence::english(why.to_string()))
            })?;
        let mut headers = HeaderMap::from_iter(sealed.headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Sealed {
            query: Zeroizing::new(shown.join("&")),
            headers,
            body: sealed.body.into(),
        })
    }

    /// What an answer says, as JSON.
    ///
    /// # Errors
    /// If it is not WeChat's. What WeChat refuses in clear is an answer.
    pub(super) fn open(
        &self,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Bytes, Error> {
        let url = url_of(path);
        match self
            .security
            .open(&self.appid, &url, headers, body, self.clock.now())
        {
            Ok(opened) => {
                if opened.by_deprecated_certificate
                    && let Some(suppressed) = self.renewals.pass((), Instant::now())
                {
                    tracing::warn!(
                        suppressed,
                        "WeChat is changing its certificate: add the new one to [wechat.api_security]"
                    );
                }
                Ok(opened.body.into())
            }
            Err(Refused::Errcode(_)) => Ok(body.clone()),
            Err(why) => {
                let detail = (
                    format!("WeChat's answer is not believed: {why}"),
                    "微信的响应不可信".to_owned(),
                );
                Err(Error::new(Kind::WechatInvalid, Side::Wechat, detail))
            }
        }
    }
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}
