//! The access token that a connection showed last.
//!
//! A phone shows one token with all requests of its connection, and to open it again would give the same again: what a
//! token says depends on its bytes and the keys alone. So a connection remembers the last good one, until it idles or ends.
//! Whether that has expired since, or was revoked, is asked with every request.

use std::cell::{OnceCell, RefCell};
use std::hint::black_box;
use std::rc::Rc;

use zeroize::Zeroizing;

use super::token::{Claims, KeysId};
use crate::telemetry::pseudonym::{Pseudonym, Pseudonyms};

/// What one connection remembers. `Debug` is not implemented on purpose.
#[derive(Default)]
pub(crate) struct ShownToken(RefCell<Option<Opened>>);

struct Opened {
    token: Zeroizing<Vec<u8>>,
    /// What opened it; other keys might not.
    keys: KeysId,
    claims: Rc<Claims>,
    /// Once the log has named the user.
    pseudonym: OnceCell<Pseudonym>,
}

impl ShownToken {
    /// What `token` says, if it is the last one.
    pub(super) fn recall(&self, token: &[u8], keys: KeysId) -> Option<Rc<Claims>> {
        let opened = self.0.borrow();
        let opened = opened.as_ref()?;
        let is_it = opened.keys == keys && same(&opened.token, token);
        is_it.then(|| Rc::clone(&opened.claims))
    }

    /// Remembers what was opened with `keys`, in place of what was before it.
    pub(super) fn remember(&self, token: &[u8], keys: KeysId, claims: &Rc<Claims>) {
        *self.0.borrow_mut() = Some(Opened {
            token: Zeroizing::new(token.to_vec()),
            keys,
            claims: Rc::clone(claims),
            pseudonym: OnceCell::new(),
        });
    }

    /// What the log calls the user of these claims.
    pub(crate) fn pseudonym(&self, claims: &Rc<Claims>, pseudonyms: &Pseudonyms) -> Pseudonym {
        let name = || pseudonyms.of(&claims.user.openid);
        match &*self.0.borrow() {
            Some(opened) if Rc::ptr_eq(&opened.claims, claims) => {
                *opened.pseudonym.get_or_init(name)
            }
            _ => name(),
        }
    }

    /// Gives the memory back; an idle connection should hold none.
    pub(crate) fn forget(&self) {
        self.0.take();
    }
}

/// Whether two tokens are the same. The duration does not tell where they differ: several clients may share a connection,
/// behind a proxy, and none must find another's token by trying.
fn same(a: &[u8], b: &[u8]) -> bool {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    if (a.len(), a_rest.len()) != (b.len(), b_rest.len()) {
        return false;
    }
    let blocks = a.iter().zip(b).fold(0, |sum, (a, b)| {
        sum | (u128::from_ne_bytes(*a) ^ u128::from_ne_bytes(*b))
    });
    let rest = a_rest.iter().zip(b_rest);
    let rest = rest.fold(0, |sum, (a, b)| sum | (a ^ b));
    black_box(blocks | u128::from(rest)) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tokens_are_the_same_if_all_their_bytes_are(
            token in proptest::collection::vec(any::<u8>(), 0..80),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            prop_assert!(same(&token, &token));
            prop_assert!(!same(&token, &[&token[..], b"x"].concat()));
            if !token.is_empty() {
                let mut other = token.clone();
                other[at.index(token.len())] ^= 1 << bit;
                prop_assert!(!same(&token, &other));
                prop_assert!(!same(&token, &token[1..]));
            }
        }
    }
}
