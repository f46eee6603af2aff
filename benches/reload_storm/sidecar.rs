//! The sidecar as a process, by its admin side and by what the kernel says of it.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::process::{Memory, Process};
use crate::wire::Wire;

/// How long it may take to be ready, also one that was built without optimisation.
const PATIENCE: Duration = Duration::from_secs(60);
/// So much of what it logs is kept.
const KEPT: usize = 8 * 1024;

pub(crate) struct Sidecar {
    process: Process,
    admin: SocketAddr,
    /// The end of what it has logged.
    said: Arc<Mutex<Vec<u8>>>,
}

impl Sidecar {
    pub(crate) fn start(
        binary: &Path,
        configuration: &Path,
        admin: SocketAddr,
        directory: &Path,
    ) -> Result<Self, String> {
        let mut command = Command::new(binary);
        command.arg("run").arg("-c").arg(configuration);
        let mut process = Process::spawn("sidecar", &mut command, directory)?;
        let said = Arc::<Mutex<Vec<u8>>>::default();
        let mut stdout = process.stdout().ok_or("it has no stdout")?;
        let kept = Arc::clone(&said);
        // A pipe that nobody reads would stall it.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut bytes) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&bytes[..length]);
                let surplus = kept.len().saturating_sub(KEPT);
                kept.drain(..surplus);
            }
        });
        Ok(Self {
            process,
            admin,
            said,
        })
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&mut self) -> Result<(), String> {
        let began = Instant::now();
        while self
            .page("/readyz")
            .await
            .is_none_or(|(status, _)| status != 200)
        {
            self.lives()?;
            if began.elapsed() > PATIENCE {
                return Err("the sidecar is not ready".to_owned());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// An error if it has ended.
    pub(crate) fn lives(&mut self) -> Result<(), String> {
        match self.process.ended() {
            None => Ok(()),
            Some(status) => Err(format!(
                "the sidecar ended ({status}); {}\n{}",
                self.process.last_words(),
                self.said()
            )),
        }
    }

    /// The end of what it logged.
    pub(crate) fn said(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).into_owned()
    }

    /// The value of a series on `/metrics`; 0 if it is not there.
    pub(crate) async fn metric(&self, series: &str) -> Result<f64, String> {
        let page = self.page("/metrics").await;
        let (_, page) = page.ok_or("the sidecar's admin side does not answer")?;
        let mut lines = page.lines();
        let value =
            lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        Ok(value.unwrap_or(0.0))
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory::of(&self.process.tree())
    }

    pub(crate) fn stop(mut self) -> bool {
        self.process.stop(Duration::from_secs(10))
    }

    async fn page(&self, path: &str) -> Option<(u16, String)> {
        let mut wire = Wire::connect(self.admin).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n");
        let answer = wire.exchange(request.as_bytes()).await.ok()?;
        let page = String::from_utf8_lossy(&answer.body).into_owned();
        Some((answer.status()?, page))
    }
}
