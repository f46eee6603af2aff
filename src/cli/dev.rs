//! `wx-sidecar dev`: the whole thing on one machine, with nothing to configure and no WeChat account.
//!
//! A simulator of WeChat, the sidecar, and a sample app that knows nothing of either: it reads the headers that any
//! CloudRun app reads. With `--upstream` your own app takes the sample's place.

mod sample;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Instant;

use socket2::{Domain, Socket, Type};

use super::out;
use super::run::serve;
use super::sim::{PUSH_AES_KEY, PUSH_TOKEN};
use crate::config::{Config, Listen, Upstream};
use crate::crypto;
use crate::domain::AppId;
use crate::resilience::panics::log_panics;
use crate::secret::Secret;
use crate::server::Sidecar;
use crate::sim::push::PushOptions;
use crate::sim::{Options, Simulator};
use crate::telemetry::logs;

/// The appid and secret that simulator and sidecar share; they are worth nothing anywhere else.
const APPID: &str = "wx0123456789abcdef";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Arguments of `wx-sidecar dev`.
#[derive(Debug, clap::Args)]
pub struct DevArgs {
    /// Where the sidecar listens.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = place, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where the simulator of WeChat listens.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = place, default_value = "127.0.0.1:9902")]
    sim: SocketAddr,
    /// Where the app's calls to WeChat come in.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = place, default_value = "127.0.0.1:8081")]
    outbound: SocketAddr,
    /// Where the admin side listens.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = place, default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// Your own app, such as http://127.0.0.1:3000, in place of the sample.
    #[arg(long, value_name = "URL")]
    upstream: Option<Upstream>,
}

/// An address to listen on, as in a configuration.
fn place(text: &str) -> Result<SocketAddr, String> {
    match text.parse()? {
        Listen::Tcp(addr) => Ok(addr),
        Listen::Unix(_) => Err("an address and a port are wanted here, such as :8080".to_owned()),
    }
}

/// Runs all three until a signal.
pub fn run(args: &DevArgs) -> ExitCode {
    let began = Instant::now();
    // Outlives the sidecar, which may call it until its end.
    let mut simulator = None;
    let start = || {
        let dev = start(args)?;
        out::tell(&dev.welcome(began.elapsed().as_millis()));
        simulator = Some(dev.simulator);
        Ok(dev.sidecar)
    };
    serve(start)
}

/// Everything that runs.
struct Dev {
    simulator: Simulator,
    sidecar: Sidecar,
    upstream: String,
    sample: bool,
    /// What opens the admin side, if others than this machine can reach it.
    token: Option<String>,
}

fn start(args: &DevArgs) -> Result<Dev, String> {
    if !args.outbound.ip().is_loopback() {
        return Err(format!(
            "--outbound {} is for others than this machine, who would call WeChat as the Mini Program; it has to be an address \
             such as 127.0.0.1:8081",
            args.outbound
        ));
    }
    let is_public = !args.admin.ip().is_loopback();
    let token = is_public.then(|| format!("{:032x}", u128::from_be_bytes(crypto::random())));
    let shown = token.as_ref().map(|it| format!("token = {it:?}"));
    let shown = shown.unwrap_or_default();
    let appid = AppId::parse(APPID).expect("the appid above is one");
    let options = Options {
        listen: args.sim,
        ..Options::local(appid, Secret::new(SECRET))
    };
    let simulator = Simulator::start(options).map_err(|cause| {
        format!(
            "the simulator cannot listen on {} (--sim): {cause}",
            args.sim
        )
    })?;
    let (outbound, _outbound_is_ours) = settled(args.outbound);
    let upstream = match &args.upstream {
        Some(url) => url.to_string(),
        None => format!(
            "http://{}",
            sample::start(outbound).map_err(|cause| format!("the sample app: {cause}"))?
        ),
    };
    let (listen, _listen_is_ours) = settled(args.listen);
    let text = format!(
        r#"
        [app]
        appid = "{APPID}"
        secret = "{SECRET}"
        env = "dev"
        [inbound]
        listen = "{listen}"
        upstream = {upstream:?}
        drain_delay = "0s"
        drain_timeout = "1s"
        [[route]]
        path = "/public/**"
        auth = "none"
        [[route]]
        path = "/auth/login"
        methods = ["POST"]
        login = true
        [[route]]
        path = "/phone"
        methods = ["POST"]
        open_data = true
        [[route]]
        path = "/api/avatar"
        media = "upload"
        [[route]]
        path = "/api/comments"
        text_check = {{ field = "content", scene = "comment" }}
        [media]
        base_url = "http://{listen}"
        [media.check]
        scene = "social"
        [push]
        token = "{PUSH_TOKEN}"
        aes_key = "{PUSH_AES_KEY}"
        [wechat]
        endpoints = ["{}"]
        [outbound]
        listen = "{}"
        [admin]
        listen = "{}"
        {shown}
        inspector = true
        [log]
        format = "pretty"
        access = "all"
        access_path = true
        "#,
        simulator.url(),
        outbound,
        args.admin,
    );
    let loaded = Config::parse(&text, "wx-sidecar dev", &|_| None);
    let loaded = loaded.map_err(|report| report.to_string())?;
    logs::init(&loaded.config.log);
    log_panics();
    let sidecar = Sidecar::start(loaded.config).map_err(|cause| {
        format!("{cause}; choose other ports with --listen, --outbound and --admin")
    })?;
    sidecar.describe(&loaded.effective);
    sidecar.show_phone(simulator.addr(), args.upstream.is_none());
    let pushes = PushOptions::new(
        format!("http://{}/wx/push", sidecar.inbound_addr()),
        AppId::parse(APPID).expect("the appid above is one"),
        Secret::new(PUSH_TOKEN),
        Secret::new(PUSH_AES_KEY),
    );
    simulator
        .push_to(pushes)
        .map_err(|cause| format!("the simulator cannot push to the sidecar: {cause}"))?;
    Ok(Dev {
        simulator,
        sidecar,
        upstream,
        sample: args.upstream.is_none(),
        token,
    })
}

