//! What WeChat keeps for a user and does for whoever can sign as one: keys of the encrypted channel, stored values; and
//! whether a ciphertext is its own.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{ok, posted, signed_by};
use super::exchange::Request;
use super::ids::hex;
use super::refusal::{Refusal, Refused};
use super::state::State;
use crate::clock::Timestamp;
use crate::crypto::sha256;

/// How long a key of the encrypted channel is the latest, and how many of them are told.
const KEY_LIFE: Duration = Duration::from_secs(3600);
const KEYS: usize = 3;
/// A user's stored values: how many, and how long each may be with its name, in bytes.
const VALUES: usize = 128;
const LONGEST_VALUE: usize = 1024;
const LONGEST_NAME: usize = 128;
/// How long a ciphertext is remembered, and how many are.
const PROOF_LIFE: Duration = Duration::from_secs(3 * 86_400);
const PROOFS: usize = 10_000;

/// What WeChat keeps for a user in one app.
#[derive(Default)]
pub(super) struct Belongings {
    /// The newest first.
    keys: VecDeque<Key>,
    versions: u32,
    pub(super) values: BTreeMap<String, String>,
}

/// A key of the encrypted channel.
struct Key {
    secret: [u8; 16],
    iv: String,
    version: u32,
    made_at: Timestamp,
}

/// The digests of the ciphertexts that the app was given, the newest last.
#[derive(Default)]
pub(super) struct Proofs(VecDeque<(usize, String, Timestamp)>);

/// `/wxa/business/getuserencryptkey`, by GET as by POST. What is signed is nothing, whatever the body has.
pub(super) fn encrypt_key(state: &mut State, request: &Request) -> Result<Value, Refused> {
    let app = state.check_access_token(request.query.value("access_token"))?;
    if request.method != Method::GET && request.method != Method::POST {
        return Err(Refusal::PostRequired.into());
    }
    let user = signed_by(state, app, request, b"")?;
    let now = state.now();
    let fresh = state.ids.encrypt_key();
    let belongings = belongings(state, app, &user);
    let latest = belongings.keys.front();
    if latest.is_none_or(|key| key.expire_in(now) == 0) {
        belongings.versions += 1;
        belongings.keys.push_front(Key {
            secret: fresh,
            // Sixteen characters that look like bytes in hexadecimal digits, and are the iv as they stand.
            iv: hex(&sha256(&fresh)[..8]),
            version: belongings.versions,
            made_at: now,
        });
        belongings.keys.truncate(KEYS);
    }
    let list: Vec<Value> = belongings
        .keys
        .iter()
        .map(|key| {
            json!({
                "encrypt_key": STANDARD.encode(key.secret),
                "version": key.version,
                "expire_in": key.expire_in(now),
                "iv": key.iv,
                "create_time": key.made_at.as_secs(),
            })
        })
        .collect();
    Ok(ok(json!({ "key_info_list": list })))
}

/// `POST /wxa/set_user_storage`.
pub(super) fn store(state: &mut State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        kv_list: Vec<Pair>,
    }

    #[derive(Deserialize)]
    struct Pair {
        key: String,
        value: String,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = posted(request)?;
    let user = signed_by(state, app, request, &request.body)?;
    for Pair { key, value } in &body.kv_list {
        if key.is_empty() {
            return Err(Refusal::ArgumentsInvalid.into());
        }
        if key.len() > LONGEST_NAME {
            return Err(Refusal::KeyTooLong.into());
        }
        if key.len() + value.len() > LONGEST_VALUE {
            return Err(Refusal::PairTooLong.into());
        }
    }
    let values = &mut belongings(state, app, &user).values;
    let mut stored = values.clone();
    stored.extend(body.kv_list.into_iter().map(|pair| (pair.key, pair.value)));
    if stored.len() > VALUES {
        return Err(Refusal::TooManyPairs.into());
    }
    *values = stored;
    Ok(ok(json!({})))
}

