//! What is kept, in memory and on the disk, and what is not; the files are real ones.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use crate::config::Config;
use crate::telemetry::metrics::Metrics;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

struct Shelf {
    cache: Cache,
    clock: Clock,
    metrics: Metrics,
}

impl Shelf {
    /// A cache with these lines of `[media]`.
    async fn new(lines: &str) -> Self {
        let shelf = Self::unscanned(lines);
        shelf.cache.look_around().await;
        shelf
    }

    fn unscanned(lines: &str) -> Self {
        let text = format!(
            "[app]\nappid = \"wx0123456789abcdef\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
             [inbound]\nupstream = \"http://127.0.0.1:1\"\n[media]\n{lines}"
        );
        let config = Config::from_toml(&text).unwrap();
        let (clock, metrics) = (Clock::manual(START), Metrics::new());
        let counted = Arc::new(MediaMetrics::register(&metrics));
        Self {
            cache: Cache::new(&config.media, clock.clone(), counted),
            clock,
            metrics,
        }
    }

    async fn on_disk(directory: &Path, more: &str) -> Self {
        let directory = directory.display();
        Self::new(&format!(
            "memory_cache_size = \"none\"\ncache_dir = \"{directory}\"\n{more}"
        ))
        .await
    }

    async fn keep(&self, id: &str, bytes: &'static [u8]) {
        let head = head(bytes.len(), self.clock.now());
        let whole = Whole::InMemory(Bytes::from_static(bytes));
        self.cache.keep_in_memory(&name(id), &head, &whole);
        self.cache.keep_on_disk(&name(id), &head, whole).await;
    }

    /// What is had of a medium, by whatever way.
    async fn had(&self, id: &str) -> Option<Vec<u8>> {
        let kept = match self.cache.at_hand(&name(id).key()) {
            Some(kept) => kept,
            None => self.cache.on_disk(&name(id)).await?,
        };
        let length = usize::try_from(kept.head.length.unwrap()).unwrap();
        Some(match kept.body {
            Body::Memory(bytes) => bytes.to_vec(),
            Body::Disk(file, at) => files::read_at(&file, at, length).await.unwrap().to_vec(),
        })
    }

    fn metric(&self, series: &str) -> Option<String> {
        let families = self.metrics.registry().gather();
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&families)
            .unwrap();
        let mut lines = text.lines();
        lines.find_map(|line| Some(line.strip_prefix(series)?.trim().to_owned()))
    }
}

fn name(id: &str) -> Name {
    Name {
        appid: AppId::parse("wx0123456789abcdef").unwrap(),
        media_id: MediaId::parse(id).unwrap(),
    }
}

fn head(length: usize, fetched_at: Timestamp) -> Head {
    Head {
        content_type: "image/png",
        name: Some("猫.png".to_owned()),
        length: Some(length as u64),
        fetched_at,
    }
}

fn files_in(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn what_is_small_is_in_memory_until_others_need_the_room() {
    let shelf = Shelf::new("memory_cache_size = \"1034B\"\n").await;
    shelf.keep("a", b"aaaa").await;
    shelf.keep("b", b"bbbb").await;
    assert_eq!(shelf.had("a").await.as_deref(), Some(&b"aaaa"[..]));
    shelf.keep("c", b"cccc").await;
    assert_eq!(
        shelf.had("b").await,
        None,
        "it was not used for the longest"
    );
    assert!(shelf.had("a").await.is_some() && shelf.had("c").await.is_some());
    shelf.keep("d", &[7; 600]).await;
    assert_eq!(shelf.had("d").await, None, "there is no room for it");
    let bytes = shelf.metric("wx_sidecar_media_cache_bytes{tier=\"memory\"}");
    assert_eq!(bytes.as_deref(), Some("1032"), "with what entries take");
    let given_up = "wx_sidecar_media_cache_evictions_total{reason=\"size\",tier=\"memory\"}";
    assert_eq!(shelf.metric(given_up).as_deref(), Some("1"));
}

#[tokio::test]
async fn the_disk_has_it_after_a_restart_and_gives_it_to_its_own_app_only() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("new/cache");
    let shelf = Shelf::on_disk(&place, "").await;
    shelf.keep("a", b"medium").await;
    let [file] = &files_in(&place)[..] else {
        panic!("one file");
    };
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&place), mode(file)), (0o700, 0o600));

    let shelf = Shelf::on_disk(&place, "").await;
    let entries = shelf.metric("wx_sidecar_media_cache_entries{tier=\"disk\"}");
    assert_eq!(entries.as_deref(), Some("1"), "it was found by the scan");
    let kept = shelf.cache.on_disk(&name("a")).await.unwrap();
    assert_eq!(kept.head, head(6, START));
    assert_eq!(shelf.had("a").await.as_deref(), Some(&b"medium"[..]));
    assert!(
        shelf.cache.at_hand(&name("a").key()).is_some(),
        "its file is open now"
    );
    let others = Name {
        appid: AppId::parse("wxfedcba9876543210").unwrap(),
        ..name("a")
    };
    assert_ne!(others.key(), name("a").key());
    assert!(shelf.cache.on_disk(&others).await.is_none());
    // Not even by a file that has been given the other's name.
    fs::copy(file, place.join(format!("{}.media", others.key().hex()))).unwrap();
    assert!(shelf.cache.on_disk(&others).await.is_none());
}

