//! The beginning of a file of the cache, which says what the rest is.
//!
//! Its length is fixed, so that it can be written when all is known and the content begins at the same place in each file.
//! It names the app and the media_id: a file that was put under another's name is not taken for it. The content's length is
//! checked against the file's, and its first bytes against the type that is noted.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Card, Key, content_type};
use crate::clock::Timestamp;
use crate::crypto;
use crate::media::kind::TELLING;
use crate::wechat::media::LIFE;

/// Where the content begins.
pub(super) const HEADER: usize = 4096;
/// How much of a file is read to know what it is.
pub(super) const LOOK: usize = HEADER + TELLING;

const MAGIC: &[u8; 16] = b"wx-sidecar media";
const VERSION: u32 = 1;
/// Magic, version, the text's length, its SHA-256.
const FIXED: usize = 16 + 4 + 4 + 32;
/// By how much the clocks of two processes may differ.
const SKEW: Duration = Duration::from_secs(60);

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) appid: String,
    pub(super) media_id: String,
    pub(super) card: Card,
}

/// Why a file is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is not as it was written.
    Corrupt,
    /// Another version of the sidecar has written it.
    Foreign,
}

impl Label {
    pub(super) fn key(&self) -> Key {
        Key::by(&self.appid, &self.media_id)
    }

    /// Whether it may be served. A clock that was ahead must not make a file live for ever.
    pub(super) fn is_alive(&self, now: Timestamp) -> bool {
        let ends_at = self.card.ends_at();
        now < ends_at && ends_at <= now.plus(LIFE + SKEW)
    }

    /// The header for a file of `length` bytes; `None` if there is no room for what it would say.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let card = &self.card;
        let text = json!({
            "appid": self.appid,
            "media_id": self.media_id,
            "length": card.length,
            "content_type": card.content_type,
            "name": card.name,
            "stored_at": card.came_at.as_millis(),
            "expires_at": card.ends_at().as_millis(),
        })
        .to_string();
        let length = u32::try_from(text.len()).ok()?;
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_be_bytes());
        header.extend_from_slice(&length.to_be_bytes());
        header.extend_from_slice(&crypto::sha256(text.as_bytes()));
        header.extend_from_slice(text.as_bytes());
        if header.len() > HEADER {
            return None;
        }
        header.resize(HEADER, 0);
        Some(header)
    }

    /// Reads the first [`LOOK`] bytes of a file that has `size`, or all of them if there are fewer.
    pub(super) fn decode(start: &[u8], size: u64) -> Result<Self, Unfit> {
        if !start.starts_with(MAGIC) {
            return Err(Unfit::Corrupt);
        }
        let number = |at: usize| {
            let bytes = start.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_be_bytes(bytes))
        };
        if number(16).ok_or(Unfit::Corrupt)? != VERSION {
            return Err(Unfit::Foreign);
        }
        let label = || {
            let length = usize::try_from(number(20)?).ok()?;
            let sum = start.get(24..FIXED)?;
            let text = start.get(FIXED..HEADER)?.get(..length)?;
            if crypto::sha256(text) != *sum {
                return None;
            }
            Self::read(&serde_json::from_slice(text).ok()?, &start[HEADER..])
        };
        let label: Self = label().ok_or(Unfit::Corrupt)?;
        let expected = label.card.length.map(|length| length + HEADER as u64);
        match expected == Some(size) {
            true => Ok(label),
            false => Err(Unfit::Corrupt),
        }
    }

    fn read(text: &Value, content: &[u8]) -> Option<Self> {
        let string = |name: &str| Some(text.get(name)?.as_str()?.to_owned());
        let number = |name: &str| text.get(name)?.as_u64();
        let card = Card {
            content_type: content_type(content),
            name: string("name"),
            length: Some(number("length")?),
            came_at: Timestamp::from_millis(number("stored_at")?),
        };
        let is_noted = string("content_type")? == card.content_type
            && number("expires_at")? == card.ends_at().as_millis();
        is_noted.then_some(Self {
            appid: string("appid")?,
            media_id: string("media_id")?,
            card,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const CONTENT: &[u8] = b"\xff\xd8\xff\xe0 and so on";

    fn label() -> Label {
        Label {
            appid: "wx0123456789abcdef".to_owned(),
            media_id: "a_b-c".to_owned(),
            card: Card {
                content_type: "image/jpeg",
                name: Some("猫\".jpg".to_owned()),
                length: Some(CONTENT.len() as u64),
                came_at: NOW,
            },
        }
    }

    fn file() -> Vec<u8> {
        let mut file = label().encode().unwrap();
        file.extend_from_slice(CONTENT);
        file
    }

    fn decoded(file: &[u8]) -> Result<Label, Unfit> {
        Label::decode(&file[..file.len().min(LOOK)], file.len() as u64)
    }

    #[test]
    fn a_file_says_what_it_is() {
        assert_eq!(decoded(&file()), Ok(label()));
    }

    #[test]
    fn a_file_that_was_cut_or_changed_is_not_taken_for_one() {
        let file = file();
        for length in [0, 15, 16, 23, 100, HEADER - 1, HEADER, file.len() - 1] {
            assert_eq!(decoded(&file[..length]), Err(Unfit::Corrupt), "{length}");
        }
        let longer = [&file[..], b"x"].concat();
        assert_eq!(decoded(&longer), Err(Unfit::Corrupt));
        let used = FIXED + 60;
        for at in (0..used)
            .filter(|at| !(16..20).contains(at))
            .chain([HEADER])
        {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert_eq!(decoded(&changed), Err(Unfit::Corrupt), "{at}");
        }
        let mut other = file;
        other[19] = 2;
        assert_eq!(decoded(&other), Err(Unfit::Foreign));
    }

    #[test]
    fn a_file_lives_as_long_as_a_medium_and_no_longer_if_a_clock_was_wrong() {
        let label = label();
        assert!(label.is_alive(NOW));
        assert!(!label.is_alive(NOW.plus(LIFE)));
        let day = Duration::from_secs(86_400);
        let before = Timestamp::from_millis(NOW.as_millis() - day.as_millis() as u64);
        assert!(!label.is_alive(before));
    }

    #[test]
    fn a_name_without_end_is_not_noted() {
        let mut label = label();
        label.card.name = Some("猫".repeat(2000));
        assert_eq!(label.encode(), None);
    }
}
