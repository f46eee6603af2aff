//! Which of WeChat's APIs and errcodes have a label of their own.
//!
//! WeChat documents some hundred APIs and errcodes. All that are in the tables, one with the other, would be more series than a Prometheus
//! likes to keep of one process, and what is called is the app's affair: so the first come have labels of their own, far more of
//! them than an app uses, and the rest is `other`. A label that was given stays, so that no counter goes backwards.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::wechat::{access_token, endpoints, errcode, login};

/// How many APIs have a label of their own, besides those that the sidecar lives by.
const MOST_APIS: usize = 32;
/// How many errcodes each of them has, besides those that somebody must hear of.
const MOST_ERRCODES: usize = 12;
/// APIs that the sidecar lives by.
const OURS: [&str; 2] = [access_token::API.path, login::API.path];
/// Errcodes that always have a label: success, WeChat is busy, the token or the secret is not good, the address is not
/// allowed, a quota or a rate is used up, and no permission.
const TOLD: [i64; 9] = [0, -1, 40001, 40125, 40164, 42001, 45009, 45011, 48001];

/// What has a label so far.
#[derive(Default)]
pub(super) struct Apis {
    /// The errcodes of each API. Guards a look-up beside a call to WeChat.
    known: Mutex<BTreeMap<&'static str, Vec<i64>>>,
}

impl Apis {
    /// The label of the API at `path`, which has one from now on if there is room.
    pub(super) fn label(&self, path: &'static str) -> &'static str {
        if path == endpoints::OTHER || OURS.contains(&path) {
            return path;
        }
        let mut known = self.known();
        if known.contains_key(path) {
            return path;
        }
        let others = known.keys().filter(|known| !is_free(known)).count();
        if others >= MOST_APIS {
            return endpoints::OTHER;
        }
        known.insert(path, Vec::new());
        path
    }

    /// Whether `code` has a label where `label` is that of the API, and from now on.
    pub(super) fn tells(&self, label: &'static str, code: i64) -> bool {
        if TOLD.contains(&code) {
            return true;
        }
        if errcode::find(code).is_none() {
            return false;
        }
        let mut known = self.known();
        let codes = known.entry(label).or_default();
        if codes.contains(&code) {
            return true;
        }
        let has_room = codes.len() < MOST_ERRCODES;
        if has_room {
            codes.push(code);
        }
        has_room
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<&'static str, Vec<i64>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it has a label whatever else has.
fn is_free(path: &str) -> bool {
    path == endpoints::OTHER || OURS.contains(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_apis_as_there_is_room_for_have_a_label_and_those_we_live_by_always() {
        let apis = Apis::default();
        let paths: Vec<_> = endpoints::all().map(|endpoint| endpoint.path).collect();
        let own = |apis: &Apis| {
            let labels = paths.iter().map(|path| (*path, apis.label(path)));
            labels
                .filter(|(path, label)| path == label)
                .map(|(path, _)| path)
                .collect::<Vec<_>>()
        };
        let first = own(&apis);
        assert_eq!(first.len(), MOST_APIS + OURS.len());
        assert!(OURS.iter().all(|path| first.contains(path)));
        assert_eq!(own(&apis), first, "what has a label keeps it");
    }

    #[test]
    fn as_many_errcodes_as_there_is_room_for_have_a_label_and_those_that_matter_always() {
        let apis = Apis::default();
        let label = apis.label("/wxa/msg_sec_check");
        let told: Vec<i64> = (-100_000..1_000_000)
            .filter(|code| apis.tells(label, *code))
            .collect();
        let free = |code: &&i64| TOLD.contains(code);
        assert_eq!(told.len(), MOST_ERRCODES + told.iter().filter(free).count());
        assert!(apis.tells(label, 40164) && apis.tells(endpoints::OTHER, 40164));
        assert!(!apis.tells(label, 123_456_789), "nobody knows it");
    }
}
