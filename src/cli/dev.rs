//! `wx-sidecar dev`: the whole thing on one machine, with nothing to configure and no WeChat account.
//!
//! A simulator of WeChat, the sidecar, and a sample app that knows nothing of either: it reads the headers that any
//! CloudRun app reads. With `--upstream` your own app takes the sample's place.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::run::serve;
use super::sim::{PUSH_AES_KEY, PUSH_TOKEN};
use crate::config::Config;
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
/// How long the sample app looks for a message that is on its way, in steps.
const LOOKS: usize = 40;
const LOOK: Duration = Duration::from_millis(25);

/// Arguments of `wx-sidecar dev`.
#[derive(Debug, clap::Args)]
pub struct DevArgs {
    /// Where the sidecar listens.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where the simulator of WeChat listens.
    #[arg(long, default_value = "127.0.0.1:9902")]
    sim: SocketAddr,
    /// Where the app's calls to WeChat come in.
    #[arg(long, default_value = "127.0.0.1:8081")]
    outbound: SocketAddr,
    /// Where the admin side listens.
    #[arg(long, default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// Your own app, such as http://127.0.0.1:3000, in place of the sample.
    #[arg(long)]
    upstream: Option<String>,
}

/// Runs all three until a signal.
pub fn run(args: &DevArgs) -> ExitCode {
    let began = Instant::now();
    // Outlives the sidecar, which may call it until its end.
    let mut simulator = None;
    let start = || {
        let dev = start(args)?;
        println!("{}", dev.welcome(began.elapsed().as_millis()));
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
}

fn start(args: &DevArgs) -> Result<Dev, String> {
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
    let upstream = match &args.upstream {
        Some(url) => url.clone(),
        None => format!(
            "http://{}",
            start_sample().map_err(|cause| format!("the sample app: {cause}"))?
        ),
    };
    let listen = settled(args.listen);
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
        [log]
        format = "pretty"
        access = "all"
        access_path = true
        "#,
        simulator.url(),
        args.outbound,
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
    })
}

/// An address with a port of its own: the URLs of pictures say it before anything listens there.
fn settled(listen: SocketAddr) -> SocketAddr {
    match listen.port() {
        0 => TcpListener::bind(listen).and_then(|it| it.local_addr()),
        _ => Ok(listen),
    }
    // What cannot be listened on is told by whoever listens.
    .unwrap_or(listen)
}

