//! Having a medium from WeChat: asked for by its media_id, and a film where WeChat says that it is.
//!
//! WeChat tells errors and the places of films in JSON, whatever it calls that; all else is the medium.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{
    CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING,
};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::Gateway;
use super::payload::Payload;
use super::relay::{AppCall, Shows};
use super::video::Films;
use crate::domain::MediaId;
use crate::error::{Error, Kind, Side};
use crate::wechat::{answer, media};

/// A medium of which the beginning is here.
pub(crate) struct Fetched {
    /// What WeChat calls it.
    pub(crate) name: Option<String>,
    /// How long all of it is, if that was said.
    pub(crate) length: Option<u64>,
    /// Whether its end can be told from a connection that broke (RFC 9112 §6.3).
    pub(crate) is_framed: bool,
    start: Bytes,
    rest: Option<Incoming>,
    patience: Duration,
}

impl Gateway {
    /// Has a medium from WeChat, as a call of the app's would: once more with another access_token if that one is dead.
    ///
    /// # Errors
    /// If WeChat does not have it, or does not give it.
    pub(crate) async fn download(
        &self,
        id: &MediaId,
        films: &Films,
        patience: Duration,
    ) -> Result<Fetched, Error> {
        let call = AppCall {
            method: Method::GET,
            path: media::GET.to_owned(),
            query: format!("media_id={}", id.as_str()),
            headers: HeaderMap::new(),
            payload: Payload::Whole(Bytes::new()),
            shows: Shows::AccessToken,
            patience,
        };
        let answer = self.relay(&call).await?;
        if let Some(refusal) = answer.refusal {
            return Err(refusal);
        }
        if answer.rest.is_none()
            && let Ok(told) = answer::parse(&answer.start)
        {
            let place = told.fields().get("video_url");
            return match place.and_then(|place| place.as_str()) {
                Some(url) => films.fetch(url, patience).await,
                None => Err(invalid((
                    "WeChat answered with JSON that is no medium",
                    "微信返回的是 JSON，不是媒体文件",
                ))),
            };
        }
        Fetched::of(&answer.headers, answer.start, answer.rest, patience)
    }
}

impl Fetched {
    pub(super) fn of(
        headers: &HeaderMap,
        start: Bytes,
        rest: Option<Incoming>,
        patience: Duration,
    ) -> Result<Self, Error> {
        // Nobody asked for it, so nobody could unpack it.
        if headers.contains_key(CONTENT_ENCODING) {
            return Err(invalid((
                "WeChat sent the medium compressed",
                "微信返回的媒体文件带有压缩编码（Content-Encoding）",
            )));
        }
        let length = headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let name = headers.get(CONTENT_DISPOSITION);
        Ok(Self {
            name: name.and_then(|value| filename(value.as_bytes())),
            is_framed: length.is_some() || headers.contains_key(TRANSFER_ENCODING),
            length: length.or_else(|| rest.is_none().then_some(start.len() as u64)),
            start,
            rest,
            patience,
        })
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// If WeChat breaks off, or is silent for too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if !self.start.is_empty() {
            return Ok(Some(std::mem::take(&mut self.start)));
        }
        let Some(rest) = &mut self.rest else {
            return Ok(None);
        };
        loop {
            let frame = tokio::time::timeout(self.patience, rest.frame()).await;
            match frame {
                Err(_) => {
                    let detail = (
                        "WeChat stopped in the middle of the medium",
                        "微信在媒体文件传输中途停止发送",
                    );
                    return Err(Error::new(Kind::WechatTimeout, Side::Wechat, detail));
                }
                Ok(None) => {
                    self.rest = None;
                    return Ok(None);
                }
                Ok(Some(Err(cause))) => {
                    let detail = (
                        "WeChat broke off in the middle of the medium",
                        "微信在媒体文件传输中途断开",
                    );
                    let error = Error::new(Kind::WechatUnreachable, Side::Wechat, detail);
                    return Err(error.with_cause(cause));
                }
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                    _ => {}
                },
            }
        }
    }
}

pub(super) fn invalid(detail: (&'static str, &'static str)) -> Error {
    Error::new(Kind::WechatInvalid, Side::Wechat, detail)
}

/// The file name of a `Content-Disposition` (RFC 6266), which WeChat writes as plain UTF-8.
fn filename(value: &[u8]) -> Option<String> {
    let mut plain = None;
    for parameter in parameters(value) {
        let Some(equals) = memchr::memchr(b'=', parameter) else {
            continue;
        };
        let (name, given) = (
            parameter[..equals].trim_ascii(),
            parameter[equals + 1..].trim_ascii(),
        );
        if name.eq_ignore_ascii_case(b"filename*") {
            let text = std::str::from_utf8(given).ok()?;
            let encoded = text
                .get(..7)
                .filter(|it| it.eq_ignore_ascii_case("utf-8''"));
            if encoded.is_some() {
                let decoded = percent_encoding::percent_decode_str(&text[7..]);
                return decoded.decode_utf8().ok().map(Into::into);
            }
        } else if name.eq_ignore_ascii_case(b"filename") {
            let bare = given
                .strip_prefix(b"\"")
                .and_then(|given| given.strip_suffix(b"\""))
                .unwrap_or(given);
            plain = std::str::from_utf8(bare).ok().map(str::to_owned);
        }
    }
    plain.filter(|name| !name.is_empty())
}

/// The parts of a value behind its first semicolon; one between quotes parts nothing.
fn parameters(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    value
        .split(move |byte| {
            quoted ^= *byte == b'"';
            *byte == b';' && !quoted
        })
        .skip(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_in_each_of_its_spellings() {
        for (value, name) in [
            ("attachment; filename=\"m_1.jpg\"", Some("m_1.jpg")),
            ("attachment;FileName=m.jpg", Some("m.jpg")),
            (
                "attachment; filename=\"猫;1.jpg\"; size=1",
                Some("猫;1.jpg"),
            ),
            (
                "attachment; filename=\"x.jpg\"; filename*=UTF-8''%E7%8C%AB.jpg",
                Some("猫.jpg"),
            ),
            (
                "attachment; filename*=GBK''%C3%A8.jpg; filename=a.jpg",
                Some("a.jpg"),
            ),
            ("attachment; filename*=UTF-8''%C3", None),
            ("attachment; filename=\"\"", None),
            ("attachment", None),
            ("attachment; filename", None),
            ("filename=a.jpg", None),
        ] {
            assert_eq!(filename(value.as_bytes()).as_deref(), name, "{value}");
        }
        assert_eq!(filename(b"a; filename=\"\xff.jpg\""), None);
    }
}
