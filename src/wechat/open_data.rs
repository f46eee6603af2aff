//! Open data: what WeChat hands to a phone encrypted with the user's session_key.
//!
//! Source: developers.weixin.qq.com, 指南 / 开放能力 / 用户信息 / 开放数据校验与解密. AES-128-CBC with PKCS#7 padding; inside is a
//! JSON object whose `watermark` says which Mini Program it was made for, and when. Nothing authenticates the ciphertext,
//! so an object counts only if padding, JSON and watermark are all right, and what is wrong with one is told to nobody
//! outside: [`Flaw`] is for metrics and the log.
//!
//! Phones and frameworks damage base64 on its way (`+` becomes a space, URLs want another alphabet, padding gets lost);
//! that is repaired, because there is only one way to read it.

use std::time::Duration;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::answer;
use crate::clock::Timestamp;
use crate::crypto::cbc;
use crate::domain::{AppId, Malformed, SessionKey};

/// The longest ciphertext that is looked at, in bytes. A month of step counts is below two thousand.
pub const MAX_LEN: usize = 256 * 1024;

/// Base64 as it arrives: padded or not, and nothing hangs on the bits behind the last byte.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A ciphertext and its iv, of the right shape.
pub struct Encrypted {
    iv: [u8; cbc::BLOCK],
    data: Vec<u8>,
}

/// A decrypted object. `Debug` is not implemented on purpose: it may hold a phone number.
pub struct OpenData {
    json: Zeroizing<Vec<u8>>,
    fields: Map<String, Value>,
}

/// Which objects are accepted.
#[derive(Clone, Copy)]
pub struct Accepted<'a> {
    /// The Mini Program that they must have been made for.
    pub appid: &'a AppId,
    /// The present moment.
    pub now: Timestamp,
    /// How old they may be; `None` for any age.
    pub max_age: Option<Duration>,
}

/// What is wrong with a ciphertext under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// The padding is none: nearly always the key is another.
    Padding,
    /// It is not a JSON object in UTF-8.
    Json,
    /// It has no watermark, or one of another Mini Program.
    Watermark,
    /// It was made too long ago.
    Age,
    /// The object is good, but what was signed is not what came along.
    Signature,
}

impl Flaw {
    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Padding => "padding",
            Self::Json => "json",
            Self::Watermark => "watermark",
            Self::Age => "age",
            Self::Signature => "signature",
        }
    }
}

impl Encrypted {
    /// Reads the members `encryptedData` and `iv`, damaged or not.
    pub fn parse(encrypted_data: &str, iv: &str) -> Result<Self, Malformed> {
        let data = decode(encrypted_data, |length| {
            length > 0 && length % cbc::BLOCK == 0
        })
        .ok_or(Malformed(
            "`encryptedData` is not the base64 of whole blocks of 16 bytes",
            "`encryptedData` 不是整数个 16 字节分组的 base64",
        ))?;
        if data.len() > MAX_LEN {
            return Err(Malformed(
                "`encryptedData` is longer than WeChat makes it",
                "`encryptedData` 超过微信生成的最大长度",
            ));
        }
        let malformed = Malformed(
            "`iv` is not the base64 of 16 bytes",
            "`iv` 不是 16 字节的 base64",
        );
        let iv = decode(iv, |length| length == cbc::BLOCK).ok_or(malformed)?;
        let iv = iv.try_into().map_err(|_| malformed)?;
        Ok(Self { iv, data })
    }

    /// Decrypts with one key. Does the same work whatever the padding is like, so that only a good object can be told
    /// from all others by the time it takes.
    pub fn decrypt(&self, key: &SessionKey, accepted: Accepted<'_>) -> Result<OpenData, Flaw> {
        let mut plain = Zeroizing::new(self.data.clone());
        cbc::decrypt(key.expose(), &self.iv, &mut plain);
        let padding = cbc::padding(&plain);
        let read = answer::object(&plain[..padding.length]);
        if !padding.is_good {
            return Err(Flaw::Padding);
        }
        let fields = read.map_err(|_| Flaw::Json)?;
        check_watermark(&fields, accepted)?;
        plain.truncate(padding.length);
        Ok(OpenData {
            json: plain,
            fields,
        })
    }
}