impl Dev {
    fn welcome(&self, millis: u128) -> String {
        let (sidecar, sim) = (self.sidecar.inbound_addr(), self.simulator.addr());
        let (admin, upstream) = (self.sidecar.admin_addr(), &self.upstream);
        let outbound = self.sidecar.outbound_addr();
        let outbound = outbound.expect("the configuration above has an outbound listener");
        let app = if self.sample {
            "a sample app; --upstream puts yours here"
        } else {
            "your app"
        };
        format!(
            r#"
wx-sidecar dev is ready ({millis} ms)

  sidecar    http://{sidecar}   the phone's requests go here
  app        {upstream}   {app}
  WeChat     http://{outbound}   the app's calls to WeChat go here, with no token
  simulator  http://{sim}   plays WeChat; GET /_sim/ tells what it can do
  admin      http://{admin}   /readyz /metrics /config

Try it, in another terminal:

  # 1. The phone: wx.login() gives a code.
  CODE=$(curl -s 'http://{sim}/_sim/code?user=alice&format=text')

  # 2. The code becomes a session. No WeChat code in your app, no session_key on the phone.
  TOKEN=$(curl -s http://{sidecar}/wx/login -d "{{\"code\":\"$CODE\"}}" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')

  # 3. The app is told who is calling.
  curl -s http://{sidecar}/api/whoami -H "Authorization: Bearer $TOKEN"

  # 4. The app calls WeChat, without an access_token and without the AppSecret.
  curl -s http://{outbound}/wxa/getwxacodeunlimit -d '{{"scene":"table=7"}}' -o /dev/null -w '%{{http_code}} %{{content_type}}\n'

  # 5. A user writes to the Mini Program: WeChat's message, encrypted, becomes JSON for the app.
  curl -s http://{sim}/_sim/push -d '{{"kind":"text","user":"alice","fields":{{"Content":"hello"}}}}'
  curl -s http://{sidecar}/public/pushed

  # 6. A picture goes to WeChat; it comes back from there by a URL that an <image> can load without a token.
  curl -s http://{outbound}/wxa/getwxacodeunlimit -d '{{"scene":"table=7"}}' -o /tmp/code.jpg
  URL=$(curl -s http://{sidecar}/wx/media -H "Authorization: Bearer $TOKEN" -F media=@/tmp/code.jpg | sed 's/.*"url":"\([^"]*\)".*/\1/')
  curl -s "$URL" -o /dev/null -w '%{{http_code}} %{{content_type}} %{{size_download}} bytes\n'

And what goes wrong:

  curl -s http://{sidecar}/api/whoami                                  # no token: the app sees nothing
  curl -s http://{sidecar}/public/hello -H 'X-WX-OPENID: somebody'     # a forged identity does not arrive
  curl -s http://{sidecar}/wx/login -d '{{"code":"made-up"}}' -H 'Accept-Language: zh'
  curl -s http://{sidecar}/api/comments -H "Authorization: Bearer $TOKEN" --json '{{"content":"[risky], says the simulator"}}'
  curl -s http://{outbound}/wxa/getwxacodeunlimit -d '{{"scene":"ünknown"}}' -H 'Accept: application/problem+json'

Ctrl-C ends it."#
        )
    }
}

/// The sample app, on a thread of its own; ends with the process.
fn start_sample() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    thread::Builder::new()
        .name("sample-app".to_owned())
        .spawn(move || serve_sample(listener))?;
    Ok(addr)
}

fn serve_sample(listener: TcpListener) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // The last message that came, for whoever asks. Guards a value; held to replace or to copy it.
    let pushed = Arc::<Mutex<Value>>::default();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let pushed = Arc::clone(&pushed);
            let service = service_fn(move |request| {
                let pushed = Arc::clone(&pushed);
                async move { Ok::<_, Infallible>(sample_answer(request, &pushed).await) }
            });
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                // A connection that breaks is the sidecar's business to report.
                let _broken = serving.await;
            });
        }
    })
}

/// What a CloudRun app does: it believes its headers.
async fn sample_answer(request: Request<Incoming>, pushed: &Mutex<Value>) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/wx/push" => {
            let (head, body) = request.into_parts();
            let body = body
                .collect()
                .await
                .map(http_body_util::Collected::to_bytes);
            let message: Value =
                serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
            let of_user = head
                .headers
                .get("x-wx-openid")
                .and_then(|value| value.to_str().ok());
            *pushed.lock().unwrap_or_else(PoisonError::into_inner) =
                json!({ "openid": of_user, "message": message });
            respond(&json!({}))
        }
        "/public/pushed" => {
            for _ in 0..LOOKS {
                if !pushed
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .is_null()
                {
                    break;
                }
                tokio::time::sleep(LOOK).await;
            }
            let last = pushed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            respond(&last)
        }
        _ => respond(&who_am_i(&request)),
    }
}

fn who_am_i(request: &Request<Incoming>) -> Value {
    let said = |name: &str| -> Value {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map_or(Value::Null, Value::from)
    };
    json!({
        "message": if said("x-wx-openid").is_null() { "hello, whoever you are" } else { "hello, I know you" },
        "openid": said("x-wx-openid"),
        "unionid": said("x-wx-unionid"),
        "appid": said("x-wx-appid"),
        "source": said("x-wx-source"),
        "env": said("x-wx-env"),
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "request_id": said("x-request-id"),
    })
}

fn respond(body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body:#}\n"))));
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
