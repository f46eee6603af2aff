//! What a hundred at once do to a server's memory: uploads of ten megabytes, and downloads of as much.
//!
//! All stop in the middle, and go on when everybody is there and the server has done what it can; that is when memory is
//! looked at. Most of it is the peak since just before, which the kernel keeps and sets back when it is told to.

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::caller::Caller;
use crate::process::{CpuTime, Memory, Process};
use crate::servers::{Cache, Nginx, Sidecar, get};
use crate::stage::Stage;
use crate::wechat::{Size, form};

pub(crate) const CLIENTS: usize = 100;
/// Media are uploaded and had in such batches, because the simulator keeps no more than 25 of them.
const BATCH: usize = 20;
/// Where uploads stop, and downloads.
const SENT: usize = 7 << 20;
const READ: usize = 1 << 20;
/// A client that reads slowly has a small buffer, or half the medium would be in it.
const NARROW: u32 = 64 << 10;
/// How much a client sends at a time.
const PIECE: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(50);
/// Less CPU than this between two looks is none.
const QUIET_US: f64 = 1_000.0;

/// What a hundred clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crowd {
    Uploads,
    /// All of the same medium.
    One,
    /// Each of its own, as far as there are so many.
    Many,
}

/// Resident, in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resident {
    /// After its start.
    pub(crate) idle: u64,
    /// Just before, with what came before.
    pub(crate) before: u64,
    /// When all were in the middle.
    pub(crate) middle: u64,
    /// The same, with pages that its processes share divided among them.
    pub(crate) share: u64,
    pub(crate) peak: u64,
    /// Clients that did not get what they wanted.
    pub(crate) failed: usize,
}

impl Crowd {
    pub(crate) const ALL: [Self; 3] = [Self::Uploads, Self::One, Self::Many];

    pub(crate) fn name(self, distinct: usize) -> String {
        match self {
            Self::Uploads => format!("{CLIENTS} uploads"),
            Self::One => format!("{CLIENTS} downloads of one medium"),
            Self::Many => format!("{CLIENTS} downloads of {distinct} media"),
        }
    }
}

/// What one client is to do.
#[derive(Clone)]
struct Errand {
    place: SocketAddr,
    request: Rc<Vec<u8>>,
    /// How what is to be had begins; nothing if something is brought.
    beginning: Option<Rc<[u8]>>,
}

/// How many are in the middle, and how many will never be.
#[derive(Default)]
struct Crowded {
    middle: Cell<usize>,
    failed: Cell<usize>,
}

/// One round: what a sidecar with a disk needs, and nginx.
pub(crate) async fn measure(
    stage: &mut Stage<'_>,
    distinct: usize,
) -> Result<Vec<(Crowd, Resident, Resident)>, String> {
    let mut told = Vec::new();
    let (sidecar, nginx) = servers(stage, "uploads").await?;
    let idle = resident(&sidecar.process).await?;
    let idle_nginx = resident(&nginx.process).await?;
    let (of_sidecar, of_nginx) = uploads(&sidecar, &nginx);
    let first = hold(&sidecar.process, idle, of_sidecar).await?;
    let second = hold(&nginx.process, idle_nginx, of_nginx).await?;
    told.push((Crowd::Uploads, first, second));
    drop((sidecar, nginx));

    let (sidecar, nginx) = servers(stage, "downloads").await?;
    let idle = resident(&sidecar.process).await?;
    let idle_nginx = resident(&nginx.process).await?;
    let (of_sidecar, of_nginx) = had(stage, &sidecar, &nginx, distinct).await?;
    for (crowd, kinds) in [(Crowd::One, 1), (Crowd::Many, distinct)] {
        let first = hold(&sidecar.process, idle, repeated(&of_sidecar[..kinds])).await?;
        let second = hold(&nginx.process, idle_nginx, repeated(&of_nginx[..kinds])).await?;
        told.push((crowd, first, second));
    }
    Ok(told)
}

/// New ones, for what was before is in memory too.
async fn servers(stage: &mut Stage<'_>, what: &str) -> Result<(Sidecar, Nginx), String> {
    stage.started += 1;
    let (number, machine) = (stage.started, stage.machine);
    let (directory, wechat) = (stage.directory, &stage.wechat);
    let name = format!("sidecar-{what}-{number}");
    let sidecar = Sidecar::start(&name, Cache::Disk, machine, directory, wechat).await?;
    let name = format!("nginx-{what}-{number}");
    let nginx = Nginx::start(&name, machine, directory, wechat).await?;
    Ok((sidecar, nginx))
}

fn uploads(sidecar: &Sidecar, nginx: &Nginx) -> (Vec<Errand>, Vec<Errand>) {
    let content = Size::Large.content(0);
    let made = |place, target: &str, fields: &str| {
        let request = Rc::new(form(target, fields, Size::Large, &content));
        let errand = |_| Errand {
            place,
            request: Rc::clone(&request),
            beginning: None,
        };
        (0..CLIENTS).map(errand).collect()
    };
    (
        made(sidecar.place, "/wx/media", &sidecar.bearer()),
        made(nginx.place, "/upload", ""),
    )
}

