//! What is compared: the sidecar, with media in memory or on disk, and nginx, with files and with its proxy cache.
//!
//! Each has one worker on the proxy's core, and logs nothing. nginx is at its best for this: `sendfile`, `tcp_nopush`, an
//! `open_file_cache` that holds every file, and connections to its origin that stay.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::machine::Machine;
use crate::process::{Process, free_address};
use crate::wechat::{APPID, Medium, SECRET, WeChat, member};
use crate::wire::{Message, Wire};

const BINARY: &str = env!("CARGO_BIN_EXE_wx-sidecar");
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(2);
/// What a phone sends with a request for a picture.
const FIELDS: &str = "Host: mini.example.com\r\nAccept: image/*,*/*;q=0.8\r\nAccept-Language: zh-CN,zh;q=0.9\r\n\
                      User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) MicroMessenger/8.0.49\r\n";

/// Where the sidecar keeps media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cache {
    Memory,
    Disk,
}

/// A sidecar, with somebody who is logged in.
pub(crate) struct Sidecar {
    pub(crate) process: Process,
    pub(crate) place: SocketAddr,
    token: String,
}

pub(crate) struct Nginx {
    pub(crate) process: Process,
    pub(crate) place: SocketAddr,
    /// Whose files it serves.
    directory: PathBuf,
}

/// A GET as a phone sends it, with more lines.
pub(crate) fn get(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\n{FIELDS}{fields}\r\n").into_bytes()
}

impl Sidecar {
    /// Starts one, with its files in a new directory below `directory`.
    pub(crate) async fn start(
        name: &str,
        cache: Cache,
        machine: &Machine,
        directory: &Path,
        wechat: &WeChat,
    ) -> Result<Self, String> {
        let directory = made(directory.join(name))?;
        let (place, admin) = (free_address(), free_address());
        let media = match cache {
            Cache::Memory => String::new(),
            Cache::Disk => {
                let files = made(directory.join("media"))?;
                format!(
                    "memory_cache_size = \"none\"\ncache_dir = \"{}\"\ncache_size = \"8GiB\"\n",
                    files.display()
                )
            }
        };
        // The simulator and the generator share a core: a hundred uploads at once take it longer than WeChat.
        let configuration = format!(
            "[app]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\n\
             [inbound]\nlisten = \"{place}\"\nupstream = \"http://127.0.0.1:9\"\nworkers = 1\n\
             body_limit = \"32MiB\"\nidle_timeout = \"10m\"\ndrain_delay = \"0s\"\ndrain_timeout = \"1s\"\n\
             [wechat]\nendpoints = [\"http://{}\"]\ntimeout = \"60s\"\n\
             [outbound]\nlisten = \"off\"\ntimeout = \"10m\"\n[admin]\nlisten = \"{admin}\"\n[log]\nlevel = \"error\"\n\
             [media]\n{media}",
            wechat.place()
        );
        let path = directory.join("sidecar.toml");
        fs::write(&path, configuration)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let mut command = machine.on_proxy_core(BINARY);
        command.arg("run").arg("-c").arg(path);
        let mut sidecar = Self {
            process: Process::spawn(name, &mut command, &directory)?,
            place,
            token: String::new(),
        };
        until_answered(&mut sidecar.process, admin, &get("/readyz", "")).await?;
        sidecar.log_in(wechat).await?;
        Ok(sidecar)
    }

    async fn log_in(&mut self, wechat: &WeChat) -> Result<(), String> {
        let body = json!({ "code": wechat.code() }).to_string();
        let request = format!(
            "POST /wx/login HTTP/1.1\r\n{FIELDS}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let told = json_of(&ask(self.place, request.as_bytes()).await?)?;
        self.token = member(&told, "access_token")?;
        Ok(())
    }

    /// The line that says who asks.
    pub(crate) fn bearer(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.token)
    }

    /// Where a medium can be had with a token.
    pub(crate) fn target(medium: &Medium) -> String {
        format!("/wx/media/{}", medium.id)
    }

    /// Where a medium can be had without.
    pub(crate) async fn url(&self, medium: &Medium) -> Result<String, String> {
        let target = format!("{}/url", Self::target(medium));
        let told = json_of(&ask(self.place, &get(&target, &self.bearer())).await?)?;
        member(&told, "url")
    }
}

