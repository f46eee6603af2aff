//! What can go wrong with a request, and how it is told.
//!
//! One [`Error`] for the whole request path: a kind (ours), the side that is at fault, what WeChat said if it was WeChat,
//! and the cause for the log. It becomes HTTP in one place, as problem+json (RFC 9457), in English or Chinese. The
//! `detail` is written for the caller and never holds a secret, a token or a piece of WeChat's raw answer; the cause is
//! for the log only.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::domain::Malformed;
use crate::wechat::errcode::{self, Meaning};

/// Who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client that sent the request.
    Downstream,
    /// The app behind the sidecar.
    Upstream,
    /// WeChat's servers, or the way to them.
    Wechat,
    /// The sidecar itself or its configuration.
    Us,
}

/// The language of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English, the default.
    #[default]
    English,
    /// Simplified Chinese.
    Chinese,
}

/// A sentence in both languages. A pair is one: English, then Chinese.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    en: Cow<'static, str>,
    /// None where it quotes a protocol or a file format, whose words are English: then it is that to all.
    zh: Option<Cow<'static, str>>,
}

impl Sentence {
    /// What breaks a rule of HTTP, of a form or of another format, told in English to all, as its RFC is.
    pub fn english(en: impl Into<Cow<'static, str>>) -> Self {
        Self {
            en: en.into(),
            zh: None,
        }
    }

    /// The sentence in this language.
    pub fn told(&self, language: Language) -> &str {
        let zh = self.zh.as_deref().filter(|_| language == Language::Chinese);
        zh.unwrap_or(&self.en)
    }
}

impl<E, Z> From<(E, Z)> for Sentence
where
    E: Into<Cow<'static, str>>,
    Z: Into<Cow<'static, str>>,
{
    fn from((en, zh): (E, Z)) -> Self {
        Self {
            en: en.into(),
            zh: Some(zh.into()),
        }
    }
}

impl From<Malformed> for Sentence {
    fn from(Malformed(en, zh): Malformed) -> Self {
        (en, zh).into()
    }
}

/// Our own kinds of failure. Each is a row of [`Kind::row`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request cannot be parsed or breaks a rule of HTTP.
    BadRequest,
    /// The path has no single meaning.
    AmbiguousPath,
    /// A token is needed and none came.
    TokenMissing,
    /// The token is not one of ours, was tampered with, or was revoked.
    TokenInvalid,
    /// The token was good once.
    TokenExpired,
    /// The refresh token was already spent, and its successor is in use: the session has been revoked.
    RefreshReused,
    /// Another call with the same refresh token has just won.
    RefreshConflict,
    /// The path lies under the sidecar's prefix but is none of its endpoints.
    NotFound,
    /// The endpoint exists, the method does not.
    MethodNotAllowed,
    /// The client took too long to send its request.
    RequestTimeout,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The body is of a kind that cannot be dealt with here.
    UnsupportedMediaType,
    /// Open data cannot be decrypted, for whatever reason.
    DecryptFailed,
    /// The header section is larger than the limit.
    HeaderTooLarge,
    /// The client asked for a transfer coding or protocol that we do not have.
    NotImplemented,
    /// An HTTP version that is not 1.0 or 1.1.
    VersionNotSupported,
    /// The app cannot be reached, or broke off before it answered.
    UpstreamUnreachable,
    /// The app answered with something that is not HTTP.
    UpstreamInvalid,
    /// The app did not answer in time.
    UpstreamTimeout,
    /// WeChat answered with an errcode; the row of that errcode governs.
    WechatRefused,
    /// WeChat cannot be reached, or broke off.
    WechatUnreachable,
    /// WeChat did not answer in time.
    WechatTimeout,
    /// WeChat's answer is not what its documentation says.
    WechatInvalid,
    /// There is no access_token for WeChat's APIs, and none can be had.
    AccessTokenUnavailable,
    /// WeChat would refuse the call, or not answer it, as those before it; so it was not made.
    BreakerOpen,
    /// The configuration does not let the app make this call to WeChat.
    CallDenied,
    /// Nobody knows who is making this call to WeChat.
    CallerUnknown,
    /// The user whom a call to WeChat names has not logged in here.
    UserUnknown,
    /// More requests than this user or client may send.
    RateLimited,
    /// More requests than the sidecar is configured to carry.
    Overloaded,
    /// The store of sessions cannot be reached, and this request needs it.
    StoreUnavailable,
    /// A push is not WeChat's, or not for this Mini Program.
    PushRefused,
    /// A message of WeChat's cannot be made safe, so it is not acknowledged.
    PushNotStored,
    /// WeChat judges what the request says as risky.
    ContentRisky,
    /// A signed URL of a medium is not ours, has expired, or is another user's.
    MediaUrlInvalid,
    /// The medium is shorter than the range that is asked for.
    RangeNotSatisfiable,
    /// A condition of the request does not hold.
    PreconditionFailed,
    /// A defect of the sidecar.
    Internal,
}

