//! The inbox under what a disk can do to it.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::journal::{Change, Changed, Found, Journal, Sum};
use super::*;
use crate::push::entry::Head;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const WINDOW: Duration = Duration::from_secs(3600);
const MANY: Bounds = Bounds {
    count: 1_000,
    bytes: 1 << 20,
};

/// A message, which is the same as another by its number.
fn put(number: u8) -> Put {
    put_of(number, b"{}")
}

fn put_of(number: u8, body: &'static [u8]) -> Put {
    let head = Head {
        id: number.to_string(),
        ..Head::example()
    };
    Put {
        entry: Arc::new(Entry {
            head,
            body: bytes::Bytes::from_static(body),
        }),
        identity: [number; 16],
        window: WINDOW,
        nonce: None,
        answer: None,
    }
}

/// The journal by itself.
fn journal(directory: &std::path::Path, bounds: Bounds) -> (Journal, Vec<Found>) {
    Journal::open(Some(directory), true, bounds).unwrap()
}

fn accepted(
    journal: &mut Journal,
    puts: &[Put],
    now: Timestamp,
) -> Vec<Result<Accepted, NotStored>> {
    let changes: Vec<_> = puts.iter().map(Change::Put).collect();
    let (changed, _) = journal.write(&changes, now).unwrap();
    let outcome = |changed| match changed {
        Changed::Put(outcome) => outcome,
        _ => panic!("a put is answered as one"),
    };
    changed.into_iter().map(outcome).collect()
}

fn ids(letters: &[Letter]) -> Vec<&str> {
    letters
        .iter()
        .map(|letter| letter.entry.head.id.as_str())
        .collect()
}

#[test]
fn repetitions_within_one_commit_and_across_restarts_are_known() {
    let directory = tempfile::tempdir().unwrap();
    let (mut first, _) = journal(directory.path(), MANY);
    assert_eq!(
        accepted(&mut first, &[put(1), put(1), put(2)], NOW),
        [
            Ok(Accepted::New(0)),
            Ok(Accepted::Duplicate),
            Ok(Accepted::New(1))
        ]
    );
    drop(first);
    let (mut second, found) = journal(directory.path(), MANY);
    assert_eq!(
        found.iter().map(|found| found.number).collect::<Vec<_>>(),
        [0, 1]
    );
    assert_eq!(
        accepted(&mut second, &[put(2), put(3)], NOW),
        [Ok(Accepted::Duplicate), Ok(Accepted::New(2))]
    );
    let later = NOW.plus(WINDOW);
    assert_eq!(
        accepted(&mut second, &[put(2)], later),
        [Ok(Accepted::New(3))],
        "forgotten after its window"
    );
}

#[test]
fn a_nonce_comes_with_one_message_only() {
    let (mut journal, _) = Journal::open(None, true, MANY).unwrap();
    let with_nonce = |number| Put {
        nonce: Some(([99; 16], Duration::from_secs(600))),
        ..put(number)
    };
    let outcomes = accepted(
        &mut journal,
        &[with_nonce(1), with_nonce(1), with_nonce(2)],
        NOW,
    );
    assert_eq!(
        outcomes,
        [
            Ok(Accepted::New(0)),
            Ok(Accepted::Duplicate),
            Ok(Accepted::Replayed)
        ]
    );
}

#[test]
fn bounds_hold_in_number_and_in_bytes_and_what_is_refused_is_not_remembered() {
    let few = Bounds {
        count: 2,
        bytes: 1 << 20,
    };
    let (mut journal, _) = Journal::open(None, true, few).unwrap();
    let outcomes = accepted(&mut journal, &[put(1), put(2), put(3)], NOW);
    assert_eq!(outcomes[2], Err(NotStored::Full));
    journal.write(&[Change::Settle(0)], NOW).unwrap();
    assert_eq!(
        accepted(&mut journal, &[put(3)], NOW),
        [Ok(Accepted::New(2))]
    );

    let small = Bounds {
        count: 100,
        bytes: 1_000,
    };
    let (mut journal, _) = Journal::open(None, true, small).unwrap();
    let large: &'static [u8] = &[b' '; 600];
    let outcomes = accepted(&mut journal, &[put_of(1, large), put_of(2, large)], NOW);
    assert_eq!(outcomes, [Ok(Accepted::New(0)), Err(NotStored::Full)]);
}

#[test]
fn a_full_disk_loses_nothing_and_is_recovered_from() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = journal(directory.path(), MANY);
    accepted(&mut journal, &[put(1), put(2)], NOW);
    journal.full.store(true, Ordering::Relaxed);
    assert!(
        journal
            .write(&[Change::Put(&put(3)), Change::Settle(0)], NOW)
            .is_err()
    );
    assert!(!journal.is_open());
    assert!(
        journal.write(&[Change::Settle(0)], NOW).is_err(),
        "it stays closed until it is opened"
    );
    journal.full.store(false, Ordering::Relaxed);
    let found = journal.reopen().unwrap();
    assert!(
        found.iter().all(|found| found.number == 2),
        "what was announced is not announced again"
    );
    assert_eq!(journal.waiting().count, 2 + found.len());
    journal.write(&[Change::Settle(0)], NOW).unwrap();
    assert_eq!(journal.waiting().count, 1 + found.len());
}

