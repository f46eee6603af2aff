//! The errcode table: what each of WeChat's numbers means, and what to do about it.

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
    let _ = code;
    None
}
