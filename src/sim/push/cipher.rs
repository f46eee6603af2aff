//! What protects a push: SHA-1 over a shared token, and AES-256-CBC with padding to 32 bytes.
//!
//! Written from WeChat's documentation (消息推送, 消息加解密) and by another library than the sidecar's own decrypter, so
//! that a misreading in one of them is not a misreading in both. Nothing here has to be safe against timing: it plays
//! WeChat, whose servers nobody here can measure.

use aws_lc_rs::cipher::{
    AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use crate::crypto::sha1;
use crate::domain::{AppId, Malformed};
use crate::sim::ids::hex;

/// 43 characters carry 258 bits, two more than the key has, and those may be anything.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Plaintexts are padded to a multiple of this, and not of the cipher's own 16.
const PADDED_TO: usize = 32;
/// Random bytes in front of the length of the message.
const RANDOM: usize = 16;
const LENGTH: usize = 4;

/// An EncodingAESKey, decoded.
pub(super) struct AesKey([u8; 32]);

/// What was in an envelope.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) message: Vec<u8>,
    /// Whatever follows the message; an appid, if all is well.
    pub(super) receiver: Vec<u8>,
}

impl AesKey {
    /// Decodes the 43 characters that stand in WeChat's console.
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        const SHAPE: Malformed = Malformed(
            "an EncodingAESKey is 43 letters and digits",
            "EncodingAESKey 须为 43 位字母和数字",
        );
        if text.len() != 43 || !text.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(SHAPE);
        }
        let bytes = LENIENT.decode(text).map_err(|_| SHAPE)?;
        bytes.try_into().map(Self).map_err(|_| SHAPE)
    }

    /// The base64 of the message, encrypted for the receiver.
    pub(super) fn encrypt(&self, random: [u8; RANDOM], message: &[u8], receiver: &AppId) -> String {
        let length = u32::try_from(message.len()).expect("no message has 4 GiB");
        let mut text = [
            &random[..],
            &length.to_be_bytes(),
            message,
            receiver.as_str().as_bytes(),
        ]
        .concat();
        // A whole block of padding if none were needed.
        let pad = PADDED_TO - text.len() % PADDED_TO;
        text.resize(text.len() + pad, pad as u8);
        EncryptingKey::cbc(self.unbound())
            .and_then(|key| key.less_safe_encrypt(&mut text, EncryptionContext::Iv128(self.iv())))
            .expect("key and iv have their lengths, and the text is whole blocks");
        STANDARD.encode(text)
    }

    /// What is in an envelope; the reason in words if it is none of this key's.
    pub(super) fn decrypt(&self, encrypted: &str) -> Result<Opened, &'static str> {
        let mut text = STANDARD
            .decode(encrypted)
            .map_err(|_| "`Encrypt` is not base64")?;
        if text.is_empty() || text.len() % PADDED_TO != 0 {
            return Err("what `Encrypt` holds is not a multiple of 32 bytes long");
        }
        DecryptingKey::cbc(self.unbound())
            .and_then(|key| {
                key.decrypt(&mut text, DecryptionContext::Iv128(self.iv()))
                    .map(drop)
            })
            .expect("key and iv have their lengths, and the text is whole blocks");
        let pad = usize::from(*text.last().expect("it is not empty"));
        let end = text.len().checked_sub(pad).filter(|_| pad != 0);
        let end =
            end.filter(|end| pad <= PADDED_TO && text[*end..].iter().all(|b| *b as usize == pad));
        text.truncate(end.ok_or("its padding is not PKCS#7 to 32 bytes: the AES key differs")?);

        let rest = text.get(RANDOM..).ok_or("it is shorter than 20 bytes")?;
        let (length, rest) = rest
            .split_first_chunk::<LENGTH>()
            .ok_or("it is shorter than 20 bytes")?;
        let length = u32::from_be_bytes(*length) as usize;
        let (message, receiver) = rest
            .split_at_checked(length)
            .ok_or("the length in it is larger than what follows")?;
        Ok(Opened {
            message: message.to_vec(),
            receiver: receiver.to_vec(),
        })
    }

    fn unbound(&self) -> UnboundCipherKey {
        UnboundCipherKey::new(&AES_256, &self.0).expect("the key has 32 bytes")
    }

    fn iv(&self) -> FixedLength<16> {
        let (iv, _) = self.0.split_first_chunk().expect("the key has 32 bytes");
        FixedLength::from(iv)
    }
}

