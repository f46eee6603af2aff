//! Temporary media (临时素材): what is uploaded can be had again by its media_id, for three days.
//!
//! Source: developers.weixin.qq.com, 服务端 / 小程序客服 / 客服消息 / 新增临时素材, 获取临时素材.

use std::time::Duration;

use serde_json::Value;

use super::answer::{Answer, Invalid};
use crate::domain::MediaId;

/// Where a file is posted, in a form.
pub const UPLOAD: &str = "/cgi-bin/media/upload";
/// Where it is had again.
pub const GET: &str = "/cgi-bin/media/get";
/// How long WeChat keeps it.
pub const LIFE: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// The name of the part that has the file.
pub const PART: &str = "media";

/// What WeChat says of a file that it has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// By what it can be had again.
    pub media_id: MediaId,
    /// When it was taken, in Unix seconds.
    pub created_at: u64,
}

/// Reads a success of [`UPLOAD`]. A thumb's media_id has a name of its own.
pub fn parse(answer: &Answer) -> Result<Taken, Invalid> {
    let fields = answer.fields();
    let media_id = fields
        .get("media_id")
        .or_else(|| fields.get("thumb_media_id"))
        .and_then(Value::as_str)
        .ok_or(Invalid::Field("the media_id is missing or not text"))?;
    let created_at = match fields.get("created_at") {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(digits)) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().ok()
        }
        _ => None,
    };
    Ok(Taken {
        media_id: MediaId::parse(media_id).map_err(|why| Invalid::Field(why.0))?,
        created_at: created_at.ok_or(Invalid::Field("created_at is no time in Unix seconds"))?,
    })
}

/// What WeChat takes a file for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A picture.
    Image,
    /// Sound.
    Voice,
    /// A film.
    Video,
    /// A small picture in a message.
    Thumb,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Image, Self::Voice, Self::Video, Self::Thumb];

    /// Its name in WeChat's `type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Voice => "voice",
            Self::Video => "video",
            Self::Thumb => "thumb",
        }
    }

    /// The kind of that name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer;
    use super::*;

    fn taken(body: &str) -> Result<Taken, Invalid> {
        parse(&answer::parse(body.as_bytes())?)
    }

    #[test]
    fn a_file_that_was_taken_has_a_media_id_and_a_time() {
        for body in [
            r#"{"type":"image","media_id":"a-B_1","created_at":1672500000}"#,
            r#"{"errcode":0,"type":"image","media_id":"a-B_1","created_at":"1672500000"}"#,
            r#"{"type":"thumb","thumb_media_id":"a-B_1","created_at":1672500000}"#,
        ] {
            let taken = taken(body).unwrap();
            assert_eq!(taken.media_id.as_str(), "a-B_1");
            assert_eq!(taken.created_at, 1_672_500_000);
        }
    }

    #[test]
    fn an_answer_without_either_is_invalid() {
        for body in [
            r#"{"created_at":1}"#,
            r#"{"media_id":1,"created_at":1}"#,
            r#"{"media_id":"","created_at":1}"#,
            r#"{"media_id":"a/../b","created_at":1}"#,
            r#"{"media_id":"a"}"#,
            r#"{"media_id":"a","created_at":-1}"#,
            r#"{"media_id":"a","created_at":"+1"}"#,
            r#"{"media_id":"a","created_at":""}"#,
            r#"{"media_id":"a","created_at":1.5}"#,
        ] {
            assert!(matches!(taken(body), Err(Invalid::Field(_))), "{body}");
        }
    }
}