impl OpenData {
    /// The object, byte for byte as WeChat wrote it.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// Its members.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }
}

fn check_watermark(fields: &Map<String, Value>, accepted: Accepted<'_>) -> Result<(), Flaw> {
    let watermark = fields.get("watermark").ok_or(Flaw::Watermark)?;
    if watermark["appid"].as_str() != Some(accepted.appid.as_str()) {
        return Err(Flaw::Watermark);
    }
    let Some(max_age) = accepted.max_age else {
        return Ok(());
    };
    let made = watermark["timestamp"].as_u64().ok_or(Flaw::Watermark)?;
    let made = Timestamp::from_millis(made.saturating_mul(1000));
    match accepted.now.since(made) > max_age {
        true => Err(Flaw::Age),
        false => Ok(()),
    }
}

/// Decodes base64 that has come a long way; `fits` says which length makes sense.
fn decode(text: &str, fits: impl Fn(usize) -> bool) -> Option<Vec<u8>> {
    // It may have been escaped for a URL, and not unescaped by whoever read that.
    let text = percent_decode_str(text).decode_utf8_lossy();
    let read = |text: &str, space: Option<u8>| {
        let standard = text.bytes().filter_map(|byte| match byte {
            b'-' => Some(b'+'),
            b'_' => Some(b'/'),
            b'\r' | b'\n' | b'\t' => None,
            b' ' => space,
            byte => Some(byte),
        });
        let decoded = LENIENT.decode(standard.collect::<Vec<_>>()).ok()?;
        fits(decoded.len()).then_some(decoded)
    };
    // A space was a `+`, also at an end; or there is white space around it; or all spaces are such.
    read(&text, Some(b'+'))
        .or_else(|| read(text.trim(), Some(b'+')))
        .or_else(|| read(&text, None))
}

#[cfg(test)]
mod tests {
    use aes::Aes128;
    use aes::cipher::{Array, BlockModeEncrypt, KeyIvInit};
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "tiihtNczf5v6AKRyjwEUhQ==";
    const IV: &str = "r7BXXKkLb8qrSNn05n0qiA==";
    const APPID: &str = "wx4f4bc4dec97d474b";
    /// The official sample, as in the documentation's own programs.
    const SAMPLE: &str = "CiyLU1Aw2KjvrjMdj8YKliAjtP4gsMZMQmRzooG2xrDcvSnxIMXFufNstNGTyaGS9uT5geRa0W4oTOb1WT7fJlAC+oNPdbB+3hVbJSRgv+4lGOETKUQz6OYStslQ142dNCuabNPGBzlooOmB231qMM85d2/fV6ChevvXvQP8Hkue1poOFtnEtpyxVLW1zAo6/1Xx1COxFvrc2d7UL/lmHInNlxuacJXwu0fjpXfz/YqYzBIBzD6WUfTIF9GRHpOn/Hz7saL8xz+W//FRAUid1OksQaQx4CMs8LOddcQhULW4ucetDf96JcR3g0gfRK4PC7E/r7Z6xNrXd2UIeorGj5Ef7b1pJAYB6Y5anaHqZ9J6nKEBvB4DnNLIVWSgARns/8wR2SiRS7MNACwTyrGvt9ts8p12PKFdlqYTopNHR1Vf7XjfhQlVsAJdNiKdYmYVoKlaRv85IfVunYzO0IKXsyl7JCUjCpoG20f0a04COwfneQAGGwd5oa+T8yO5hzuyDb/XcxxmK01EpqOyuxINew==";

    fn appid() -> AppId {
        AppId::parse(APPID).unwrap()
    }

    fn key() -> SessionKey {
        SessionKey::parse(KEY).unwrap()
    }