#[tokio::test]
async fn what_a_process_has_stored_another_finds_without_a_scan() {
    let directory = tempfile::tempdir().unwrap();
    let one = Shelf::on_disk(directory.path(), "").await;
    let other = Shelf::on_disk(directory.path(), "").await;
    one.keep("a", b"medium").await;
    assert_eq!(other.had("a").await.as_deref(), Some(&b"medium"[..]));
    one.clock.advance(LIFE);
    assert_eq!(one.had("a").await, None, "it has expired, and is removed");
    assert_eq!(files_in(directory.path()).len(), 0);
    assert_eq!(
        other.had("a").await.as_deref(),
        Some(&b"medium"[..]),
        "what it has open it has still"
    );
}

#[tokio::test]
async fn three_days_later_it_is_gone_from_everywhere() {
    let directory = tempfile::tempdir().unwrap();
    let lines = format!("cache_dir = \"{}\"\n", directory.path().display());
    let shelf = Shelf::new(&lines).await;
    shelf.keep("a", b"medium").await;
    shelf
        .clock
        .advance(LIFE - std::time::Duration::from_secs(1));
    assert!(shelf.had("a").await.is_some());
    shelf.clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(shelf.had("a").await, None);
    assert_eq!(files_in(directory.path()).len(), 0);
    shelf.keep("b", b"medium").await;
    let shelf = Shelf::unscanned(&lines);
    shelf.clock.advance(LIFE * 2);
    shelf.cache.look_around().await;
    assert_eq!(
        files_in(directory.path()).len(),
        0,
        "the scan removes it, too"
    );
}

#[tokio::test]
async fn what_is_read_often_from_the_disk_is_in_memory_then() {
    let directory = tempfile::tempdir().unwrap();
    let lines = format!("cache_dir = \"{}\"\n", directory.path().display());
    Shelf::new(&lines).await.keep("a", b"medium").await;
    let shelf = Shelf::new(&lines).await;
    let kept = shelf.cache.on_disk(&name("a")).await.unwrap();
    assert!(matches!(kept.body, Body::Memory(_)));
    let kept = shelf.cache.at_hand(&name("a").key()).unwrap();
    assert!(matches!(kept.body, Body::Memory(bytes) if bytes == "medium"));
}

#[tokio::test]
async fn what_is_damaged_is_removed_and_not_served() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = Shelf::on_disk(directory.path(), "").await;
    let damages: [fn(&File); 6] = [
        |file| file.set_len(4096 + 5).unwrap(),
        |file| file.set_len(4096 + 7).unwrap(),
        |file| file.set_len(100).unwrap(),
        |file| file.set_len(0).unwrap(),
        |file| file.write_all_at(b"x", 0).unwrap(),
        |file| file.write_all_at(b"x", 60).unwrap(),
    ];
    for (number, damage) in damages.iter().enumerate() {
        shelf.keep("a", b"medium").await;
        let [path] = &files_in(directory.path())[..] else {
            panic!("one file");
        };
        damage(&File::options().write(true).open(path).unwrap());
        assert_eq!(shelf.had("a").await, None, "{number}");
        assert_eq!(files_in(directory.path()).len(), 0, "{number}");
    }
    let damaged = shelf.metric("wx_sidecar_media_cache_errors_total{op=\"damaged\"}");
    assert_eq!(damaged.as_deref(), Some("6"));
}

