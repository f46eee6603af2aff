//! A file on its way from WeChat: its head, and its bytes as they come.
//!
//! WeChat answers 200 to all, and what is not a file is JSON: an errcode, or the address of a film, which is fetched there
//! ([`super::video`]). Neither the status nor the Content-Type is believed for that: what begins like JSON is read, and
//! only what cannot be anything but a file becomes one.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING,
};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use super::Gateway;
use super::payload::Payload;
use super::relay::{AppAnswer, AppCall, Peeked, Shows, may_be_json};
use crate::domain::MediaId;
use crate::error::{Error, Kind, Side};
use crate::wechat::answer::{self, Invalid};
use crate::wechat::{api, media};

/// The largest file, in bytes. WeChat takes none of more than 10 MB.
pub(crate) const LARGEST: u64 = 32 * 1024 * 1024;

/// A file that WeChat has begun to send.
pub(crate) struct Fetched {
    /// How many bytes it has, if WeChat says.
    pub(crate) length: Option<u64>,
    /// What WeChat calls it; whatever characters it has are WeChat's.
    pub(crate) name: Option<String>,
    /// Whether its end can be told from a connection that broke.
    pub(crate) is_framed: bool,
    start: Bytes,
    rest: Option<Incoming>,
    count: u64,
    patience: Duration,
}

/// What an answer turns out to be.
pub(super) enum Content {
    File(Fetched),
    /// A film, which is to be had at this address.
    Elsewhere(String),
}

impl Gateway {
    /// Fetches a file, of which the head is here then. A film may be fetched at `video_hosts`: hosts, or `*.` and the end
    /// of hosts.
    ///
    /// # Errors
    /// If WeChat refuses, or what it sends is no file.
    pub(crate) async fn download(
        &self,
        id: &MediaId,
        video_hosts: &[String],
    ) -> Result<Fetched, Error> {
        let patience = self.line.client.timeout;
        let call = AppCall {
            method: Method::GET,
            path: media::GET.to_owned(),
            query: api::query_of(&[("media_id", id.as_str())]).to_string(),
            headers: HeaderMap::new(),
            payload: Payload::Whole(Bytes::new()),
            shows: Shows::AccessToken,
            patience,
        };
        let AppAnswer {
            headers,
            start,
            rest,
            refusal,
            ..
        } = self.relay(&call).await?;
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        match Content::of(&headers, start, rest, patience)? {
            Content::File(file) => Ok(file),
            Content::Elsewhere(url) => self.film(&url, video_hosts).await,
        }
    }
}

impl Fetched {
    /// Its next bytes, none at its end.
    ///
    /// # Errors
    /// If it breaks off, stands still, or is longer than it may be.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let bytes = match self.take().await? {
            Some(bytes) => bytes,
            None => {
                let is_whole = self.length.is_none_or(|length| length == self.count);
                return match is_whole {
                    true => Ok(None),
                    false => Err(broke_off()),
                };
            }
        };
        self.count += bytes.len() as u64;
        match self.count <= self.length.unwrap_or(LARGEST) {
            true => Ok(Some(bytes)),
            false => Err(invalid("the file is longer than it may be")),
        }
    }

    async fn take(&mut self) -> Result<Option<Bytes>, Error> {
        if !self.start.is_empty() {
            return Ok(Some(std::mem::take(&mut self.start)));
        }
        loop {
            let Some(body) = &mut self.rest else {
                return Ok(None);
            };
            let frame = tokio::time::timeout(self.patience, body.frame()).await;
            let timeout = |_| {
                let detail = "WeChat stopped in the middle of a file";
                Error::new(Kind::WechatTimeout, Side::Wechat, detail)
            };
            match frame.map_err(timeout)? {
                None => self.rest = None,
                Some(Err(error)) => return Err(broke_off().with_cause(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    // Trailers.
                    _ => {}
                },
            }
        }
    }
}