/// How a [`Kind`] is told: stable slug, HTTP status, title in both languages, whether the same request may be sent again.
pub struct Row {
    /// Part of the problem's `type`, stable for ever.
    pub slug: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// English title.
    pub en: &'static str,
    /// Chinese title.
    pub zh: &'static str,
    /// Whether repeating the request unchanged can help.
    pub retryable: bool,
}

impl Kind {
    /// The row of the table.
    pub const fn row(self) -> Row {
        const fn row(
            slug: &'static str,
            status: u16,
            retryable: bool,
            en: &'static str,
            zh: &'static str,
        ) -> Row {
            Row {
                slug,
                status,
                en,
                zh,
                retryable,
            }
        }
        match self {
            Self::BadRequest => row("bad-request", 400, false, "Bad request", "请求有误"),
            Self::AmbiguousPath => row(
                "ambiguous-path",
                400,
                false,
                "The path is ambiguous",
                "路径有歧义",
            ),
            Self::TokenMissing => row(
                "token-missing",
                401,
                false,
                "An access token is required",
                "需要访问令牌",
            ),
            Self::TokenInvalid => row(
                "token-invalid",
                401,
                false,
                "The token is not valid",
                "令牌无效",
            ),
            Self::TokenExpired => row(
                "token-expired",
                401,
                false,
                "The token has expired",
                "令牌已过期",
            ),
            Self::RefreshReused => row(
                "refresh-reused",
                401,
                false,
                "The refresh token was used before; the session has been revoked",
                "刷新令牌被重复使用，会话已注销",
            ),
            Self::RefreshConflict => row(
                "refresh-conflict",
                409,
                true,
                "The refresh token was used by another call a moment ago",
                "刷新令牌刚刚被另一个请求使用",
            ),
            Self::NotFound => row("not-found", 404, false, "No such endpoint", "没有这个接口"),
            Self::MethodNotAllowed => row(
                "method-not-allowed",
                405,
                false,
                "Method not allowed",
                "不支持这种请求方法",
            ),
            Self::RequestTimeout => row(
                "request-timeout",
                408,
                true,
                "The request took too long to arrive",
                "接收请求超时",
            ),
            Self::BodyTooLarge => row(
                "body-too-large",
                413,
                false,
                "The body is too large",
                "请求体过大",
            ),
            Self::HeaderTooLarge => row(
                "header-too-large",
                431,
                false,
                "The header section is too large",
                "请求头过大",
            ),
            Self::NotImplemented => row("not-implemented", 501, false, "Not implemented", "未实现"),
            Self::VersionNotSupported => row(
                "version-not-supported",
                505,
                false,
                "HTTP version not supported",
                "不支持这个 HTTP 版本",
            ),
            Self::UpstreamUnreachable => row(
                "upstream-unreachable",
                502,
                true,
                "The app cannot be reached",
                "无法连接后端应用",
            ),
            Self::UpstreamInvalid => row(
                "upstream-invalid",
                502,
                false,
                "The app's answer is not valid HTTP",
                "后端应用的响应无效",
            ),
            Self::UpstreamTimeout => row(
                "upstream-timeout",
                504,
                true,
                "The app did not answer in time",
                "后端应用响应超时",
            ),
            Self::WechatRefused => row(
                "wechat-refused",
                502,
                false,
                "WeChat refused the call",
                "微信拒绝了请求",
            ),
            Self::WechatUnreachable => row(
                "wechat-unreachable",
                502,
                true,
                "WeChat cannot be reached",
                "无法连接微信服务器",
            ),
            Self::WechatTimeout => row(
                "wechat-timeout",
                504,
                true,
                "WeChat did not answer in time",
                "微信服务器响应超时",
            ),
            Self::WechatInvalid => row(
                "wechat-invalid",
                502,
                true,
                "WeChat's answer cannot be understood",
                "无法理解微信服务器的响应",
            ),
            Self::AccessTokenUnavailable => row(
                "access-token-unavailable",
                503,
                true,
                "WeChat gives no access_token",
                "无法从微信获取 access_token",
            ),
            Self::BreakerOpen => row(
                "wechat-breaker-open",
                503,
                true,
                "Calls of this API are held back for now",
                "该接口的调用暂停中",
            ),
            Self::CallDenied => row(
                "call-denied",
                403,
                false,
                "This call is not allowed",
                "不允许调用该接口",
            ),
            Self::CallerUnknown => row(
                "caller-unknown",
                401,
                false,
                "The caller is not known",
                "调用方身份未知",
            ),
            Self::UserUnknown => row(
                "user-unknown",
                404,
                false,
                "The user has not logged in here",
                "该用户未在此登录",
            ),
            Self::RateLimited => row(
                "rate-limited",
                429,
                true,
                "Too many requests",
                "请求过于频繁",
            ),
            Self::Overloaded => row(
                "overloaded",
                503,
                true,
                "The sidecar is at its limit",
                "sidecar 已达上限",
            ),
            Self::PushRefused => row(
                "push-refused",
                401,
                false,
                "This is not a message of WeChat's",
                "不是微信推送的消息",
            ),
            Self::PushNotStored => row(
                "push-not-stored",
                503,
                true,
                "The message cannot be kept",
                "消息无法保存",
            ),
            Self::ContentRisky => row(
                "content-risky",
                422,
                false,
                "WeChat judges the content as risky",
                "内容含有违规信息",
            ),
            Self::MediaUrlInvalid => row(
                "media-url-invalid",
                403,
                false,
                "The URL of the medium is not valid",
                "媒体链接无效或已过期",
            ),
            Self::RangeNotSatisfiable => row(
                "range-not-satisfiable",
                416,
                false,
                "The medium is shorter than that",
                "请求的范围超出媒体大小",
            ),
            Self::PreconditionFailed => row(
                "precondition-failed",
                412,
                false,
                "A condition of the request does not hold",
                "请求的前提条件不成立",
            ),
            Self::UnsupportedMediaType => row(
                "unsupported-media-type",
                415,
                false,
                "Unsupported media type",
                "不支持的媒体类型",
            ),
            Self::DecryptFailed => row(
                "decrypt-failed",
                401,
                false,
                "The data cannot be decrypted",
                "数据无法解密",
            ),
            Self::StoreUnavailable => row(
                "store-unavailable",
                503,
                true,
                "The store of sessions cannot be reached",
                "会话存储暂不可用",
            ),
            Self::Internal => row("internal", 500, false, "Internal error", "内部错误"),
        }
    }
}

