//! The errcode table: what each of WeChat's numbers means, and what to do about it.
//!
//! WeChat answers HTTP 200 to nearly every failure and puts a number into the body. The table gives each number the HTTP
//! status that tells it best and a sentence in both languages, so that no caller needs WeChat's documentation at hand.
//! It is compiled in and sorted by code: looking up is a binary search, and a code that WeChat invents tomorrow is
//! answered by [`meaning`] all the same.
//!
//! Numbers collide between APIs. Where the API is known, [`meaning_at`] and [`advice_at`] are to be asked: they know the
//! numbers that some APIs give a sense of their own, and this is the one place that does.
//!
//! What a number says of the calls that come after it is another question; [`outlook_at`] answers it, for whoever decides
//! whether to call again.

use std::time::Duration;

use super::api::{self, Advice};
use super::endpoints;
use crate::clock::Timestamp;

/// What kind of trouble an errcode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// No trouble.
    Ok,
    /// The operator's configuration: appid, secret, IP list.
    AuthConfig,
    /// The access_token, after our own refresh and retry.
    Token,
    /// A quota or a rate.
    RateQuota,
    /// What the caller sent.
    UserInput,
    /// Something named does not exist.
    NotFound,
    /// The Mini Program or the user lacks a permission.
    Permission,
    /// WeChat's own passing trouble.
    Transient,
    /// Content that WeChat judges unsafe.
    ContentRisk,
    /// A number that is not in the table.
    Unknown,
}

impl Class {
    /// The name used in answers, headers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::AuthConfig => "auth_config",
            Self::Token => "token",
            Self::RateQuota => "rate_quota",
            Self::UserInput => "user_input",
            Self::NotFound => "not_found",
            Self::Permission => "permission",
            Self::Transient => "transient",
            Self::ContentRisk => "content_risk",
            Self::Unknown => "unknown",
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// WeChat's number; may be negative, may exceed 32 bits.
    pub code: i64,
    /// The HTTP status that tells it best.
    pub status: u16,
    /// The kind of trouble.
    pub class: Class,
    /// Whether repeating the call unchanged can help.
    pub retryable: bool,
    /// In Chinese.
    pub zh: &'static str,
    /// In English.
    pub en: &'static str,
}

/// The row of `code`, if the table has one.
pub fn find(code: i64) -> Option<&'static Meaning> {
    TABLE
        .binary_search_by_key(&code, |row| row.code)
        .ok()
        .map(|index| &TABLE[index])
}

/// The row of `code`, or [`unknown`].
pub fn meaning(code: i64) -> Meaning {
    find(code).copied().unwrap_or(unknown(code))
}

/// What is said of a number that nobody has explained: a bad gateway, not worth repeating.
pub const fn unknown(code: i64) -> Meaning {
    Meaning {
        code,
        status: 502,
        class: Class::Unknown,
        retryable: false,
        zh: "微信返回了本表未收录的错误码",
        en: "WeChat returned an errcode that is not in the table",
    }
}

/// What `code` means in an answer of the API at `path`, which may be any path.
pub fn meaning_at(path: &str, code: i64) -> Meaning {
    if let Some(sense) = SENSES.iter().find(|sense| sense.is_of(path, code)) {
        return sense.meaning;
    }
    match code {
        // Where no access_token is shown there is none that could be stale, so it is the AppSecret that is wrong.
        40001 if !endpoints::shows_token(path) => Meaning {
            code,
            ..meaning(40125)
        },
        40066 if endpoints::find(path).is_none() => NO_SUCH_API,
        _ => {
            let meaning = meaning(code);
            // By these rows other APIs tell a success; here it is a number that nobody has explained.
            let is_foreign = meaning.status < 400 && code != 0;
            if is_foreign { unknown(code) } else { meaning }
        }
    }
}

/// Whether the API at `path` tells by `code` that what was asked for has been done, now or before.
pub fn is_success_at(path: &str, code: i64) -> bool {
    meaning_at(path, code).class == Class::Ok
}

/// What to do about `code` in an answer of the API at `path`, in English and in Chinese, where more is known than
/// [`meaning_at`] says.
pub fn advice_at(path: &str, code: i64) -> Option<Advice> {
    let advice = match (path, code) {
        ("/wxa/business/getuserphonenumber", 40003) => (
            "the code may be another user's: have the user who is logged in press the phone number button",
            "该 code 可能属于其他用户：请让当前登录的用户点击手机号授权按钮",
        ),
        ("/wxa/business/getuserphonenumber", 40013 | 40029 | 40163) => (
            "have the user press the phone number button again; its code works once and for five minutes, and one of \
             wx.login is another kind",
            "请让用户再次点击手机号授权按钮；其 code 只能使用一次，有效期五分钟，且与 wx.login 的 code 不通用",
        ),
        ("/wxa/getpluginopenpid", 1007 | 40029 | 40163) => (
            "have the plugin call wx.pluginLogin again; its code works once and for five minutes, and one of wx.login is \
             another kind",
            "请让插件重新调用 wx.pluginLogin；其 code 只能使用一次，有效期五分钟，且与 wx.login 的 code 不通用",
        ),
        ("/sns/jscode2session", 45011) => (
            "wait a minute before the next call, and log in less often",
            "请等一分钟后再调用，并降低登录频率",
        ),
        (path, 40001) if !endpoints::shows_token(path) => return both_languages(40125),
        // Of a dead access_token the caller knows nothing, and the sidecar has done what there was to do.
        (_, code) if api::is_dead_token(code) => (
            "WeChat refuses the sidecar's access_token; try again in half a minute, and if it goes on, find what else \
             fetches tokens (GET /cgi-bin/token) and have it ask the sidecar",
            "微信拒绝了 sidecar 的 access_token；请半分钟后重试，若持续出现，请找出还有哪个程序在获取 access_token\
             （GET /cgi-bin/token），让它改向 sidecar 获取",
        ),
        _ => return both_languages(code),
    };
    Some(advice)
}

/// What an errcode says of the calls of the same API that come after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// WeChat works: it has looked at this call, and it was this call that it refused.
    Sound,
    /// Nothing: the call was refused before anything of the API was reached, for a reason that is dealt with elsewhere (the
    /// access_token, the AppSecret, the configuration).
    Unclear,
    /// WeChat has passing trouble with it.
    Trouble,
    /// They will be refused until the next period begins.
    Quota(Period),
    /// They will be refused until somebody has the API granted to the Mini Program.
    Unauthorised,
    /// They will be refused until somebody has WeChat let this address in.
    Address,
}

/// The rhythm of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// So many a second.
    Second,
    /// So many a minute.
    Minute,
    /// So many a day, in Beijing.
    Day,
}

/// What `code` says of the calls after it at `path`.
///
/// The class does not decide it. A quota may be that of one user or one message, and what is called passing may be a state
/// of the data that was asked for, or trouble of a carrier's; WeChat works then.
pub fn outlook_at(path: &str, code: i64) -> Outlook {
    match code {
        // Counted by user here, so whoever logs in too often must not keep all others out.
        45011 if matches!(path, "/sns/jscode2session" | "/wxa/resetusersessionkey") => {
            return Outlook::Sound;
        }
        // Twenty refreshes a day may be forced; who has forced too many may still ask for the token that there is.
        45009 if path == "/cgi-bin/stable_token" => return Outlook::Sound,
        44990 => return Outlook::Quota(Period::Second),
        44991 | 45011 | 200010 => return Outlook::Quota(Period::Minute),
        44993 | 45009 => return Outlook::Quota(Period::Day),
        48001 | 48004 => return Outlook::Unauthorised,
        40164 | 45035 | 61004 | 89501 | 89503..=89507 => return Outlook::Address,
        // Data that are not ready yet, content that takes too long to check, our own push server, and carriers.
        61503 | 268_490_011 | 87015 | 80003 | 930_556 | 930_557 | 9_300_502 => {
            return Outlook::Sound;
        }
        _ => {}
    }
    let meaning = meaning_at(path, code);
    match meaning.class {
        Class::Transient if meaning.status >= 500 => Outlook::Trouble,
        Class::Token | Class::AuthConfig => Outlook::Unclear,
        _ => Outlook::Sound,
    }
}

impl Period {
    /// When a quota that was used up at `now` is there again.
    ///
    /// Our clock and WeChat's may differ by seconds, and nobody knows how soon after midnight WeChat counts anew. So the
    /// beginning of a period is awaited with a second to spare; and a refusal soon after one began is taken for the last of
    /// the period before, or a clock that is a second fast would cost a day.
    pub fn resumes(self, now: Timestamp) -> Timestamp {
        const BEIJING: u64 = 8 * 60 * 60 * 1000;
        let (length, early) = match self {
            // Whose second it is, is not ours to know at all.
            Self::Second => return now.plus(Duration::from_secs(1)),
            Self::Minute => (60 * 1000, 5 * 1000),
            Self::Day => (24 * 60 * 60 * 1000, 5 * 60 * 1000),
        };
        let into = now.as_millis().saturating_add(BEIJING) % length;
        let wait = if into < early {
            early - into
        } else {
            length - into + 1000
        };
        now.plus(Duration::from_millis(wait))
    }
}

/// What to do about `code`, in English, where more is known than the table's sentence says.
pub fn advice(code: i64) -> Option<&'static str> {
    both_languages(code).map(|(en, _)| en)
}

/// What to do about `code`, in Chinese; there is one wherever [`advice`] has one.
pub fn advice_zh(code: i64) -> Option<&'static str> {
    both_languages(code).map(|(_, zh)| zh)
}

/// How long to wait after `code`, where WeChat's limit has a known rhythm.
pub const fn retry_after(code: i64) -> Option<Duration> {
    match code {
        -1 => Some(Duration::from_secs(1)),
        // The quota is by the minute, and which second of the minute WeChat is in is not ours to know.
        45011 => Some(Duration::from_secs(60)),
        _ => None,
    }
}

