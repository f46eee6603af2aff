//! How a request's body is written, as its head says: read once, for all that look into bodies.
//!
//! Apps differ in what they take for a form or for JSON, and so do their readers of Content-Type. Who is to see all texts or
//! all files in a body asks here, and what is not said in one way is refused there.

use super::uploads::malformed;
use super::{Exchange, only};
use crate::error::{Error, Kind, Sentence};
use crate::wire::form::{self, Boundary, FormError};
use crate::wire::{Name, RequestHead};

/// In what a body is written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Json,
    UrlEncoded,
    Parts(Result<Boundary, FormError>),
    Other,
}

/// What the head says of the body.
#[derive(Debug)]
pub(in crate::server) struct Written<'a> {
    content_type: &'a [u8],
    is_encoded: bool,
    form: Form,
}

/// A body in which texts are checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Checked<'w> {
    Json,
    UrlEncoded,
    Parts(&'w Boundary),
}

impl<'a> Exchange<'a> {
    pub(super) fn written(&self) -> Result<Written<'a>, Error> {
        Written::as_said_by(self.head)
    }
}

impl<'a> Written<'a> {
    pub(in crate::server) fn as_said_by(head: &'a RequestHead) -> Result<Self, Error> {
        let content_type = only(head, Name::ContentType)?.unwrap_or_default();
        let is_encoded = head.fields.iter().any(|field| {
            is_content_encoding(field.name)
                && !field.value.is_empty()
                && !field.value.eq_ignore_ascii_case(b"identity")
        });
        Ok(Self::of(content_type, is_encoded))
    }

    fn of(content_type: &'a [u8], is_encoded: bool) -> Self {
        let kind = kind_of(content_type);
        let form = match &kind[..] {
            b"application/x-www-form-urlencoded" => Form::UrlEncoded,
            kind if is_json(kind) => Form::Json,
            _ => match Boundary::of(content_type) {
                Ok(None) => Form::Other,
                Ok(Some(boundary)) => Form::Parts(Ok(boundary)),
                Err(why) => Form::Parts(Err(why)),
            },
        };
        Self {
            content_type,
            is_encoded,
            form,
        }
    }

    /// Whether the body is one that open data may stand in. Others are passed on as they come, and the app is not told
    /// that anything was decrypted.
    pub(in crate::server) fn is_json(&self) -> Result<bool, Error> {
        if self.form != Form::Json {
            return Ok(false);
        }
        if self.is_encoded {
            return Err(compressed(("a body with open data", "含开放数据的请求体")));
        }
        Ok(true)
    }

    /// What sets the parts of the body apart, if it is a form with parts. Other bodies of parts hold files as well, to some
    /// apps, and nobody would find them.
    pub(in crate::server) fn boundary(&self) -> Result<Option<&Boundary>, Error> {
        if let Form::Parts(boundary) = &self.form {
            let boundary = boundary.as_ref().map_err(|why| malformed(*why))?;
            return match self.is_encoded {
                true => Err(compressed(("a form with files", "含文件的表单"))),
                false => Ok(Some(boundary)),
            };
        }
        let lower = self.content_type.to_ascii_lowercase();
        if memchr::memmem::find(&lower, b"multipart").is_some() {
            let detail = (
                "files are looked for in multipart/form-data, and no other multipart body is taken where they are",
                "文件只在 multipart/form-data 中查找，此处不接受其他 multipart 格式",
            );
            return Err(unreadable(detail).with_hint((
                "send files as wx.uploadFile does",
                "请像 wx.uploadFile 那样发送文件",
            )));
        }
        Ok(None)
    }

    /// How texts that are checked are written in the body, if there is one way to read it.
    pub(super) fn checked(&self) -> Result<Checked<'_>, Error> {
        if self.is_encoded {
            return Err(compressed((
                "a body with a text that is checked",
                "含待检测文本的请求体",
            )));
        }
        let checked = match &self.form {
            Form::Json => Checked::Json,
            Form::UrlEncoded => Checked::UrlEncoded,
            Form::Parts(boundary) => {
                Checked::Parts(boundary.as_ref().map_err(|why| malformed(*why))?)
            }
            Form::Other => {
                let detail = (
                    "a text is checked in application/json, application/x-www-form-urlencoded or multipart/form-data, and in nothing else",
                    "文本只在 application/json、application/x-www-form-urlencoded 或 multipart/form-data 中检测",
                );
                return Err(unreadable(detail)
                    .with_hint(("say it in the Content-Type", "请在 Content-Type 中写明")));
            }
        };
        if !form::is_in_utf8(self.content_type) {
            let detail = (
                "a Content-Type with a text that is checked has another parameter than `charset=utf-8` and the `boundary` of a form",
                "待检测文本的 Content-Type 除 `charset=utf-8` 和表单的 `boundary` 外还有其他参数",
            );
            return Err(unreadable(detail).with_hint((
                "send UTF-8, and leave the parameter out",
                "请使用 UTF-8，并去掉该参数",
            )));
        }
        Ok(checked)
    }
}

