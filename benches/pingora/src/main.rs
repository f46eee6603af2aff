//! pingora as a plain pass-through proxy: one worker, keep-alive on both sides, no log.
//!
//! `bench-pingora LISTEN UPSTREAM [TLS_LISTEN CERT_FILE KEY_FILE]`. LISTEN takes HTTP/1.1 and, by prior knowledge,
//! HTTP/2.

use std::error::Error;
use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::apps::HttpServerOptions;
use pingora::proxy::{ProxyHttp, ProxyServiceBuilder, Session};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;

struct PassThrough {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for PassThrough {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _context: &mut (),
    ) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, tls @ ..] = arguments.as_slice() else {
        return Err("usage: bench-pingora LISTEN UPSTREAM [TLS_LISTEN CERT_FILE KEY_FILE]".into());
    };
    let upstream = upstream.parse()?;
    let configuration = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: 1024,
        // At SIGTERM it goes at once; the bench has taken its figures by then.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, configuration);
    server.bootstrap();
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    let mut service = ProxyServiceBuilder::new(&server.configuration, PassThrough { upstream })
        .server_options(options)
        .build();
    service.add_tcp(listen);
    if let [tls, certificate, key] = tls {
        service.add_tls(tls, certificate, key)?;
    }
    server.add_service(service);
    server.run_forever();
}
