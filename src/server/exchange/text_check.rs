//! Texts on their way to the app, and uploads on their way to WeChat: what WeChat thinks of them.
//!
//! A body is read only if it is what it says it is and says it in one way. All others are refused, because a check that can be
//! evaded by another Content-Type is none.

use super::uploads::malformed;
use super::written::{Checked, Written};
use super::{Caller, Exchange, bad_request, token_missing};
use crate::config::TextCheck;
use crate::content_check::{Passed, Refused, Texts};
use crate::domain::{MediaId, OpenId};
use crate::error::Error;
use crate::path::CanonicalPath;
use crate::resilience::Buffered;
use crate::wechat::media;
use crate::wire::form::{self, Boundary};
use crate::wire::{Framing, Reader, Responder};

/// What is to be checked, and who wrote it.
pub(super) struct Checking<'a> {
    check: &'a TextCheck,
    author: &'a OpenId,
    /// What some apps do not tell from a form.
    query: &'a [u8],
    /// What the head says of the body, if there may be one.
    written: Option<&'a Written<'a>>,
}

impl<'a> Checking<'a> {
    pub(super) fn of(
        check: &'a TextCheck,
        caller: &'a Caller,
        path: &CanonicalPath<'a>,
        written: Option<&'a Written<'a>>,
    ) -> Result<Self, Error> {
        let claims = caller.claims.as_ref().ok_or_else(token_missing)?;
        Ok(Self {
            check,
            author: &claims.user.openid,
            query: path.query().unwrap_or_default(),
            written,
        })
    }

    /// Whether the body is one whose texts can be found, as far as its head says.
    pub(super) fn is_possible(&self) -> Result<(), Error> {
        self.written.map_or(Ok(()), |it| it.checked().map(drop))
    }

    fn texts(&self) -> Result<Texts<'a>, Error> {
        let mut texts = Texts::of(&self.check.fields);
        texts.query(self.query).map_err(bad)?;
        Ok(texts)
    }
}

impl Exchange<'_> {
    /// Has the texts of a request judged before the app sees it. What was read of the body stays in `buffered`.
    pub(super) async fn check_texts(
        &self,
        checking: &Checking<'_>,
        limit: u64,
        body: &mut Reader<'_>,
        responder: &mut Responder<'_>,
        buffered: &mut Option<Buffered>,
    ) -> Result<Passed, Error> {
        let mut texts = checking.texts()?;
        if let Some(written) = checking.written {
            // Of others it shows only when they have been read whether they are empty.
            if matches!(self.head.framing, Framing::Length(1..)) {
                written.checked()?;
            }
            let body: &[u8] = match buffered {
                Some(body) => body,
                None => buffered.insert(self.read_all(limit, body, responder).await?),
            };
            if !body.is_empty() {
                match written.checked()? {
                    Checked::Json => texts.json(body).map_err(bad)?,
                    Checked::UrlEncoded => texts.form(body).map_err(bad)?,
                    Checked::Parts(boundary) => find(&mut texts, boundary, body)?,
                }
            }
        }
        self.judge(checking, &texts).await
    }

    /// The same for a form whose files have been taken out, before they go anywhere.
    pub(super) async fn check_form(
        &self,
        checking: &Checking<'_>,
        boundary: &Boundary,
        form: &[u8],
    ) -> Result<Passed, Error> {
        let mut texts = checking.texts()?;
        find(&mut texts, boundary, form)?;
        self.judge(checking, &texts).await
    }

    async fn judge(&self, checking: &Checking<'_>, texts: &Texts<'_>) -> Result<Passed, Error> {
        let checks = &self.snapshot.content_check;
        let judging = checks.texts(checking.author, checking.check, texts);
        self.timings.wechat(judging).await
    }

    /// Has WeChat judge an upload, if uploads are checked; the `trace_id` that the judgement will come with. It is no
    /// failure of the upload if there is none.
    pub(super) async fn check_media(
        &self,
        openid: &OpenId,
        media_id: &MediaId,
        kind: media::Kind,
        url: &str,
    ) -> Option<String> {
        let checks = &self.snapshot.content_check;
        checks.media(openid, media_id, kind, url).await
    }
}

/// Finds the texts in the parts of a form. Where a text belongs no file may be, because some apps read it as text.
fn find(texts: &mut Texts<'_>, boundary: &Boundary, body: &[u8]) -> Result<(), Error> {
    for field in form::fields(boundary, body).map_err(malformed)? {
        let name = &field.part.name;
        let is_text = !field.is_file() && form::is_in_utf8(&field.part.content_type);
        if texts.has(name) && !is_text {
            let detail = (
                "a text that is checked must be UTF-8 and no file",
                "待检测的文本须为 UTF-8，且不能是文件",
            );
            let hint = (
                "leave the part's filename out, and all of its Content-Type but `charset=utf-8`",
                "请去掉该部分的 filename，Content-Type 只保留 `charset=utf-8`",
            );
            return Err(bad_request(detail).with_hint(hint));
        }
        texts.field(name, &field.value).map_err(bad)?;
    }
    Ok(())
}

fn bad(refused: Refused) -> Error {
    bad_request(refused.0).with_hint((
        "send each text once and in UTF-8, as JSON.stringify and encodeURIComponent write it",
        "每个文本只发送一次，使用 UTF-8，写法与 JSON.stringify 和 encodeURIComponent 的输出相同",
    ))
}