/// [`advice`] and [`advice_zh`] together.
pub fn both_languages(code: i64) -> Option<(&'static str, &'static str)> {
    let both = match code {
        -1 => ("wait a second and try again", "请等一秒后重试"),
        40001 => (
            "at login: check [app] appid and secret in sidecar.toml; elsewhere the sidecar has renewed its access_token and \
             tried again: if it goes on, find what else fetches tokens (GET /cgi-bin/token) and have it ask the sidecar",
            "登录接口：请检查 sidecar.toml 中 [app] 的 appid 与 secret；其他接口：sidecar 已更新 access_token 并重试过；\
             若持续出现，请找出还有哪个程序在获取 access_token（GET /cgi-bin/token），让它改向 sidecar 获取",
        ),
        40014 | 42001 => (
            "the sidecar has renewed its access_token and tried again: if it goes on, find what else fetches tokens \
             (GET /cgi-bin/token) and have it ask the sidecar",
            "sidecar 已更新 access_token 并重试过；若持续出现，请找出还有哪个程序在获取 access_token（GET /cgi-bin/token），\
             让它改向 sidecar 获取",
        ),
        40003 => (
            "send an openid that a login of this Mini Program gave; openids of another one are no good here",
            "请使用本小程序登录所得的 openid；其他小程序的 openid 在此无效",
        ),
        40007 => (
            "check the media_id; it lives for three days: if it is older, upload the file again",
            "请核对 media_id；其有效期为三天，过期请重新上传",
        ),
        40037 => (
            "take a template_id from the templates of this Mini Program in the WeChat console",
            "请使用微信公众平台中本小程序模板列表里的 template_id",
        ),
        41030 => (
            "name a page of the published version; for a QR code, check_path: false and env_version help while you develop",
            "请填写已发布版本中存在的页面；开发期间生成小程序码，可用 check_path: false 和 env_version",
        ),
        45015 => (
            "the user last wrote more than 48 hours ago: send a subscription message",
            "用户最后一次发消息已超过 48 小时：请改用订阅消息",
        ),
        45047 => (
            "wait until the user writes again: how many messages may be sent depends on what the user wrote",
            "请等用户再发消息：可发条数取决于用户发来的消息",
        ),
        47001 => (
            "send a body that can be read: JSON in UTF-8",
            "请求体无法解析：请发送 UTF-8 编码的 JSON",
        ),
        47003 => (
            "an argument breaks a rule of the API's: errmsg names the field",
            "参数不符合接口的规则：errmsg 指明了字段",
        ),
        87014 => (
            "tell the author that the content was not taken; sent unchanged, it will not be either",
            "请提示用户内容未通过审核；原样重发也不会通过",
        ),
        40029 | 40163 => (
            "call wx.login again; a code works once and for five minutes",
            "请重新调用 wx.login；每个 code 只能使用一次，有效期五分钟",
        ),
        40013 | 40125 | 41002 | 41004 => (
            "check [app] appid and secret in sidecar.toml",
            "请检查 sidecar.toml 中 [app] 的 appid 与 secret",
        ),
        40243 => (
            "check [app] appid and secret in sidecar.toml; this AppSecret is frozen: unfreeze it in the WeChat console or put a new one there",
            "请检查 sidecar.toml 中 [app] 的 appid 与 secret；该 AppSecret 已被冻结：请在微信公众平台解冻，或换用新的 AppSecret",
        ),
        40164 | 45035 | 61004 => (
            "add this host's outgoing IP to the account's IP white-list in the WeChat console",
            "请在微信公众平台把本机的出口 IP 加入 IP 白名单",
        ),
        89501 | 89503..=89505 => (
            "the account's administrator has been asked in WeChat whether this host's outgoing IP may call: have it confirmed",
            "微信已向账号管理员询问是否允许本机的出口 IP 调用：请联系管理员确认",
        ),
        89506 => (
            "the account's administrator has refused this host's outgoing IP; it can be asked for again after 24 hours",
            "账号管理员已拒绝本机的出口 IP；24 小时后才能再次申请",
        ),
        89507 => (
            "the account's administrator has refused this host's outgoing IP; it can be asked for again after an hour",
            "账号管理员已拒绝本机的出口 IP；1 小时后才能再次申请",
        ),
        40226 => (
            "the user is blocked by WeChat as high risk; do not retry",
            "该用户被微信判定为高风险并拦截；请勿重试",
        ),
        45009 => (
            "wait until midnight in Beijing, or reset the quota with clear_quota",
            "请等到北京时间零点，或调用 clear_quota 重置额度",
        ),
        45011 => ("wait a minute before the next call", "请等一分钟后再调用"),
        43101 => (
            "ask the user by wx.requestSubscribeMessage first; each yes is good for one message",
            "请先用 wx.requestSubscribeMessage 征得用户同意；每次同意只能发送一条",
        ),
        48001 => (
            "have the API granted to this Mini Program in the WeChat console (some need a verified account), then reload the sidecar",
            "请在微信公众平台为该小程序开通此接口（部分接口要求账号已认证），然后让 sidecar 重新加载配置",
        ),
        48004 => (
            "the API is banned for this account: see the WeChat console for the reason",
            "该账号的此接口已被封禁：原因请见微信公众平台",
        ),
        61010 => (
            "call it for a user who is using the Mini Program; a visit counts for two hours, and one in the developer tools does not",
            "请对正在使用小程序的用户调用；访问记录有效期两小时，开发者工具中的访问不计入",
        ),
        87007 | 87009 | 268_490_009 => (
            "the user's session_key has changed or ended: call wx.login again",
            "用户的 session_key 已变更或失效：请重新调用 wx.login",
        ),
        _ => return None,
    };
    Some(both)
}

use Class::{
    AuthConfig, ContentRisk, NotFound, Permission, RateQuota, Token, Transient, UserInput,
};

const RETRY: bool = true;
const NO: bool = false;

const fn row(
    code: i64,
    status: u16,
    class: Class,
    retryable: bool,
    zh: &'static str,
    en: &'static str,
) -> Meaning {
    Meaning {
        code,
        status,
        class,
        retryable,
        zh,
        en,
    }
}

/// A sense that a number has at some APIs only.
struct Sense {
    at: Place,
    meaning: Meaning,
}