/// An errcode of WeChat's, as it came, with its meaning from the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WechatFault {
    /// The row of the errcode table; unknown codes get one too.
    pub meaning: Meaning,
    /// WeChat's `errmsg` without the rid.
    pub errmsg: String,
    /// WeChat's request id, which its support and `/cgi-bin/openapi/rid/get` understand.
    pub rid: Option<String>,
}

/// A failed request. Boxed, because every result on the request path makes room for it.
#[derive(Clone, Debug)]
pub struct Error(Box<Account>);

/// What is known of a failure. Clones share the cause, because callers of one flight share its failure.
#[derive(Clone, Debug)]
struct Account {
    kind: Kind,
    side: Side,
    detail: Sentence,
    hint: Option<Sentence>,
    wechat: Option<WechatFault>,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
    members: Vec<(&'static str, Value)>,
    complete_length: Option<u64>,
    cause: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure of `kind`, with a sentence for the caller that says what about this request.
    pub fn new(kind: Kind, side: Side, detail: impl Into<Sentence>) -> Self {
        Self(Box::new(Account {
            kind,
            side,
            detail: detail.into(),
            hint: None,
            wechat: None,
            retry_after: None,
            allow: None,
            members: Vec::new(),
            complete_length: None,
            cause: None,
        }))
    }

    /// A failure that the client caused.
    pub fn downstream(kind: Kind, detail: impl Into<Sentence>) -> Self {
        Self::new(kind, Side::Downstream, detail)
    }

    /// A failure that the app caused.
    pub fn upstream(kind: Kind, detail: impl Into<Sentence>) -> Self {
        Self::new(kind, Side::Upstream, detail)
    }

    /// There is too much to do. A second is what a burst takes to pass, and no promise.
    pub(crate) fn overloaded(detail: impl Into<Sentence>) -> Self {
        Self::new(Kind::Overloaded, Side::Us, detail).with_retry_after(Duration::from_secs(1))
    }

    /// WeChat answered with an errcode.
    pub fn wechat(fault: WechatFault) -> Self {
        let detail = (fault.meaning.en, fault.meaning.zh);
        let side = match fault.meaning.class {
            errcode::Class::AuthConfig => Side::Us,
            errcode::Class::UserInput => Side::Downstream,
            _ => Side::Wechat,
        };
        Self::new(Kind::WechatRefused, side, detail).with_fault(fault)
    }

    /// Adds what the caller should do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Sentence>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The same, if nothing better is known.
    #[must_use]
    pub(crate) fn or_hint(self, hint: impl Into<Sentence>) -> Self {
        match self.0.hint {
            Some(_) => self,
            None => self.with_hint(hint),
        }
    }

    /// Adds a member of the problem's own (RFC 9457 §3.2).
    #[must_use]
    pub(crate) fn with_member(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.members.push((name, value.into()));
        self
    }

    /// Adds an errcode that callers know for this, though it is not WeChat that says so.
    #[must_use]
    pub(crate) fn with_fault(mut self, fault: WechatFault) -> Self {
        self.0.wechat = Some(fault);
        self
    }

    /// Adds when to try again.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Adds which methods there are (RFC 9110 §10.2.1 wants that with every 405).
    #[must_use]
    pub fn with_allow(mut self, methods: &'static str) -> Self {
        self.0.allow = Some(methods);
        self
    }

    /// Adds how many bytes there are (RFC 9110 §14.4 wants that with a 416).
    #[must_use]
    pub fn with_complete_length(mut self, length: u64) -> Self {
        self.0.complete_length = Some(length);
        self
    }

    /// Adds what caused it, for the log.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.cause = Some(Arc::from(cause.into()));
        self
    }

