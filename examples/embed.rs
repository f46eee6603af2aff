//! The sidecar inside another Rust program: started on ports the system chooses, used, stopped.
//!
//! `cargo run --example embed`

use std::io::{Read, Write};
use std::net::TcpStream;

use wx_sidecar::{Config, Sidecar};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_toml(
        r#"
        [app]
        appid  = "wx0123456789abcdef"
        secret = "0123456789abcdef0123456789abcdef"

        [inbound]
        listen      = "127.0.0.1:0"
        upstream    = "http://127.0.0.1:3000"
        drain_delay = "0s"

        [outbound]
        listen = "127.0.0.1:0"

        [admin]
        listen = "127.0.0.1:0"
        "#,
    )?;
    let sidecar = Sidecar::start(config)?;
    println!(
        "inbound http://{}  admin http://{}",
        sidecar.inbound_addr(),
        sidecar.admin_addr()
    );

    let mut admin = TcpStream::connect(sidecar.admin_addr())?;
    admin.write_all(b"GET /readyz?verbose HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    admin.read_to_string(&mut answer)?;
    println!("{answer}");

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(sidecar.shutdown());
    println!("stopped");
    Ok(())
}