#[derive(Clone, Copy)]
enum Place {
    /// One API.
    Api(&'static str),
    /// All whose paths begin like this.
    Below(&'static str),
}

impl Sense {
    fn is_of(&self, path: &str, code: i64) -> bool {
        let is_there = match self.at {
            Place::Api(api) => path == api,
            Place::Below(start) => path.starts_with(start),
        };
        self.meaning.code == code && is_there
    }
}

const NO_SUCH_API: Meaning = row(
    40066,
    404,
    NotFound,
    NO,
    "微信没有这个路径的接口",
    "WeChat has no API at this path",
);

const fn sense(at: Place, meaning: Meaning) -> Sense {
    Sense { at, meaning }
}

/// Numbers that the documentation of an API gives another sense than the table, or that only it has; and those by which it
/// tells a success, which are a refusal nowhere else. Few, and looked at only when WeChat refuses, so in no order but
/// that of two which fit, the first counts.
#[rustfmt::skip]
static SENSES: [Sense; 26] = [
    // The appid is not in doubt after the access_token has been taken: it is the code that is another app's.
    sense(Place::Api("/wxa/business/getuserphonenumber"), row(40013, 401, UserInput, NO, "该 code 属于其他 appid", "the code was issued for another appid")),
    sense(Place::Api("/wxa/business/getuserphonenumber"), row(40003, 400, UserInput, NO, "该 code 属于其他用户，或 openid 不属于本 appid", "the code is another user's, or the openid belongs to another appid")),
    sense(Place::Api("/wxa/getpluginopenpid"), row(1000, 503, Transient, RETRY, "插件登录：系统错误", "plugin login: system error")),
    sense(Place::Api("/wxa/getpluginopenpid"), row(1001, 400, UserInput, NO, "插件登录：请求参数非法", "plugin login: parameters not valid")),
    sense(Place::Api("/wxa/getpluginopenpid"), row(1003, 429, RateQuota, RETRY, "插件登录：请求过于频繁", "plugin login: too frequent")),
    sense(Place::Api("/wxa/getpluginopenpid"), row(1005, 400, UserInput, NO, "插件登录：code 不属于该插件", "plugin login: the code is another plugin's")),
    sense(Place::Api("/wxa/getpluginopenpid"), row(1007, 401, UserInput, NO, "插件登录：该 code 没有对应的 openpid", "plugin login: there is no openpid under this code")),
    sense(Place::Api("/wxa/getpluginopenpid"), row(1022, 400, UserInput, NO, "插件登录：请求体不是 JSON", "plugin login: the body is not JSON")),
    sense(Place::Api("/wxa/msg_sec_check"), row(61010, 403, Permission, NO, "该用户近两小时未访问小程序", "the user has not visited the mini program within two hours")),
    sense(Place::Api("/wxa/media_check_async"), row(61010, 403, Permission, NO, "该用户近两小时未访问小程序", "the user has not visited the mini program within two hours")),
    sense(Place::Api("/wxa/getuserriskrank"), row(61010, 403, Permission, NO, "该用户近两小时未访问小程序", "the user has not visited the mini program within two hours")),
    sense(Place::Api("/wxa/media_check_async"), row(40004, 400, UserInput, NO, "media_type 只能为 1（音频）或 2（图片）", "media_type must be 1 (audio) or 2 (image)")),
    sense(Place::Api("/wxa/getwxacodeunlimit"), row(40129, 400, UserInput, NO, "scene 含不允许的字符", "scene has characters that are not allowed")),
    sense(Place::Api("/publisher/stat"), row(45010, 400, UserInput, NO, "广告数据：无效的接口名", "advert data: action not valid")),
    // The account itself, and not a user of it.
    sense(Place::Api("/cgi-bin/token"), row(50002, 403, AuthConfig, NO, "账号受限（冻结或注销）", "the account is limited (frozen or cancelled)")),
    sense(Place::Api("/cgi-bin/stable_token"), row(50002, 403, AuthConfig, NO, "账号受限（冻结或注销）", "the account is limited (frozen or cancelled)")),
    sense(Place::Below("/wxaapi/comment/"), row(-10403, 403, Permission, NO, "评价：无权操作该评价/评论/回复", "comments: this one is not yours to change")),
    sense(Place::Below("/wxaapi/comment/"), row(-10008, 503, Transient, RETRY, "评价：服务异常", "comments: service error")),
    sense(Place::Below("/wxaapi/comment/"), row(-10007, 403, Permission, NO, "评价：无权调用该接口", "comments: not allowed to call this API")),
    sense(Place::Below("/wxaapi/comment/"), row(-10003, 400, UserInput, NO, "评价：参数不匹配", "comments: parameters do not match")),
    sense(Place::Below("/wxaapi/comment/"), row(-10001, 400, UserInput, NO, "评价：参数异常", "comments: parameter error")),
    sense(Place::Api("/wxaapi/comment/confirmcompromise"), row(10000, 409, UserInput, NO, "评价：不是差评，或已发送过和解消息", "comments: no negative comment, or the message was sent before")),
    sense(Place::Below("/wxaapi/comment/"), row(10000, 400, UserInput, NO, "评价：参数异常", "comments: parameter error")),
    sense(Place::Below("/xpay/"), row(268490004, 200, Class::Ok, NO, "虚拟支付：重复操作（此前已成功）", "xpay: repeated operation; the earlier one succeeded")),
    sense(Place::Below("/wxa/sec/order/"), row(10060023, 200, Class::Ok, NO, "发货：发货信息未更新", "shipping: nothing changed")),
    sense(Place::Api("/wxa/servicemarketretrieve"), row(9301015, 202, Transient, RETRY, "异步处理：尚未完成", "async image service: not finished yet")),
];

/// Sorted by code, because [`find`] searches it by halving.
#[rustfmt::skip]
static TABLE: [Meaning; 600] = [
    row(-606006, 401, Permission, NO, "不允许未登录模式请求", "unauthenticated call is not allowed"),
    row(-606003, 402, Permission, NO, "云环境欠费", "cloud environment is in arrears"),
    row(-606002, 502, UserInput, NO, "callContainer 响应包超过 1MB", "callContainer response larger than 1 MB"),
    row(-606001, 413, UserInput, NO, "callContainer 请求包超过 100KB", "callContainer request larger than 100 KB"),
    row(-601034, 403, Permission, NO, "未开通云托管或未做资源复用授权", "cloud run not enabled, or environment not shared with this account"),
    row(-601031, 404, NotFound, NO, "云环境中不存在该服务", "service does not exist in that cloud environment"),
    row(-601027, 404, NotFound, NO, "云环境不存在", "cloud environment not found"),
    row(-601006, 400, UserInput, NO, "cloudID 已过期（有效期5分钟）", "the cloudID has expired (it lives 5 minutes)"),
    row(-504002, 404, NotFound, NO, "云函数不存在", "cloud function not found"),
    row(-501007, 400, UserInput, NO, "云资源参数错误，详见 errmsg", "cloud resource rejected a parameter; see errmsg"),
    row(-501002, 504, Transient, RETRY, "云资源响应超时", "cloud resource did not answer in time"),
    row(-501001, 503, Transient, RETRY, "云资源通用错误", "generic cloud resource error"),
    row(-501000, 400, UserInput, NO, "云资源错误：参数/环境/路径无效", "cloud resource error: bad parameter, environment or path"),
    row(-1000, 503, Transient, RETRY, "系统错误（云开发等接口）", "internal system error (cloud APIs)"),
    row(-1, 503, Transient, RETRY, "系统繁忙，请稍候重试", "WeChat is busy; retry after a short back-off"),
    row(0, 200, Class::Ok, NO, "成功", "success"),
    row(1003, 400, UserInput, NO, "POST 参数非法", "POST parameters are not valid"),
    row(20002, 404, NotFound, NO, "商品/资源 id 不存在（含义随接口变化）", "item id does not exist (meaning depends on the API)"),
    row(40001, 502, Token, RETRY, "AppSecret 错误，或 access_token 无效/不是最新", "wrong AppSecret, or access_token invalid / not the latest one"),
    row(40002, 500, AuthConfig, NO, "不合法的凭证类型 grant_type", "grant_type is not valid"),
    row(40003, 400, UserInput, NO, "不合法的 OpenID（或不属于本 appid）", "OpenID invalid, or belongs to another appid"),
    row(40004, 400, UserInput, NO, "不合法的媒体文件类型", "media type not allowed"),
    row(40005, 415, UserInput, NO, "不合法的文件类型", "file format not allowed"),
    row(40006, 413, UserInput, NO, "不合法的文件大小", "file size not allowed"),
    row(40007, 404, NotFound, NO, "不合法或已过期的 media_id", "media_id unknown or expired"),
    row(40008, 400, UserInput, NO, "不合法的消息类型", "message type not allowed"),
    row(40009, 413, UserInput, NO, "图片大小/尺寸不合法", "image size out of range"),
    row(40010, 413, UserInput, NO, "语音文件大小不合法", "voice file size out of range"),
    row(40011, 413, UserInput, NO, "视频文件大小不合法", "video file size out of range"),
    row(40012, 413, UserInput, NO, "缩略图大小不合法", "thumbnail size out of range"),
    row(40013, 500, AuthConfig, NO, "不合法的 AppID（注意大小写），或与凭证不匹配", "AppID invalid (case matters) or not the one bound to the code/token"),
    row(40014, 502, Token, RETRY, "不合法的 access_token", "access_token is not valid"),
    row(40015, 400, UserInput, NO, "不合法的菜单类型", "menu type not valid"),
    row(40016, 400, UserInput, NO, "不合法的按钮个数（小程序接口偶用）", "button count not valid"),
    row(40017, 400, UserInput, NO, "不合法的按钮类型", "button type not valid"),
    row(40018, 400, UserInput, NO, "按钮名字长度不合法", "button name length not valid"),
    row(40019, 400, UserInput, NO, "按钮 KEY 长度不合法", "button key length not valid"),
    row(40020, 400, UserInput, NO, "按钮 URL 长度不合法", "button URL length not valid"),
    row(40021, 400, UserInput, NO, "不合法的菜单版本号", "menu version not valid"),
    row(40022, 400, UserInput, NO, "子菜单级数不合法", "submenu depth not valid"),
    row(40023, 400, UserInput, NO, "子菜单按钮个数不合法", "submenu button count not valid"),
    row(40024, 400, UserInput, NO, "子菜单按钮类型不合法", "submenu button type not valid"),
    row(40025, 400, UserInput, NO, "子菜单按钮名字长度不合法", "submenu button name length not valid"),
    row(40026, 400, UserInput, NO, "子菜单按钮 KEY 长度不合法", "submenu button key length not valid"),
    row(40027, 400, UserInput, NO, "子菜单按钮 URL 长度不合法", "submenu button URL length not valid"),
    row(40028, 400, UserInput, NO, "不合法的自定义菜单使用用户", "custom menu user not valid"),
    row(40029, 401, UserInput, NO, "code 无效（错误、过期或属于其他 appid）", "login/phone code is invalid, expired, or issued for another appid"),
    row(40030, 401, Token, NO, "不合法的 refresh_token", "refresh_token is not valid"),
    row(40031, 400, UserInput, NO, "不合法的 openid 列表", "openid list not valid"),
    row(40032, 400, UserInput, NO, "openid 列表长度不合法", "openid list length not valid"),
    row(40033, 400, UserInput, NO, "请求含不合法字符（不能用 \\uxxxx 转义）", "request contains forbidden characters (no \\uxxxx escapes)"),
    row(40035, 400, UserInput, NO, "不合法的参数", "parameter not valid"),
    row(40036, 400, UserInput, NO, "template_id 长度不合法", "template_id length not valid"),
    row(40037, 400, UserInput, NO, "不合法的 template_id", "template_id not valid"),
    row(40038, 400, UserInput, NO, "不合法的请求格式", "request format not valid"),
    row(40039, 400, UserInput, NO, "不合法的 URL 长度", "URL length not valid"),
    row(40048, 400, UserInput, NO, "无效的 url 域名", "URL domain not valid"),
    row(40050, 400, UserInput, NO, "不合法的分组 id", "group id not valid"),
    row(40051, 400, UserInput, NO, "分组名字不合法", "group name not valid"),
    row(40054, 400, UserInput, NO, "子菜单按钮 url 域名不合法", "submenu URL domain not valid"),
    row(40055, 400, UserInput, NO, "菜单按钮 url 域名不合法", "menu URL domain not valid"),
    row(40059, 404, NotFound, NO, "不合法的消息 id", "message id not valid"),
    row(40060, 400, UserInput, NO, "删除图文时 article_idx 不合法", "article_idx not valid"),
    row(40066, 400, UserInput, NO, "不合法的 url（小程序中不存在该页面）", "url not valid / page not published"),
    row(40068, 422, ContentRisk, NO, "包含恶意链接", "contains a malicious URL"),
    row(40079, 400, UserInput, NO, "日期格式错误", "date format error"),
    row(40090, 403, Permission, NO, "请求来源 IP 非法", "bad client IP"),
    row(40091, 401, Token, NO, "component ticket 无效", "component ticket not valid"),
    row(40094, 401, Token, NO, "component 凭证无效", "component credential not valid"),
    row(40095, 403, Permission, NO, "调用方来源非法", "bad source of caller"),
    row(40096, 400, UserInput, NO, "biztype 不合法", "biztype not valid"),
    row(40097, 400, UserInput, NO, "参数错误", "argument error"),
    row(40099, 409, UserInput, NO, "该 code 已被核销/使用", "this code has already been consumed"),
    row(40101, 400, UserInput, NO, "缺少必填参数", "required parameter missing"),
    row(40113, 415, UserInput, NO, "不支持的文件类型", "file type not supported"),
    row(40114, 400, UserInput, NO, "索引值不合法", "index value not valid"),
    row(40115, 400, UserInput, NO, "session_from 不合法", "session_from not valid"),
    row(40116, 400, UserInput, NO, "code 不合法", "code not valid"),
    row(40117, 400, UserInput, NO, "分组名字不合法", "group name not valid"),
    row(40118, 400, UserInput, NO, "media_id 大小不合法", "media_id size not valid"),
    row(40119, 400, UserInput, NO, "button 类型错误", "button type error"),
    row(40120, 400, UserInput, NO, "子 button 类型错误", "sub-button type error"),
    row(40121, 400, UserInput, NO, "不合法的 media_id 类型", "media_id type not valid"),
    row(40123, 404, NotFound, NO, "task_id 不合法", "task_id not valid"),
    row(40125, 500, AuthConfig, NO, "不合法的 AppSecret", "AppSecret not valid"),
    row(40126, 400, UserInput, NO, "文本长度不合法", "text size not valid"),
    row(40129, 400, UserInput, NO, "场景值 scene 错误", "scene value not valid"),
    row(40130, 400, UserInput, NO, "openid 列表至少两个", "openid list needs at least two entries"),
    row(40131, 429, RateQuota, NO, "ticket 数量超限", "ticket count out of limit"),
    row(40132, 400, UserInput, NO, "微信号不合法", "WeChat id not valid"),
    row(40133, 400, UserInput, NO, "加密数据不合法", "encrypted data not valid"),
    row(40137, 415, UserInput, NO, "不支持的图片格式", "image format not supported"),
    row(40141, 400, UserInput, NO, "图片 url 不合法", "image url not valid"),
    row(40155, 400, UserInput, NO, "请勿添加其他公众号主页链接", "links to other official accounts are not allowed"),
    row(40159, 400, UserInput, NO, "path 为空或超长，或数据不是 json 串", "path empty/too long, or body is not JSON"),
    row(40160, 400, UserInput, NO, "图片文件无效", "image file not valid"),
    row(40161, 400, UserInput, NO, "图片文件不匹配", "image file does not match"),
    row(40162, 400, UserInput, NO, "lifespan 不合法", "lifespan not valid"),
    row(40163, 401, UserInput, NO, "code 已被使用（一个 code 只能换一次）", "code has already been used (single use)"),
    row(40164, 500, AuthConfig, NO, "调用 IP 不在白名单", "caller IP is not in the account's IP white-list"),
    row(40165, 400, UserInput, NO, "小程序 pagepath 不合法", "mini program page path not valid"),
    row(40166, 400, AuthConfig, NO, "小程序 appid 不合法", "mini program appid not valid"),
    row(40167, 403, Permission, NO, "与插件 appid 无绑定关系", "no relation with the plugin appid"),
    row(40169, 400, UserInput, NO, "scene 长度不合法，或数据不是 json 串", "scene length not valid, or body is not JSON"),
    row(40170, 400, UserInput, NO, "参数个数超过限制", "too many arguments"),
    row(40172, 409, UserInput, NO, "product id 重复", "duplicate product id"),
    row(40173, 403, Permission, NO, "没有绑定关系", "there is no binding"),
    row(40178, 403, Permission, NO, "签名 sign 不合法", "sign not valid"),
    row(40181, 400, UserInput, NO, "opengid 不合法", "opengid not valid"),
    row(40184, 400, UserInput, NO, "url path 不合法", "url path not valid"),
    row(40185, 401, Token, NO, "auth_token 无效或过期", "auth_token invalid or expired"),
    row(40187, 400, UserInput, NO, "ip 不合法", "ip not valid"),
    row(40188, 400, UserInput, NO, "scope 不合法", "scope not valid"),
    row(40189, 400, UserInput, NO, "width 不合法", "width not valid"),
    row(40199, 404, NotFound, NO, "运单 ID 不存在", "waybill id not found"),
    row(40200, 403, Permission, NO, "账号类型不符合要求", "account type not allowed"),
    row(40201, 400, AuthConfig, NO, "未设置回调 URL", "callback URL is not configured"),
    row(40202, 400, UserInput, NO, "action 参数不正确", "action not valid"),
    row(40203, 400, UserInput, NO, "运营商参数不正确", "check_operator not valid"),
    row(40210, 400, UserInput, NO, "pages 中的 path 不存在或为空", "pages[].path missing or empty"),
    row(40211, 400, UserInput, NO, "数据结构校验失败", "data structure check failed"),
    row(40212, 400, UserInput, NO, "query 填写错误", "query string malformed"),
    row(40219, 400, UserInput, NO, "pages 为空", "pages is empty"),
    row(40220, 400, UserInput, NO, "data_list 为空", "data_list is empty"),
    row(40221, 415, UserInput, NO, "Content-Encoding 不合法", "Content-Encoding not valid"),
    row(40222, 421, Transient, NO, "请求的 IDC 域名不合法", "wrong IDC domain requested"),
    row(40225, 400, UserInput, NO, "页面标题无效", "page title not valid"),
    row(40226, 403, ContentRisk, NO, "高风险用户，登录被拦截（code blocked）", "high-risk user; login blocked by WeChat"),
    row(40229, 400, UserInput, NO, "媒体封面为空", "media cover is empty"),
    row(40230, 400, AuthConfig, NO, "缺少 Wechatmp-Serial", "header Wechatmp-Serial missing (API security)"),
    row(40231, 400, AuthConfig, NO, "缺少 Wechatmp-TimeStamp", "header Wechatmp-TimeStamp missing (API security)"),
    row(40232, 400, AuthConfig, NO, "缺少 Wechatmp-Signature", "header Wechatmp-Signature missing (API security)"),
    row(40233, 400, AuthConfig, NO, "缺少 Wechatmp-Appid", "header Wechatmp-Appid missing (API security)"),
    row(40234, 500, AuthConfig, NO, "API 签名错误", "request signature did not verify (API security)"),
    row(40235, 500, AuthConfig, NO, "API 加密错误", "request ciphertext could not be decrypted (API security)"),
    row(40236, 500, AuthConfig, NO, "无效的 Wechatmp-Appid", "Wechatmp-Appid not valid (API security)"),
    row(40237, 500, AuthConfig, NO, "Wechatmp-Appid 与 token 不匹配", "Wechatmp-Appid does not match the access_token (API security)"),
    row(40238, 500, AuthConfig, NO, "开发者未设置对称密钥", "no symmetric key configured for the account (API security)"),
    row(40239, 500, AuthConfig, NO, "开发者未设置公钥", "no application public key configured (API security)"),
    row(40240, 408, UserInput, RETRY, "数据超时（时间戳过旧）", "timestamp too old (API security); re-sign and retry"),
    row(40243, 500, AuthConfig, NO, "AppSecret 已被冻结", "AppSecret is frozen; unfreeze it in the console"),
    row(40400, 400, UserInput, NO, "HTTP 报文不符合规范", "malformed HTTP request"),
    row(41001, 401, Token, RETRY, "缺少 access_token 参数", "access_token parameter missing"),
    row(41002, 500, AuthConfig, NO, "缺少 appid 参数", "appid parameter missing"),
    row(41003, 400, UserInput, NO, "缺少 refresh_token 参数", "refresh_token parameter missing"),
    row(41004, 500, AuthConfig, NO, "缺少 secret 参数", "secret parameter missing"),
    row(41005, 400, UserInput, NO, "缺少多媒体文件数据", "media file data missing"),
    row(41006, 400, UserInput, NO, "缺少 media_id 参数", "media_id parameter missing"),
    row(41007, 400, UserInput, NO, "缺少子菜单数据", "submenu data missing"),
    row(41008, 400, UserInput, NO, "缺少 code", "code parameter missing"),
    row(41009, 400, UserInput, NO, "缺少 openid", "openid parameter missing"),
    row(41010, 400, UserInput, NO, "缺失 url 参数", "url parameter missing"),
    row(41011, 400, UserInput, NO, "缺少必填字段", "required fields missing"),
    row(41013, 400, UserInput, NO, "缺少 code", "code missing"),
    row(41018, 400, AuthConfig, NO, "缺少 component_appid", "component_appid missing"),
    row(41021, 401, Token, NO, "缺少 component_access_token", "component_access_token missing"),
    row(41028, 400, UserInput, NO, "form_id 不正确或过期", "form_id wrong or expired"),
    row(41029, 409, UserInput, NO, "form_id 使用次数达上限（旧模板消息）", "form_id used too many times (legacy template messages)"),
    row(41030, 400, UserInput, NO, "page 路径不正确", "page path wrong or not published"),
    row(41031, 403, ContentRisk, NO, "form id 被封禁", "form id has been blocked"),
    row(41033, 403, Permission, NO, "只允许通过 api 创建的小程序使用", "only for mini programs created by API"),
    row(42001, 502, Token, RETRY, "access_token 超时", "access_token expired"),
    row(42002, 401, Token, NO, "refresh_token 超时", "refresh_token expired"),
    row(42003, 401, UserInput, NO, "oauth code 超时", "oauth code expired"),
    row(42004, 401, Token, NO, "插件 token 过期", "plugin token expired"),
    row(42005, 403, Permission, NO, "接口使用期已过", "API usage period has expired"),
    row(42006, 401, Token, NO, "component_access_token 过期", "component_access_token expired"),
    row(42007, 401, Token, NO, "用户修改密码导致 token 失效，需重新授权", "user changed password; tokens revoked, re-authorise"),
    row(42008, 401, Token, NO, "voip call key 过期", "VoIP call key expired"),
    row(42009, 401, Token, NO, "client tmp token 过期", "client temporary token expired"),
    row(43001, 405, UserInput, NO, "需要 GET 请求", "GET required"),
    row(43002, 405, UserInput, NO, "需要 POST 请求", "POST required"),
    row(43003, 400, UserInput, NO, "需要 HTTPS 请求", "HTTPS required"),
    row(43004, 403, Permission, NO, "需要接收者关注", "recipient must follow the account"),
    row(43005, 403, Permission, NO, "需要好友关系", "friend relation required"),
    row(43006, 403, Permission, NO, "需要未被拉黑", "recipient must not have blocked the sender"),
    row(43016, 403, Permission, NO, "小程序未认证", "mini program is not verified"),
    row(43019, 403, Permission, NO, "需将接收者移出黑名单", "recipient is on the black list"),
    row(43100, 429, RateQuota, NO, "模板修改过于频繁", "template changed too often"),
    row(43101, 403, Permission, NO, "用户未订阅/拒绝接收消息", "user has not subscribed or refused the message"),
    row(43102, 403, Permission, NO, "模板不是订阅类型", "template is not a subscription template"),
    row(43103, 403, Permission, NO, "该接口只能取消订阅", "API may only cancel a subscription"),
    row(43104, 400, UserInput, NO, "appid 与 openid 不匹配", "openid does not match the appid"),
    row(43106, 403, Permission, NO, "因处罚不允许新增模板", "adding templates is forbidden as a penalty"),
    row(43107, 403, Permission, NO, "订阅消息能力被封禁", "subscription message ability is banned"),
    row(43108, 429, RateQuota, RETRY, "并发下发消息给同一用户", "concurrent sends to the same user"),
    row(44001, 400, UserInput, NO, "多媒体文件为空", "media file is empty"),
    row(44002, 400, UserInput, NO, "POST 数据包为空", "POST body is empty"),
    row(44003, 400, UserInput, NO, "图文消息内容为空", "article content is empty"),
    row(44004, 400, UserInput, NO, "文本消息内容为空", "text content is empty"),
    row(44005, 400, UserInput, NO, "列表为空", "list is empty"),
    row(44006, 400, UserInput, NO, "文件数据为空", "file data is empty"),
    row(44007, 409, UserInput, NO, "重复的消息 id", "message id repeated"),
    row(44990, 429, RateQuota, RETRY, "超过每秒频率限制", "per-second rate limit reached"),
    row(44991, 429, RateQuota, RETRY, "超过每分钟频率限制", "per-minute rate limit reached"),
    row(44993, 429, RateQuota, NO, "超过每天频率限制", "per-day rate limit reached"),
    row(45001, 413, UserInput, NO, "多媒体文件大小超限", "media file too large"),
    row(45002, 413, UserInput, NO, "消息内容超过限制", "content too large"),
    row(45003, 400, UserInput, NO, "标题字段超限", "title too long"),
    row(45004, 400, UserInput, NO, "描述字段超限", "description too long"),
    row(45005, 400, UserInput, NO, "链接字段超限", "link too long"),
    row(45006, 400, UserInput, NO, "图片链接字段超限", "image link too long"),
    row(45007, 400, UserInput, NO, "语音播放时间超限", "voice too long"),
    row(45008, 400, UserInput, NO, "图文消息超限", "too many articles"),
    row(45009, 429, RateQuota, NO, "接口调用超过（天级）额度，可用 clear_quota 恢复", "daily quota of the API used up; clear_quota can reset it"),
    row(45010, 400, UserInput, NO, "创建菜单个数超限；广告数据接口中表示无效的接口名", "menu count limit; in the advert-data API: invalid interface name"),
    row(45011, 429, RateQuota, RETRY, "API 调用太频繁（分钟级），请稍候再试", "minute quota reached; slow down and retry next minute"),
    row(45012, 413, UserInput, NO, "模板大小超限", "template too large"),
    row(45015, 403, Permission, NO, "回复时间超过限制（48 小时窗口）", "reply window (48 h) is over"),
    row(45016, 403, Permission, NO, "系统分组不允许修改", "system group cannot be changed"),
    row(45017, 400, UserInput, NO, "分组名字过长", "group name too long"),
    row(45018, 429, RateQuota, NO, "分组数量超过上限", "too many groups"),
    row(45019, 400, UserInput, NO, "openid 太多", "too many openids"),
    row(45020, 400, UserInput, NO, "图片太多", "too many images"),
    row(45021, 400, UserInput, NO, "参数长度超限", "an argument is too long"),
    row(45026, 429, RateQuota, NO, "模板数量超限", "template count out of limit"),
    row(45028, 429, RateQuota, NO, "没有群发额度", "no mass-send quota"),
    row(45029, 429, RateQuota, NO, "生成码总数达到上限", "total number of generated codes reached"),
    row(45034, 429, RateQuota, NO, "媒体文件数量超限", "media file count out of limit"),
    row(45035, 500, AuthConfig, NO, "访问 IP 未登记（不在白名单）", "client IP not registered in the white-list"),
    row(45037, 403, Permission, NO, "用户不在会话时限内", "user out of the temporary session window"),
    row(45040, 429, RateQuota, NO, "达到月度额度", "monthly quota reached"),
    row(45047, 429, RateQuota, NO, "客服消息下行条数超过上限", "customer-service message count limit reached"),
    row(45064, 403, Permission, NO, "创建菜单含未关联的小程序", "menu refers to an unlinked mini program"),
    row(45065, 409, UserInput, NO, "相同 clientmsgid 已存在群发记录", "clientmsgid already used"),
    row(45066, 429, RateQuota, RETRY, "相同 clientmsgid 重试过快，间隔 1 分钟", "clientmsgid retried too fast; wait one minute"),
    row(45067, 400, UserInput, NO, "clientmsgid 长度超限", "clientmsgid too long"),
    row(45070, 409, UserInput, NO, "account_name 已被创建", "account_name already exists"),
    row(45071, 404, NotFound, NO, "business_id 对应商户不存在", "business_id not found"),
    row(45072, 400, UserInput, NO, "command 取值不对", "command value not valid"),
    row(45077, 429, RateQuota, NO, "子商户数量达上限", "sub-merchant count limit"),
    row(45078, 400, UserInput, NO, "昵称不合法", "nickname not valid"),
    row(45079, 422, ContentRisk, NO, "昵称含违规词", "nickname contains forbidden words"),
    row(45080, 409, Permission, NO, "下发输入状态需 30 秒内有消息交互", "typing status needs a message within the last 30 s"),
    row(45081, 409, UserInput, NO, "已在输入状态，不可重复下发", "already in typing state"),
    row(45083, 400, UserInput, NO, "speed 不在 0-4", "speed must be 0..4"),
    row(45084, 400, UserInput, NO, "没有设置 speed", "speed missing"),
    row(45091, 400, UserInput, NO, "account_name 不合法", "account_name not valid"),
    row(45159, 400, UserInput, NO, "非法的 tag_id", "tag_id not valid"),
    row(45165, 400, UserInput, NO, "offset 格式错误或超限", "offset malformed or too big"),
    row(45168, 422, ContentRisk, NO, "命中敏感词", "sensitive words hit"),
    row(46001, 404, NotFound, NO, "不存在媒体数据", "media data does not exist"),
    row(46002, 404, NotFound, NO, "不存在的菜单版本", "menu version does not exist"),
    row(46003, 404, NotFound, NO, "不存在的菜单数据", "menu data does not exist"),
    row(46004, 404, NotFound, NO, "不存在的用户", "user does not exist"),
    row(47001, 400, UserInput, NO, "JSON/XML 解析错误或缺参数", "body is not parseable or lacks parameters"),
    row(47003, 400, UserInput, NO, "参数不符合要求（errmsg 指明字段）", "argument breaks a rule; errmsg names the field"),
    row(47004, 400, UserInput, NO, "单次提交页面数超限", "too many pages in one submit"),
    row(47006, 429, RateQuota, NO, "当天提交页面数达上限", "daily page submit quota reached"),
    row(47501, 400, UserInput, NO, "activity_id 错误", "activity_id wrong"),
    row(47502, 400, UserInput, NO, "target_state 错误", "target_state wrong"),
    row(47503, 400, UserInput, NO, "version_type 错误", "version_type wrong"),
    row(47504, 410, UserInput, NO, "activity_id 过期", "activity_id expired"),
    row(48001, 403, Permission, NO, "API 功能未授权", "API not authorised for this account"),
    row(48002, 403, Permission, NO, "粉丝拒收消息", "recipient blocks messages"),
    row(48003, 403, Permission, NO, "用户未同意协议", "user has not agreed to the terms"),
    row(48004, 403, Permission, NO, "接口被封禁", "API is banned for this account"),
    row(48005, 403, Permission, NO, "素材被引用，禁止删除", "material in use; cannot delete"),
    row(48006, 429, RateQuota, NO, "清零次数达到上限", "quota-clear operations used up"),
    row(48008, 403, Permission, NO, "没有该类型消息的发送权限", "no permission to send this kind of message"),
    row(48021, 403, Permission, NO, "自动保存的草稿无法预览/发送", "auto-saved draft cannot be used"),
    row(50001, 403, Permission, NO, "用户未授权该 api", "user has not authorised this API"),
    row(50002, 403, Permission, NO, "用户受限（冻结或注销）", "user limited (frozen or cancelled)"),
    row(50003, 403, Permission, NO, "用户不可用", "user unavailable"),
    row(50004, 403, AuthConfig, NO, "禁止使用 token 接口", "token API forbidden for this account"),
    row(50005, 403, Permission, NO, "用户未关注公众号", "user does not follow the account"),
    row(50007, 403, AuthConfig, NO, "账号已冻结", "account is frozen"),
    row(53010, 400, UserInput, NO, "名称格式不合法", "name format not valid"),
    row(53011, 429, RateQuota, NO, "名称检测命中频率限制", "name check rate limited"),
    row(53012, 422, ContentRisk, NO, "禁止使用该名称", "name is forbidden"),
    row(53013, 409, UserInput, NO, "名称与已有账号重复", "name duplicates an existing account"),
    row(53018, 409, UserInput, NO, "名称命中微信号", "name equals a WeChat id"),
    row(53019, 409, UserInput, NO, "名称在保护期内", "name is in its protection period"),
    row(53200, 429, RateQuota, NO, "本月功能介绍修改次数用完", "monthly introduction edits used up"),
    row(53201, 422, ContentRisk, NO, "功能介绍命中黑名单词", "introduction hits forbidden words"),
    row(53202, 429, RateQuota, NO, "本月头像修改次数用完", "monthly avatar edits used up"),
    row(61003, 403, Permission, NO, "服务商未被授权", "component is not authorised by this account"),
    row(61004, 500, AuthConfig, NO, "访问 IP 未登记（第三方平台白名单）", "client IP not registered for the third-party platform"),
    row(61005, 401, Token, NO, "component ticket 过期", "component ticket expired"),
    row(61006, 401, Token, NO, "component ticket 无效", "component ticket not valid"),
    row(61007, 403, Permission, NO, "该接口未授权给服务商", "API not authorised to the component"),
    row(61010, 403, Permission, NO, "用户访问记录超时（近两小时未访问小程序）或 code 过期", "user has not visited within two hours (or auth code expired)"),
    row(61011, 400, AuthConfig, NO, "服务商不合法", "component not valid"),
    row(61023, 401, Token, NO, "refresh_token 无效", "refresh_token not valid"),
    row(61070, 400, UserInput, NO, "法人姓名与微信号不一致", "legal person name does not match the WeChat id"),
    row(61080, 503, Transient, RETRY, "用户安全服务不可用", "risk-rank service unavailable"),
    row(61081, 429, RateQuota, RETRY, "用户安全接口调用过于频繁", "risk-rank called too often"),
    row(61501, 400, UserInput, NO, "日期范围错误", "date range error"),
    row(61503, 503, Transient, RETRY, "数据未就绪，请稍后", "data not ready; try later"),
    row(61504, 503, Transient, RETRY, "系统繁忙", "busy; try later"),
    row(65206, 403, Permission, NO, "用户已不在该群内", "user is no longer in the group"),
    row(65400, 403, Permission, NO, "未开通新版客服功能", "new customer-service feature not enabled"),
    row(65401, 404, NotFound, NO, "无效客服账号", "customer-service account not valid"),
    row(65402, 403, Permission, NO, "客服账号未绑定微信号", "customer-service account has no bound WeChat id"),
    row(65403, 400, UserInput, NO, "客服昵称不合法", "customer-service nickname not valid"),
    row(65404, 400, UserInput, NO, "客服账号不合法", "customer-service account not valid"),
    row(65405, 429, RateQuota, NO, "客服账号数达上限", "customer-service account count limit"),
    row(65406, 409, UserInput, NO, "客服账号已存在", "customer-service account exists"),
    row(65407, 409, UserInput, NO, "邀请对象已是客服", "invitee is already staff"),
    row(65408, 409, UserInput, NO, "已有邀请给该微信", "an invitation is already open"),
    row(65409, 400, UserInput, NO, "无效的微信号", "WeChat id not valid"),
    row(65410, 429, RateQuota, NO, "邀请对象绑定客服数达上限", "invitee reached binding limit"),
    row(65411, 409, UserInput, NO, "存在等待确认的邀请", "an invitation awaits confirmation"),
    row(65412, 409, UserInput, NO, "账号已绑定微信号", "account already bound"),
    row(65413, 404, NotFound, NO, "不存在对应用户会话", "no session for that user"),
    row(65414, 409, UserInput, NO, "客户正在被其他客服接待", "customer is served by another agent"),
    row(70000, 403, ContentRisk, NO, "未成年人保护，消息发送失败", "blocked to protect a minor"),
    row(76001, 404, NotFound, NO, "rid 不存在", "rid not found"),
    row(76002, 400, UserInput, NO, "rid 为空或格式错误", "rid empty or malformed"),
    row(76003, 403, Permission, NO, "无权查询该 rid（属于其他账号）", "rid belongs to another account"),
    row(76004, 410, UserInput, NO, "rid 过期（仅 7 天）", "rid older than 7 days"),
    row(76021, 400, UserInput, NO, "cgi_path 填错", "cgi_path not found"),
    row(76022, 403, Permission, NO, "token 与 api 所属账号不符（sns 接口不支持）", "token's account may not query this cgi_path (sns paths unsupported)"),
    row(80002, 500, AuthConfig, NO, "开发者未配置消息推送", "message push is not configured"),
    row(80003, 502, Transient, RETRY, "消息推送链路有问题", "message push link failed"),
    row(80004, 502, UserInput, NO, "开发者回包格式有问题", "developer's push reply is malformed"),
    row(80005, 502, UserInput, NO, "开发者回包 ErrCode 非 0", "developer's push reply carried a non-zero ErrCode"),
    row(80066, 400, UserInput, NO, "非法的插件版本", "plugin version not valid"),
    row(80067, 404, NotFound, NO, "找不到使用的插件", "plugin not found"),
    row(80082, 403, Permission, NO, "没有权限使用该插件", "no permission for the plugin"),
    row(85001, 400, UserInput, NO, "微信号不存在或不可搜索", "WeChat id does not exist or is not searchable"),
    row(85002, 429, RateQuota, NO, "体验者数量达上限", "tester limit reached"),
    row(85003, 429, RateQuota, NO, "微信号绑定体验小程序达上限", "WeChat id tests too many mini programs"),
    row(85004, 409, UserInput, NO, "微信号已经绑定", "WeChat id already bound"),
    row(85006, 400, UserInput, NO, "标签格式错误", "tag format error"),
    row(85007, 400, UserInput, NO, "页面路径错误", "page path error"),
    row(85008, 400, UserInput, NO, "类目填写错误", "category error"),
    row(85009, 409, UserInput, NO, "已有正在审核的版本", "a version is already under review"),
    row(85012, 404, NotFound, NO, "无效的审核 id", "audit id not valid"),
    row(85013, 400, UserInput, NO, "无效的自定义配置", "custom configuration not valid"),
    row(85014, 404, NotFound, NO, "无效的模板编号", "template id not valid"),
    row(85015, 403, Permission, NO, "该账号不是小程序账号", "account is not a mini program"),
    row(85016, 429, RateQuota, NO, "域名数量超过限制", "too many domains"),
    row(85017, 400, UserInput, NO, "没有新增域名", "no new domain"),
    row(85018, 400, UserInput, NO, "域名没有在第三方平台设置", "domain not set on the third-party platform"),
    row(85019, 404, NotFound, NO, "没有审核版本", "no audit version"),
    row(85020, 409, UserInput, NO, "审核状态未满足发布", "audit state does not allow release"),
    row(85021, 409, UserInput, NO, "状态不可变", "state cannot change"),
    row(85022, 400, UserInput, NO, "action 非法", "action not valid"),
    row(85023, 400, UserInput, NO, "审核项目数须 1-5", "audit item count must be 1..5"),
    row(85043, 400, UserInput, NO, "模板错误", "template error"),
    row(85044, 413, UserInput, NO, "代码包超过大小限制", "code package too large"),
    row(85045, 400, UserInput, NO, "ext_json 有不存在的路径", "ext_json refers to a missing path"),
    row(85046, 400, UserInput, NO, "tabBar 缺少 path", "tabBar lacks path"),
    row(85047, 400, UserInput, NO, "pages 为空", "pages is empty"),
    row(85048, 400, UserInput, NO, "ext_json 解析失败", "ext_json cannot be parsed"),
    row(85064, 404, NotFound, NO, "找不到模板/草稿", "template or draft not found"),
    row(85065, 429, RateQuota, NO, "模板库已满", "template library is full"),
    row(85066, 400, UserInput, NO, "链接错误", "link error"),
    row(85068, 400, UserInput, NO, "测试链接不是子链接", "test link is not a sub-link"),
    row(85069, 400, UserInput, NO, "校验文件失败", "verification file check failed"),
    row(85070, 403, Permission, NO, "个人小程序无法设置二维码规则", "personal accounts cannot set QR rules"),
    row(85071, 409, UserInput, NO, "已添加该链接", "link already added"),
    row(85072, 409, UserInput, NO, "该链接已被占用", "link is taken"),
    row(85073, 429, RateQuota, NO, "二维码规则已满", "QR rules are full"),
    row(85074, 403, Permission, NO, "小程序未发布", "mini program not released"),
    row(85079, 403, Permission, NO, "小程序没有线上版本", "no online release"),
    row(85083, 403, Permission, NO, "搜索标记位被封禁", "search flag is banned"),
    row(85084, 400, UserInput, NO, "status 只能 0 或 1", "status must be 0 or 1"),
    row(85085, 429, RateQuota, NO, "近 7 天提交审核过多", "too many audits submitted in 7 days"),
    row(85086, 409, UserInput, NO, "提审前需先上传代码", "upload code before submitting"),
    row(85087, 400, UserInput, NO, "需声明 navigateToMiniProgram 跳转列表", "declare the navigateToMiniProgram list first"),
    row(85088, 403, Permission, NO, "该 APP 未开通云开发", "cloud development not enabled"),
    row(85091, 403, Permission, NO, "小程序搜索开关关闭", "search is switched off"),
    row(85096, 400, UserInput, NO, "不允许包含 scancode_time", "scancode_time is reserved"),
    row(85105, 403, Permission, NO, "云调用：未授权（身份与接口不匹配）", "cloud call: not authorised for this account type"),
    row(85107, 403, Permission, NO, "云调用：URL 不在白名单", "cloud call: URL path not in the white-list"),
    row(85112, 502, Transient, RETRY, "云调用：cloudbase_secret not found / 链路异常", "cloud call: cloudbase secret not found (link fault)"),
    row(85113, 503, Transient, RETRY, "云调用：cloudbase_token 尚未就绪", "cloud call: token not ready yet; try later"),
    row(85400, 429, RateQuota, NO, "长期有效链接生成达上限", "long-lived link quota reached"),
    row(85401, 400, UserInput, NO, "过期时间须在 1 分钟至 30 天", "expiry must be within 1 minute to 30 days"),
    row(85402, 400, UserInput, NO, "env_version 错误", "env_version not valid"),
    row(85403, 404, NotFound, NO, "scheme/url link 不存在", "scheme / URL link not found"),
    row(85405, 403, Permission, NO, "未开启明文 scheme", "plain scheme not enabled for appid/path"),
    row(85406, 429, RateQuota, NO, "单天访问次数超限", "daily visit limit"),
    row(85407, 403, Permission, NO, "暂无 scheme 生成权限", "no permission to generate schemes"),
    row(85408, 403, Permission, NO, "生成权限被封禁", "generation right banned"),
    row(85431, 503, Transient, RETRY, "系统繁忙（服务卡片）", "busy (service card)"),
    row(85433, 400, UserInput, NO, "check_json 不合法", "check_json not valid"),
    row(85434, 400, UserInput, NO, "notify_type 不合法", "notify_type not valid"),
    row(85435, 400, UserInput, NO, "content_json 不合法", "content_json not valid"),
    row(85436, 403, Permission, NO, "notify_code 被封禁", "notify_code banned"),
    row(85437, 404, NotFound, NO, "notify_code 不存在", "notify_code not found"),
    row(85438, 410, UserInput, NO, "notify_code 已过期", "notify_code expired"),
    row(85439, 409, UserInput, NO, "content_json 状态不合法", "content_json has a wrong status"),
    row(85440, 400, UserInput, NO, "content_json 缺少字段", "content_json lacks a field"),
    row(85441, 400, UserInput, NO, "content_json 字段格式不对", "content_json field malformed"),
    row(85442, 422, ContentRisk, NO, "content_json 含审核不通过信息", "content_json blocked by content audit"),
    row(85443, 400, UserInput, NO, "content_json 含非 utf8 字符", "content_json has illegal UTF-8"),
    row(85448, 409, UserInput, NO, "notify_code 已推送过", "notify_code already used"),
    row(85449, 429, RateQuota, RETRY, "notify_code 正在更新，已加锁", "notify_code locked; retry later"),
    row(85461, 403, Permission, NO, "notify_type 准入驳回", "notify_type access denied"),
    row(85462, 403, Permission, NO, "小程序准入驳回", "mini program access denied"),
    row(85470, 400, UserInput, NO, "ext_json 不合法", "ext_json not valid"),
    row(86000, 403, Permission, NO, "不是由第三方代小程序调用", "must be called by a third-party platform"),
    row(86001, 404, NotFound, NO, "不存在第三方已提交的代码", "no code submitted by the third party"),
    row(86002, 409, UserInput, NO, "小程序未设置昵称头像简介", "nickname/avatar/introduction not set"),
    row(86004, 400, UserInput, NO, "无效微信号", "WeChat id not valid"),
    row(87007, 401, UserInput, NO, "session_key 不存在或已过期", "session_key does not exist or has expired"),
    row(87008, 400, UserInput, NO, "无效的签名方法 sig_method", "sig_method not valid"),
    row(87009, 401, UserInput, NO, "无效的登录态签名", "session signature not valid"),
    row(87011, 409, UserInput, NO, "灰度发布中，不能回退", "grey release in progress; no rollback"),
    row(87012, 409, UserInput, NO, "该版本不能回退", "this version cannot be rolled back"),
    row(87013, 429, RateQuota, NO, "撤回次数达到上限", "withdraw limit reached"),
    row(87014, 422, ContentRisk, NO, "内容含违法违规内容", "content violates the rules"),
    row(87015, 504, Transient, RETRY, "查询超时，减小内容后重试", "query timed out; send less content"),
    row(87016, 413, UserInput, NO, "key-value 长度超限", "key-value pair too long"),
    row(87017, 507, RateQuota, NO, "用户存储空间超限", "user storage full"),
    row(87018, 507, RateQuota, NO, "用户存储 key 过多", "too many keys stored"),
    row(87019, 400, UserInput, NO, "key 长度超限", "key too long"),
    row(87020, 429, RateQuota, NO, "重复请求超出限制", "repeated request limit exceeded"),
    row(89000, 409, UserInput, NO, "账号已绑定开放平台", "account already bound to an open platform account"),
    row(89001, 403, Permission, NO, "主体不同", "different contractor"),
    row(89002, 404, NotFound, NO, "未绑定微信开放平台账号", "no open platform account is bound"),
    row(89003, 403, Permission, NO, "该开放平台账号非 api 创建", "open account was not created by API"),
    row(89004, 429, RateQuota, NO, "开放平台绑定数达上限", "open account binding limit reached"),
    row(89019, 409, UserInput, NO, "业务域名无更改", "business domain unchanged"),
    row(89020, 400, UserInput, NO, "未设置小程序业务域名", "business domain not set"),
    row(89021, 400, UserInput, NO, "域名不是已设置的业务域名或子域名", "domain is not a configured business domain"),
    row(89029, 429, RateQuota, NO, "业务域名数量超限", "too many business domains"),
    row(89231, 403, Permission, NO, "个人小程序不支持 setwebviewdomain", "personal accounts cannot use setwebviewdomain"),
    row(89236, 403, Permission, NO, "该插件不能申请", "plugin cannot be applied for"),
    row(89237, 409, UserInput, NO, "已添加该插件", "plugin already added"),
    row(89238, 429, RateQuota, NO, "插件数量达上限", "plugin count limit"),
    row(89239, 404, NotFound, NO, "该插件不存在", "plugin does not exist"),
    row(89247, 500, Transient, RETRY, "内部错误", "inner error"),
    row(89249, 409, UserInput, NO, "已有任务执行中，24h 后再试", "a task is running; try after 24 h"),
    row(89250, 404, NotFound, NO, "未找到该任务", "task not found"),
    row(89251, 409, UserInput, NO, "待法人人脸核身", "legal person face check pending"),
    row(89252, 409, UserInput, NO, "企业信息校验中", "enterprise check in progress"),
    row(89253, 400, UserInput, NO, "缺少参数", "parameters missing"),
    row(89254, 403, Permission, NO, "第三方权限集不全", "component lacks permission sets"),
    row(89255, 400, UserInput, NO, "企业代码无效", "enterprise code not valid"),
    row(89300, 404, NotFound, NO, "订单无效", "trade not valid"),
    row(89401, 503, Transient, RETRY, "系统不稳定，稍后再试", "system unstable; try later"),
    row(89402, 409, UserInput, NO, "审核单不在待审核队列", "audit is not queued"),
    row(89403, 403, Permission, NO, "不支持加急", "expedite not supported"),
    row(89404, 409, UserInput, NO, "已加速成功", "already expedited"),
    row(89405, 429, RateQuota, NO, "加急额度不足", "expedite quota used up"),
    row(89501, 403, AuthConfig, RETRY, "有未处理的管理员确认请求", "an administrator confirmation is pending"),
    row(89503, 403, AuthConfig, RETRY, "此次调用需要管理员确认", "this call needs the administrator's confirmation (new IP)"),
    row(89504, 403, AuthConfig, RETRY, "正在等管理员确认", "waiting for the administrator"),
    row(89505, 403, AuthConfig, RETRY, "正在等管理员确认，请稍候重试", "waiting for the administrator; retry later"),
    row(89506, 403, AuthConfig, NO, "该 IP 被管理员拒绝，24 小时后再试", "IP refused by the administrator; try after 24 h"),
    row(89507, 403, AuthConfig, NO, "该 IP 被管理员拒绝，1 小时后再试", "IP refused by the administrator; try after 1 h"),
    row(90009, 401, UserInput, NO, "mp_sig 错误（旧米大师）", "mp_sig wrong (legacy Midas payment)"),
    row(90010, 401, UserInput, NO, "session_key 不存在（旧米大师）", "no session (legacy Midas payment)"),
    row(90011, 401, UserInput, NO, "sig 错误（旧米大师）", "sig wrong (legacy Midas payment)"),
    row(90012, 409, UserInput, NO, "订单已存在", "order exists"),
    row(90013, 402, RateQuota, NO, "余额不足", "balance not enough"),
    row(90014, 409, UserInput, NO, "订单已确认", "order already confirmed"),
    row(90015, 409, UserInput, NO, "订单已取消", "order already cancelled"),
    row(90016, 409, Transient, RETRY, "订单处理中", "order is being processed"),
    row(90017, 403, Permission, NO, "没有权限", "no privilege"),
    row(90018, 400, UserInput, NO, "参数错误", "parameter not valid"),
    row(91002, 403, Permission, NO, "小程序发布后不可改名", "released mini program cannot be renamed"),
    row(91004, 400, UserInput, NO, "昵称不合法", "nickname not valid"),
    row(91007, 409, UserInput, NO, "昵称已被占用", "nickname is taken"),
    row(91009, 409, UserInput, NO, "需要提交材料", "documents needed"),
    row(91011, 404, NotFound, NO, "查不到改名审核单", "rename audit not found"),
    row(91013, 429, RateQuota, NO, "占用名字过多", "too many names held"),
    row(93009, 403, Permission, NO, "小程序未上架或不可见", "mini program not released or hidden"),
    row(93010, 404, NotFound, NO, "地点不存在", "place does not exist"),
    row(101000, 400, UserInput, NO, "图片 URL 错误", "image URL error"),
    row(101001, 422, UserInput, NO, "未检测到证件", "no certificate detected"),
    row(101002, 413, UserInput, NO, "图片解码失败或过大", "image cannot be decoded or is too large"),
    row(101003, 402, RateQuota, NO, "服务市场额度不足", "service-market quota used up"),
    row(102002, 504, Transient, RETRY, "云托管请求超时", "cloud run request timed out"),
    row(102003, 429, RateQuota, RETRY, "微信网关：用户频率限制", "WeChat gateway: user rate limit"),
    row(102005, 405, UserInput, NO, "无效的 HTTP Method", "HTTP method not valid"),
    row(102006, 400, UserInput, NO, "微信网关：非法请求", "WeChat gateway: illegal request"),
    row(102016, 404, UserInput, NO, "微信网关：路由错误", "WeChat gateway: no route for the URL"),
    row(102020, 429, RateQuota, RETRY, "微信网关：套餐 QPS 限制", "WeChat gateway: plan QPS limit"),
    row(102021, 429, RateQuota, RETRY, "微信网关：套餐带宽限制", "WeChat gateway: plan bandwidth limit"),
    row(102022, 400, AuthConfig, NO, "微信网关：地址不在配置中", "WeChat gateway: URL not in configuration"),
    row(104100, 409, UserInput, NO, "微信网关：请求重放拦截", "WeChat gateway: replayed request blocked"),
    row(200001, 503, Transient, RETRY, "系统错误（订阅模板）", "system error (subscription templates)"),
    row(200002, 400, UserInput, NO, "参数错误", "parameter error"),
    row(200007, 403, Permission, NO, "无权限", "no permission"),
    row(200010, 429, RateQuota, RETRY, "操作过于频繁（每分钟50次）", "too frequent (50 per minute)"),
    row(200011, 403, Permission, NO, "账号已被封禁，无法操作", "account banned for this operation"),
    row(200012, 429, RateQuota, NO, "私有模板数达上限（50）", "private template limit reached"),
    row(200013, 403, Permission, NO, "模板已被封禁", "template is banned"),
    row(200014, 400, UserInput, NO, "模板 tid 参数错误", "tid not valid"),
    row(200016, 400, UserInput, NO, "start 参数错误", "start not valid"),
    row(200017, 400, UserInput, NO, "limit 参数错误", "limit not valid"),
    row(200018, 400, UserInput, NO, "类目 ids 缺失", "ids missing"),
    row(200019, 400, UserInput, NO, "类目 ids 不合法", "ids not valid"),
    row(200020, 400, UserInput, NO, "kidList 参数错误", "kidList not valid"),
    row(200021, 400, UserInput, NO, "sceneDesc 参数错误", "sceneDesc not valid"),
    row(200022, 409, UserInput, NO, "相同标题和关键字的模板已存在", "an equal template exists"),
    row(200100, 403, Permission, NO, "账号类型不合法", "account type not valid"),
    row(300002, 400, UserInput, NO, "名称长度不符合规则", "name length not valid"),
    row(300006, 400, UserInput, NO, "图片上传失败（mediaID 过期）", "image upload failed (mediaID expired)"),
    row(300022, 404, NotFound, NO, "房间号不存在", "live room not found"),
    row(300023, 409, UserInput, NO, "房间状态不允许", "room state forbids this"),
    row(300024, 404, NotFound, NO, "商品不存在", "goods not found"),
    row(300028, 422, ContentRisk, NO, "房间名称违规", "room name violates the rules"),
    row(300031, 422, ContentRisk, NO, "直播间封面图不合规", "room cover violates the rules"),
    row(300036, 403, Permission, NO, "主播未实名认证", "anchor is not real-name verified"),
    row(400001, 400, UserInput, NO, "微信号不合规", "WeChat id not valid"),
    row(400003, 429, RateQuota, NO, "角色数量达上限", "role limit reached"),
    row(400004, 409, UserInput, NO, "重复添加角色", "role already added"),
    row(702001, 400, UserInput, NO, "B2b：参数错误", "B2b pay: parameter error"),
    row(702002, 401, UserInput, NO, "B2b：用户态签名错误", "B2b pay: user signature wrong"),
    row(702003, 500, AuthConfig, NO, "B2b：支付签名错误", "B2b pay: pay_sig wrong"),
    row(702005, 409, UserInput, NO, "B2b：out_trade_no 重复", "B2b pay: out_trade_no repeated"),
    row(930555, 503, Transient, RETRY, "即时配送：微信系统错误", "delivery: WeChat system error"),
    row(930556, 504, Transient, RETRY, "即时配送：配送公司超时", "delivery: carrier timed out"),
    row(930557, 502, Transient, RETRY, "即时配送：配送公司系统错误", "delivery: carrier system error"),
    row(930558, 422, UserInput, NO, "即时配送：配送公司逻辑错误", "delivery: carrier logic error"),
    row(930559, 400, UserInput, NO, "即时配送：openid 无效", "delivery: openid not valid"),
    row(930560, 403, Permission, NO, "即时配送：未绑定的商户号", "delivery: merchant not bound"),
    row(930561, 400, UserInput, NO, "即时配送：参数错误", "delivery: argument error"),
    row(930562, 409, UserInput, NO, "即时配送：配送单已存在", "delivery: order exists"),
    row(930563, 404, NotFound, NO, "即时配送：配送单不存在", "delivery: order not found"),
    row(930564, 429, RateQuota, NO, "即时配送：无配额", "delivery: quota used up"),
    row(930565, 409, UserInput, NO, "即时配送：配送单已结束", "delivery: order finished"),
    row(934001, 400, UserInput, NO, "同城配送：请求参数有误", "intra-city: request parameter error"),
    row(934002, 409, UserInput, NO, "同城配送：订单已存在", "intra-city: order exists"),
    row(934008, 400, UserInput, NO, "同城配送：门店与 APPID 不匹配", "intra-city: store does not match appid"),
    row(934011, 500, AuthConfig, NO, "同城配送：请求签名错误（该接口强制 API 安全）", "intra-city: request signature error (API security is mandatory)"),
    row(934012, 500, AuthConfig, NO, "同城配送：appid 与 access_token 不匹配", "intra-city: appid does not match access_token"),
    row(934013, 402, RateQuota, NO, "同城配送：门店余额不足", "intra-city: store balance too low"),
    row(934016, 404, NotFound, NO, "同城配送：订单不存在", "intra-city: order not found"),
    row(934021, 404, NotFound, NO, "同城配送：门店不存在", "intra-city: store not found"),
    row(934999, 503, Transient, RETRY, "同城配送：内部系统错误", "intra-city: internal error"),
    row(9300501, 422, UserInput, NO, "物流：快递侧逻辑错误", "logistics: carrier logic error"),
    row(9300502, 502, Transient, RETRY, "物流：快递公司系统错误", "logistics: carrier system error"),
    row(9300503, 404, NotFound, NO, "物流：delivery_id 不存在", "logistics: delivery_id not registered"),
    row(9300507, 400, UserInput, NO, "物流：waybill_token 参数错误", "logistics: waybill_token wrong"),
    row(9300510, 404, NotFound, NO, "物流：service_type 不存在", "logistics: service_type not valid"),
    row(9300513, 429, RateQuota, NO, "物流：调用次数达上限", "logistics: quota used up"),
    row(9300525, 403, Permission, NO, "物流：bizid 未绑定", "logistics: bizid not bound"),
    row(9300526, 400, UserInput, NO, "物流：字段长度不正确", "logistics: argument size not valid"),
    row(9300531, 401, UserInput, NO, "物流：bizid 无效或密码错误", "logistics: bizid or password wrong"),
    row(9300534, 400, UserInput, NO, "物流：access_token 与 openid 不匹配", "logistics: access_token and openid do not match"),
    row(9300559, 404, NotFound, NO, "物流：运单不存在", "logistics: waybill not found"),
    row(9300560, 429, RateQuota, NO, "物流：达到修改次数上限", "logistics: modification limit reached"),
    row(9301001, 400, UserInput, NO, "异步处理：参数错误", "async image service: parameter error"),
    row(9301003, 503, Transient, RETRY, "异步处理：系统失败", "async image service: internal failure"),
    row(9301010, 429, RateQuota, NO, "异步处理：配额不足", "async image service: quota used up"),
    row(9301011, 429, RateQuota, RETRY, "异步处理：频率限制", "async image service: rate limit"),
    row(9301012, 504, Transient, RETRY, "异步处理：超时", "async image service: timeout"),
    row(9301015, 202, Transient, RETRY, "异步处理：尚未完成", "async image service: not finished yet"),
    row(9410009, 429, RateQuota, NO, "测试额度已耗尽", "test quota used up"),
    row(9600001, 400, UserInput, NO, "红包封面：缺 openid", "red-packet cover: openid missing"),
    row(9600002, 400, UserInput, NO, "红包封面：缺 ctoken", "red-packet cover: ctoken missing"),
    row(9600003, 503, Transient, RETRY, "红包封面：系统错误", "red-packet cover: system error"),
    row(9600004, 400, UserInput, NO, "红包封面：ctoken 错误", "red-packet cover: ctoken wrong"),
    row(9600005, 400, UserInput, NO, "红包封面：openid 错误", "red-packet cover: openid wrong"),
    row(9600006, 403, Permission, NO, "红包封面：小程序不在配置列表", "red-packet cover: mini program not listed"),
    row(9600007, 400, UserInput, NO, "红包封面：小程序与 openid 不对应", "red-packet cover: openid of another mini program"),
    row(9800001, 400, UserInput, NO, "硬件：sn 长度超过 128 字节", "device: sn longer than 128 bytes"),
    row(9800002, 400, UserInput, NO, "硬件：sn 含非法字符", "device: sn has illegal characters"),
    row(9800003, 400, UserInput, NO, "硬件：model_id 检查不通过", "device: model_id check failed"),
    row(9800007, 403, Permission, NO, "硬件：model_id 尚未获得该能力", "device: model_id lacks this ability"),
    row(9800013, 404, NotFound, NO, "硬件：group_id 不合法", "device: group_id not valid"),
    row(9800039, 402, RateQuota, NO, "硬件：资源包余额不足", "device: resource pack used up"),
    row(10060001, 404, NotFound, NO, "发货：支付单不存在", "shipping: payment order not found"),
    row(10060002, 409, UserInput, NO, "发货：支付单已完成发货", "shipping: already shipped"),
    row(10060003, 409, UserInput, NO, "发货：重新发货机会已用", "shipping: re-ship chance used"),
    row(10060004, 409, UserInput, NO, "发货：支付单不可发货", "shipping: order not shippable"),
    row(10060012, 503, Transient, RETRY, "发货：系统错误", "shipping: system error"),
    row(10060014, 400, UserInput, NO, "发货：参数错误", "shipping: parameter error"),
    row(10060019, 503, Transient, RETRY, "发货：系统错误", "shipping: system error"),
    row(10060023, 200, Class::Ok, NO, "发货：发货信息未更新", "shipping: nothing changed"),
    row(10060031, 400, UserInput, NO, "发货：支付单不属于该 openid", "shipping: order is not of that openid"),
    row(10090001, 415, UserInput, NO, "媒资：视频类型不支持", "media library: video type not supported"),
    row(10090003, 400, UserInput, NO, "媒资：图片 URL 无效", "media library: image URL not valid"),
    row(10093014, 400, UserInput, NO, "媒资：参数错误", "media library: parameter error"),
    row(10093023, 429, RateQuota, RETRY, "媒资：操作过于频繁", "media library: too frequent"),
    row(10093030, 404, NotFound, NO, "媒资：资源不存在", "media library: resource not found"),
    row(268485194, 400, UserInput, NO, "发货：订单单号类型非法", "shipping: order number type not valid"),
    row(268485216, 400, UserInput, NO, "发货：上传时间须 RFC3339", "shipping: upload time must be RFC 3339"),
    row(268490001, 400, UserInput, NO, "虚拟支付：openid 错误", "xpay: openid wrong"),
    row(268490002, 400, UserInput, NO, "虚拟支付：参数字段错误", "xpay: parameter error, see errmsg"),
    row(268490003, 500, AuthConfig, NO, "虚拟支付：签名错误", "xpay: signature (pay_sig or signature) wrong"),
    row(268490004, 200, Class::Ok, NO, "虚拟支付：重复操作（此前已成功）", "xpay: repeated operation; the earlier one succeeded"),
    row(268490005, 409, UserInput, NO, "虚拟支付：订单已退款", "xpay: order already refunded by cancel_currency_pay"),
    row(268490006, 402, RateQuota, NO, "虚拟支付：金额不足", "xpay: not enough coins"),
    row(268490007, 422, ContentRisk, NO, "虚拟支付：敏感内容", "xpay: sensitive content"),
    row(268490008, 403, Permission, NO, "虚拟支付：代币未发布", "xpay: coin not published"),
    row(268490009, 401, UserInput, NO, "虚拟支付：session_key 不存在或过期", "xpay: session_key missing or expired; log in again"),
    row(268490011, 503, Transient, RETRY, "虚拟支付：数据生成中", "xpay: data is being generated; call again"),
    row(268490012, 409, Transient, RETRY, "虚拟支付：批量任务运行中", "xpay: a batch task is running"),
    row(268490013, 409, UserInput, NO, "虚拟支付：核销状态禁止退款", "xpay: redeemed order cannot be refunded"),
    row(268490014, 409, Transient, RETRY, "虚拟支付：退款进行中", "xpay: refund in progress; retry with equal arguments"),
    row(268490015, 429, RateQuota, RETRY, "虚拟支付：频率限制", "xpay: rate limit"),
    row(268490016, 409, UserInput, NO, "虚拟支付：left_fee 与实际不符", "xpay: left_fee does not match"),
    row(268490018, 400, UserInput, NO, "虚拟支付：广告金行业 id 不匹配", "xpay: advert-fund industry id mismatch"),
    row(268490019, 409, UserInput, NO, "虚拟支付：广告金账户已绑定其他 appid", "xpay: advert account bound to another appid"),
    row(268490020, 400, UserInput, NO, "虚拟支付：广告金账户主体名称错误", "xpay: advert account entity name wrong"),
    row(268490021, 403, Permission, NO, "虚拟支付：账户未完成进件", "xpay: merchant onboarding incomplete"),
    row(268490022, 404, NotFound, NO, "虚拟支付：广告金账户无效", "xpay: advert account not valid"),
    row(268490023, 402, RateQuota, NO, "虚拟支付：广告金余额不足", "xpay: advert funds too low"),
    row(268490024, 400, UserInput, NO, "虚拟支付：充值金额须大于 0", "xpay: amount must be positive"),
    row(268546000, 400, UserInput, NO, "特殊发货：type 非法", "special shipping: type not valid"),
    row(268546001, 400, UserInput, NO, "特殊发货：delay_to 非法", "special shipping: delay_to not valid"),
    row(268546002, 404, NotFound, NO, "特殊发货：不存在该待发货单", "special shipping: order not found"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_code_twice() {
        assert!(TABLE.windows(2).all(|pair| pair[0].code < pair[1].code));
    }

    #[test]
    fn the_table_has_every_row_of_the_documentation() {
        assert_eq!(TABLE.len(), 600);
    }

    #[test]
    fn every_row_can_be_told_over_http_in_both_languages() {
        for row in &TABLE {
            assert!((200..=599).contains(&row.status), "{row:?}");
            assert!(!row.zh.is_empty() && !row.en.is_empty(), "{row:?}");
            assert_ne!(row.class, Class::Unknown, "{row:?}");
        }
    }

    #[test]
    fn well_known_codes_mean_what_the_documentation_says() {
        let expected = [
            (-1, 503, Class::Transient, RETRY),
            (0, 200, Class::Ok, NO),
            (40013, 500, Class::AuthConfig, NO),
            (40029, 401, Class::UserInput, NO),
            (40125, 500, Class::AuthConfig, NO),
            (40163, 401, Class::UserInput, NO),
            (40226, 403, Class::ContentRisk, NO),
            (45011, 429, Class::RateQuota, RETRY),
        ];
        for (code, status, class, retryable) in expected {
            let row = find(code).unwrap();
            assert_eq!(
                (row.code, row.status, row.class, row.retryable),
                (code, status, class, retryable)
            );
        }
    }

    #[test]
    fn every_row_is_found_by_its_code() {
        for row in &TABLE {
            assert_eq!(find(row.code), Some(row));
        }
    }

    #[test]
    fn an_unknown_code_is_kept_and_becomes_502() {
        for code in [i64::MIN, -2, 1, 99_999_999, i64::MAX] {
            assert_eq!(find(code), None);
            let row = meaning(code);
            assert_eq!(
                (row.code, row.status, row.class, row.retryable),
                (code, 502, Class::Unknown, NO)
            );
        }
    }

    #[test]
    fn a_number_means_what_its_api_says_and_elsewhere_what_the_table_says() {
        let told = |path, code| {
            let meaning = meaning_at(path, code);
            assert_eq!(meaning.code, code);
            (meaning.status, meaning.class)
        };
        let phone = "/wxa/business/getuserphonenumber";
        for (path, code, status, class) in [
            (phone, 40013, 401, Class::UserInput),
            ("/wxa/checksession", 40013, 500, Class::AuthConfig),
            ("/wxa/getpluginopenpid", 1003, 429, Class::RateQuota),
            ("/wxaapi/broadcast/goods/add", 1003, 400, Class::UserInput),
            ("/wxaapi/broadcast/goods/add", 1007, 502, Class::Unknown),
            ("/wxaapi/comment/reply/add", -10008, 503, Class::Transient),
            ("/wxaapi/comment/reply/add", 10000, 400, Class::UserInput),
            (
                "/wxaapi/comment/confirmcompromise",
                10000,
                409,
                Class::UserInput,
            ),
            ("/wxaapi/comments", -10008, 502, Class::Unknown),
            ("/wxa/msg_sec_check", 0, 200, Class::Ok),
        ] {
            assert_eq!(told(path, code), (status, class), "{code} at {path}");
        }
    }

    #[test]
    fn without_an_access_token_40001_is_a_wrong_secret_and_not_a_stale_token() {
        for path in [
            "/sns/jscode2session",
            "/cgi-bin/stable_token",
            "/cgi-bin/clear_quota/v2",
        ] {
            let meaning = meaning_at(path, 40001);
            assert_eq!(
                (
                    meaning.code,
                    meaning.status,
                    meaning.class,
                    meaning.retryable
                ),
                (40001, 500, Class::AuthConfig, NO)
            );
            assert!(
                advice_at(path, 40001)
                    .unwrap()
                    .0
                    .contains("[app] appid and secret")
            );
            assert_eq!(outlook_at(path, 40001), Outlook::Unclear);
        }
        assert_eq!(meaning_at("/wxa/checksession", 40001).class, Class::Token);
        assert!(
            advice_at("/wxa/checksession", 40001)
                .unwrap()
                .0
                .contains("half a minute")
        );
    }

    #[test]
    fn a_success_told_by_a_number_is_one_where_it_is_documented_and_a_refusal_elsewhere() {
        for (path, code, status) in [
            ("/xpay/currency_pay", 268_490_004, 200),
            ("/xpay/new", 268_490_004, 200),
            ("/wxa/sec/order/upload_shipping_info", 10_060_023, 200),
            ("/wxa/servicemarketretrieve", 9_301_015, 202),
        ] {
            assert_eq!(meaning_at(path, code).status, status);
            assert_eq!(
                meaning_at(path, code),
                meaning(code),
                "the table says the same"
            );
            for elsewhere in ["/sns/jscode2session", "/wxa/checksession", "/xpayment", ""] {
                assert_eq!(meaning_at(elsewhere, code), unknown(code));
            }
        }
    }

    #[test]
    fn a_path_without_an_api_is_told_from_a_page_that_is_not_published() {
        assert_eq!(meaning_at("/wxa/gtwxacode", 40066).status, 404);
        assert_eq!(meaning_at("/wxa/getwxacode", 40066), meaning(40066));
    }

    #[test]
    fn each_sense_is_another_than_the_tables_or_a_success() {
        for sense in &SENSES {
            let Meaning { code, status, .. } = sense.meaning;
            let is_success = status < 400;
            assert_eq!(find(code) == Some(&sense.meaning), is_success, "{code}");
            if let Place::Api(path) = sense.at {
                assert_eq!(meaning_at(path, code), sense.meaning);
            }
        }
    }

    #[test]
    fn an_errcode_tells_what_becomes_of_the_calls_after_it() {
        let api = "/wxa/msg_sec_check";
        for (code, outlook) in [
            (0, Outlook::Sound),
            (-1, Outlook::Trouble),
            (-501_002, Outlook::Trouble),
            (45009, Outlook::Quota(Period::Day)),
            (45011, Outlook::Quota(Period::Minute)),
            (44990, Outlook::Quota(Period::Second)),
            (48001, Outlook::Unauthorised),
            (40164, Outlook::Address),
            (89507, Outlook::Address),
            (42001, Outlook::Unclear),
            (40013, Outlook::Unclear),
            (40003, Outlook::Sound),
            (43101, Outlook::Sound),
            (87014, Outlook::Sound),
            (7_654_321, Outlook::Sound),
            // Of one user, or of one message.
            (45047, Outlook::Sound),
            (43108, Outlook::Sound),
            // Of the data that were asked for.
            (90016, Outlook::Sound),
            (61503, Outlook::Sound),
        ] {
            assert_eq!(outlook_at(api, code), outlook, "{code}");
        }
        // Of one user, or of one way to ask.
        assert_eq!(outlook_at("/sns/jscode2session", 45011), Outlook::Sound);
        assert_eq!(outlook_at("/cgi-bin/stable_token", 45009), Outlook::Sound);
        assert_eq!(outlook_at("/wxa/getpluginopenpid", 1000), Outlook::Trouble);
        assert_eq!(
            outlook_at("/xpay/currency_pay", 268_490_004),
            Outlook::Sound
        );
    }

    /// A moment in Beijing, after the beginning of a day.
    fn beijing(hours: u64, minutes: u64, seconds: u64) -> Timestamp {
        let midnight = 20_000 * 86_400 - 8 * 3_600;
        Timestamp::from_millis((midnight + hours * 3_600 + minutes * 60 + seconds) * 1_000)
    }

    #[test]
    fn a_daily_quota_is_there_again_at_midnight_in_beijing() {
        let after = |now: Timestamp| Period::Day.resumes(now).since(beijing(0, 0, 0)).as_secs();
        assert_eq!(after(beijing(0, 5, 0)), 86_401);
        assert_eq!(after(beijing(12, 0, 0)), 86_401);
        assert_eq!(after(beijing(23, 59, 59)), 86_401);
    }

    #[test]
    fn a_minutes_quota_is_there_again_when_the_next_minute_begins() {
        let after = |now: Timestamp| {
            Period::Minute
                .resumes(now)
                .since(beijing(7, 7, 0))
                .as_secs()
        };
        assert_eq!(after(beijing(7, 7, 5)), 61);
        assert_eq!(after(beijing(7, 7, 59)), 61);
    }

    #[test]
    fn a_refusal_just_after_midnight_or_the_minute_is_of_the_period_before() {
        assert_eq!(Period::Day.resumes(beijing(0, 0, 2)), beijing(0, 5, 0));
        assert_eq!(Period::Minute.resumes(beijing(7, 7, 1)), beijing(7, 7, 5));
        assert_eq!(Period::Second.resumes(beijing(7, 7, 1)), beijing(7, 7, 2));
    }

    #[test]
    fn a_quota_is_always_there_again_later_than_now_and_within_a_period() {
        for millis in (0..200_000_000).step_by(700_001) {
            let now = Timestamp::from_millis(millis);
            for (period, most) in [
                (Period::Second, 1),
                (Period::Minute, 61),
                (Period::Day, 86_401),
            ] {
                let wait = period.resumes(now).since(now);
                assert!(
                    !wait.is_zero() && wait <= Duration::from_secs(most),
                    "{wait:?}"
                );
            }
        }
    }

    #[test]
    fn advice_is_given_in_both_languages_or_in_none() {
        for code in TABLE.iter().map(|row| row.code) {
            assert_eq!(advice(code).is_some(), advice_zh(code).is_some());
        }
        assert!(advice(40029).unwrap().contains("wx.login"));
        assert_eq!(advice(40169), None);
    }

    #[test]
    fn each_code_that_the_readmes_advise_on_has_advice_here_too() {
        let listed = |readme: &str, heading: &str| -> Vec<i64> {
            let (_, after) = readme.split_once(heading).expect("the heading is there");
            let section = after.split("\n## ").next().unwrap_or_default();
            let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
            let first = rows.filter_map(|row| row.split(" |").next());
            first
                .flat_map(|codes| codes.split([',', '、']))
                .filter_map(|code| code.trim().parse().ok())
                .collect()
        };
        let codes = listed(
            include_str!("../../README.md"),
            "\n## Errcodes, and what to do\n",
        );
        let zh = listed(include_str!("../../README.zh-CN.md"), "\n## 按错误码查\n");
        assert!(codes.len() > 20, "{codes:?}");
        assert_eq!(codes, zh);
        for code in codes {
            let (en, zh) = both_languages(code).unwrap_or_else(|| panic!("{code}"));
            assert!(en.is_ascii() && !zh.is_ascii(), "{code}: {en} {zh}");
            assert!(advice_at("/cgi-bin/media/get", code).is_some(), "{code}");
        }
    }
}
