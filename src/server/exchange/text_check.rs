//! Texts on their way to the app, and uploads on their way to WeChat: what WeChat thinks of them.
//!
//! A body is read only if it is what it says it is and says it in one way. All others are refused, because a check that can be
//! evaded by another Content-Type is none.

use super::open_data::is_encoded;
use super::uploads::malformed;
use super::{Caller, Exchange, bad_body, token_missing};
use crate::config::TextCheck;
use crate::content_check::{Passed, Refused, Texts};
use crate::domain::{MediaId, OpenId};
use crate::error::{Error, Kind};
use crate::path::CanonicalPath;
use crate::resilience::Buffered;
use crate::wechat::media;
use crate::wire::form::{self, Boundary};
use crate::wire::{Framing, Name, Reader, Responder};

/// In what a body is written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Json,
    UrlEncoded,
    Parts(Boundary),
}

/// What is to be checked, and who wrote it.
pub(super) struct Checking<'a> {
    check: &'a TextCheck,
    author: &'a OpenId,
    /// What some apps do not tell from a form.
    query: &'a [u8],
}

impl<'a> Checking<'a> {
    pub(super) fn of(
        check: &'a TextCheck,
        caller: &'a Caller,
        path: &CanonicalPath<'a>,
    ) -> Result<Self, Error> {
        let claims = caller.claims.as_ref().ok_or_else(token_missing)?;
        Ok(Self {
            check,
            author: &claims.user.openid,
            query: path.query().unwrap_or_default(),
        })
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
        if self.head.framing != Framing::Empty {
            let form = self.form();
            // Of others it shows only when they have been read whether they are empty.
            if matches!(self.head.framing, Framing::Length(1..)) {
                form.clone()?;
            }
            let body: &[u8] = match buffered {
                Some(body) => body,
                None => buffered.insert(self.read_all(limit, body, responder).await?),
            };
            if !body.is_empty() {
                match form? {
                    Form::Json => texts.json(body).map_err(bad)?,
                    Form::UrlEncoded => texts.form(body).map_err(bad)?,
                    Form::Parts(boundary) => find(&mut texts, &boundary, body)?,
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
        // It says no more than the boundary, unless it is another character set.
        self.form()?;
        let mut texts = checking.texts()?;
        find(&mut texts, boundary, form)?;
        self.judge(checking, &texts).await
    }

    async fn judge(&self, checking: &Checking<'_>, texts: &Texts<'_>) -> Result<Passed, Error> {
        let checks = &self.snapshot.content_check;
        checks.texts(checking.author, checking.check, texts).await
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

    fn form(&self) -> Result<Form, Error> {
        if is_encoded(self.head) {
            return Err(unreadable(
                "a body with a text that is checked must not be compressed",
            ));
        }
        let kind = self.only(Name::ContentType)?.unwrap_or_default();
        form_of(kind)
    }
}

/// The form that a Content-Type stands for.
fn form_of(content_type: &[u8]) -> Result<Form, Error> {
    let lower = content_type.to_ascii_lowercase();
    let mut parts = lower.split(|b| *b == b';').map(<[u8]>::trim_ascii);
    let form = match parts.next().unwrap_or_default() {
        b"application/json" | b"text/json" => Some(Form::Json),
        b"application/x-www-form-urlencoded" => Some(Form::UrlEncoded),
        kind if kind.ends_with(b"+json") && !kind.contains(&b',') => Some(Form::Json),
        _ => Boundary::of(content_type)
            .map_err(malformed)?
            .map(Form::Parts),
    };
    let Some(form) = form else {
        return Err(unreadable(
            "a text is checked in application/json, application/x-www-form-urlencoded or multipart/form-data, and in nothing else",
        ));
    };
    if parts.any(|parameter| !is_utf8(parameter)) {
        return Err(unreadable("a text that is checked must be UTF-8"));
    }
    Ok(form)
}

/// Finds the texts in the parts of a form. Where a text belongs no file may be, because some apps read it as text.
fn find(texts: &mut Texts<'_>, boundary: &Boundary, body: &[u8]) -> Result<(), Error> {
    for field in form::fields(boundary, body).map_err(malformed)? {
        let name = &field.part.name;
        if texts.has(name) && (field.is_file() || !is_in_utf8(&field.head)) {
            let detail = "a text that is checked must be UTF-8 and no file";
            return Err(bad_body(detail.to_owned()));
        }
        texts.field(name, &field.value).map_err(bad)?;
    }
    Ok(())
}

/// Whether the head of a part names no other character set.
fn is_in_utf8(head: &[u8]) -> bool {
    let head = head.to_ascii_lowercase();
    let mut lines = head.split(|b| *b == b'\n');
    let kind = lines.find(|line| line.starts_with(b"content-type"));
    let mut parameters = kind.unwrap_or_default().split(|b| *b == b';').skip(1);
    parameters.all(|parameter| is_utf8(parameter.trim_ascii()))
}

/// Whether a parameter leaves the character set what it is.
fn is_utf8(parameter: &[u8]) -> bool {
    let Some(rest) = parameter.strip_prefix(b"charset") else {
        return true;
    };
    let Some(name) = rest.trim_ascii().strip_prefix(b"=") else {
        return true;
    };
    let name = name.trim_ascii();
    let name = name
        .strip_prefix(b"\"")
        .and_then(|name| name.strip_suffix(b"\""))
        .unwrap_or(name);
    matches!(name, b"utf-8" | b"utf8" | b"us-ascii")
}

fn unreadable(detail: &'static str) -> Error {
    Error::downstream(Kind::UnsupportedMediaType, detail)
}

fn bad(refused: Refused) -> Error {
    Error::downstream(Kind::BadRequest, refused.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_type_says_how_a_body_is_read_or_it_is_not() {
        for (kind, form) in [
            ("application/json", Form::Json),
            ("Application/JSON ; Charset=\"UTF-8\"", Form::Json),
            ("application/vnd.api+json;profile=x", Form::Json),
            ("text/json", Form::Json),
            (
                "multipart/form-data; boundary=B; charset=utf-8",
                Form::Parts(
                    Boundary::of(b"multipart/form-data; boundary=B")
                        .unwrap()
                        .unwrap(),
                ),
            ),
            (
                "application/x-www-form-urlencoded; charset=utf8",
                Form::UrlEncoded,
            ),
        ] {
            assert_eq!(form_of(kind.as_bytes()).unwrap(), form, "{kind}");
        }
        for kind in [
            "",
            "text/plain",
            "application/xml",
            "application/octet-stream",
            "application/json, text/plain",
            "text/plain, application/x+json",
            "application/json;charset=gbk",
            "application/json; charset = \"utf-16\"",
            "application/json;charset=utf-8;charset=gb2312",
            "application/x-www-form-urlencoded;charset=utf-7",
            "application/jsonp",
            "multipart/mixed",
            "multipart/form-data; boundary=b; charset=gbk",
        ] {
            let error = form_of(kind.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), Kind::UnsupportedMediaType, "{kind}");
        }
    }
}
