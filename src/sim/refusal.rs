//! The errcodes that the simulator answers, with WeChat's wording.
//!
//! It is WeChat's with its slips of the pen, and virtual payment speaks Chinese. The wording's punctuation before the rid differs from code to code as it does in WeChat's answers, because parsers
//! have to cope with both.

use std::borrow::Cow;

/// A call refused by a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    CredentialInvalid = 40001,
    GrantTypeInvalid = 40002,
    OpenIdInvalid = 40003,
    MediaKindInvalid = 40004,
    FileKindInvalid = 40005,
    FileSizeInvalid = 40006,
    MediaIdInvalid = 40007,
    MessageKindInvalid = 40008,
    AppIdInvalid = 40013,
    TokenMalformed = 40014,
    CodeInvalid = 40029,
    TemplateInvalid = 40037,
    PathUnknown = 40066,
    ArgumentsInvalid = 40097,
    AppSecretInvalid = 40125,
    SceneInvalid = 40129,
    PathLengthInvalid = 40159,
    CodeUsed = 40163,
    AddressRefused = 40164,
    SceneLengthInvalid = 40169,
    CallbackMissing = 40201,
    ActionInvalid = 40202,
    OperatorInvalid = 40203,
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
    MediaMissing = 41005,
    MediaIdMissing = 41006,
    CodeMissing = 41008,
    PageInvalid = 41030,
    TokenExpired = 42001,
    GetRequired = 43001,
    PostRequired = 43002,
    MessagesRefused = 43101,
    OpenIdOfOtherApp = 43104,
    BodyEmpty = 44002,
    TextEmpty = 44004,
    FileTooLarge = 45001,
    TextTooLong = 45002,
    DayQuota = 45009,
    MinuteQuota = 45011,
    ReplyTooLate = 45015,
    CodesUsedUp = 45029,
    TooManyReplies = 45047,
    CommandInvalid = 45072,
    TypingTooLate = 45080,
    AlreadyTyping = 45081,
    BodyMalformed = 47001,
    ArgumentInvalid = 47003,
    Unauthorized = 48001,
    UserNotSeen = 61010,
    QuotaPathUnknown = 76021,
    QuotaUntold = 76022,
    SceneReserved = 85096,
    SessionKeyMissing = 87007,
    SigMethodInvalid = 87008,
    SignatureInvalid = 87009,
    ContentRisky = 87014,
    PairTooLong = 87016,
    TooManyPairs = 87018,
    KeyTooLong = 87019,
    PayerInvalid = 268_490_001,
    PayParameterInvalid = 268_490_002,
    PaySignatureInvalid = 268_490_003,
    AlreadyDone = 268_490_004,
    OrderRefunded = 268_490_005,
    CoinsTooFew = 268_490_006,
    PayerLoggedOut = 268_490_009,
}

impl Refusal {
    /// The errcode.
    pub(super) fn errcode(self) -> i64 {
        self as i64
    }

    /// The same, in words that name what is wrong.
    pub(super) fn saying(self, errmsg: String) -> Refused {
        Refused {
            refusal: self,
            errmsg: Cow::Owned(errmsg),
        }
    }
}

/// A refusal and its errmsg, up to where ` rid: ` follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) errmsg: Cow<'static, str>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            errmsg: Cow::Borrowed(wording(refusal.errcode())),
        }
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
        76021 => "cgi_path not found",
        76022 => "could not use this cgi_path, no permission",
        40164 => "invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist",
        40169 => "invalid length for scene, or the data is not json string",
        40201 => "callback url is not set",
        40202 => "invalid action",
        40203 => "invalid check_operator",
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
        41005 => "media data missing",
        41006 => "media_id missing",
        41008 => "missing code",
        41030 => "invalid page",
        42001 => "access_token expired",
        43001 => "require GET method",
        43002 => "require POST method",
        43101 => "user refuse to accept the msg",
        43104 => "this appid does not have permission",
        43108 => "concurrent send message to the same user",
        44002 => "empty post data",
        44004 => "empty content",
        45001 => "media size out of limit",
        45002 => "content size out of limit",
        45009 => "reach max api daily quota limit",
        45011 => "api minute-quota reach limit, must slower, retry next minute",
        45015 => "response out of time limit or subscription is canceled",
        45029 => "qrcode count out of limit",
        45047 => "out of response count limit",
        45072 => "invalid command",
        45080 => "typing needs a message of the user in the last 30 seconds",
        45081 => "user is already in typing status",
        45168 => "hit sensitive words",
        47001 => "data format error",
        47003 => "argument invalid!",
        48001 => "api unauthorized",
        61010 => "code is expired",
        85096 => "not allow include scancode_time field",
        87007 => "session_key is not existed or expired",
        87008 => "invalid sig_method",
        87009 => "invalid signature",
        87014 => "risky content",
        87016 => "key-value length out of limit",
        87018 => "key-value count out of limit",
        87019 => "key length out of limit",
        268_490_001 => "openid错误",
        268_490_002 => "请求参数字段错误",
        268_490_003 => "签名错误",
        268_490_004 => "重复操作",
        268_490_005 => "订单已经通过cancel_currency_pay接口退款，不支持再退款",
        268_490_006 => "代币的退款/支付操作金额不足",
        268_490_009 => "用户session_key不存在或已过期，请重新登录",
        _ => "system error",
    }
}
