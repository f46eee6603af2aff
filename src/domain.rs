//! The domain's values. Parse, don't validate: a value that exists is valid, so no code downstream checks it again.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// A Mini Program's AppID: `wx` and 16 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppId(String);

/// A user's openid, unique per user and Mini Program: 6 to 64 characters of `[A-Za-z0-9_-]`.
///
/// WeChat's are 28 characters. The charset is checked because the value becomes a header that apps trust: a CR or LF
/// from a hostile or broken peer must never get that far.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OpenId(UserId);

/// A user's unionid across the apps of one Open Platform account; the same shape as an [`OpenId`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnionId(UserId);

/// The text of a user's id, where it stands: every verified request makes one or two, and drops them.
#[derive(Clone, PartialEq, Eq, Hash)]
struct UserId {
    /// [`FILLER`] behind its end.
    text: [u8; MAX_USER_ID],
    len: u8,
}

/// The longest code that is believed; WeChat's have 32 characters.
const MAX_CODE: usize = 512;
const MAX_ACCESS_TOKEN: usize = 4096;
/// The longest media_id that is believed; WeChat's have 64 characters.
const MAX_MEDIA_ID: usize = 256;
const MIN_USER_ID: usize = 6;
const MAX_USER_ID: usize = 64;
/// What may stand in a user id.
const FILLER: u8 = b'0';

/// Who a request comes from, as the app is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's openid.
    pub openid: OpenId,
    /// The user's unionid, if the Mini Program is bound to an Open Platform account.
    pub unionid: Option<UnionId>,
}

/// A `wx.login` code: 1 to 512 visible ASCII characters. Single use, lives five minutes; a secret until it is used.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginCode(Zeroizing<String>);

/// A code of the phone number button, in shape and life like a [`LoginCode`], and garbage where that is wanted.
#[derive(Clone, PartialEq, Eq)]
pub struct PhoneCode(Zeroizing<String>);

/// What a client is given in place of a user's data, to be exchanged for them: 1 to 512 visible ASCII characters. Whoever
/// has it has the data, for five minutes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CloudId(String);

/// What WeChat calls a file that was uploaded: 1 to 256 characters of `[A-Za-z0-9_-]`. Whoever has it can have the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MediaId(String);

/// An access_token, the Mini Program's own key to WeChat's APIs: 1 to 4096 visible ASCII characters. WeChat asks for
/// room for 512 at least, and says no more of the shape.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(Zeroizing<String>);

/// A user's session_key: 16 bytes, in WeChat's answers as base64. Never leaves the sidecar in clear.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey(Zeroizing<[u8; 16]>);

/// Why a text is not the value it was meant to be, in English and in Chinese; neither has a part of the text in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str, pub &'static str);