    /// Our kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Who is at fault.
    pub fn side(&self) -> Side {
        self.0.side
    }

    /// What WeChat said, if it was WeChat.
    pub fn fault(&self) -> Option<&WechatFault> {
        self.0.wechat.as_ref()
    }

    /// The HTTP status of the answer.
    pub fn status(&self) -> u16 {
        match &self.0.wechat {
            // What WeChat said is of a call before this one, which was not made.
            Some(fault) if self.0.kind != Kind::BreakerOpen => fault.meaning.status,
            _ => self.0.kind.row().status,
        }
    }

    /// Which methods there are, if the method was at fault.
    pub fn allow(&self) -> Option<&'static str> {
        self.0.allow
    }

    /// How many bytes there are, if more were asked for.
    pub fn complete_length(&self) -> Option<u64> {
        self.0.complete_length
    }

    /// When to try again, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The answer's body: RFC 9457 members, and `errcode`, `errmsg`, `rid`, `class`, `retryable`, `hint` where they apply.
    pub fn to_problem(&self, request_id: &str, language: Language) -> Vec<u8> {
        let row = self.0.kind.row();
        let mut problem = Map::new();
        problem.insert(
            "type".into(),
            json!(format!("urn:wx-sidecar:problem:{}", row.slug)),
        );
        problem.insert("title".into(), json!(pick(language, row.en, row.zh)));
        problem.insert("status".into(), json!(self.status()));
        problem.insert("detail".into(), json!(self.detail(language)));
        problem.insert("instance".into(), json!(request_id));
        if let Some(fault) = &self.0.wechat {
            problem.insert("errcode".into(), json!(fault.meaning.code));
            problem.insert("errmsg".into(), json!(fault.errmsg));
            if let Some(rid) = &fault.rid {
                problem.insert("rid".into(), json!(rid));
            }
            problem.insert("class".into(), json!(fault.meaning.class.as_str()));
        }
        problem.insert("retryable".into(), json!(self.retryable()));
        if let Some(after) = self.0.retry_after {
            problem.insert("retry_after".into(), json!(after.as_secs().max(1)));
        }
        for (name, value) in &self.0.members {
            problem.insert((*name).into(), value.clone());
        }
        if let Some(hint) = self.hint(language) {
            problem.insert("hint".into(), json!(hint));
        }
        let mut body = serde_json::to_vec(&Value::Object(problem))
            .expect("a map of strings and numbers serialises");
        body.push(b'\n');
        body
    }

    /// Whether sending the same request again can help.
    pub fn retryable(&self) -> bool {
        self.0
            .wechat
            .as_ref()
            .map_or(self.0.kind.row().retryable, |fault| fault.meaning.retryable)
    }

    /// What to do about it.
    pub(crate) fn hint(&self, language: Language) -> Option<&str> {
        self.0.hint.as_ref().map(|hint| hint.told(language))
    }

    /// What about this request, for its sender.
    pub(crate) fn detail(&self, language: Language) -> &str {
        self.0.detail.told(language)
    }
}

impl fmt::Display for Error {
    /// For the log: slug, detail, errcode and the chain of causes. Never a secret, because none of the parts holds one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind.row().slug, self.0.detail.en)?;
        if let Some(fault) = &self.0.wechat {
            write!(f, " (errcode {})", fault.meaning.code)?;
        }
        let mut cause = self.source();
        while let Some(inner) = cause {
            write!(f, ": {inner}")?;
            cause = inner.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as _)
    }
}

fn pick(language: Language, en: &'static str, zh: &'static str) -> &'static str {
    match language {
        Language::English => en,
        Language::Chinese => zh,
    }
}
