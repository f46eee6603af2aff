//! Sealed tokens: nothing but what we have sealed opens, and it says what was sealed.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Dice;
use crate::clock::Timestamp;
use crate::domain::{AppId, OpenId, SessionKey, UnionId, User};
use crate::secret::Secret;
use crate::session::{Claims, Purpose, SessionId, TokenKeys, Unusable};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const PURPOSES: [Purpose; 2] = [Purpose::Access, Purpose::Refresh];
/// What ids are made of.
const ID: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Any bytes: as a token, as what is inside one, as changes of a good one, and as what it says.
pub fn token(data: &[u8]) {
    let appid = AppId::parse("wx0123456789abcdef").expect("it is one");
    let keys = TokenKeys::derive(&appid, &[Secret::new("new"), Secret::new("old")]);
    let claims = claims(data);
    for purpose in PURPOSES {
        let refused = |token: &[u8]| {
            let verified = keys.verify(purpose, token, NOW);
            assert_eq!(verified, Err(Unusable::Invalid), "{}", token.escape_ascii());
        };
        refused(data);
        let good = keys.mint(purpose, &claims);
        assert_eq!(
            keys.verify(purpose, good.as_bytes(), NOW),
            Ok(claims.clone())
        );
        assert_eq!(
            keys.verify(purpose, good.as_bytes(), claims.expires),
            Err(Unusable::Expired)
        );
        let (prefix, sealed) = good.split_at(purpose.prefix().len());
        for other in PURPOSES.into_iter().filter(|other| *other != purpose) {
            refused([other.prefix(), sealed].concat().as_bytes());
        }

        // Sealed by nobody, under the id of a key that we have.
        let sealed = URL_SAFE_NO_PAD.decode(sealed).expect("it is base64url");
        for kept in [0, 1, 5, 17] {
            let forged = [&sealed[..kept], data].concat();
            refused((prefix.to_owned() + &URL_SAFE_NO_PAD.encode(&forged)).as_bytes());
        }

        for (original, wrap) in [(good.as_bytes(), false), (&sealed, true)] {
            let changed = change(original, data);
            if changed != original {
                let token = match wrap {
                    true => (prefix.to_owned() + &URL_SAFE_NO_PAD.encode(&changed)).into_bytes(),
                    false => changed,
                };
                refused(&token);
            }
        }
    }
}

/// Changes a token as `data` says: each three bytes are a place, what to do there, and with what.
fn change(token: &[u8], data: &[u8]) -> Vec<u8> {
    let mut token = token.to_vec();
    for step in data.chunks_exact(3).take(8) {
        let at = usize::from(step[0]) % (token.len() + 1);
        match step[1] % 4 {
            0 => token.truncate(at),
            1 => token.insert(at, step[2]),
            _ if at == token.len() => {}
            2 => drop(token.remove(at)),
            _ => token[at] ^= step[2],
        }
    }
    token
}

fn claims(data: &[u8]) -> Claims {
    let mut dice = Dice::of(data);
    let mut id = |shortest: usize| -> String {
        let length = shortest + dice.below(65 - shortest);
        let letters = (0..length).map(|_| char::from(ID[dice.below(64)]));
        letters.collect()
    };
    let openid = OpenId::parse(&id(6)).expect("it has their letters");
    // An empty one is none.
    let unionid = UnionId::parse(&id(0)).ok();
    let number = |at: usize| {
        data.iter()
            .skip(at)
            .take(4)
            .fold(0, |n, b| n << 8 | u32::from(*b))
    };
    let mut session_key = [0; 16];
    for (to, from) in session_key.iter_mut().zip(data) {
        *to = *from;
    }
    Claims {
        session: SessionId::random(),
        generation: number(0),
        started: Timestamp::from_millis(u64::from(number(4))),
        expires: NOW.plus(Duration::from_millis(1 + u64::from(number(8)))),
        user: User { openid, unionid },
        session_key: SessionKey::from_bytes(session_key),
    }
}
