//! The errcodes that the simulator answers, with WeChat's wording.
//!
//! The wording's punctuation before the rid differs from code to code as it does in WeChat's answers, because parsers
//! have to cope with both.

use std::borrow::Cow;

/// A call refused by a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    CredentialInvalid = 40001,
    GrantTypeInvalid = 40002,
    OpenIdInvalid = 40003,
    MediaTypeInvalid = 40004,
    FileTypeInvalid = 40005,
    MediaSizeInvalid = 40006,
    MediaIdInvalid = 40007,
    MessageTypeInvalid = 40008,
    AppIdInvalid = 40013,
    TokenMalformed = 40014,
    CodeInvalid = 40029,
    TemplateInvalid = 40037,
    PathUnknown = 40066,
    ArgumentsInvalid = 40097,
    AppSecretInvalid = 40125,
    SceneInvalid = 40129,
    PathLength = 40159,
    CodeUsed = 40163,
    SceneLength = 40169,
    CodeBlocked = 40226,
    TokenMissing = 41001,
    AppIdMissing = 41002,
    AppSecretMissing = 41004,
    MediaMissing = 41005,
    CodeMissing = 41008,
    PageInvalid = 41030,
    TokenExpired = 42001,
    GetRequired = 43001,
    PostRequired = 43002,
    MessageRefused = 43101,
    OpenIdForeign = 43104,
    BodyEmpty = 44002,
    ContentEmpty = 44004,
    MediaTooLarge = 45001,
    ContentTooLarge = 45002,
    DayQuota = 45009,
    MinuteQuota = 45011,
    OutOfContact = 45015,
    CodesUsedUp = 45029,
    CommandInvalid = 45072,
    NoRecentMessage = 45080,
    TypingAlready = 45081,
    BodyMalformed = 47001,
    ArgumentInvalid = 47003,
    UserAway = 61010,
    SceneReserved = 85096,
    SessionKeyMissing = 87007,
    SigMethodInvalid = 87008,
    SignatureInvalid = 87009,
    ContentRisky = 87014,
}

impl Refusal {
    /// The same in other words than the usual ones.
    pub(super) fn saying(self, errmsg: impl Into<Cow<'static, str>>) -> Refused {
        Refused {
            errcode: self as i64,
            errmsg: errmsg.into(),
        }
    }
}

/// A refusal as it is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) errcode: i64,
    /// Up to where ` rid: ` follows.
    pub(super) errmsg: Cow<'static, str>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        refusal.saying(wording(refusal as i64))
    }
}

/// The errmsg of an errcode, up to where ` rid: ` follows. Has some that only an ordered fault can bring.
pub(super) fn wording(errcode: i64) -> &'static str {
    match errcode {
        40001 => "invalid credential, access_token is invalid or not latest",
        40002 => "invalid grant_type",
        40003 => "invalid openid",
        40004 => "invalid media type",
        40005 => "invalid file type",
        40006 => "invalid meida size",
        40007 => "invalid media_id",
        40008 => "invalid message type",
        40013 => "invalid appid",
        40014 => "invalid access_token",
        40029 => "invalid code,",
        40037 => "invalid template_id",
        40066 => "invalid url",
        40097 => "invalid args",
        40125 => "invalid appsecret",
        40129 => "invalid scene",
        40159 => "invalid length for path, or the data is not json string",
        40163 => "code been used,",
        40164 => "invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist",
        40169 => "invalid length for scene, or the data is not json string",
        40226 => "code blocked",
        40243 => "appsecret frozen",
        41001 => "access_token missing",
        41002 => "appid missing",
        41004 => "appsecret missing",
        41005 => "media data missing",
        41008 => "missing code",
        41030 => "invalid page",
        42001 => "access_token expired",
        43001 => "require GET method",
        43002 => "require POST method",
        43101 => "user refuse to accept the msg",
        43104 => "this appid does not have permission",
        44002 => "empty post data",
        44004 => "empty content",
        45001 => "media size out of limit",
        45002 => "content size out of limit",
        45009 => "reach max api daily quota limit",
        45011 => "api minute-quota reach limit, must slower, retry next minute",
        45015 => "response out of time limit or subscription is canceled",
        45029 => "qrcode count out of limit",
        45072 => "invalid command",
        45080 => "typing state needs a message within the last 30 seconds",
        45081 => "already in typing state",
        47001 => "data format error",
        47003 => "argument invalid!",
        48001 => "api unauthorized",
        61010 => "code is expired",
        85096 => "not allow include scancode_time field",
        87007 => "session_key is not existed or expired",
        87008 => "invalid sig_method",
        87009 => "invalid signature",
        87014 => "risky content",
        _ => "system error",
    }
}
