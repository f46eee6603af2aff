//! Values of a shared store: nothing but what we have sealed under this name opens, and what is read is what was written.

use std::time::Duration;

use super::Dice;
use crate::clock::Timestamp;
use crate::crypto;
use crate::domain::{AppId, OpenId, SessionKey, User};
use crate::secret::Secret;
use crate::session::{Claims, Granted, Login, Revocation, SessionId, Stored, Vault};

/// Any bytes: as a value, as what is inside one, and as changes of a good one.
pub fn stored(data: &[u8]) {
    let appid = AppId::parse("wx0123456789abcdef").expect("it is one");
    let vault = Vault::new(&appid, &[Secret::new("new"), Secret::new("old")]);
    read_as_written::<Login>(data);
    read_as_written::<Revocation>(data);
    read_as_written::<Timestamp>(data);
    read_as_written::<SessionKey>(data);
    let session = SessionId::random();
    let (login, revocation) = (login(data, session), Revocation::Session(session));
    check(&vault, "login", data, &login);
    check(&vault, "login", data, &Login::Claimed(crypto::random()));
    check(&vault, "revocations", data, &revocation);
    check(&vault, "keys", data, &SessionKey::from_bytes([7; 16]));
}

/// Whatever can be read is written in one way.
fn read_as_written<V: Stored>(data: &[u8]) {
    if let Some(value) = V::decode(data) {
        assert_eq!(value.encode(), data);
    }
}

fn check<V: Stored>(vault: &Vault, kind: &'static str, data: &[u8], value: &V) {
    let name = vault.name(kind, data);
    assert!(
        vault.open::<V>(&name, data).is_none(),
        "{}",
        data.escape_ascii()
    );
    let sealed = vault.seal(&name, value);
    let opened = vault.open::<V>(&name, &sealed).expect("it was sealed here");
    assert_eq!(opened.encode(), value.encode());
    let elsewhere = vault.name(kind, &[data, b"x"].concat());
    assert!(vault.open::<V>(&elsewhere, &sealed).is_none());
    for kept in [0, 1, 5, 17, sealed.len()] {
        let forged = [&sealed[..kept], data].concat();
        assert!(forged == sealed || vault.open::<V>(&name, &forged).is_none());
    }
    let mut dice = Dice::of(data);
    let mut changed = sealed.clone();
    changed[dice.below(sealed.len())] ^= 1 << dice.below(8);
    assert!(vault.open::<V>(&name, &changed).is_none());
    changed.truncate(dice.below(sealed.len()));
    assert!(vault.open::<V>(&name, &changed).is_none());
}

fn login(data: &[u8], session: SessionId) -> Login {
    let token = |prefix: &str| {
        let rest: String = data.iter().take(200).map(|b| format!("{b:02x}")).collect();
        Secret::new(prefix.to_owned() + &rest)
    };
    let now = Timestamp::from_millis(1_800_000_000_000);
    Login::Done(Box::new(Granted {
        claims: Claims {
            session,
            generation: u32::try_from(data.len()).expect("inputs are small"),
            started: now,
            expires: now.plus(Duration::from_secs(7200)),
            user: User {
                openid: OpenId::parse("o6zAJs1ZfWpsZ3G8vVCxxxxxxxxx").expect("it is one"),
                unionid: None,
            },
            session_key: SessionKey::from_bytes([9; 16]),
        },
        access_token: token("wxat_"),
        refresh_token: token("wxrt_"),
        expires_in: Duration::ZERO,
    }))
}
