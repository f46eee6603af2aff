//! WeChat's part, played by ourselves: would it be understood with this configuration?
//!
//! What is made here is what WeChat makes, by the same primitives, and it is taken by the reception that takes WeChat's. So
//! a token or a key that does not work is found before WeChat finds it.

use super::reception::Reception;
use crate::clock::Timestamp;
use crate::config::{Push, PushMode};
use crate::crypto::{self, hex};
use crate::domain::AppId;
use crate::wechat::push::sign;

/// A handshake as WeChat does it (URL 验证).
pub(crate) struct Handshake {
    /// The query, signed with the newest token.
    pub(crate) query: String,
    /// What the answer must be.
    pub(crate) echostr: String,
}

impl Handshake {
    /// A new one, at this moment.
    pub(crate) fn new(push: &Push, now: Timestamp) -> Self {
        let (timestamp, nonce) = (now.as_secs().to_string(), nonce());
        let echostr = nonce_of(16);
        let token = push.tokens.first().map_or("", |token| token.expose());
        let signature = sign(token, &[&timestamp, &nonce]);
        let query =
            format!("signature={signature}&timestamp={timestamp}&nonce={nonce}&echostr={echostr}");
        Self { query, echostr }
    }

    /// Whether this configuration answers it as WeChat wants; if not, why.
    pub(crate) fn is_answered(&self, appid: &AppId, push: &Push) -> Result<(), String> {
        let answer = Reception::new(appid, push).handshake(&self.query);
        match answer {
            Ok(echo) if echo == self.echostr => Ok(()),
            Ok(_) => Err("something else than `echostr` would be echoed".to_owned()),
            Err(refused) => Err(refused.detail),
        }
    }
}

/// Encrypts a message with each key in turn and has it received; how many keys there are. In plaintext mode there is none.
pub(crate) fn receive_with_each_key(
    appid: &AppId,
    push: &Push,
    now: Timestamp,
) -> Result<usize, String> {
    if push.mode == PushMode::Plaintext {
        return Ok(0);
    }
    let reception = Reception::new(appid, push);
    let token = push.tokens.first().map_or("", |token| token.expose());
    for (at, key) in push.aes_keys.iter().enumerate() {
        let seconds = now.as_secs();
        let message = format!(
            "<xml><ToUserName>gh_0</ToUserName><FromUserName>doctor</FromUserName>\
             <CreateTime>{seconds}</CreateTime><MsgType>event</MsgType><Event>doctor</Event></xml>"
        );
        let encrypted = key.seal(crypto::random(), message.as_bytes(), appid);
        let (timestamp, nonce) = (seconds.to_string(), nonce());
        let signature = sign(token, &[&timestamp, &nonce, &encrypted]);
        let query = format!(
            "timestamp={timestamp}&nonce={nonce}&encrypt_type=aes&msg_signature={signature}"
        );
        let body = match push.format {
            Some(crate::wechat::push::Format::Json) => {
                format!("{{\"ToUserName\":\"gh_0\",\"Encrypt\":\"{encrypted}\"}}")
            }
            _ => format!("<xml><ToUserName>gh_0</ToUserName><Encrypt>{encrypted}</Encrypt></xml>"),
        };
        reception
            .receive(&query, body.as_bytes(), now)
            .map_err(|refused| {
                format!(
                    "a message encrypted with key {}: {}",
                    at + 1,
                    refused.detail
                )
            })?;
    }
    Ok(push.aes_keys.len())
}

fn nonce() -> String {
    nonce_of(8)
}

fn nonce_of(bytes: usize) -> String {
    let random: [u8; 16] = crypto::random();
    hex(&random[..bytes.min(random.len())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn config(push: &str) -> Config {
        let least = "[app]\nappid = \"wx0123456789abcdef\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
                     [inbound]\nupstream = \"http://127.0.0.1:1\"\n";
        Config::from_toml(&format!("{least}[push]\ntoken = \"doctors0token\"\n{push}")).unwrap()
    }

    fn key(letter: char) -> String {
        letter.to_string().repeat(42) + "A"
    }

    #[test]
    fn a_configuration_understands_what_is_made_for_it_in_each_mode() {
        let keys = format!("aes_key = [\"{}\", \"{}\"]\n", key('a'), key('b'));
        for (push, expected) in [
            (keys.clone(), 2),
            (
                format!("{keys}mode = \"compatible\"\nformat = \"json\"\n"),
                2,
            ),
            ("mode = \"plaintext\"\n".to_owned(), 0),
        ] {
            let config = config(&push);
            let settings = config.push.as_ref().unwrap();
            let handshake = Handshake::new(settings, NOW);
            assert_eq!(handshake.is_answered(&config.app.appid, settings), Ok(()));
            let read = receive_with_each_key(&config.app.appid, settings, NOW);
            assert_eq!(read, Ok(expected), "{push}");
        }
    }

    #[test]
    fn a_handshake_for_another_token_is_not_answered() {
        let keys = format!("aes_key = \"{}\"\n", key('a'));
        let (ours, mut theirs) = (config(&keys), config(&keys));
        let push = theirs.push.as_mut().unwrap();
        push.tokens = vec![crate::secret::Secret::new("another0token")];
        let handshake = Handshake::new(push, NOW);
        let answered = handshake.is_answered(&ours.app.appid, ours.push.as_ref().unwrap());
        assert!(answered.unwrap_err().contains("signature"));
    }
}
