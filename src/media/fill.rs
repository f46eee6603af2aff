//! A medium on its way from WeChat, read by many while it grows: each at its own pace, and none of them twice from WeChat.
//!
//! What is small stays in memory. What is not goes to the disk piece by piece, and WeChat is not read on meanwhile; so a
//! hundred at once take some 50 MiB, buffers and all, however large they are. A disk that refuses costs memory, as far as
//! `buffer_limit` goes, and not the medium.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::Room;
use super::cache::{Cache, Draft, Kept};
use super::download::Chunk;
use super::kind::{self, TELLING};
use super::name;
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Side};
use crate::files;
use crate::gateway::Fetched;

/// What is larger goes to the disk, so much at a time.
pub(super) const SMALL: u64 = 256 * 1024;
/// The largest medium that is believed; WeChat's own limit is 10 MiB.
pub(super) const MOST: u64 = 32 * 1024 * 1024;
/// A piece that is smaller is joined with the next, so that one that comes byte by byte takes no more memory than another.
const SCANT: usize = 4 * 1024;

/// A medium that is coming in.
pub(super) struct Fill {
    state: Mutex<State>,
    /// Counts changes, so that whoever waits looks again.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    known: Option<Known>,
    /// Where what is no longer in memory is, and how much that is.
    on_disk: Option<(Arc<File>, u64)>,
    written: u64,
    in_memory: Vec<Bytes>,
    length: u64,
    end: Option<Result<(), Error>>,
}

/// What has been found out.
#[derive(Clone)]
pub(super) enum Known {
    /// It was kept here.
    Kept(Kept),
    /// It comes from WeChat, and is whole when it ends, or looks so.
    Coming { head: Head, is_framed: bool },
}

/// What is known of a medium before all of it is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) content_type: &'static str,
    pub(super) name: Option<String>,
    pub(super) length: Option<u64>,
    pub(super) fetched_at: Timestamp,
}

/// A medium that is here as a whole.
pub(super) enum Whole {
    InMemory(Bytes),
    OnDisk(Draft),
}

/// Where what is large goes.
enum Sink {
    /// Nothing has been large yet.
    Unopened,
    Open(Draft),
    /// The disk takes no more.
    Refused,
}

impl Fill {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// Waits until it is known what it is.
    ///
    /// # Errors
    /// If it cannot be had.
    pub(super) async fn known(&self) -> Result<Known, Error> {
        self.when(|state| match (&state.known, &state.end) {
            (Some(known), _) => Some(Ok(known.clone())),
            (None, Some(Err(error))) => Some(Err(error.clone())),
            (None, Some(Ok(()))) => Some(Err(ended())),
            (None, None) => None,
        })
        .await
    }

    /// Waits until there is something from `at` on.
    ///
    /// # Errors
    /// If it broke off before.
    pub(super) async fn read(&self, at: u64) -> Result<Chunk, Error> {
        self.when(|state| {
            state.chunk(at).map(Ok).or_else(|| match &state.end {
                Some(Ok(())) => Some(Ok(Chunk::End)),
                Some(Err(error)) => Some(Err(error.clone())),
                None => None,
            })
        })
        .await
    }

    /// It was here all the time.
    pub(super) fn is_kept(&self, kept: Kept) {
        self.change(|state| {
            state.known = Some(Known::Kept(kept));
            state.end = Some(Ok(()));
        });
    }

    /// That was all, for better or worse. What was said first counts. What has failed takes no memory any longer, however
    /// slowly somebody reads it.
    pub(super) fn end(&self, outcome: Result<(), Error>) {
        self.change(|state| {
            let end = state.end.get_or_insert(outcome);
            if end.is_err() {
                state.in_memory = Vec::new();
            }
        });
    }

    /// Nobody goes on with it.
    pub(super) fn abandon(&self) {
        self.end(Err(ended()));
    }

    /// Takes a medium in to its end; all of it, as it is to be kept.
    ///
    /// # Errors
    /// If it breaks off, is not as long as it was said to be, or cannot be held.
    pub(super) async fn take_in(
        &self,
        mut fetched: Fetched,
        fetched_at: Timestamp,
        cache: &Cache,
        room: &Room,
    ) -> Result<(Head, Option<Whole>), Error> {
        let mut start = Vec::new();
        let mut done = false;
        while start.len() < TELLING && !done {
            match fetched.next().await? {
                Some(bytes) => start.extend_from_slice(&bytes),
                None => done = true,
            }
        }
        if let Some(what) = kind::no_medium(&start) {
            return Err(invalid(what));
        }
        if fetched.length.is_some_and(|length| length > MOST) {
            return Err(invalid(TOO_LARGE));
        }
        let head = Head {
            content_type: kind::content_type(&start),
            name: fetched.name.take().as_deref().and_then(name::for_client),
            length: fetched.length,
            fetched_at,
        };
        self.push(&start, room)?;
        let is_framed = fetched.is_framed;
        let known = Known::Coming {
            head: head.clone(),
            is_framed,
        };
        self.change(|state| state.known = Some(known));
        let mut sink = Sink::Unopened;
        while !done {
            match fetched.next().await? {
                Some(bytes) => self.push(&bytes, room)?,
                None => done = true,
            }
            if self.state().unwritten() > SMALL {
                sink = self.write(sink, cache).await;
            }
        }
        let length = self.state().length;
        if head.length.is_some_and(|said| said != length) {
            return Err(invalid((
                "the medium is not as long as WeChat said",
                "媒体文件的长度与微信声明的不符",
            )));
        }
        if let Sink::Open(_) = sink {
            sink = self.write(sink, cache).await;
        }
        let head = Head {
            length: Some(length),
            ..head
        };
        let whole = match sink {
            Sink::Open(draft) => Some(Whole::OnDisk(draft)),
            Sink::Unopened => Some(Whole::InMemory(self.state().together())),
            Sink::Refused => None,
        };
        // What nobody can know to be whole would be believed for three days.
        let whole = whole.filter(|_| is_framed);
        Ok((head, whole))
    }