impl Nginx {
    pub(crate) async fn start(
        name: &str,
        machine: &Machine,
        directory: &Path,
        wechat: &WeChat,
    ) -> Result<Self, String> {
        let program = machine.nginx.as_ref();
        let program = program.ok_or("nginx is not installed; make bench-media installs it")?;
        let directory = made(directory.join(name))?;
        made(directory.join("files"))?;
        let place = free_address();
        let path = directory.join("nginx.conf");
        fs::write(&path, configuration(place, &directory, wechat))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let mut command = machine.on_proxy_core(&program.path.to_string_lossy());
        command.arg("-p").arg(&directory).arg("-c").arg(path);
        let mut nginx = Self {
            process: Process::spawn(name, &mut command, &directory)?,
            place,
            directory,
        };
        until_answered(&mut nginx.process, place, &get("/ready", "")).await?;
        Ok(nginx)
    }

    /// Lays a medium where it serves files; its target.
    pub(crate) fn publish(&self, medium: &Medium) -> Result<String, String> {
        let target = format!("/files/{}.{}", medium.id, medium.size.extension());
        fs::write(self.directory.join(&target[1..]), &medium.content[..])
            .map_err(|error| format!("cannot write {target}: {error}"))?;
        Ok(target)
    }

    /// Where it has a medium from WeChat, or from its cache.
    pub(crate) fn target(wechat: &WeChat, medium: &Medium) -> String {
        format!("/cache{}", wechat.target(medium))
    }
}

fn configuration(listen: SocketAddr, directory: &Path, wechat: &WeChat) -> String {
    let (origin, token, directory) = (wechat.place(), &wechat.token, directory.display());
    // As root, it would give its worker to `nobody`, who may not enter the directory. As somebody else, it ignores the line.
    format!(
        r#"user root;
worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    types {{ image/png png; video/mp4 mp4; }}
    sendfile on;
    tcp_nopush on;
    open_file_cache max=100;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_timeout 10m;
    send_timeout 10m;
    proxy_read_timeout 10m;
    proxy_send_timeout 10m;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_cache_path {directory}/cache levels=1:2 keys_zone=media:10m max_size=8g inactive=1d use_temp_path=off;
    upstream wechat {{
        server {origin};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen};
        location = /ready {{ return 200 "ready"; }}
        location /files/ {{ root {directory}; }}
        location /cache/ {{
            proxy_pass http://wechat/;
            proxy_cache media;
            proxy_cache_key $request_uri;
            proxy_cache_valid 200 1d;
            proxy_ignore_headers Cache-Control Expires Set-Cookie Vary;
        }}
        location = /upload {{
            proxy_pass http://wechat/cgi-bin/media/upload?access_token={token}&type=video;
        }}
    }}
}}
"#
    )
}

fn made(directory: PathBuf) -> Result<PathBuf, String> {
    let made = fs::create_dir_all(&directory);
    made.map_err(|error| format!("cannot create {}: {error}", directory.display()))?;
    Ok(directory)
}

/// Waits until a process that has just started answers 200.
async fn until_answered(
    process: &mut Process,
    place: SocketAddr,
    request: &[u8],
) -> Result<(), String> {
    let began = Instant::now();
    loop {
        match ask(place, request).await {
            Ok(answer) if answer.status() == Some(200) => return Ok(()),
            _ if process.ended().is_some() => {
                return Err(format!("it ended by itself; {}", process.last_words()));
            }
            _ if began.elapsed() > PATIENCE => {
                return Err(format!("it is not ready; {}", process.last_words()));
            }
            _ => sleep(POLL).await,
        }
    }
}

/// One request on a connection of its own.
async fn ask(place: SocketAddr, request: &[u8]) -> Result<Message, String> {
    let said = |error: std::io::Error| format!("asking {place}: {error}");
    let mut wire = Wire::connect(place).await.map_err(said)?;
    wire.exchange(request).await.map_err(said)
}

fn json_of(answer: &Message) -> Result<Value, String> {
    let body = String::from_utf8_lossy(&answer.body);
    match answer.status() {
        Some(200) => serde_json::from_str(&body).map_err(|error| format!("not JSON: {error}")),
        status => Err(format!("status {status:?}: {body}")),
    }
}