impl Content {
    /// Of an answer that is no refusal as far as its status goes.
    pub(super) fn of(
        headers: &HeaderMap,
        start: Bytes,
        rest: Option<Incoming>,
        patience: Duration,
    ) -> Result<Self, Error> {
        if headers.contains_key(CONTENT_ENCODING) {
            return Err(invalid("the file is packed, and nobody asked for that"));
        }
        if rest.is_none() && may_be_json(&start) {
            match answer::parse(&start) {
                Ok(answer) => {
                    let url = answer
                        .fields()
                        .get("video_url")
                        .and_then(|url| url.as_str());
                    return match url.filter(|_| answer.errcode() == 0) {
                        Some(url) => Ok(Self::Elsewhere(url.to_owned())),
                        None => Err(invalid("it is JSON and no file")),
                    };
                }
                Err(Invalid::NotJson | Invalid::TooLarge) => {}
                // It would be JSON if it were in order.
                Err(why) => return Err(invalid("it is no file").with_cause(why)),
            }
        }
        if is_text(headers) || begins_like_markup(&start) || tells_errcode(&start) {
            return Err(invalid("it is a text and no file"));
        }
        let hint = rest.as_ref().map(|body| body.size_hint().exact());
        let length = match hint {
            None => Some(start.len() as u64),
            Some(rest) => rest.map(|rest| rest + start.len() as u64),
        };
        if length.is_some_and(|length| length > LARGEST) {
            return Err(invalid("the file is larger than 32 MiB"));
        }
        Ok(Self::File(Fetched {
            length,
            name: headers
                .get(CONTENT_DISPOSITION)
                .and_then(|value| filename(value.as_bytes())),
            is_framed: length.is_some() || headers.contains_key(TRANSFER_ENCODING),
            start,
            rest,
            count: 0,
            patience,
        }))
    }

    /// Of what a server of films has sent.
    pub(super) fn of_film(peeked: Peeked, patience: Duration) -> Result<Fetched, Error> {
        if peeked.status != StatusCode::OK {
            let status = peeked.status.as_u16();
            return Err(invalid(format!("the film's server answered HTTP {status}")));
        }
        match Self::of(&peeked.headers, peeked.start, peeked.rest, patience)? {
            Self::File(file) => Ok(file),
            Self::Elsewhere(_) => Err(invalid("the film's address leads to another address")),
        }
    }
}

fn is_text(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let kind = content_type.unwrap_or_default().to_ascii_lowercase();
    let kind = kind.split(|&b| b == b';').next().unwrap_or_default();
    let kind = kind.trim_ascii();
    let is_markup = [&b"/json"[..], b"/xml", b"+json", b"+xml", b"/javascript"];
    kind.starts_with(b"text/") || is_markup.iter().any(|end| kind.ends_with(end))
}

/// No medium does.
fn begins_like_markup(start: &[u8]) -> bool {
    let text = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(start);
    text.trim_ascii_start().first() == Some(&b'<')
}

/// Whether this is a refusal that somebody has garbled.
fn tells_errcode(start: &[u8]) -> bool {
    let text = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(start);
    text.trim_ascii_start().first() == Some(&b'{')
        && memchr::memmem::find(text, b"\"errcode\"").is_some()
}

pub(super) fn invalid(what: impl Into<Cow<'static, str>>) -> Error {
    let detail = format!("WeChat's answer cannot be used: {}", what.into());
    Error::new(Kind::WechatInvalid, Side::Wechat, detail)
}

fn broke_off() -> Error {
    let detail = "WeChat broke off in the middle of a file";
    Error::new(Kind::WechatUnreachable, Side::Wechat, detail)
}

/// The file name in a Content-Disposition (RFC 6266). WeChat writes the bytes of UTF-8 between the quotes, as they are;
/// `filename*` counts more.
fn filename(value: &[u8]) -> Option<String> {
    let (mut plain, mut extended) = (None, None);
    let mut rest = after_semicolon(value)?;
    loop {
        let equals = memchr::memchr(b'=', rest)?;
        let name = rest[..equals].trim_ascii();
        let (text, behind) = parameter(rest[equals + 1..].trim_ascii_start());
        if name.eq_ignore_ascii_case(b"filename") {
            plain = plain.or(Some(text));
        } else if name.eq_ignore_ascii_case(b"filename*") {
            extended = extended.or_else(|| decoded(&text));
        }
        match after_semicolon(behind) {
            Some(next) if memchr::memchr(b'=', next).is_some() => rest = next,
            _ => break,
        }
    }
    let plain = plain.and_then(|name| String::from_utf8(name).ok());
    extended.or(plain).filter(|name| !name.is_empty())
}

fn after_semicolon(text: &[u8]) -> Option<&[u8]> {
    memchr::memchr(b';', text).map(|at| &text[at + 1..])
}

