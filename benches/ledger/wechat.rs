//! WeChat's hand: documents in mode "secure", signed, encrypted and ready to be written to a connection.
//!
//! By the sidecar's own `wechat::push`, because tests elsewhere hold that against others' code, and it is fast.

use std::time::{SystemTime, UNIX_EPOCH};

use wx_sidecar::domain::AppId;
use wx_sidecar::wechat::push::{EncodingAesKey, Format, sign};

pub(crate) const APPID: &str = "wx0123456789abcdef";
pub(crate) const SECRET: &str = "1edbe41edbe41edbe41edbe41edbe400";
pub(crate) const TOKEN: &str = "LedgerPushToken0000000000000000";
pub(crate) const AES_KEY: &str = "LedgerAesKey0123456789abcdefghijklmnopqrstu";

/// The Mini Program as its console has it.
pub(crate) struct Account {
    appid: AppId,
    key: EncodingAesKey,
}

impl Account {
    pub(crate) fn new() -> Self {
        Self {
            appid: AppId::parse(APPID).expect("it has an AppID's shape"),
            key: EncodingAesKey::parse(AES_KEY).expect("it is 43 letters and digits"),
        }
    }

    /// The POST that brings a document, head and body, with a signature of now. `random` must be new each time.
    pub(crate) fn request(
        &self,
        format: Format,
        document: &str,
        openid: &str,
        random: u64,
    ) -> Vec<u8> {
        let timestamp = now().to_string();
        let nonce = random.to_string();
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&random.to_be_bytes());
        let encrypted = self.key.seal(salt, document.as_bytes(), &self.appid);
        let signature = sign(TOKEN, &[&timestamp, &nonce]);
        let msg_signature = sign(TOKEN, &[&timestamp, &nonce, &encrypted]);
        let body = match format {
            Format::Json => format!("{{\"ToUserName\":\"gh_ledger\",\"Encrypt\":\"{encrypted}\"}}"),
            Format::Xml => format!(
                "<xml><ToUserName><![CDATA[gh_ledger]]></ToUserName><Encrypt><![CDATA[{encrypted}]]></Encrypt></xml>"
            ),
        };
        format!(
            "POST /wx/push?signature={signature}&timestamp={timestamp}&nonce={nonce}&openid={openid}&encrypt_type=aes\
             &msg_signature={msg_signature} HTTP/1.1\r\nHost: mini.example\r\nUser-Agent: Mozilla/4.0\r\n\
             Content-Type: {}\r\nContent-Length: {}\r\n\r\n{body}",
            format.content_type(),
            body.len()
        )
        .into_bytes()
    }
}

/// Unix seconds.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// A user's openid.
pub(crate) fn openid(user: usize) -> String {
    format!("oLedger-user-{user:015}")
}
