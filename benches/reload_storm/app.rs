//! Two apps, which say which of them was asked, in which generation, and by whom.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::task::spawn_local;

use crate::generation::Generation;
use crate::storm::World;
use crate::wire::Wire;

/// What an app says it saw.
pub(crate) struct Seen<'a> {
    pub(crate) app: usize,
    pub(crate) env: &'a str,
    pub(crate) openid: &'a str,
    pub(crate) target: &'a str,
}

impl<'a> Seen<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let mut words = text.split(' ');
        Some(Self {
            app: words.next()?.parse().ok()?,
            env: words.next()?,
            openid: words.next()?,
            target: words.next()?,
        })
    }
}

/// Binds both.
pub(crate) async fn bind(places: [SocketAddr; 2]) -> std::io::Result<[TcpListener; 2]> {
    Ok([
        TcpListener::bind(places[0]).await?,
        TcpListener::bind(places[1]).await?,
    ])
}

/// Serves one of them for ever.
pub(crate) async fn serve(app: usize, listener: TcpListener, world: Rc<World>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let world = Rc::clone(&world);
            spawn_local(async move {
                // The sidecar closes what it does not need any more.
                let _closed = answer(app, Wire::of(stream), &world).await;
            });
        }
    }
}

async fn answer(app: usize, mut wire: Wire, world: &World) -> std::io::Result<()> {
    while let Some(request) = wire.read().await? {
        let env = request.header("X-WX-ENV").unwrap_or("-");
        match Generation::of_env(env) {
            Some(generation) => world.saw(generation, Instant::now()),
            // A client without a token.
            None if env == "-" => {}
            None => world
                .tally()
                .mixture(&format!("the app was told {env:?} as its environment")),
        }
        let openid = request.header("X-WX-OPENID").unwrap_or("-");
        let body = format!("{app} {env} {openid} {}", request.target());
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        wire.write((head + &body).as_bytes()).await?;
    }
    Ok(())
}
