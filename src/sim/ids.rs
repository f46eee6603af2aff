//! Every made-up value: openids, codes, tokens, session keys, rids.
//!
//! They come from SHA-256 of a seed and a serial number and not from randomness, so that a failing test fails again
//! with the same values. Nothing here protects anything: it is a simulator.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::clock::Timestamp;
use crate::crypto::{hmac_sha256, sha256};
use crate::domain::{AppId, OpenId, SessionKey, UnionId};

/// Length of an access_token; WeChat's are of about this length and may grow to 512.
const TOKEN_LEN: usize = 136;
const ALPHANUMERIC: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The user's openid in an app: 28 characters that begin with `o`, the same for ever.
pub(super) fn openid(appid: &AppId, user: &str) -> OpenId {
    let digest = sha256(format!("openid/{appid}/{user}").as_bytes());
    OpenId::parse(&o_and_27(digest)).expect("28 characters of base64url are an openid")
}

/// The user's unionid, the same in every app that is bound to the one Open Platform account there is.
pub(super) fn unionid(user: &str) -> UnionId {
    let digest = sha256(format!("unionid/{user}").as_bytes());
    UnionId::parse(&o_and_27(digest)).expect("28 characters of base64url are a unionid")
}

fn o_and_27(digest: [u8; 32]) -> String {
    let mut id = String::from("o");
    id.push_str(&URL_SAFE_NO_PAD.encode(digest));
    id.truncate(28);
    id
}

/// A session_key as WeChat writes it.
pub(super) fn base64_of(key: &SessionKey) -> String {
    STANDARD.encode(key.expose())
}

/// The signature of a user's calls: HMAC-SHA256 with the key as WeChat writes it.
pub(super) fn session_signature(key: &SessionKey, body: &[u8]) -> String {
    hex(&hmac_sha256(base64_of(key).as_bytes(), &[body]))
}

/// The user's phone number, while none has been set: 11 digits that begin with 1.
pub(super) fn phone_number(user: &str) -> String {
    let digest = sha256(format!("phone/{user}").as_bytes());
    let digits = digest.iter().take(9).map(|b| char::from(b'0' + b % 10));
    ['1', '3'].into_iter().chain(digits).collect()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Values that are new each time.
pub(super) struct Ids {
    seed: u64,
    serial: u64,
}

impl Ids {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, serial: 0 }
    }

    /// A code as `wx.login` gives it: 32 letters and digits, the first of them `0`.
    pub(super) fn code(&mut self) -> String {
        let mut code = String::from("0");
        code.extend(
            self.digest("code")
                .iter()
                .take(31)
                .map(|byte| char::from(ALPHANUMERIC[usize::from(*byte) % ALPHANUMERIC.len()])),
        );
        code
    }

    pub(super) fn session_key(&mut self) -> SessionKey {
        let mut key = [0; 16];
        key.copy_from_slice(&self.digest("session_key")[..16]);
        SessionKey::from_bytes(key)
    }

    pub(super) fn access_token(&mut self) -> String {
        let mut token = String::from("92_");
        while token.len() < TOKEN_LEN {
            token.push_str(&URL_SAFE_NO_PAD.encode(self.digest("access_token")));
        }
        token.truncate(TOKEN_LEN);
        token
    }

    /// The iv of encrypted data.
    pub(super) fn iv(&mut self) -> [u8; 16] {
        let mut iv = [0; 16];
        iv.copy_from_slice(&self.digest("iv")[..16]);
        iv
    }

    pub(super) fn cloud_id(&mut self) -> String {
        format!("38_{}", URL_SAFE_NO_PAD.encode(self.digest("cloud_id")))
    }

    /// A key of the encrypted channel.
    pub(super) fn encrypt_key(&mut self) -> [u8; 16] {
        let mut key = [0; 16];
        key.copy_from_slice(&self.digest("encrypt_key")[..16]);
        key
    }

    pub(super) fn media_id(&mut self) -> String {
        let digest = URL_SAFE_NO_PAD.encode(self.digest("media_id"));
        format!(
            "{digest}{}",
            URL_SAFE_NO_PAD.encode(self.digest("media_id"))
        )
    }

    /// The number of a sent message.
    pub(super) fn message_id(&mut self) -> u64 {
        let mut number = [0; 8];
        number.copy_from_slice(&self.digest("message_id")[..8]);
        // 19 digits, as WeChat's have.
        1_000_000_000_000_000_000 + u64::from_be_bytes(number) % 3_000_000_000_000_000_000
    }

    /// A request id: three groups of hexadecimal digits, the first of them the Unix time.
    pub(super) fn rid(&mut self, now: Timestamp) -> String {
        let d = self.digest("rid");
        format!(
            "{:08x}-{:02x}{:02x}{:02x}{:02x}-{:02x}{:02x}{:02x}{:02x}",
            now.as_secs(),
            d[0],
            d[1],
            d[2],
            d[3],
            d[4],
            d[5],
            d[6],
            d[7]
        )
    }

    fn digest(&mut self, purpose: &str) -> [u8; 32] {
        self.serial += 1;
        sha256(format!("{purpose}/{}/{}", self.seed, self.serial).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_shapes_of_wechats() {
        let mut ids = Ids::new(1);
        let appid = AppId::parse("wx0123456789abcdef").unwrap();
        let openid = openid(&appid, "alice");
        assert!(openid.as_str().len() == 28 && openid.as_str().starts_with('o'));
        let code = ids.code();
        assert!(code.len() == 32 && code.starts_with('0'));
        let token = ids.access_token();
        assert_eq!(token.len(), TOKEN_LEN);
        assert!(
            token
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        );
        let rid = ids.rid(Timestamp::from_millis(0x6176_82e0 * 1000));
        assert!(rid.starts_with("617682e0-") && rid.len() == 26, "{rid}");
    }

    #[test]
    fn the_same_seed_gives_the_same_values_and_never_one_twice() {
        let (mut one, mut two, mut other) = (Ids::new(1), Ids::new(1), Ids::new(2));
        let first = one.code();
        assert_eq!(first, two.code());
        assert_ne!(first, other.code());
        assert_ne!(first, one.code());
    }
}
