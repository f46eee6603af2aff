//! A file on its way to WeChat, in a form of our own: one part, with a name and a type, and a length that is known before,
//! because WeChat finds no file in a form without any of these (41005).

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use super::Gateway;
use super::line;
use super::payload::{Payload, Piece};
use super::relay::{AppCall, Shows};
use crate::crypto;
use crate::domain::MediaId;
use crate::error::{Error, Kind, Side};
use crate::wechat::answer::{self, Invalid};
use crate::wechat::media::{self, Kind as MediaKind};

/// A file for WeChat.
pub(crate) struct Uploading<'a> {
    pub(crate) kind: MediaKind,
    /// Fit to stand between quotes as it is.
    pub(crate) filename: &'a str,
    pub(crate) content_type: &'static str,
    pub(crate) content: &'a [Piece],
    /// How long nothing may happen.
    pub(crate) patience: Duration,
}

/// A file that WeChat has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uploaded {
    pub(crate) kind: MediaKind,
    pub(crate) media_id: MediaId,
    /// In Unix seconds.
    pub(crate) created_at: u64,
}

impl Gateway {
    /// Uploads a file, as a call of the app's would: it is made once more with another access_token if that one is dead.
    ///
    /// # Errors
    /// If WeChat does not take it, or does not say that it has.
    pub(crate) async fn upload(&self, file: &Uploading<'_>) -> Result<Uploaded, Error> {
        let answer = self.relay(&call(file)).await?;
        if let Some(refusal) = answer.refusal {
            return Err(refusal);
        }
        let body = match answer.rest {
            None => answer::parse(&answer.start),
            Some(_) => Err(Invalid::TooLarge),
        };
        let taken = body.and_then(|answer| media::parse(&answer));
        let taken = taken
            .map_err(|why| Error::new(Kind::WechatInvalid, Side::Wechat, line::of_no_use(why)))?;
        Ok(Uploaded {
            kind: file.kind,
            media_id: taken.media_id,
            created_at: taken.created_at,
        })
    }
}

fn call(file: &Uploading<'_>) -> AppCall {
    let boundary = boundary();
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"; filename=\"{}\"\r\nContent-Type: {}\r\n\r\n",
        media::PART,
        file.filename,
        file.content_type
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let mut pieces = vec![Piece::Bytes(Bytes::from(head))];
    pieces.extend_from_slice(file.content);
    pieces.push(Piece::Bytes(Bytes::from(tail)));
    let content_type = format!("multipart/form-data; boundary={boundary}");
    let content_type =
        HeaderValue::try_from(content_type).expect("a boundary is of letters and digits");
    AppCall {
        method: Method::POST,
        path: media::UPLOAD.to_owned(),
        query: format!("type={}", file.kind.name()),
        headers: HeaderMap::from_iter([(CONTENT_TYPE, content_type)]),
        payload: Payload::kept(pieces),
        shows: Shows::AccessToken,
        patience: file.patience,
    }
}

/// Nobody can guess it, so no file holds it.
fn boundary() -> String {
    format!("wx{}", crypto::hex(&crypto::random::<16>()))
}