/// A parameter's value, quoted or not, and what is behind it.
fn parameter(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = memchr::memchr(b';', text).unwrap_or(text.len());
        return (text[..end].trim_ascii().to_vec(), &text[end..]);
    };
    let (mut value, mut at) = (Vec::new(), 0);
    while let Some(&byte) = quoted.get(at) {
        at += 1;
        match byte {
            b'"' => break,
            b'\\' => {
                value.extend(quoted.get(at));
                at += 1;
            }
            byte => value.push(byte),
        }
    }
    (value, quoted.get(at..).unwrap_or_default())
}

/// `UTF-8''%e7%8c%ab.jpg` (RFC 8187).
fn decoded(value: &[u8]) -> Option<String> {
    let mut parts = value.splitn(3, |&b| b == b'\'');
    let (charset, _language, text) = (parts.next()?, parts.next()?, parts.next()?);
    if !charset.eq_ignore_ascii_case(b"utf-8") {
        return None;
    }
    let decoded = percent_encoding::percent_decode(text).decode_utf8();
    decoded.ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(content_type: &'static str, body: &'static [u8]) -> Result<Content, Error> {
        let value = HeaderValue::from_static(content_type);
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, value)]);
        Content::of(
            &headers,
            Bytes::from_static(body),
            None,
            Duration::from_secs(1),
        )
    }

    #[test]
    fn only_what_cannot_be_anything_else_is_a_file() {
        for (content_type, body) in [
            ("image/jpeg", &b"\xff\xd8\xff\xe0"[..]),
            ("image/png", b"{ is how this picture begins"),
            ("", b"#!AMR\n"),
            ("application/octet-stream", b"\0"),
        ] {
            let content = of(content_type, body);
            assert!(matches!(content, Ok(Content::File(_))), "{content_type}");
        }
        for (content_type, body) in [
            ("image/jpeg", &b""[..]),
            ("image/jpeg", b" \n"),
            ("image/jpeg", b"{}"),
            ("image/jpeg", b"{\"errcode\":0,\"errmsg\":\"ok\"}"),
            (
                "image/jpeg",
                b"{\"errcode\":40007,\"errmsg\":\"invalid media_id\"",
            ),
            ("image/jpeg", b"{\"errcode\":40007,\"errmsg\":\"\xff\""),
            ("image/jpeg", b"\xef\xbb\xbf {\"errcode\" 40007}"),
            ("image/jpeg", b"<html></html>"),
            ("image/jpeg", b"\r\n <!DOCTYPE html>"),
            ("text/html", b"\xff\xd8\xff\xe0"),
            ("TEXT/plain; charset=utf-8", b"busy"),
            ("application/json", b"busy"),
            ("image/svg+xml", b"\xff"),
        ] {
            assert!(of(content_type, body).is_err(), "{content_type} {body:?}");
        }
    }

    #[test]
    fn a_film_is_elsewhere() {
        let Ok(Content::Elsewhere(url)) = of("text/plain", b"{\"video_url\":\"http://a.qq.com/\"}")
        else {
            panic!("it is no film");
        };
        assert_eq!(url, "http://a.qq.com/");
        assert!(
            of(
                "text/plain",
                b"{\"errcode\":-1,\"video_url\":\"http://a/\"}"
            )
            .is_err()
        );
        assert!(of("text/plain", b"{\"video_url\":7}").is_err());
    }

    #[test]
    fn a_file_has_the_name_that_wechat_gives_it() {
        for (value, name) in [
            ("attachment; filename=\"猫.jpg\"", Some("猫.jpg")),
            ("attachment;filename=a.jpg", Some("a.jpg")),
            ("attachment; FileName = \"a.jpg\" ; size=3", Some("a.jpg")),
            (
                r#"attachment; filename="a\"b;c=d.jpg""#,
                Some("a\"b;c=d.jpg"),
            ),
            (
                "attachment; filename=\"_.jpg\"; filename*=UTF-8''%E7%8C%AB.jpg",
                Some("猫.jpg"),
            ),
            (
                "attachment; filename*=gbk''%c3%a8.jpg; filename=a.jpg",
                Some("a.jpg"),
            ),
            ("attachment; filename*=UTF-8''%ff", None),
            ("attachment; filename=\"\"", None),
            ("attachment", None),
            ("attachment; filename", None),
            ("", None),
            ("attachment; filename=\"a", Some("a")),
            ("attachment; filename=\"a\\", Some("a")),
        ] {
            assert_eq!(filename(value.as_bytes()).as_deref(), name, "{value}");
        }
        assert_eq!(filename(b"attachment; filename=\"\xff\""), None);
    }
}
