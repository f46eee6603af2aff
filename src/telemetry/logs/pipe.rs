//! The way to standard output: a bounded buffer, and a thread that empties it.
//!
//! Whoever logs only copies a line into the buffer, so that a reader who is slow, or gone, holds up nobody who serves. When
//! the buffer is full, lines are dropped and counted, and once output flows again the log says how many those were. The
//! thread lingers a little before it writes, because a write for each line would cost more than the line; what is urgent
//! is written at once.
//!
//! A line that was begun is finished before anything else is written, even if the disk was full in between.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// How much waits to be written at most, in bytes.
pub(super) const CAPACITY: usize = 1024 * 1024;
/// How much is written without lingering.
const ENOUGH: usize = 64 * 1024;
/// How long lines may wait for others.
const LINGER: Duration = Duration::from_millis(50);
/// How long to wait for output that is shared with somebody who does not want to wait.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Takes lines, and writes them elsewhere.
pub(super) struct Pipe {
    /// Guards what waits, for a copy into it or a swap.
    waiting: Mutex<Waiting>,
    filled: Condvar,
    emptied: Condvar,
    /// Lines for which there was no room, and those that could not be written.
    crowded_out: AtomicU64,
    refused: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    text: Vec<u8>,
    /// Whether to write it without lingering.
    is_due: bool,
    /// Bytes that were ever taken, and those of them that need not be waited for any more.
    taken: u64,
    settled: u64,
    /// Lines that were dropped and not yet told of.
    untold: u64,
    /// The thread that writes, which has room always: what it says is how much there was no room for.
    writer: Option<ThreadId>,
}

