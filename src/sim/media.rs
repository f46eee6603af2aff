//! Temporary media: pictures, voices and videos that an app has uploaded, for three days.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::state::State;
use crate::clock::Timestamp;

/// How long media are kept.
pub(super) const MEDIA_LIFE: Duration = Duration::from_secs(3 * 86_400);
/// Beyond so many bytes the oldest are forgotten: it is a simulator's memory and not WeChat's.
const KEPT: usize = 64 << 20;

/// What an upload is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MediaKind {
    Image,
    Voice,
    Video,
    Thumb,
}

/// An upload.
#[derive(Clone)]
pub(super) struct Media {
    app: usize,
    pub(super) kind: MediaKind,
    pub(super) content: Bytes,
    made_at: Timestamp,
}

/// All that are kept.
#[derive(Default)]
pub(super) struct Shelf {
    known: HashMap<String, Media>,
    /// In the order of their making.
    order: VecDeque<String>,
    bytes: usize,
}

impl MediaKind {
    /// By its name in a URL.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "image" => Self::Image,
            "voice" => Self::Voice,
            "video" => Self::Video,
            "thumb" => Self::Thumb,
            _ => return None,
        })
    }

    /// The most bytes. Of the two limits that the documentation has for images this is the smaller.
    pub(super) fn limit(self) -> usize {
        match self {
            Self::Image | Self::Voice => 2 << 20,
            Self::Video => 10 << 20,
            Self::Thumb => 64 << 10,
        }
    }

    /// Whether files whose names end so are of this kind.
    pub(super) fn takes(self, extension: &str) -> bool {
        let extensions: &[&str] = match self {
            Self::Image => &["png", "jpg", "jpeg", "gif"],
            Self::Voice => &["amr", "mp3"],
            Self::Video => &["mp4"],
            Self::Thumb => &["jpg", "jpeg"],
        };
        extensions.contains(&extension.to_ascii_lowercase().as_str())
    }
}

impl Media {
    /// The content type and the extension, by what the content is, whatever it was called.
    pub(super) fn format(&self) -> (&'static str, &'static str) {
        match &self.content[..] {
            [0xff, 0xd8, 0xff, ..] => ("image/jpeg", "jpg"),
            [0x89, b'P', b'N', b'G', ..] => ("image/png", "png"),
            [b'G', b'I', b'F', b'8', ..] => ("image/gif", "gif"),
            [b'#', b'!', b'A', b'M', b'R', ..] => ("audio/amr", "amr"),
            [b'I', b'D', b'3', ..] | [0xff, 0xf2..=0xff, ..] => ("audio/mpeg", "mp3"),
            [_, _, _, _, b'f', b't', b'y', b'p', ..] => ("video/mp4", "mp4"),
            _ => match self.kind {
                MediaKind::Image | MediaKind::Thumb => ("image/jpeg", "jpg"),
                MediaKind::Voice => ("audio/amr", "amr"),
                MediaKind::Video => ("video/mp4", "mp4"),
            },
        }
    }
}

impl State {
    /// Keeps an upload; its media_id.
    pub(super) fn keep_media(&mut self, app: usize, kind: MediaKind, content: Bytes) -> String {
        let media_id = self.ids.media_id();
        let media = Media {
            app,
            kind,
            content,
            made_at: self.now(),
        };
        self.media.keep(media_id.clone(), media);
        media_id
    }

    /// What an app has uploaded.
    pub(super) fn media(&self, app: usize, media_id: &str) -> Option<&Media> {
        self.media_of_any(media_id).filter(|media| media.app == app)
    }

    /// The same, whoever has uploaded it: who knows the address of a video may see it.
    pub(super) fn media_of_any(&self, media_id: &str) -> Option<&Media> {
        let media = self.media.known.get(media_id)?;
        (self.now().since(media.made_at) < MEDIA_LIFE).then_some(media)
    }
}

impl Shelf {
    fn keep(&mut self, media_id: String, media: Media) {
        let now = media.made_at;
        self.bytes += media.content.len();
        self.order.push_back(media_id.clone());
        self.known.insert(media_id, media);
        while let Some(oldest) = self.order.front() {
            let known = self.known.get(oldest);
            let fresh = known.is_some_and(|media| now.since(media.made_at) < MEDIA_LIFE);
            if fresh && self.bytes <= KEPT {
                return;
            }
            if let Some(media) = self.known.remove(oldest) {
                self.bytes -= media.content.len();
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::api::stage::Stage;

    #[test]
    fn media_are_their_apps_own_and_live_three_days() {
        let mut state = Stage::new().state;
        let id = state.keep_media(0, MediaKind::Image, Bytes::from_static(b"x"));
        assert!(state.media(0, &id).is_some());
        assert!(state.media(1, &id).is_none());
        state.advance(MEDIA_LIFE - Duration::from_millis(1));
        assert!(state.media(0, &id).is_some());
        state.advance(Duration::from_millis(1));
        assert!(state.media(0, &id).is_none());
        state.keep_media(0, MediaKind::Image, Bytes::from_static(b"y"));
        assert_eq!((state.media.known.len(), state.media.bytes), (1, 1));
    }

    #[test]
    fn when_there_are_too_many_the_oldest_go() {
        let mut state = Stage::new().state;
        let content = Bytes::from(vec![0; KEPT / 4]);
        let ids = [(); 6].map(|()| state.keep_media(0, MediaKind::Video, content.clone()));
        let known = ids.map(|id| state.media(0, &id).is_some());
        assert_eq!(known, [false, false, true, true, true, true]);
    }
}