/// `POST /wxa/remove_user_storage`.
pub(super) fn remove(state: &mut State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        key: Vec<String>,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = posted(request)?;
    let user = signed_by(state, app, request, &request.body)?;
    let values = &mut belongings(state, app, &user).values;
    for key in &body.key {
        values.remove(key);
    }
    Ok(ok(json!({})))
}

/// `POST /wxa/business/checkencryptedmsg`, whose answer spells its word like this.
pub(super) fn check_encrypted(state: &State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        encrypted_msg_hash: String,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = posted(request)?;
    let made_at = state
        .proofs
        .find(app, &body.encrypted_msg_hash, state.now());
    Ok(ok(json!({
        "vaild": made_at.is_some(),
        "create_time": made_at.map_or(0, Timestamp::as_secs),
    })))
}

fn belongings<'a>(state: &'a mut State, app: usize, user: &str) -> &'a mut Belongings {
    let user = state.users.entry(user.to_owned()).or_default();
    user.belongings.entry(app).or_default()
}

impl Key {
    /// Seconds.
    fn expire_in(&self, now: Timestamp) -> u64 {
        KEY_LIFE.saturating_sub(now.since(self.made_at)).as_secs()
    }
}

impl Proofs {
    /// Remembers that the app was given these encrypted data, in base64.
    pub(super) fn keep(&mut self, app: usize, encrypted: &str, now: Timestamp) {
        if self.0.len() == PROOFS {
            self.0.pop_front();
        }
        self.0
            .push_back((app, hex(&sha256(encrypted.as_bytes())), now));
    }