/// Whether a Content-Type is that of a field in a form, also to those who take a part for a file by its type.
pub(super) fn is_of_a_field(content_type: &[u8]) -> bool {
    let kind = kind_of(content_type);
    kind == b"text/plain" || is_json(&kind)
}

/// The type itself, in lower case.
fn kind_of(content_type: &[u8]) -> Vec<u8> {
    let kind = content_type.split(|b| *b == b';').next();
    kind.unwrap_or_default().trim_ascii().to_ascii_lowercase()
}

fn is_json(kind: &[u8]) -> bool {
    matches!(kind, b"application/json" | b"text/json")
        || kind.ends_with(b"+json") && !kind.contains(&b',')
}

/// Whether a field says how the body is compressed, also to an app that folds `_` into `-`.
fn is_content_encoding(name: &[u8]) -> bool {
    let letters = name.iter().filter(|b| b.is_ascii_alphanumeric());
    let letters = letters.map(u8::to_ascii_lowercase);
    letters.eq(*b"contentencoding")
}

fn compressed((en, zh): (&str, &str)) -> Error {
    let detail = (
        format!("{en} must not be compressed"),
        format!("{zh}不能压缩"),
    );
    unreadable(detail).with_hint((
        "send it without a Content-Encoding",
        "请不要使用 Content-Encoding",
    ))
}

fn unreadable(detail: impl Into<Sentence>) -> Error {
    Error::downstream(Kind::UnsupportedMediaType, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(content_type: &str) -> Written<'_> {
        Written::of(content_type.as_bytes(), false)
    }

    #[test]
    fn a_content_type_says_how_a_body_is_read_or_it_is_not() {
        for (kind, checked) in [
            ("application/json", Checked::Json),
            ("Application/JSON ; Charset=\"UTF-8\"", Checked::Json),
            ("application/vnd.api+json", Checked::Json),
            ("text/json;", Checked::Json),
            (
                "application/x-www-form-urlencoded; charset=utf8",
                Checked::UrlEncoded,
            ),
        ] {
            assert_eq!(of(kind).checked().unwrap(), checked, "{kind}");
        }
        let parts = of("multipart/form-data; boundary=B; charset=utf-8");
        assert!(matches!(parts.checked().unwrap(), Checked::Parts(_)));
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
            "application/json;profile=x",
            "application/json; multipart/form-data; boundary=b",
            "application/x-www-form-urlencoded;charset=utf-7",
            "application/x-www-form-urlencoded; xcharset=utf-16be",
            "application/jsonp",
            "multipart/mixed",
            "multipart/form-data; boundary=b; charset=gbk",
        ] {
            let error = of(kind).checked().unwrap_err();
            assert_eq!(error.kind(), Kind::UnsupportedMediaType, "{kind}");
        }
        for kind in [
            "multipart/form-data",
            "multipart/form-data; boundary=A; charset*0=utf-7",
            "multipart/form-data; boundary=A; boundary*0=Z",
        ] {
            let error = of(kind).checked().unwrap_err();
            assert_eq!(error.kind(), Kind::BadRequest, "{kind}");
        }
    }

    #[test]
    fn files_are_looked_for_in_forms_and_no_other_parts_are_taken() {
        let form = of("Multipart/Form-Data; boundary=b");
        assert!(form.boundary().unwrap().is_some());
        for kind in ["", "application/json; profile=x", "image/png"] {
            assert!(of(kind).boundary().unwrap().is_none(), "{kind}");
        }
        for kind in [
            "multipart/mixed; boundary=b",
            "Multipart/Related; boundary=b",
            "text/plain; multipart/form-data; boundary=b",
            "application/json, multipart/form-data; boundary=b",
        ] {
            let error = of(kind).boundary().unwrap_err();
            assert_eq!(error.kind(), Kind::UnsupportedMediaType, "{kind}");
        }
    }

    #[test]
    fn what_is_compressed_is_not_looked_into() {
        let encoded = |kind: &'static str| Written::of(kind.as_bytes(), true);
        assert!(encoded("application/json").is_json().is_err());
        assert!(encoded("application/json").checked().is_err());
        assert!(
            encoded("multipart/form-data; boundary=b")
                .boundary()
                .is_err()
        );
        assert!(!encoded("text/plain").is_json().unwrap());
        for name in ["Content-Encoding", "content_encoding", "CONTENT.ENCODING"] {
            assert!(is_content_encoding(name.as_bytes()), "{name}");
        }
        assert!(!is_content_encoding(b"Content-Encodings"));
    }

    #[test]
    fn a_part_that_is_no_file_is_text_or_json() {
        for kind in ["text/plain", "Text/Plain; charset=x", "application/json"] {
            assert!(is_of_a_field(kind.as_bytes()), "{kind}");
        }
        for kind in ["application/octet-stream", "image/png", "text/html", "a"] {
            assert!(!is_of_a_field(kind.as_bytes()), "{kind}");
        }
    }
}