#[tokio::test]
async fn the_oldest_files_make_room() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = Shelf::on_disk(directory.path(), "cache_size = \"8202B\"\n").await;
    shelf.keep("a", b"aaaa").await;
    shelf.keep("b", b"bbbb").await;
    assert!(shelf.had("a").await.is_some());
    shelf.keep("c", b"cccc").await;
    assert_eq!(shelf.had("b").await, None);
    assert!(shelf.had("a").await.is_some() && shelf.had("c").await.is_some());
    shelf.keep("d", &[7; 5000]).await;
    assert_eq!(files_in(directory.path()).len(), 2);
    let bytes = shelf.metric("wx_sidecar_media_cache_bytes{tier=\"disk\"}");
    assert_eq!(bytes.as_deref(), Some("8200"), "with what files begin with");
    // With less room, a start makes do with it.
    Shelf::on_disk(directory.path(), "cache_size = \"5000B\"\n").await;
    assert_eq!(files_in(directory.path()).len(), 1);
}

#[tokio::test]
async fn a_start_removes_what_a_killed_process_left_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at(&format!("{}.unfinished", "0".repeat(32))), "half").unwrap();
    fs::write(at("notes.txt"), "somebody else's").unwrap();
    fs::write(at("x.media"), "somebody else's").unwrap();
    let busy = Shelf::on_disk(directory.path(), "").await;
    let draft = busy.cache.draft().await.unwrap();
    let mut left = files_in(directory.path());
    left.sort();
    assert_eq!(left.len(), 3, "{left:?}");
    // Another process starts while this one writes.
    Shelf::on_disk(directory.path(), "").await;
    assert_eq!(files_in(directory.path()).len(), 3);
    // Where there is no runtime that could do it aside.
    std::thread::spawn(move || drop(draft)).join().unwrap();
    left = files_in(directory.path());
    left.sort();
    assert_eq!(left, [at("notes.txt"), at("x.media")]);
}

#[tokio::test]
async fn a_disk_that_refuses_is_told_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("file");
    fs::write(&place, "no directory").unwrap();
    let lines = format!("cache_dir = \"{}\"\n", place.display());
    let shelf = Shelf::new(&lines).await;
    shelf.keep("a", b"medium").await;
    assert_eq!(
        shelf.had("a").await.as_deref(),
        Some(&b"medium"[..]),
        "memory has it"
    );
    let failed = |op: &str| {
        shelf.metric(&format!(
            "wx_sidecar_media_cache_errors_total{{op=\"{op}\"}}"
        ))
    };
    assert_eq!(failed("write").as_deref(), Some("1"));
    assert_eq!(failed("open").as_deref(), Some("1"), "the scan");
    assert!(shelf.cache.draft().await.is_err());
}

#[tokio::test]
async fn what_will_be_kept_is_told_before_it_is_there() {
    const MIB: u64 = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let disk = format!(
        "memory_cache_size = \"none\"\ncache_dir = \"{}\"\ncache_size = \"1MiB\"\n",
        directory.path().display()
    );
    for (lines, length, expected) in [
        ("memory_cache_size = \"1MiB\"\n", Some(256 * 1024), true),
        (
            "memory_cache_size = \"1MiB\"\n",
            Some(256 * 1024 + 1),
            false,
        ),
        ("memory_cache_size = \"1MiB\"\n", None, false),
        ("memory_cache_size = \"none\"\n", Some(1), false),
        (&disk, Some(MIB - 4096), true),
        (&disk, Some(MIB), false),
        (&disk, None, false),
        (&disk.replace("1MiB", "40MiB"), None, true),
    ] {
        let shelf = Shelf::unscanned(lines);
        assert_eq!(
            shelf.cache.would_keep(length),
            expected,
            "{lines} {length:?}"
        );
    }
}

#[tokio::test]
async fn a_draft_of_another_directory_is_not_kept() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let before = Shelf::on_disk(one.path(), "").await;
    let after = Shelf::on_disk(other.path(), "").await;
    let draft = before.cache.draft().await.unwrap();
    draft
        .file()
        .write_all_at(b"medium", draft.beginning())
        .unwrap();
    let whole = Whole::OnDisk(draft);
    after
        .cache
        .keep_on_disk(&name("a"), &head(6, START), whole)
        .await;
    assert_eq!(after.had("a").await, None);
    assert_eq!(files_in(other.path()).len(), 0);
    let left = after.metric("wx_sidecar_media_cache_errors_total{op=\"write\"}");
    assert_eq!(left.as_deref(), Some("0"), "it is no failure");
}
