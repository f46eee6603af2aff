//! Another protocol over the two connections: bytes go over as they come, in both directions, until both have ended.
//!
//! A WebSocket is told of a drain by a Close frame of ours between two of the app's (1001). What the client answers goes
//! to the app as everything else does, so both sides learn of it and end in order.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::try_join;

use super::{Exchange, broken_answer, broken_body, unreachable};
use crate::error::Error;
use crate::telemetry::requests::WorkerCells;
use crate::wire::websocket::{Frames, GOING_AWAY};
use crate::wire::{Reader, Responder, Writer};

/// How long both sides may take to end after the client was told that we go away.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// What both directions of a tunnel know.
#[derive(Default)]
struct Tunnel {
    /// Counts what has passed, so that silence can be told.
    passed: Cell<u64>,
    /// Whether we are about to go away.
    leaving: Cell<bool>,
}

/// Counts a tunnel for as long as it is open.
struct Open<'a>(&'a WorkerCells);

impl<'a> Open<'a> {
    fn count(cells: &'a WorkerCells) -> Self {
        cells.tunnels.add(1);
        Self(cells)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.tunnels.sub(1);
    }
}

impl Exchange<'_> {
    /// Carries the other protocol to its end. Only `websocket` has frames between which something can be said.
    pub(super) async fn tunnel(
        &self,
        client: (&mut Reader<'_>, &mut Responder<'_>),
        app: (&mut Reader<'_>, &mut Writer<'_>),
        websocket: bool,
    ) -> Result<(), Error> {
        let (from_client, to_client) = client;
        let (from_app, to_app) = app;
        from_client.switch_protocols();
        from_app.switch_protocols();
        to_app.switch_protocols();
        let ending = to_client.ending();
        let tunnel = Tunnel::default();
        let _open = Open::count(self.forward.counting.cells);
        let mut both = pin!(try_join(
            self.up(&tunnel, from_client, to_app),
            self.down(&tunnel, from_app, to_client, websocket),
        ));
        let mut limit = self.forward.limits.tunnel;
        loop {
            let was_ending = ending.get();
            if was_ending && websocket {
                tunnel.leaving.set(true);
                limit = limit.min(CLOSE_PATIENCE);
            }
            let passed = tunnel.passed.get();
            match self.timers.within_idle(limit, ending, both.as_mut()).await {
                Ok(outcome) => return outcome.map(|_| ()),
                // A drain has begun.
                Err(_) if ending.get() && !was_ending => {}
                Err(_) if passed != tunnel.passed.get() => {}
                Err(_) => return Ok(()),
            }
        }
    }

    async fn up(
        &self,
        tunnel: &Tunnel,
        from: &mut Reader<'_>,
        to: &mut Writer<'_>,
    ) -> Result<(), Error> {
        loop {
            let count = from.ready().await.map_err(broken_body)?;
            if count == 0 {
                return to.shutdown().await.map_err(unreachable);
            }
            self.to_app(to.send(from.chunk(), false)).await?;
            from.consume(count);
            tunnel.passed.set(tunnel.passed.get() + 1);
        }
    }

    async fn down(
        &self,
        tunnel: &Tunnel,
        from: &mut Reader<'_>,
        to: &mut Responder<'_>,
        websocket: bool,
    ) -> Result<(), Error> {
        let mut frames = Frames::default();
        let mut told = false;
        loop {
            let may_speak = websocket && !told && frames.is_between();
            let Some(ready) = unless(may_speak.then_some(&tunnel.leaving), from.ready()).await
            else {
                told = true;
                if !frames.is_closed() {
                    self.send_within(to.send(&GOING_AWAY, false)).await?;
                }
                continue;
            };
            let count = ready.map_err(|cause| broken_answer(&cause))?;
            if count == 0 {
                return self.send_within(to.shutdown()).await;
            }
            let bytes = from.chunk();
            let passing = match (told, websocket && tunnel.leaving.get()) {
                // After a Close frame nothing follows.
                (true, _) => 0,
                (false, true) => frames.pass_frame(bytes),
                (false, false) => {
                    if websocket {
                        frames.pass(bytes);
                    }
                    count
                }
            };
            if passing > 0 {
                self.send_within(to.send(&bytes[..passing], false)).await?;
            }
            // The rest of a chunk that ends within is looked at again.
            from.consume(if told { count } else { passing });
            tunnel.passed.set(tunnel.passed.get() + 1);
        }
    }
}

/// The output of a future, unless `flag` is there and up before.
async fn unless<F: Future>(flag: Option<&Cell<bool>>, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if flag.is_some_and(Cell::get) {
            return Poll::Ready(None);
        }
        future.as_mut().poll(cx).map(Some)
    })
    .await
}