/// The signature over the token and whatever else is signed, in any order: `signature`, `msg_signature`, `MsgSignature`.
pub(super) fn sign<const N: usize>(mut parts: [&str; N]) -> String {
    parts.sort_unstable();
    hex(&sha1(&parts.map(str::as_bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WeChat's own example: the key, the app, a push and a reply (消息推送, 安全模式).
    const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const APPID: &str = "wxba5fad812f8e6fb9";
    const PUSHED: &str = "+qdx1OKCy+5JPCBFWw70tm0fJGb2Jmeia4FCB7kao+/Q5c/ohsOzQHi8khUOb05JCpj0JB4RvQMkUyus8TPxLKJGQqcvZqzDpVzazhZv6JsXUnnR8XGT740XgXZUXQ7vJVnAG+tE8NUd4yFyjPy7GgiaviNrlCTj+l5kdfMuFUPpRSrfMZuMcp3Fn2Pede2IuQrKEYwKSqFIZoNqJ4M8EajAsjLY2km32IIjdf8YL/P50F7mStwntrA2cPDrM1kb6mOcfBgRtWygb3VIYnSeOBrebufAlr7F9mFUPAJGj04=";
    const REPLIED: &str =
        "ELGduP2YcVatjqIS+eZbp80MNLoAUWvzzyJxgGzxZO/5sAvd070Bs6qrLARC9nVHm48Y4hyRbtzve1L32tmxSQ==";

    fn key(text: &str) -> AesKey {
        AesKey::parse(text).unwrap()
    }

    fn appid(text: &str) -> AppId {
        AppId::parse(text).unwrap()
    }

    #[test]
    fn the_signatures_are_those_of_the_documentation() {
        for (parts, expected) in [
            (
                ["AAAAA", "1714036504", "1514711492"],
                "f464b24fc39322e44b38aa78f5edd27bd1441696",
            ),
            (
                ["AAAAA", "1714037059", "486452656"],
                "899cf89e464efb63f54ddac96b0a0a235f53aa78",
            ),
            (
                ["AAAAA", "1714112445", "415670741"],
                "6c5c811b55cc85e0e1b54100749188c20beb3f5d",
            ),
            (
                ["test", "1410685589", "test"],
                "f21891de399b4e33a1a93c9a7b8a8fffb5a443ff",
            ),
        ] {
            assert_eq!(sign(parts), expected);
        }
        assert_eq!(
            sign(["AAAAA", "1714112445", "415670741", PUSHED]),
            "046e02f8204d34f8ba5fa3b1db94908f3df2e9b3"
        );
        assert_eq!(
            sign(["AAAAA", "1713424427", "415670741", REPLIED]),
            "1b9339964ed2e271e7c7b6ff2b0ef902fc94dea1"
        );
    }

    #[test]
    fn the_documentations_push_and_reply_come_out_to_the_byte() {
        let message = br#"{"ToUserName":"gh_97417a04a28d","FromUserName":"o9AgO5Kd5ggOC-bXrbNODIiE3bGY","CreateTime":1714112445,"MsgType":"event","Event":"debug_demo","debug_str":"hello world"}"#;
        let opened = key(KEY).decrypt(PUSHED).unwrap();
        assert_eq!(opened.message, message);
        assert_eq!(opened.receiver, APPID.as_bytes());
        let again = key(KEY).encrypt(*b"a8eedb185eb2fecf", message, &appid(APPID));
        assert_eq!(again, PUSHED);

        let reply = br#"{"demo_resp":"good luck"}"#;
        let encrypted = key(KEY).encrypt(*b"707722b803182950", reply, &appid(APPID));
        assert_eq!(encrypted, REPLIED);
        assert_eq!(key(KEY).decrypt(REPLIED).unwrap().message, reply);
    }

    /// `WxCryptUtilTest.java` of WxJava; a key whose last character has bits to spare.
    #[test]
    fn a_key_with_bits_to_spare_encrypts_as_others_do() {
        let key = key("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG");
        let encrypted = key.encrypt(
            *b"aaaabbbbccccdddd",
            "我是中文abcd123".as_bytes(),
            &appid("wxb11529c136998cb6"),
        );
        assert_eq!(
            encrypted,
            "jn1L23DB+6ELqJ+6bruv21Y6MD7KeIfP82D6gU39rmkgczbWwt5+3bnyg5K55bgVtVzd832WzZGMhkP72vVOfg=="
        );
    }

    /// `EncryptorTest.php` of EasyWeChat, `test_crypto.py` of wechatpy.
    #[test]
    fn what_others_encrypted_as_xml_is_read() {
        for (with, receiver, begins, encrypted) in [
            (
                "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
                "wxb11529c136998cb6",
                "<xml><URL><![CDATA[http://wechat.laravel.so/server]]></URL>",
                "rTNFcsut4LfGuAFKEUVVpwcaCOTJzOd9twZdIW910jb3k+iicx2uvhttIZ3Qg9Qgty3BEF2xbOrz6boTfb30dMomcgrkTqdFPwnhqbk+kIQ7rZiwny9D7NUrTgA5kpX3KsZvrXzUZyP2x9YOlxbgm572lmxKvM7HAQQhIQ/p6HBmoY30bGXFK0BtIu1pW9TjhOYrLQoU18nWYjWqDA1ynkmOytpv7QRI1P1+0NoxL0q2zO1DgeSvnE8CZGo/o5Ap/WHK5W2RAsinpzN4/LjPnmB6U01I5XCoJoC0GK/yMZycd2Oh8Nq6+wBkC1U85oy0ktOY4nLvsQMLrourmMGdZHuTbqpeJ8Ao/5PRYJ+WBvRUwPfGKBL2+2IKZF49vAJqkcGWSHGE76ZN2erXeuNazf/o9o3lIE3q739o4c8t9QGPe31GT2Go/rOz1BsrASwvauNulCh+++yz+CQzBIuikA==",
            ),
            (
                "kWxPEV2UEDyxWpmPdKC3F4dgPDmOvfKX1HGnEUDS1aR",
                "wx49f0ab532d5d035a",
                "<xml><ToUserName><![CDATA[wx49f0ab532d5d035a]]></ToUserName>\n",
                "RgqEoJj5A4EMYlLvWO1F86ioRjZfaex/gePD0gOXTxpsq5Yj4GNglrBb8I2BAJVODGajiFnXBu7mCPatfjsu6IHCrsTyeDXzF6Bv283dGymzxh6ydJRvZsryDyZbLTE7rhnus50qGPMfp2wASFlzEgMW9z1ef/RD8XzaFYgm7iTdaXpXaG4+BiYyolBug/gYNx410cvkKR2/nPwBiT+P4hIiOAQqGp/TywZBtDh1yCF2KOd0gpiMZ5jSw3e29mTvmUHzkVQiMS6td7vXUaWOMZnYZlF3So2SjHnwh4jYFxdgpkHHqIrH/54SNdshoQgWYEvccTKe7FS709/5t6NMxuGhcUGAPOQipvWTT4dShyqio7mlsl5noTrb++x6En749zCpQVhDpbV6GDnTbcX2e8K9QaNWHp91eBdCRxthuL0=",
            ),
        ] {
            let opened = key(with).decrypt(encrypted).unwrap();
            assert_eq!(opened.receiver, receiver.as_bytes());
            assert!(opened.message.starts_with(begins.as_bytes()));
        }
    }

    #[test]
    fn messages_of_all_lengths_fill_all_32_paddings_and_come_back() {
        let key = key("kWxPEV2UEDyxWpmPdKC3F4dgPDmOvfKX1HGnEUDS1aR");
        for length in 0..96 {
            let message = vec![b'x'; length];
            let encrypted = key.encrypt([7; 16], &message, &appid(APPID));
            let bytes = STANDARD.decode(&encrypted).unwrap().len();
            assert_eq!(bytes % 32, 0);
            assert!((1..=32).contains(&(bytes - length - 38)), "{length}");
            let opened = key.decrypt(&encrypted).unwrap();
            assert_eq!(opened.message, message);
            assert_eq!(opened.receiver, APPID.as_bytes());
        }
    }

    #[test]
    fn what_another_key_made_or_what_is_cut_is_not_opened() {
        let one = key(KEY);
        let other = key("kWxPEV2UEDyxWpmPdKC3F4dgPDmOvfKX1HGnEUDS1aR");
        assert!(other.decrypt(REPLIED).is_err());
        for broken in ["", "ab!", &REPLIED[..84], "AAAA"] {
            assert!(one.decrypt(broken).is_err(), "{broken}");
        }
        for wrong in [
            "",
            KEY.trim_end_matches('A'),
            &"A".repeat(44),
            &"+".repeat(43),
        ] {
            assert!(AesKey::parse(wrong).is_err(), "{wrong}");
        }
    }
}