    /// Whatever its age.
    fn opened(data: &str, iv: &str) -> Result<OpenData, Flaw> {
        let encrypted = Encrypted::parse(data, iv).expect("its shape is right");
        decrypt_at(&encrypted, 0, None)
    }

    fn decrypt_at(encrypted: &Encrypted, now: u64, max_age: Option<u64>) -> Result<OpenData, Flaw> {
        let accepted = Accepted {
            appid: &appid(),
            now: Timestamp::from_millis(now * 1000),
            max_age: max_age.map(Duration::from_secs),
        };
        encrypted.decrypt(&key(), accepted)
    }

    /// What WeChat would make of blocks.
    fn encrypt_blocks(plain: &[u8]) -> Encrypted {
        let mut data = plain.to_vec();
        let iv = [9; 16];
        let (blocks, []) = Array::slice_as_chunks_mut(&mut data) else {
            panic!("whole blocks");
        };
        ::cbc::Encryptor::<Aes128>::new(key().expose().into(), &iv.into()).encrypt_blocks(blocks);
        Encrypted { iv, data }
    }

    fn encrypt(json: &[u8]) -> Encrypted {
        let pad = 16 - json.len() % 16;
        encrypt_blocks(&[json, &vec![pad as u8; pad][..]].concat())
    }

    fn flaw(json: &str) -> Option<Flaw> {
        decrypt_at(&encrypt(json.as_bytes()), 1000, Some(100)).err()
    }

    #[test]
    fn the_official_sample_opens() {
        let data = opened(SAMPLE, IV).ok().unwrap();
        assert_eq!(data.fields()["openId"], "oGZUI0egBJY1zhBYw2KhdUfwVJJE");
        assert_eq!(data.fields()["nickName"], "Band");
        assert_eq!(data.fields()["watermark"]["appid"], APPID);
        assert!(data.json().starts_with(b"{\"openId\":\"oGZUI0egBJY1"));
    }

    #[test]
    fn damage_on_the_way_is_repaired() {
        let spaced = SAMPLE.replace('+', " ");
        let url_safe = SAMPLE.replace('+', "-").replace('/', "_");
        let bare = SAMPLE.trim_end_matches('=').to_owned();
        let escaped = SAMPLE
            .replace('+', "%2B")
            .replace('/', "%2f")
            .replace('=', "%3D");
        let folded: String = SAMPLE
            .as_bytes()
            .chunks(76)
            .flat_map(|line| [str::from_utf8(line).unwrap(), "\r\n"])
            .collect();
        let gapped: String = SAMPLE
            .as_bytes()
            .chunks(70)
            .flat_map(|line| [str::from_utf8(line).unwrap(), " "])
            .collect();
        let all = url_safe.trim_end_matches('=').replace('-', " ");
        for data in [
            SAMPLE, &spaced, &url_safe, &bare, &escaped, &folded, &gapped, &all,
        ] {
            assert!(opened(data, IV).is_ok(), "{data}");
        }
        for iv in [
            "r7BXXKkLb8qrSNn05n0qiA",
            " r7BXXKkLb8qrSNn05n0qiA==\n",
            "r7BXXKkLb8qrSNn05n0qiA%3D%3D",
        ] {
            assert!(opened(SAMPLE, iv).is_ok(), "{iv}");
        }
    }

    #[test]
    fn a_space_in_front_was_a_plus_if_that_fits() {
        let iv = STANDARD.encode([0xfb; 16]);
        assert!(iv.starts_with('+'), "{iv}");
        let data = STANDARD.encode([0xfb; 16]);
        let spaced = |text: &str| text.replace('+', " ");
        for iv in [iv.clone(), spaced(&iv), format!(" {iv}\n")] {
            for data in [data.clone(), spaced(&data), format!("{data} ")] {
                let encrypted = Encrypted::parse(&data, &iv).expect("there is one way to read it");
                assert_eq!(
                    (encrypted.iv, &encrypted.data[..]),
                    ([0xfb; 16], &[0xfb; 16][..])
                );
            }
        }
    }

