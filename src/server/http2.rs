//! The life of an HTTP/2 connection: its requests are served side by side, each as a task of its own.

use std::rc::Rc;

use super::connections::LEFTOVER_TIMEOUT;
use super::exchange;
use super::worker::{Peer, Worker};
use crate::net::Stream;
use crate::wire::http2::{Http2Connection, Request};
use crate::wire::{HeadError, Reader, Responder};

impl Worker {
    /// Serves a connection whose client speaks HTTP/2; `prefix` is what was read of it already.
    pub(super) async fn serve_http2(self: &Rc<Self>, stream: Stream, prefix: Vec<u8>, peer: Peer) {
        let peer = Rc::new(peer);
        let settings = self.settings();
        let inbound = &settings.snapshot.config.inbound;
        let greeting = Http2Connection::handshake(stream, prefix, settings.snapshot.head_limits);
        let Ok(Ok(mut connection)) = self.timers.within(inbound.header_timeout, greeting).await
        else {
            return;
        };
        drop(settings);
        let mut ending = false;
        loop {
            if peer.ending.get() && !ending {
                ending = true;
                connection.end();
            }
            let was_told = peer.ending.get();
            let limit = if ending && !connection.is_busy() {
                LEFTOVER_TIMEOUT
            } else {
                self.settings().snapshot.config.inbound.idle_timeout
            };
            let accepted = connection.accept();
            match self.timers.within_idle(limit, &peer.ending, accepted).await {
                Ok(Some((request, head))) => self.spawn_request(request, head, &peer),
                Ok(None) => return,
                Err(_) if peer.ending.get() && !was_told => {}
                Err(_) if connection.is_busy() && !connection.is_stuck() => {}
                Err(_) if ending => return,
                Err(_) => {
                    ending = true;
                    connection.end();
                }
            }
        }
    }

    fn spawn_request(
        self: &Rc<Self>,
        mut request: Request,
        head: Result<(), HeadError>,
        peer: &Rc<Peer>,
    ) {
        let (worker, peer) = (Rc::clone(self), Rc::clone(peer));
        tokio::task::spawn_local(async move {
            let settings = worker.settings();
            let (parts, body, responder) = request.parts();
            let responder = Responder::Http2(responder);
            match head {
                Ok(()) => {
                    let request = (parts, Reader::Http2(body), responder);
                    exchange::exchange(&worker, &settings, &peer, request).await;
                }
                Err(cause) => exchange::refuse(&worker, &settings, &peer, &cause, responder).await,
            }
        });
    }
}