/// So many media in the caches of both, and how to ask for them.
async fn had(
    stage: &mut Stage<'_>,
    sidecar: &Sidecar,
    nginx: &Nginx,
    distinct: usize,
) -> Result<(Vec<Errand>, Vec<Errand>), String> {
    let (mut of_sidecar, mut of_nginx) = (Vec::new(), Vec::new());
    while of_sidecar.len() < distinct {
        let some = BATCH.min(distinct - of_sidecar.len());
        for medium in stage.wechat.upload_many(Size::Large, some).await? {
            let beginning: Rc<[u8]> = medium.content[..READ].into();
            let errand = |place, target: &str| Errand {
                place,
                request: Rc::new(get(target, "")),
                beginning: Some(Rc::clone(&beginning)),
            };
            let ours = errand(sidecar.place, &sidecar.url(&medium).await?);
            let theirs = errand(nginx.place, &Nginx::target(&stage.wechat, &medium));
            for errand in [&ours, &theirs] {
                let mut caller = Caller::connect(errand.place).await?;
                caller.send(&errand.request).await?;
                receive(&mut caller, &beginning, async || ()).await?;
            }
            of_sidecar.push(ours);
            of_nginx.push(theirs);
        }
    }
    Ok((of_sidecar, of_nginx))
}

/// As many errands as there are clients.
fn repeated(errands: &[Errand]) -> Vec<Errand> {
    errands.iter().cycle().take(CLIENTS).cloned().collect()
}

/// In KiB, once it has nothing to do.
async fn resident(process: &Process) -> Result<u64, String> {
    let tree = process.tree();
    quiet(&tree).await?;
    Ok(Memory::of(&tree).now)
}

/// Has all go to the middle, looks at memory, and lets them end.
async fn hold(process: &Process, idle: u64, errands: Vec<Errand>) -> Result<Resident, String> {
    let tree = process.tree();
    let before = resident(process).await?;
    for pid in &tree {
        // From now on. Where the kernel does not let us, the peak is that since the start.
        let _best_effort = fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
    let crowded = Rc::new(Crowded::default());
    let (go, gone_on) = watch::channel(false);
    let clients: Vec<_> = errands
        .into_iter()
        .map(|errand| spawn_local(client(errand, Rc::clone(&crowded), gone_on.clone())))
        .collect();
    let all = async {
        while crowded.middle.get() + crowded.failed.get() < CLIENTS {
            sleep(POLL).await;
        }
    };
    let late = timeout(PATIENCE, all).await.is_err();
    if late {
        let there = crowded.middle.get();
        return Err(format!(
            "{there} of {CLIENTS} clients got to the middle; {}",
            process.last_words()
        ));
    }
    quiet(&tree).await?;
    let middle = Memory::of(&tree).now;
    let share = Memory::share_of(&tree) / 1024;
    // Nobody listens if all have failed.
    let _best_effort = go.send(true);
    for client in clients {
        client.await.map_err(|error| error.to_string())?;
    }
    Ok(Resident {
        idle,
        before,
        middle,
        share,
        peak: Memory::of(&tree).peak.max(middle),
        failed: crowded.failed.get(),
    })
}

async fn client(errand: Errand, crowded: Rc<Crowded>, mut gone_on: watch::Receiver<bool>) {
    let in_the_middle = async || {
        crowded.middle.set(crowded.middle.get() + 1);
        // An error is that nobody will send it any more.
        let _best_effort = gone_on.wait_for(|on| *on).await;
    };
    let run = timeout(2 * PATIENCE, errand.run(in_the_middle)).await;
    let why = match run {
        Ok(Ok(())) => return,
        Ok(Err(why)) => why,
        Err(_) => "it takes too long".to_owned(),
    };
    if crowded.failed.get() == 0 {
        eprintln!("memory: {why}");
    }
    crowded.failed.set(crowded.failed.get() + 1);
}

impl Errand {
    async fn run(&self, in_the_middle: impl AsyncFnMut()) -> Result<(), String> {
        match &self.beginning {
            Some(beginning) => {
                let mut caller = Caller::connect_narrow(self.place, NARROW).await?;
                caller.send(&self.request).await?;
                receive(&mut caller, beginning, in_the_middle).await
            }
            None => self.bring(in_the_middle).await,
        }
    }

    async fn bring(&self, mut in_the_middle: impl AsyncFnMut()) -> Result<(), String> {
        let mut caller = Caller::connect(self.place).await?;
        let (beginning, rest) = self.request.split_at(SENT);
        for piece in beginning.chunks(PIECE) {
            caller.send(piece).await?;
            tokio::task::yield_now().await;
        }
        in_the_middle().await;
        caller.send(rest).await?;
        let head = caller.head().await?;
        let text = caller.text(&head).await?;
        match head.status == 200 && text.contains("media_id") {
            true => Ok(()),
            false => Err(format!("status {}: {text}", head.status)),
        }
    }
}

/// Reads an answer that has been asked for, with a pause in its middle.
async fn receive(
    caller: &mut Caller,
    beginning: &[u8],
    mut in_the_middle: impl AsyncFnMut(),
) -> Result<(), String> {
    let head = caller.head().await?;
    let length = Size::Large.bytes() as u64;
    if head.status != 200 || head.length != length {
        let text = caller.text(&head).await?;
        return Err(format!("status {}: {text}", head.status));
    }
    caller.compare(beginning).await?;
    in_the_middle().await;
    caller.discard(length - beginning.len() as u64).await
}

/// Waits until the processes do nothing more.
async fn quiet(pids: &[u32]) -> Result<(), String> {
    let began = Instant::now();
    let (mut before, mut calm) = (CpuTime::of(pids), 0);
    while calm < 4 {
        if began.elapsed() > PATIENCE {
            return Err("it works, and nobody asks it to".to_owned());
        }
        sleep(POLL).await;
        let now = CpuTime::of(pids);
        calm = match now.since(before).microseconds() < QUIET_US {
            true => calm + 1,
            false => 0,
        };
        before = now;
    }
    Ok(())
}
