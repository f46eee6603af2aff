//! The sidecar is killed while messages come in and go out, and nothing that was acknowledged is lost.
//!
//! The small form of `make ledger`, which does the same a hundred times; and that the ledger sees what it is to see.

#[path = "../benches/ledger/run.rs"]
mod ledger;

use std::time::Instant;

use crate::rig::{canary, keep};
use ledger::book::{Balance, Book, Delivered};
use ledger::wechat::{AES_KEY, SECRET, TOKEN};
use ledger::{Inbox, Options, run};

#[test]
fn five_kills_under_load_lose_no_message_and_change_no_order() {
    for secret in [AES_KEY, SECRET, TOKEN] {
        canary(secret);
    }
    let directory = tempfile::tempdir().unwrap();
    let report = run(&Options {
        kills: 5,
        rate: 150.0,
        users: 24,
        seed: 5,
        inbox: Inbox::Journal,
        directory: directory.path().to_owned(),
    });
    let report = report.unwrap_or_else(|why| panic!("{why}"));
    keep("push-kill.log", report.said());
    let wrong = wrong(&report.to_string());
    assert!(
        report.is_good() || wrong.is_empty(),
        "{wrong:#?}\n{report}\n{}",
        report.said()
    );
}

/// What of a report must be none and is some. A machine that stands still for longer than the sidecar waits for the app has it
/// send a message once more to an app that is as well as ever, which is neither lost nor out of order: how often that was is for
/// `make ledger` to judge.
fn wrong(report: &str) -> Vec<String> {
    const NEEDLESS: &str = "  more than once without a kill or trouble ";
    let rows = report.lines().filter_map(|line| {
        let row = line.strip_suffix("must be 0")?;
        let (_, count) = row.trim_end().rsplit_once(' ')?;
        Some((row, count))
    });
    let (needless, rows): (Vec<_>, Vec<_>) = rows.partition(|(row, _)| row.starts_with(NEEDLESS));
    assert_eq!((needless.len(), rows.len()), (1, 6), "{report}");
    let wrong = rows.iter().filter(|(_, count)| *count != "0");
    let mut wrong: Vec<String> = wrong.map(|(row, _)| row.trim().to_owned()).collect();
    if !report.contains("times too many, none under another id") {
        wrong.push("messages came again under another id".to_owned());
    }
    wrong
}

fn delivered(number: u64) -> Delivered {
    Delivered {
        mark: (7, number),
        id: format!("id {number}"),
        life: 0,
        era: 0,
        answered: Some(0),
        at: Instant::now(),
    }
}

/// Messages 0 to 3 of user 7, acknowledged, and these deliveries.
fn balance(deliveries: Vec<Delivered>) -> Balance {
    let mut book = Book::default();
    for number in 0..4 {
        book.sent((7, number));
        book.acknowledged((7, number));
    }
    for delivered in deliveries {
        book.deliver(delivered);
    }
    book.balance()
}

#[test]
fn a_ledger_in_which_all_is_as_it_must_be_is_even() {
    let balance = balance([0, 1, 2, 3].map(delivered).into());
    assert!(balance.is_even(), "{balance:?}");
    assert_eq!((balance.acknowledged, balance.delivered), (4, 4));
}

#[test]
fn what_was_acknowledged_and_did_not_come_is_lost() {
    let balance = balance([0, 1, 3].map(delivered).into());
    assert_eq!(balance.lost, [(7, 2)]);
    assert!(!balance.is_even());
}

#[test]
fn what_was_not_acknowledged_may_come_or_not() {
    let mut book = Book::default();
    book.sent((7, 0));
    book.sent((7, 1));
    book.deliver(delivered(1));
    let balance = book.balance();
    assert!(balance.is_even(), "{balance:?}");
    assert_eq!(balance.beyond, 1);
}

#[test]
fn a_message_that_comes_behind_a_later_one_is_out_of_order() {
    let late = balance([0, 2, 1, 3].map(delivered).into());
    assert_eq!(late.disordered, [(7, 2)]);
    assert!(!late.is_even());
    let again = balance(
        [0, 1, 2, 1, 3]
            .map(|number| Delivered {
                answered: None,
                ..delivered(number)
            })
            .into(),
    );
    assert!(again.disordered.is_empty(), "the first time counts");
}

#[test]
fn a_second_time_needs_a_reason_and_the_same_id() {
    let with = |second: Delivered| {
        let mut all: Vec<_> = [0, 1, 2, 3].map(delivered).into();
        all.push(second);
        balance(all)
    };
    let needless = with(delivered(2));
    assert_eq!((needless.extra, needless.needless), (1, 1));
    assert!(!needless.is_even());
    let of_another = with(Delivered {
        life: 1,
        ..delivered(2)
    });
    assert_eq!(of_another.needless, 1, "the first sidecar still lives");
    let in_trouble = with(Delivered {
        era: 1,
        ..delivered(2)
    });
    assert!(in_trouble.is_even(), "{in_trouble:?}");
    let mut book = Book::default();
    book.sent((7, 2));
    book.acknowledged((7, 2));
    book.deliver(delivered(2));
    book.died(0);
    book.deliver(Delivered {
        life: 1,
        ..delivered(2)
    });
    let killed = book.balance();
    assert!(killed.is_even() && killed.extra == 1, "{killed:?}");
    let renamed = with(Delivered {
        life: 1,
        id: "another".to_owned(),
        ..delivered(2)
    });
    assert_eq!(renamed.renamed, 1);
    assert!(!renamed.is_even());
}
