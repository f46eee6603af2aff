//! The errcodes that the simulator answers, with WeChat's wording.
//!
//! The wording's punctuation before the rid differs from code to code as it does in WeChat's answers, because parsers
//! have to cope with both.

/// A call refused by a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    CredentialInvalid = 40001,
    GrantTypeInvalid = 40002,
    OpenIdInvalid = 40003,
    AppIdInvalid = 40013,
    TokenMalformed = 40014,
    CodeInvalid = 40029,
    PathUnknown = 40066,
    AppSecretInvalid = 40125,
    CodeUsed = 40163,
    CodeBlocked = 40226,
    SerialMissing = 40230,
    TimestampMissing = 40231,
    SignatureMissing = 40232,
    SecuredAppIdMissing = 40233,
    SecuredSignature = 40234,
    SecuredData = 40235,
    SecuredAppIdInvalid = 40236,
    SecuredAppIdForeign = 40237,
    SymmetricKeyUnset = 40238,
    PublicKeyUnset = 40239,
    SecuredTimestampOld = 40240,
    TokenMissing = 41001,
    AppIdMissing = 41002,
    AppSecretMissing = 41004,
    CodeMissing = 41008,
    TokenExpired = 42001,
    GetRequired = 43001,
    PostRequired = 43002,
    BodyEmpty = 44002,
    DayQuota = 45009,
    MinuteQuota = 45011,
    BodyMalformed = 47001,
    SessionKeyMissing = 87007,
    SigMethodInvalid = 87008,
    SignatureInvalid = 87009,
}

impl Refusal {
    /// The errcode.
    pub(super) fn errcode(self) -> i64 {
        self as i64
    }
}

/// The errmsg of an errcode, up to where ` rid: ` follows. Has some that only an ordered fault can bring.
pub(super) fn wording(errcode: i64) -> &'static str {
    match errcode {
        40001 => "invalid credential, access_token is invalid or not latest",
        40002 => "invalid grant_type",
        40003 => "invalid openid",
        40007 => "invalid media_id",
        40013 => "invalid appid",
        40014 => "invalid access_token",
        40029 => "invalid code,",
        40066 => "invalid url",
        40125 => "invalid appsecret",
        40163 => "code been used,",
        40164 => "invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist",
        40226 => "code blocked",
        40230 => "missing Wechatmp-Serial",
        40231 => "missing Wechatmp-TimeStamp",
        40232 => "missing Wechatmp-Signature",
        40233 => "missing Wechatmp-Appid",
        40234 => "invalid signature",
        40235 => "invalid encrypt",
        40236 => "invalid Wechatmp-Appid",
        40237 => "Wechatmp-Appid does not match access_token",
        40238 => "symmetric key not set",
        40239 => "public key not set",
        40240 => "Wechatmp-TimeStamp expired",
        40243 => "appsecret frozen",
        41001 => "access_token missing",
        41002 => "appid missing",
        41004 => "appsecret missing",
        41008 => "missing code",
        42001 => "access_token expired",
        43001 => "require GET method",
        43002 => "require POST method",
        44002 => "empty post data",
        45009 => "reach max api daily quota limit",
        45011 => "api minute-quota reach limit, must slower, retry next minute",
        47001 => "data format error",
        48001 => "api unauthorized",
        87007 => "session_key is not existed or expired",
        87008 => "invalid sig_method",
        87009 => "invalid signature",
        87014 => "risky content",
        _ => "system error",
    }
}