impl Pipe {
    pub(super) const fn new() -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                text: Vec::new(),
                is_due: false,
                taken: 0,
                settled: 0,
                untold: 0,
                writer: None,
            }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            crowded_out: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Takes a line, with the line feed at its end, unless there is no room for it. Never waits for output.
    pub(super) fn push(&self, line: &[u8], urgent: bool) {
        let mut waiting = self.waiting();
        let is_full = waiting.text.len() + line.len() > CAPACITY;
        if is_full && waiting.writer != Some(thread::current().id()) {
            waiting.untold += 1;
            self.crowded_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = waiting.text.is_empty();
        let was_due = waiting.is_due;
        waiting.text.extend_from_slice(line);
        waiting.taken += line.len() as u64;
        waiting.is_due |= urgent || waiting.text.len() >= ENOUGH;
        let news = was_empty || waiting.is_due != was_due;
        drop(waiting);
        if news {
            self.filled.notify_one();
        }
    }

    /// How many lines were dropped, ever, and why.
    pub(super) fn dropped(&self) -> [(&'static str, u64); 2] {
        [("full", &self.crowded_out), ("error", &self.refused)]
            .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }

    /// Waits until all that was taken is written, or given up, but no longer than `limit`. Says whether it is.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut waiting = self.waiting();
        while waiting.settled < waiting.taken {
            waiting.is_due = true;
            self.filled.notify_one();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.emptied.wait_timeout(waiting, left.min(LINGER));
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Writes what comes, for ever. `tell` is told of lines that were dropped, when output flows again.
    pub(super) fn write_to(&self, mut out: impl Write, tell: impl Fn(u64)) {
        self.waiting().writer = Some(thread::current().id());
        let mut batch = Batch::default();
        let mut untold = 0;
        loop {
            untold += self.next(&mut batch);
            let length = batch.fresh();
            let lost = batch.write(&mut out);
            self.refused.fetch_add(lost, Ordering::Relaxed);
            untold += lost;
            // Before it counts as done, so that who waits for the end waits for this too.
            if untold > 0 && batch.has_flowed {
                tell(std::mem::take(&mut untold));
            }
            self.settle(length);
        }
    }

    /// Waits for something to write and adds it to `batch`. The number of lines that were dropped meanwhile.
    fn next(&self, batch: &mut Batch) -> u64 {
        let mut waiting = self.waiting();
        while waiting.text.is_empty() {
            waiting = self
                .filled
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let began = Instant::now();
        // What cannot be written need not be tried at once.
        while !waiting.is_due || !batch.has_flowed {
            let left = LINGER.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            let woken = self.filled.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.is_due = false;
        batch.take(&mut waiting.text);
        std::mem::take(&mut waiting.untold)
    }

    fn settle(&self, length: u64) {
        self.waiting().settled += length;
        self.emptied.notify_all();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is being written.
struct Batch {
    text: Vec<u8>,
    /// How much at its beginning is the rest of a line that was begun before.
    owed: usize,
    /// Whether the last write went well.
    has_flowed: bool,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            text: Vec::new(),
            owed: 0,
            has_flowed: true,
        }
    }
}

impl Batch {
    /// Moves lines here; what they leave behind is an empty buffer to be filled again.
    fn take(&mut self, lines: &mut Vec<u8>) {
        if self.owed == 0 {
            std::mem::swap(&mut self.text, lines);
        } else {
            self.text.append(lines);
        }
        // What a flood has needed is not kept.
        if lines.capacity() > 2 * ENOUGH {
            *lines = Vec::new();
        }
    }

    /// How many bytes of it nobody has tried to write.
    fn fresh(&self) -> u64 {
        (self.text.len() - self.owed) as u64
    }

    /// Writes it, and says how many lines could not be. The rest of one that was begun stays, to be written first.
    fn write(&mut self, out: &mut impl Write) -> u64 {
        let mut at = 0;
        self.has_flowed = loop {
            if at == self.text.len() {
                break true;
            }
            match out.write(&self.text[at..]) {
                Ok(0) => break false,
                Ok(count) => at += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(BUSY_PAUSE);
                }
                Err(_) => break false,
            }
        };
        let is_within_a_line = at < self.owed || (at > 0 && self.text[at - 1] != b'\n');
        let rest = &self.text[at..];
        self.owed = match is_within_a_line {
            true => rest
                .iter()
                .position(|&b| b == b'\n')
                .map_or(0, |end| end + 1),
            false => 0,
        };
        let lost = rest[self.owed..].iter().filter(|&&b| b == b'\n').count();
        self.text.truncate(at + self.owed);
        self.text.drain(..at);
        lost as u64
    }
}

/// Standard output, as a file: what `std` has for it splits what is written, and does not tell how far it came.
pub(super) fn standard_output() -> io::Result<std::fs::File> {
    use std::os::fd::AsFd;
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// What becomes of one write.
    enum Fate {
        Takes(usize),
        Fails(ErrorKind),
    }

    /// Output that does as it is told, write by write, and everything once it is told no more.
    struct Output {
        fates: Receiver<Fate>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = match self.fates.recv() {
                Ok(Fate::Takes(most)) => most.min(bytes.len()),
                Ok(Fate::Fails(kind)) => return Err(kind.into()),
                Err(_) => bytes.len(),
            };
            self.written.send(bytes[..count].to_vec()).unwrap();
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A pipe that has these lines, whose output waits to be told what to do; and what it has written.
    fn pipe(lines: &[&str]) -> (Arc<Pipe>, Sender<Fate>, Receiver<Vec<u8>>) {
        let (tell, fates) = mpsc::channel();
        let (written, reader) = mpsc::channel();
        let pipe = Arc::new(Pipe::new());
        for line in lines {
            pipe.push(line.as_bytes(), true);
        }
        let writing = Arc::clone(&pipe);
        thread::spawn(move || {
            let told = Arc::clone(&writing);
            writing.write_to(Output { fates, written }, move |lost| {
                told.push(format!("{lost} lost\n").as_bytes(), true);
            });
        });
        (pipe, tell, reader)
    }

    /// What is written until `end` is.
    fn until(reader: &Receiver<Vec<u8>>, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            let more = reader.recv_timeout(PATIENCE).expect(&text);
            text.push_str(std::str::from_utf8(&more).unwrap());
        }
        text
    }

    #[test]
    fn output_that_takes_nothing_holds_nobody_up_and_what_was_dropped_is_told() {
        let (pipe, fates, reader) = pipe(&["first\n"]);
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        while !pipe.waiting().text.is_empty() {
            thread::yield_now();
        }
        while pipe.dropped()[0].1 < 10 {
            pipe.push(&line, true);
        }
        assert!(pipe.waiting().text.len() <= CAPACITY);
        assert!(!pipe.flush(Duration::ZERO));
        drop(fates);
        let text = until(&reader, " lost\n");
        assert!(text.starts_with("first\n"), "{}", &text[..99]);
        assert!(
            text.ends_with("x\n10 lost\n"),
            "{}",
            &text[text.len() - 99..]
        );
        assert!(pipe.flush(PATIENCE));
        assert_eq!(pipe.dropped(), [("full", 10), ("error", 0)]);
        assert!(pipe.waiting().text.capacity() <= 2 * ENOUGH);
    }

    #[test]
    fn what_was_dropped_is_told_though_there_is_no_room_for_that_either() {
        let pipe = Arc::new(Pipe::new());
        let (written, reader) = mpsc::channel();
        let (tell, fates) = mpsc::channel();
        let fill = |pipe: &Pipe| {
            while pipe.waiting().text.len() < CAPACITY - 1024 {
                pipe.push(&[&[b'x'; 1023][..], b"\n"].concat(), true);
            }
        };
        fill(&pipe);
        pipe.push(&[b'y'; 2048], true);
        let writing = Arc::clone(&pipe);
        thread::spawn(move || {
            let told = Arc::clone(&writing);
            writing.write_to(Output { fates, written }, move |lost| {
                thread::scope(|scope| drop(scope.spawn(|| fill(&told))));
                told.push(
                    format!("{lost} lost\n{}", "z".repeat(2048)).as_bytes(),
                    true,
                );
            });
        });
        drop(tell);
        let mut text = String::new();
        while !text.contains("1 lost\n") {
            let more = reader.recv_timeout(PATIENCE).expect("it is told");
            text.push_str(std::str::from_utf8(&more).unwrap());
        }
        assert_eq!(pipe.dropped(), [("full", 1), ("error", 0)]);
    }

    #[test]
    fn a_line_that_was_begun_is_finished_though_the_disk_was_full_in_between() {
        let lines = ["{\"first\":1}\n", "{\"second\":2}\n", "{\"third\":3}\n"];
        let (pipe, fates, reader) = pipe(&lines);
        fates.send(Fate::Takes(15)).unwrap();
        fates.send(Fate::Fails(ErrorKind::StorageFull)).unwrap();
        fates.send(Fate::Fails(ErrorKind::StorageFull)).unwrap();
        assert!(pipe.flush(PATIENCE));
        assert_eq!(pipe.dropped(), [("full", 0), ("error", 1)]);
        pipe.push(b"{\"fourth\":4}\n", true);
        assert!(pipe.flush(PATIENCE));
        pipe.push(b"{\"fifth\":5}\n", true);
        drop(fates);
        assert_eq!(
            until(&reader, " lost\n"),
            "{\"first\":1}\n{\"second\":2}\n{\"fifth\":5}\n2 lost\n"
        );
    }

    #[test]
    fn what_interrupts_or_is_busy_loses_nothing() {
        let (pipe, fates, reader) = pipe(&["one\n"]);
        fates.send(Fate::Fails(ErrorKind::Interrupted)).unwrap();
        fates.send(Fate::Takes(2)).unwrap();
        fates.send(Fate::Fails(ErrorKind::WouldBlock)).unwrap();
        drop(fates);
        assert_eq!(until(&reader, "one\n"), "one\n");
        assert!(pipe.flush(PATIENCE));
        assert_eq!(pipe.dropped(), [("full", 0), ("error", 0)]);
    }

    #[test]
    fn what_is_not_urgent_is_written_too() {
        let (pipe, fates, reader) = pipe(&[]);
        drop(fates);
        pipe.push(b"one\n", false);
        assert_eq!(until(&reader, "one\n"), "one\n");
    }

    #[test]
    fn who_gives_up_output_that_fails_for_ever_is_soon_done() {
        let (pipe, fates, _reader) = pipe(&["one\n", "two\n"]);
        for _ in 0..100 {
            fates.send(Fate::Fails(ErrorKind::BrokenPipe)).unwrap();
        }
        assert!(pipe.flush(PATIENCE));
        assert_eq!(pipe.dropped(), [("full", 0), ("error", 2)]);
    }
}
