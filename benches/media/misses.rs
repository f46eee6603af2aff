//! Media that are not there yet: how long until the first byte comes, and until the last.
//!
//! Each medium is asked for once at each server, one after the other and in turns, and at WeChat itself, which answers at once:
//! what it takes alone is what no cache can save.

use std::net::SocketAddr;
use std::time::Instant;

use crate::caller::Caller;
use crate::histogram::Histogram;
use crate::servers::{Nginx, Sidecar, get};
use crate::stage::Stage;
use crate::wechat::{Medium, Size};

/// Whom a medium is had from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// By its address.
    WeChat,
    /// With the question for the address of a film, which nginx need not ask here.
    WeChatAsked,
    Nginx,
    Memory,
    Disk,
}

/// In nanoseconds.
pub(crate) struct Times {
    pub(crate) first: Histogram,
    pub(crate) whole: Histogram,
}

impl Source {
    pub(crate) fn all(size: Size) -> Vec<Self> {
        let mut all = vec![Self::WeChat, Self::Nginx, Self::Memory, Self::Disk];
        if size.is_film() {
            all.insert(1, Self::WeChatAsked);
        }
        all
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WeChat => "WeChat alone",
            Self::WeChatAsked => "WeChat alone, asked where first",
            Self::Nginx => "nginx, proxy cache",
            Self::Memory => "sidecar, memory",
            Self::Disk => "sidecar, disk",
        }
    }
}

/// Asks everybody for so many new media.
pub(crate) async fn measure(
    stage: &mut Stage<'_>,
    size: Size,
    count: usize,
) -> Result<Vec<(Source, Times)>, String> {
    let media = stage.wechat.upload_many(size, count).await?;
    let mut asked = Vec::new();
    for source in Source::all(size) {
        let caller = Caller::connect(place(stage, source)).await?;
        let times = Times {
            first: Histogram::new(),
            whole: Histogram::new(),
        };
        asked.push((source, caller, times));
    }
    for (number, medium) in media.iter().enumerate() {
        let sources = asked.len();
        for turn in 0..sources {
            let (source, caller, times) = &mut asked[(number + turn) % sources];
            let requests = requests(stage, *source, medium).await?;
            let (first, whole) = had(caller, &requests, medium)
                .await
                .map_err(|why| format!("a miss of {size}, {}: {why}", source.name()))?;
            times.first.record(first);
            times.whole.record(whole);
        }
    }
    let times = asked.into_iter().map(|(source, _, times)| (source, times));
    Ok(times.collect())
}

fn place(stage: &Stage<'_>, source: Source) -> SocketAddr {
    match source {
        Source::WeChat | Source::WeChatAsked => stage.wechat.place(),
        Source::Nginx => stage.nginx.place,
        Source::Memory => stage.memory.place,
        Source::Disk => stage.disk.place,
    }
}

/// What has to be sent, one after the other; the last one is answered with the medium.
async fn requests(
    stage: &Stage<'_>,
    source: Source,
    medium: &Medium,
) -> Result<Vec<Vec<u8>>, String> {
    let wechat = &stage.wechat;
    let signed = async |sidecar: &Sidecar| sidecar.url(medium).await;
    let targets = match source {
        Source::WeChat => vec![wechat.target(medium)],
        Source::WeChatAsked => vec![wechat.question(medium), wechat.target(medium)],
        Source::Nginx => vec![Nginx::target(wechat, medium)],
        Source::Memory => vec![signed(&stage.memory).await?],
        Source::Disk => vec![signed(&stage.disk).await?],
    };
    Ok(targets.iter().map(|target| get(target, "")).collect())
}

/// How long the first byte took, and the last.
async fn had(
    caller: &mut Caller,
    requests: &[Vec<u8>],
    medium: &Medium,
) -> Result<(u64, u64), String> {
    let began = Instant::now();
    let nanoseconds =
        |until: Instant| u64::try_from((until - began).as_nanos()).unwrap_or(u64::MAX);
    let (last, before) = requests.split_last().ok_or("nothing to send")?;
    for request in before {
        let head = caller.ask(request).await?;
        caller.discard(head.length).await?;
    }
    let head = caller.ask(last).await?;
    if head.status != 200 || head.length != medium.content.len() as u64 {
        let text = caller.text(&head).await?;
        return Err(format!("status {}: {text}", head.status));
    }
    let said = head.cache.as_deref().unwrap_or_default();
    if said.contains("hit") {
        return Err(format!("it was there already: {said}"));
    }
    caller.compare(&medium.content).await?;
    Ok((nanoseconds(head.began), nanoseconds(Instant::now())))
}