    #[test]
    fn what_is_no_ciphertext_is_malformed() {
        let of = |bytes: &[u8]| STANDARD.encode(bytes);
        for length in 0..64 {
            let good = length > 0 && length % 16 == 0;
            let parsed = Encrypted::parse(&of(&vec![0; length]), IV);
            assert_eq!(parsed.is_ok(), good, "{length}");
            let parsed = Encrypted::parse(SAMPLE, &of(&vec![0; length]));
            assert_eq!(parsed.is_ok(), length == 16, "{length}");
        }
        for bad in ["", "!", "====", "é", "AAAA*AAA", "undefined"] {
            assert!(Encrypted::parse(bad, IV).is_err(), "{bad}");
            assert!(Encrypted::parse(SAMPLE, bad).is_err(), "{bad}");
        }
        assert!(Encrypted::parse(&of(&vec![0; MAX_LEN]), IV).is_ok());
        assert!(Encrypted::parse(&of(&vec![0; MAX_LEN + 16]), IV).is_err());
    }

    #[test]
    fn padding_json_and_watermark_are_all_checked() {
        let good = r#"{"a":1,"watermark":{"timestamp":950,"appid":"wx4f4bc4dec97d474b"}}"#;
        assert_eq!(flaw(good), None);
        for (json, expected) in [
            (good.replace("950", "899"), Flaw::Age),
            (good.replace("950", "\"950\""), Flaw::Watermark),
            (good.replace("wx4f", "WX4f"), Flaw::Watermark),
            (good.replace("d474b", "d474c"), Flaw::Watermark),
            (good.replace("appid", "appId"), Flaw::Watermark),
            (good.replace("watermark", "Watermark"), Flaw::Watermark),
            (good.replace("\"a\"", "\"watermark\""), Flaw::Json),
            (good.replace("1,", "1e400,"), Flaw::Json),
            (good.replace("}}", "}"), Flaw::Json),
            (format!("{good} x"), Flaw::Json),
            (format!("[{good}]"), Flaw::Json),
            (good.replace('1', &"[".repeat(10_000)), Flaw::Json),
            (String::new(), Flaw::Json),
        ] {
            assert_eq!(flaw(&json), Some(expected), "{json:.80}");
        }
        let not_utf8 = [&good.as_bytes()[..5], b"\xff", &good.as_bytes()[5..]].concat();
        assert_eq!(
            decrypt_at(&encrypt(&not_utf8), 1000, None).err(),
            Some(Flaw::Json)
        );
        assert_eq!(
            flaw(&good.replace("950", "5000")),
            None,
            "our clock may be behind"
        );
    }

    #[test]
    fn every_value_of_the_last_byte_but_sixteen_is_no_padding() {
        let good = r#"{"watermark":{"timestamp":950,"appid":"wx4f4bc4dec97d474b"}}"#;
        for last in 0..=u8::MAX {
            let mut plain = good.as_bytes().to_vec();
            plain.resize(plain.len().next_multiple_of(16) + 16, last);
            let outcome = decrypt_at(&encrypt_blocks(&plain), 1000, None);
            let text = plain.len() - usize::from(last).min(plain.len());
            let expected = match last {
                // What stands before it is then the object alone, or with more of the same byte: white space is fine.
                b'\t' | b'\n' | b'\r' => None,
                1..=16 if text == good.len() => None,
                1..=16 => Some(Flaw::Json),
                _ => Some(Flaw::Padding),
            };
            assert_eq!(outcome.err(), expected, "{last}");
        }
    }

    proptest! {
        /// No input panics, and only what WeChat made opens.
        #[test]
        fn garbage_never_opens(data in proptest::collection::vec(any::<u8>(), 0..200), iv in ".{0,30}") {
            let text = String::from_utf8_lossy(&data);
            for (data, iv) in [(&*text, IV), (&STANDARD.encode(&data), IV), (SAMPLE, &iv)] {
                if let Ok(encrypted) = Encrypted::parse(data, iv) {
                    prop_assert!(decrypt_at(&encrypted, 0, None).is_err());
                }
            }
        }
    }
}