/// An address with a port of its own: the URLs of pictures say it before anything listens there. As long as the socket is
/// kept, which does not listen, nobody else is given the port.
fn settled(listen: SocketAddr) -> (SocketAddr, Option<Socket>) {
    let bound = || {
        let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&listen.into())?;
        let address = socket.local_addr()?.as_socket();
        // Elsewhere it would keep us from it, too.
        let kept = cfg!(target_os = "linux").then_some(socket);
        Ok::<_, io::Error>((address.unwrap_or(listen), kept))
    };
    match listen.port() {
        // What cannot be listened on is told by whoever listens.
        0 => bound().unwrap_or((listen, None)),
        _ => (listen, None),
    }
}

impl Dev {
    fn welcome(&self, millis: u128) -> String {
        let (sidecar, sim) = (self.sidecar.inbound_addr(), self.simulator.addr());
        let (admin, upstream) = (self.sidecar.admin_addr(), &self.upstream);
        let outbound = self.sidecar.outbound_addr();
        let outbound = outbound.expect("the configuration above has an outbound listener");
        let (app, asked, pushed) = match self.sample {
            true => (
                "a sample app; --upstream puts yours here",
                "/api/whoami",
                format!("curl -s http://{sidecar}/public/pushed"),
            ),
            false => (
                "your app",
                "/",
                "# your app gets it as POST /wx/push".to_owned(),
            ),
        };
        // A browser cannot go to "all addresses".
        let admin = match admin {
            Listen::Tcp(addr) if addr.ip().is_unspecified() => {
                Listen::Tcp((Ipv4Addr::LOCALHOST, addr.port()).into())
            }
            admin => admin,
        };
        let token = self.token.as_ref();
        let token =
            token.map(|it| format!("\nIt asks for a token, because others can reach it: {it}"));
        let token = token.unwrap_or_default();
        format!(
            r#"
wx-sidecar dev is ready ({millis} ms)

  sidecar    http://{sidecar}   the phone's requests go here
  app        {upstream}   {app}
  WeChat     http://{outbound}   the app's calls to WeChat go here, with no token
  simulator  http://{sim}   plays WeChat; GET /_sim/ tells what it can do
  admin      http://{admin}   /readyz /metrics /config

Open http://{admin}/inspector/ in a browser: all that goes through, live, and a phone to play with.{token}
http://{admin}/inspector/#tour shows you round in five minutes.

Or try it in another terminal, and watch it there:

  # 1. The phone: wx.login() gives a code.
  CODE=$(curl -s 'http://{sim}/_sim/code?user=alice&format=text')

  # 2. The code becomes a session. No WeChat code in your app, no session_key on the phone.
  TOKEN=$(curl -s http://{sidecar}/wx/login -d "{{\"code\":\"$CODE\"}}" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')

  # 3. The app is told who is calling.
  curl -s http://{sidecar}{asked} -H "Authorization: Bearer $TOKEN"

  # 4. The app calls WeChat, without an access_token and without the AppSecret.
  curl -s http://{outbound}/wxa/getwxacodeunlimit -d '{{"scene":"table=7"}}' -o /dev/null -w '%{{http_code}} %{{content_type}}\n'

  # 5. A user writes to the Mini Program: WeChat's message, encrypted, becomes JSON for the app.
  curl -s http://{sim}/_sim/push -d '{{"kind":"text","user":"alice","fields":{{"Content":"hello"}}}}'
  {pushed}

  # 6. A picture goes to WeChat; it comes back from there by a URL that an <image> can load without a token.
  curl -s http://{outbound}/wxa/getwxacodeunlimit -d '{{"scene":"table=7"}}' -o /tmp/code.jpg
  URL=$(curl -s http://{sidecar}/wx/media -H "Authorization: Bearer $TOKEN" -F media=@/tmp/code.jpg | sed 's/.*"url":"\([^"]*\)".*/\1/')
  curl -s "$URL" -o /dev/null -w '%{{http_code}} %{{content_type}} %{{size_download}} bytes\n'

And what goes wrong:

  curl -s http://{sidecar}{asked}                                  # no token: the app sees nothing
  curl -s http://{sidecar}/public/hello -H 'X-WX-OPENID: somebody'     # a forged identity does not arrive
  curl -s http://{sidecar}/wx/login -d '{{"code":"made-up"}}' -H 'Accept-Language: zh'
  curl -s http://{sidecar}/api/comments -H "Authorization: Bearer $TOKEN" --json '{{"content":"[risky], says the simulator"}}'
  curl -s http://{outbound}/wxa/getwxacodeunlimit -d '{{"scene":"ünknown"}}' -H 'Accept: application/problem+json'

Ctrl-C ends it."#
        )
    }
}
