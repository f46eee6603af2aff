//! All that runs while hits and misses are measured: WeChat, two sidecars and an nginx, of which one works at a time.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::caller::Caller;
use crate::hits::{Checked, Target, exchange};
use crate::machine::Machine;
use crate::servers::{Cache, Nginx, Sidecar, get};
use crate::wechat::{Medium, Size, WeChat};

/// How long a medium may take into a cache.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// The servers, with a directory for their files.
pub(crate) struct Stage<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) directory: &'a Path,
    pub(crate) wechat: WeChat,
    pub(crate) memory: Sidecar,
    pub(crate) disk: Sidecar,
    pub(crate) nginx: Nginx,
    /// How often more servers were started, for their names.
    pub(crate) started: usize,
}

/// Who serves a medium that is there already, and how it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Files,
    Proxy,
    Memory,
    Token,
    Disk,
}

impl Server {
    /// All that serve media of a size. In the sidecar's memory there are no large ones.
    pub(crate) fn all(size: Size) -> &'static [Self] {
        match size {
            Size::Small => &[
                Self::Files,
                Self::Proxy,
                Self::Memory,
                Self::Token,
                Self::Disk,
            ],
            Size::Middle => &[Self::Files, Self::Proxy, Self::Memory, Self::Disk],
            Size::Large => &[Self::Files, Self::Proxy, Self::Disk],
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Files => "nginx, files",
            Self::Proxy => "nginx, proxy cache",
            Self::Memory => "sidecar, memory",
            Self::Token => "sidecar, memory, access token",
            Self::Disk => "sidecar, disk",
        }
    }
}

impl<'a> Stage<'a> {
    pub(crate) async fn open(machine: &'a Machine, directory: &'a Path) -> Result<Self, String> {
        let wechat = WeChat::start().await?;
        let sidecar =
            async |name, cache| Sidecar::start(name, cache, machine, directory, &wechat).await;
        Ok(Self {
            memory: sidecar("sidecar-memory", Cache::Memory).await?,
            disk: sidecar("sidecar-disk", Cache::Disk).await?,
            nginx: Nginx::start("nginx", machine, directory, &wechat).await?,
            machine,
            directory,
            wechat,
            started: 0,
        })
    }

    /// A medium of that size at each of its servers, who have it from now on.
    pub(crate) async fn targets(
        &mut self,
        size: Size,
    ) -> Result<Vec<(Server, Rc<Target>)>, String> {
        let medium = self.wechat.upload(size).await?;
        let mut targets = Vec::new();
        for server in Server::all(size) {
            let target = self.target(*server, &medium).await?;
            let had = fill(&target).await;
            had.map_err(|why| format!("{size}, {}: {why}", server.name()))?;
            targets.push((*server, Rc::new(target)));
        }
        Ok(targets)
    }

    async fn target(&self, server: Server, medium: &Medium) -> Result<Target, String> {
        let Self {
            memory,
            disk,
            nginx,
            wechat,
            ..
        } = self;
        let (place, process, request) = match server {
            Server::Files => (
                nginx.place,
                &nginx.process,
                get(&nginx.publish(medium)?, ""),
            ),
            Server::Proxy => {
                let target = Nginx::target(wechat, medium);
                (nginx.place, &nginx.process, get(&target, ""))
            }
            Server::Memory => {
                let url = memory.url(medium).await?;
                (memory.place, &memory.process, get(&url, ""))
            }
            Server::Token => {
                let request = get(&Sidecar::target(medium), &memory.bearer());
                (memory.place, &memory.process, request)
            }
            Server::Disk => {
                let url = disk.url(medium).await?;
                (disk.place, &disk.process, get(&url, ""))
            }
        };
        Ok(Target {
            place,
            request,
            content: Rc::clone(&medium.content),
            says_hit: matches!(server, Server::Memory | Server::Token | Server::Disk),
            pids: process.tree(),
        })
    }
}

/// Has a medium until it comes from the cache: what is stored may be so a moment later.
async fn fill(target: &Target) -> Result<(), String> {
    let began = Instant::now();
    let mut caller = Caller::connect(target.place).await?;
    exchange(&mut caller, target, Checked::Whole).await?;
    loop {
        let mut caller = Caller::connect(target.place).await?;
        match exchange(&mut caller, target, Checked::WholeFromCache).await {
            Err(_) if began.elapsed() < PATIENCE => sleep(POLL).await,
            had => return had,
        }
    }
}