#[test]
fn dead_letters_are_bounded_and_the_oldest_go() {
    let few = Bounds {
        count: 2,
        bytes: 1 << 20,
    };
    let (mut journal, _) = Journal::open(None, true, few).unwrap();
    let death = Death {
        reason: "the app answers 422".to_owned(),
        attempts: 5,
        at: NOW.as_millis(),
    };
    for number in 0..4 {
        accepted(&mut journal, &[put(number)], NOW);
        journal
            .write(&[Change::Bury(u64::from(number), &death)], NOW)
            .unwrap();
    }
    let letters = journal.list(true, 0, 10).unwrap();
    assert_eq!(ids(&letters), ["2", "3"]);
    assert_eq!(letters[0].entry.head.death, Some(death));
    let (_, found) = journal
        .write(&[Change::Revive(&Which::Id("3".to_owned()))], NOW)
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(ids(&journal.list(false, 0, 10).unwrap()), ["3"]);
    journal.write(&[Change::Drop(&Which::All)], NOW).unwrap();
    assert_eq!(journal.dead(), Sum::default());
    assert_eq!(journal.waiting().count, 1, "not all that waits");
}

#[test]
fn a_journal_of_a_newer_version_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (mut first, _) = journal(directory.path(), MANY);
    first.pretend_form(9).unwrap();
    drop(first);
    let error = Journal::open(Some(directory.path()), true, MANY)
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "a newer wx-sidecar has written this journal (form 9; this one knows 1)"
    );
}

#[test]
fn a_file_that_is_no_journal_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("push.redb");
    std::fs::write(&file, b"my diary").unwrap();
    assert!(Journal::open(Some(directory.path()), true, MANY).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"my diary");
}

#[test]
fn the_file_is_its_owners_only_and_becomes_small_again() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let roomy = Bounds {
        count: 100_000,
        bytes: 1 << 30,
    };
    let (mut journal, _) = journal(directory.path(), roomy);
    let file = directory.path().join("push.redb");
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let large: &'static [u8] = &[b' '; 500_000];
    let puts: Vec<_> = (0..100).map(|number| put_of(number, large)).collect();
    accepted(&mut journal, &puts, NOW);
    assert!(std::fs::metadata(&file).unwrap().len() > 50_000_000);
    let settled: Vec<_> = (0..100).map(Change::Settle).collect();
    journal.write(&settled, NOW).unwrap();
    journal.compact_if_worthwhile().unwrap();
    assert!(std::fs::metadata(&file).unwrap().len() < 8_000_000);
}

/// What a step of the property test does.
#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Settle(u8),
    Bury(u8),
    Revive(u8),
    Crash,
    FullDisk(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..40_u8).prop_map(Step::Put),
        2 => (0..40_u8).prop_map(Step::Settle),
        1 => (0..40_u8).prop_map(Step::Bury),
        1 => (0..40_u8).prop_map(Step::Revive),
        1 => Just(Step::Crash),
        1 => (0..40_u8).prop_map(Step::FullDisk),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens in whatever order: a message that was acknowledged and not settled is in the inbox or among the dead
    /// letters, once.
    #[test]
    fn what_is_acknowledged_is_there_until_it_is_settled(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = journal(directory.path(), MANY);
        let death = Death { reason: "no".to_owned(), attempts: 1, at: 0 };
        let mut waiting = BTreeSet::new();
        let mut dead = BTreeSet::new();
        for step in steps {
            match step {
                Step::Put(n) => match accepted(&mut journal, &[put(n)], NOW)[0] {
                    Ok(Accepted::New(_)) => { waiting.insert(n); }
                    Ok(Accepted::Duplicate) => {}
                    ref other => prop_assert!(false, "{:?}", other),
                },
                Step::Settle(n) => {
                    for number in numbers_of(&journal, n) {
                        journal.write(&[Change::Settle(number)], NOW).unwrap();
                    }
                    waiting.remove(&n);
                }
                Step::Bury(n) => {
                    for number in numbers_of(&journal, n) {
                        journal.write(&[Change::Bury(number, &death)], NOW).unwrap();
                        dead.insert(n);
                    }
                    waiting.remove(&n);
                }
                Step::Revive(n) => {
                    journal.write(&[Change::Revive(&Which::Id(n.to_string()))], NOW).unwrap();
                    if dead.remove(&n) { waiting.insert(n); }
                }
                Step::Crash => {
                    drop(journal);
                    journal = Journal::open(Some(directory.path()), true, MANY).unwrap().0;
                }
                Step::FullDisk(n) => {
                    journal.full.store(true, Ordering::Relaxed);
                    let failed = journal.write(&[Change::Put(&put(n))], NOW).is_err();
                    journal.full.store(false, Ordering::Relaxed);
                    let found = journal.reopen().unwrap();
                    if !failed || !found.is_empty() { waiting.insert(n); }
                }
            }
            let inbox = journal.list(false, 0, 1000).unwrap();
            let listed: Vec<_> = ids(&inbox).iter().map(|id| id.parse::<u8>().unwrap()).collect();
            prop_assert_eq!(listed.len(), waiting.len());
            prop_assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), waiting.clone());
            prop_assert_eq!(journal.waiting().count, waiting.len());
            prop_assert_eq!(journal.dead().count, dead.len());
        }
    }
}

fn numbers_of(journal: &Journal, id: u8) -> Vec<u64> {
    let letters = journal.list(false, 0, 1000).unwrap();
    let is_it = |letter: &&Letter| letter.entry.head.id == id.to_string();
    letters
        .iter()
        .filter(is_it)
        .map(|letter| letter.number)
        .collect()
}