    fn push(&self, bytes: &[u8], room: &Room) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (length, scant) = {
            let state = self.state();
            let last = state.in_memory.last();
            let scant = last.filter(|last| last.len() < SCANT).cloned();
            (state.length + bytes.len() as u64, scant)
        };
        if length > MOST {
            return Err(invalid(TOO_LARGE));
        }
        let mut held = room.buffer();
        held.push(scant.as_deref().unwrap_or_default())?;
        held.push(bytes)?;
        self.change(|state| {
            state.length = length;
            if scant.is_some() {
                state.in_memory.pop();
            }
            state.in_memory.push(Bytes::from_owner(held));
        });
        Ok(())
    }

    /// Moves what is in memory to the disk, if that takes it.
    async fn write(&self, sink: Sink, cache: &Cache) -> Sink {
        let draft = match sink {
            Sink::Refused => return Sink::Refused,
            Sink::Open(draft) => Ok(draft),
            Sink::Unopened => cache.draft().await,
        };
        let written = match draft {
            Ok(draft) => self.write_to(draft).await.map_err(|error| ("write", error)),
            Err(error) => Err(("open", error)),
        };
        written.unwrap_or_else(|(op, error)| {
            cache.failed(op, &error);
            Sink::Refused
        })
    }

    async fn write_to(&self, draft: Draft) -> io::Result<Sink> {
        let (pieces, at) = {
            let state = self.state();
            (state.in_memory.clone(), draft.beginning() + state.written)
        };
        let (count, file) = (pieces.len(), Arc::clone(draft.file()));
        let written = files::aside(move || {
            let mut at = at;
            for piece in pieces {
                file.write_all_at(&piece, at)?;
                at += piece.len() as u64;
            }
            Ok(at)
        });
        let end = written.await?;
        self.change(|state| {
            state.on_disk = Some((Arc::clone(draft.file()), draft.beginning()));
            state.written = end - draft.beginning();
            state.in_memory.drain(..count);
        });
        Ok(Sink::Open(draft))
    }

    /// Waits until there is an answer.
    async fn when<T>(&self, answer: impl Fn(&State) -> Option<T>) -> T {
        loop {
            // Before the look, so that no change is missed.
            let mut changes = self.changes.subscribe();
            if let Some(answer) = answer(&self.state()) {
                return answer;
            }
            // The sender is ours, so it is there.
            let _changed = changes.changed().await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changes.send_modify(|count| *count += 1);
    }

    /// Guards the state, for a look or a small change; never held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What there is from `at` on.
    fn chunk(&self, at: u64) -> Option<Chunk> {
        if let Some((file, beginning)) = &self.on_disk
            && at < self.written
        {
            return Some(Chunk::File {
                file: Arc::clone(file),
                at: beginning + at,
                length: self.written - at,
            });
        }
        let mut place = self.written;
        for piece in &self.in_memory {
            let end = place + piece.len() as u64;
            if at < end {
                // Whoever had the last of it would know that it is all there before it is kept.
                if self.end.is_none() && self.said() == Some(end) {
                    return None;
                }
                let skipped = usize::try_from(at - place).unwrap_or(usize::MAX);
                return Some(Chunk::Bytes(piece.slice(skipped..)));
            }
            place = end;
        }
        None
    }

    /// How long it will be, if WeChat has said that.
    fn said(&self) -> Option<u64> {
        match &self.known {
            Some(Known::Coming { head, .. }) => head.length,
            _ => None,
        }
    }

    fn unwritten(&self) -> u64 {
        self.length - self.written
    }

    /// All that is in memory, as one piece, which counts against no budget.
    fn together(&self) -> Bytes {
        Bytes::from(self.in_memory.concat())
    }
}

const TOO_LARGE: (&str, &str) = (
    "the medium is larger than any that WeChat has",
    "媒体文件的大小超过微信允许的上限",
);

fn invalid(detail: (&'static str, &'static str)) -> Error {
    Error::new(Kind::WechatInvalid, Side::Wechat, detail)
}

fn ended() -> Error {
    let detail = (
        "the medium was given up on its way from WeChat",
        "媒体文件的下载已中止",
    );
    Error::new(Kind::WechatUnreachable, Side::Us, detail)
}