    /// When the data with that digest were made, if that was in the last three days.
    fn find(&self, app: usize, digest: &str, now: Timestamp) -> Option<Timestamp> {
        let (_, _, made_at) = self.0.iter().find(|(owner, known, made_at)| {
            *owner == app && known == digest && now.since(*made_at) <= PROOF_LIFE
        })?;
        Some(*made_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::ids::session_signature;
    use crate::sim::open_data::{OpenDataKind, OpenDataOrder};
    use crate::sim::probe::{Probe, json};

    const KEYS_OF: &str = "/wxa/business/getuserencryptkey";
    const STORE: &str = "/wxa/set_user_storage";
    const REMOVE: &str = "/wxa/remove_user_storage";
    const CHECK: &str = "/wxa/business/checkencryptedmsg";

    /// The target of a call that alice has signed.
    fn signed(probe: &Probe, path: &str, body: &str) -> String {
        let (key, _) = probe.state.users["alice"].sessions[&0].key.clone().unwrap();
        let signature = session_signature(&key, body.as_bytes());
        let openid = &probe.openid;
        format!("{path}?openid={openid}&signature={signature}&sig_method=hmac_sha256")
    }

    fn post(probe: &mut Probe, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let target = signed(probe, path, &body);
        probe.post_text(&target, &body)
    }

    #[test]
    fn a_users_keys_are_told_newest_first_and_live_an_hour() {
        let mut probe = Probe::new();
        let target = signed(&probe, KEYS_OF, "");
        let first = probe.get(&target)["key_info_list"].clone();
        assert_eq!(first.as_array().unwrap().len(), 1);
        assert_eq!(
            (&first[0]["version"], &first[0]["expire_in"]),
            (&json!(1), &json!(3600))
        );
        assert_eq!(first[0]["create_time"], 1_700_000_040);
        assert_eq!(first[0]["iv"].as_str().unwrap().len(), 16);
        let key = STANDARD.decode(first[0]["encrypt_key"].as_str().unwrap());
        assert_eq!(key.unwrap().len(), 16);

        probe.pass(3599);
        let again = probe.post_text(&target, "{}")["key_info_list"].clone();
        assert_eq!(again[0]["expire_in"], 1, "the body is not signed");
        assert_eq!(again[0]["encrypt_key"], first[0]["encrypt_key"]);
        for version in 2..=4 {
            probe.pass(3600);
            probe.token = probe.state.token(0).access_token;
            let list = probe.get(&target)["key_info_list"].clone();
            assert_eq!(list[0]["version"], version);
            assert_eq!(list[1]["version"], version - 1);
            assert_eq!(list[1]["expire_in"], 0);
            assert!(list.as_array().unwrap().len() <= KEYS);
        }
    }

    #[test]
    fn keys_are_told_to_who_can_sign_only() {
        let mut probe = Probe::new();
        let target = signed(&probe, KEYS_OF, "{}");
        assert_eq!(
            json(&probe.call(Method::GET, &target, b""))["errcode"],
            41001
        );
        assert_eq!(probe.get(&target)["errcode"], 87009);
        assert_eq!(probe.get(KEYS_OF)["errcode"], 87008);
        let nobody = format!("{KEYS_OF}?sig_method=hmac_sha256&openid=oNobody");
        assert_eq!(probe.get(&nobody)["errcode"], 40003);
    }

    #[test]
    fn values_are_stored_and_removed_by_calls_whose_body_is_signed() {
        let mut probe = Probe::new();
        let two =
            json!({ "kv_list": [{ "key": "a", "value": "1" }, { "key": "b", "value": "2" }] });
        assert_eq!(post(&mut probe, STORE, &two)["errcode"], 0);
        let target = signed(&probe, STORE, "");
        assert_eq!(probe.post(&target, &two)["errcode"], 87009);
        assert_eq!(post(&mut probe, STORE, &json!({}))["errcode"], 47001);
        assert_eq!(
            post(&mut probe, REMOVE, &json!({ "key": ["a", "x"] }))["errcode"],
            0
        );
        let values = &probe.state.users["alice"].belongings[&0].values;
        assert_eq!(
            values.iter().collect::<Vec<_>>(),
            [(&"b".to_owned(), &"2".to_owned())]
        );
    }

    #[test]
    fn a_store_that_would_be_too_large_stays_as_it_is() {
        let mut probe = Probe::new();
        let pair = |key: &str, value: &str| json!({ "key": key, "value": value });
        let list = |pairs: Vec<Value>| json!({ "kv_list": pairs });
        for (pairs, errcode) in [
            (vec![pair("fine", "1"), pair("", "1")], 40097),
            (vec![pair("fine", "1"), pair(&"k".repeat(129), "1")], 87019),
            (vec![pair("k", &"v".repeat(1024))], 87016),
            ((0..129).map(|n| pair(&n.to_string(), "1")).collect(), 87018),
        ] {
            let told = post(&mut probe, STORE, &list(pairs));
            assert_eq!(told["errcode"], errcode);
        }
        assert!(probe.state.users["alice"].belongings[&0].values.is_empty());
        let fits = (0..128).map(|n| pair(&n.to_string(), "1")).collect();
        assert_eq!(post(&mut probe, STORE, &list(fits))["errcode"], 0);
    }

    #[test]
    fn an_encrypted_phone_number_is_known_for_three_days() {
        let mut probe = Probe::new();
        let mut digest_of = |kind| {
            let order = OpenDataOrder::new("alice", kind);
            let made = probe.state.encrypt(0, &order).unwrap();
            hex(&sha256(made.encrypted_data.as_bytes()))
        };
        let phone = json!({ "encrypted_msg_hash": digest_of(OpenDataKind::Phone) });
        let other = json!({ "encrypted_msg_hash": digest_of(OpenDataKind::WeRun) });
        assert_eq!(probe.post(CHECK, &other)["vaild"], false);
        let told = probe.post(CHECK, &phone);
        assert_eq!(
            (&told["vaild"], &told["create_time"]),
            (&json!(true), &json!(1_700_000_040))
        );
        probe.pass(3 * 86_400 + 1);
        probe.token = probe.state.token(0).access_token;
        assert_eq!(probe.post(CHECK, &phone)["vaild"], false);
    }

    #[test]
    fn what_is_stored_or_checked_is_json_behind_a_token() {
        for path in [STORE, REMOVE, CHECK] {
            Probe::new().assert_takes_json_with_a_token(path);
        }
    }
}