impl AppId {
    /// Parses an AppID; it is case-sensitive, as WeChat's check is.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let digits = text
            .strip_prefix("wx")
            .ok_or(Malformed("an appid begins with `wx`", "appid 以 `wx` 开头"))?;
        if digits.len() != 16
            || !digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(Malformed(
                "an appid is `wx` followed by 16 lower-case hexadecimal digits",
                "appid 是 `wx` 加 16 位小写十六进制数字",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl OpenId {
    /// Parses an openid.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        Self::from_bytes(text.as_bytes())
    }

    /// Parses an openid from the bytes of its text.
    pub fn from_bytes(text: &[u8]) -> Result<Self, Malformed> {
        UserId::parse(text).map(Self).ok_or(Malformed(
            "an openid is 6 to 64 characters of A-Z, a-z, 0-9, `_` and `-`",
            "openid 须为 6 至 64 个字符，只含 A-Z、a-z、0-9、`_` 和 `-`",
        ))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The text form, for the wire.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl UnionId {
    /// Parses a unionid.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        Self::from_bytes(text.as_bytes())
    }

    /// Parses a unionid from the bytes of its text.
    pub fn from_bytes(text: &[u8]) -> Result<Self, Malformed> {
        UserId::parse(text).map(Self).ok_or(Malformed(
            "a unionid is 6 to 64 characters of A-Z, a-z, 0-9, `_` and `-`",
            "unionid 须为 6 至 64 个字符，只含 A-Z、a-z、0-9、`_` 和 `-`",
        ))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The text form, for the wire.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl LoginCode {
    /// Parses a login code. WeChat documents no shape; what is refused here could only be an attack on its URL or log.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if !is_visible(text, MAX_CODE) {
            return Err(Malformed(
                "a login code is 1 to 512 visible ASCII characters",
                "登录 code 须为 1 至 512 个可见的 ASCII 字符",
            ));
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The code itself, for the call to WeChat.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PhoneCode {
    /// Parses a phone code, as [`LoginCode::parse`] does.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if !is_visible(text, MAX_CODE) {
            return Err(Malformed(
                "a phone code is 1 to 512 visible ASCII characters",
                "手机号 code 须为 1 至 512 个可见的 ASCII 字符",
            ));
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The code itself, for the call to WeChat.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl CloudId {
    /// Parses a cloudID.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if !is_visible(text, MAX_CODE) {
            return Err(Malformed(
                "a cloudID is 1 to 512 visible ASCII characters",
                "cloudID 须为 1 至 512 个可见的 ASCII 字符",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The cloudID itself, for the call to WeChat and for whoever sent it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl MediaId {
    /// Parses a media_id.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !(1..=MAX_MEDIA_ID).contains(&text.len()) || !text.bytes().all(plain) {
            return Err(Malformed(
                "a media_id is 1 to 256 letters, digits, `_` and `-`",
                "media_id 须为 1 至 256 个字符，只含字母、数字、`_` 和 `-`",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The media_id as WeChat gave it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AccessToken {
    /// Parses an access_token.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if !is_visible(text, MAX_ACCESS_TOKEN) {
            return Err(Malformed(
                "an access_token is 1 to 4096 visible ASCII characters",
                "access_token 须为 1 至 4096 个可见的 ASCII 字符",
            ));
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The token itself, for a call to WeChat.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl SessionKey {
    /// From the raw 16 bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// From the base64 text of WeChat's answer.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let malformed = Malformed(
            "a session_key is the base64 of 16 bytes",
            "session_key 须为 16 字节的 base64",
        );
        let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| malformed)?);
        let bytes: [u8; 16] = bytes.as_slice().try_into().map_err(|_| malformed)?;
        Ok(Self::from_bytes(bytes))
    }

    /// The raw bytes.
    pub fn expose(&self) -> &[u8; 16] {
        &self.0
    }

    /// The base64 text, which is what WeChat's signatures are keyed with.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.expose()))
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LoginCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginCode(***)")
    }
}

impl fmt::Debug for PhoneCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PhoneCode(***)")
    }
}

impl fmt::Debug for CloudId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CloudId(***)")
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(***)")
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(***)")
    }
}

impl UserId {
    fn parse(text: &[u8]) -> Option<Self> {
        if !(MIN_USER_ID..=MAX_USER_ID).contains(&text.len()) {
            return None;
        }
        let mut id = Self {
            text: [FILLER; MAX_USER_ID],
            len: u8::try_from(text.len()).ok()?,
        };
        id.text[..text.len()].copy_from_slice(text);
        // Every token that is verified passes through here: over the whole array, so that it takes a few vector
        // instructions.
        let foreign = id.text.iter().fold(0, |sum, &b| sum | foreign(b));
        (foreign == 0).then_some(id)
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("a user id is ASCII")
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

fn is_visible(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Zero if a user id may have this byte.
fn foreign(byte: u8) -> u8 {
    let letter = (byte | 0x20).wrapping_sub(b'a').saturating_sub(25);
    let digit = byte.wrapping_sub(b'0').saturating_sub(9);
    let sign = (byte ^ b'-').min(byte ^ b'_');
    letter.min(digit).min(sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appids_have_one_shape() {
        assert!(AppId::parse("wx0123456789abcdef").is_ok());
        for bad in [
            "",
            "wx",
            "wx0123456789ABCDEF",
            "gh0123456789abcdef",
            "wx0123456789abcde",
            "wx0123456789abcdef0",
        ] {
            assert!(AppId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_openid_that_could_split_a_header_is_refused() {
        assert!(OpenId::parse("o6zAJs1Zf_WpsZ3G8vVC-xxxxxxx").is_ok());
        for bad in [
            "oA\r\nX-Admin: 1",
            "openid with space",
            "short",
            "ünïcödé",
            "a,b,c,d",
            "openid\0",
            "openid\0with-more",
            "",
        ] {
            assert!(OpenId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(OpenId::parse(&"a".repeat(64)).is_ok());
        assert!(OpenId::parse(&"a".repeat(65)).is_err());
        for byte in 0..=u8::MAX {
            let text = [b'a', b'b', b'c', b'd', b'e', b'f', byte];
            let allowed = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            assert_eq!(OpenId::from_bytes(&text).is_ok(), allowed, "{byte}");
        }
    }

    #[test]
    fn a_login_code_cannot_carry_a_newline_or_run_long() {
        assert!(
            LoginCode::parse("0a1b2c&appid=x").is_ok(),
            "harmless: it is percent-encoded on its way out"
        );
        for bad in ["", "a b", "a\nb", "é", &"x".repeat(513)] {
            assert!(LoginCode::parse(bad).is_err());
        }
    }

    #[test]
    fn phone_codes_cloud_ids_and_access_tokens_are_visible_ascii_of_some_length() {
        let long = "x".repeat(512);
        assert!(PhoneCode::parse(&long).is_ok() && CloudId::parse(&long).is_ok());
        assert!(AccessToken::parse(&"x".repeat(4096)).is_ok());
        for bad in ["", "a b", "a\nb", "é", &"x".repeat(4097)] {
            assert!(PhoneCode::parse(bad).is_err() && CloudId::parse(bad).is_err());
            assert!(AccessToken::parse(bad).is_err());
        }
    }

    #[test]
    fn none_of_what_opens_something_is_printed() {
        let printed = format!(
            "{:?} {:?} {:?}",
            PhoneCode::parse("hunter2").unwrap(),
            CloudId::parse("hunter2").unwrap(),
            AccessToken::parse("hunter2").unwrap()
        );
        assert!(!printed.contains("hunter2"), "{printed}");
    }

    #[test]
    fn a_session_key_is_written_as_wechat_writes_it() {
        let text = "HyVFkGl5F5OQWJZZaNzBBg==";
        assert_eq!(SessionKey::parse(text).unwrap().to_text().as_str(), text);
    }

    #[test]
    fn a_session_key_is_sixteen_bytes() {
        assert!(SessionKey::parse("HyVFkGl5F5OQWJZZaNzBBg==").is_ok());
        for bad in [
            "",
            "HyVFkGl5F5OQWJZZaNzBBg",
            "HyVFkGl5F5OQWJZZaNzBBgAA",
            "!!!",
        ] {
            assert!(SessionKey::parse(bad).is_err());
        }
    }
}
