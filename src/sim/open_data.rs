//! What WeChat's client functions give a Mini Program of its user: encrypted with the session_key, signed with it, and as
//! a cloudID that stands for the same.
//!
//! The data are made up from the user's name. What a test wants to be wrong it orders: another app's watermark, an old
//! timestamp, the key before the last login, a text that is no JSON.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use aws_lc_rs::cipher::{AES_128, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::{digest, iv::FixedLength};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::ids::{base64_of, hex};
use super::state::State;
use crate::clock::Timestamp;
use crate::domain::{OpenId, SessionKey};

/// How long a cloudID may be exchanged.
const CLOUD_ID_LIFE: Duration = Duration::from_secs(300);
/// Days of steps that `wx.getWeRunData` gives.
const DAYS: u64 = 31;
const DAY_S: u64 = 86_400;

/// Which client function is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenDataKind {
    /// `wx.getUserInfo`.
    #[default]
    UserInfo,
    /// The phone number button, in its old way.
    Phone,
    /// `wx.getWeRunData`.
    WeRun,
    /// `wx.getGroupEnterInfo`.
    Group,
    /// `wx.getShareInfo`.
    Share,
    /// `wx.authPrivateMessage`.
    Private,
}

/// Which of the user's session_keys encrypts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhichKey {
    /// The valid one.
    #[default]
    Current,
    /// The one before it, which is void.
    Previous,
}

/// What is to be encrypted, and how.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenDataOrder {
    /// Whose data.
    pub user: String,
    /// The appid of the app that the user is in; the first app if there is none.
    #[serde(default)]
    pub app: Option<String>,
    /// Which data.
    #[serde(default)]
    pub kind: OpenDataKind,
    /// These fields in place of made-up ones. A `watermark` among them is taken as it is.
    #[serde(default)]
    pub data: Option<Map<String, Value>>,
    /// This text in place of any data, to the byte.
    #[serde(default)]
    pub text: Option<String>,
    /// The appid of the watermark, if it is to be another than the app's.
    #[serde(default)]
    pub appid: Option<String>,
    /// The Unix time of the watermark, if it is not to be now.
    #[serde(default)]
    pub timestamp: Option<i64>,
    /// The key to encrypt with.
    #[serde(default)]
    pub key: WhichKey,
}

impl OpenDataOrder {
    /// The data of a user of the first app, as WeChat gives them.
    pub fn new(user: impl Into<String>, kind: OpenDataKind) -> Self {
        Self {
            user: user.into(),
            kind,
            ..Self::default()
        }
    }
}

/// What the client function gives.
#[derive(Clone, Debug, Serialize)]
pub struct Encrypted {
    /// The data with their watermark: AES-128-CBC with the session_key, in base64.
    #[serde(rename = "encryptedData")]
    pub encrypted_data: String,
    /// In base64.
    pub iv: String,
    /// The data that are no secret, in clear.
    #[serde(rename = "rawData")]
    pub raw_data: String,
    /// The SHA-1 over `raw_data` and the session_key.
    pub signature: String,
    /// To be exchanged for the same data, for five minutes.
    #[serde(rename = "cloudID")]
    pub cloud_id: String,
}

/// The cloudIDs that have been given out.
#[derive(Default)]
pub(super) struct CloudIds {
    known: HashMap<String, Kept>,
    /// In the order of their making, so that the expired ones are found without a search.
    order: VecDeque<String>,
}

struct Kept {
    app: usize,
    openid: OpenId,
    data: Value,
    made_at: Timestamp,
}

impl State {
    /// Encrypts. `None` if there is no such app, or the user has no such key there.
    pub(super) fn encrypt(&mut self, app: usize, order: &OpenDataOrder) -> Option<Encrypted> {
        let session = self.users.get(&order.user)?.sessions.get(&app)?;
        let key = match order.key {
            WhichKey::Current => session.key.as_ref().map(|(key, _)| key),
            WhichKey::Previous => session.previous.as_ref(),
        };
        let key = key?.clone();
        let made_up = order.data.is_none() && order.kind == OpenDataKind::UserInfo;
        let mut data = match &order.data {
            Some(data) => data.clone(),
            None => self.made_up(app, &order.user, order.kind),
        };
        let mut open = data.clone();
        if made_up {
            // What identifies the user is among the encrypted data only.
            open.retain(|name, _| name != "openId" && name != "unionId");
        }
        let raw_data = Value::Object(open).to_string();
        let watermark = self.watermark(app, order);
        data.entry("watermark").or_insert(watermark);
        let data = Value::Object(data);
        let plaintext = order.text.clone().unwrap_or_else(|| data.to_string());

        let iv = self.ids.iv();
        let cloud_id = self.ids.cloud_id();
        let kept = Kept {
            app,
            openid: self.openid(app, &order.user),
            data,
            made_at: self.now(),
        };
        self.cloud_ids.keep(cloud_id.clone(), kept);
        let encrypted_data = STANDARD.encode(encrypted(&key, iv, plaintext));
        if order.kind == OpenDataKind::Phone {
            let now = self.now();
            self.proofs.keep(app, &encrypted_data, now);
        }
        Some(Encrypted {
            encrypted_data,
            iv: STANDARD.encode(iv),
            signature: signature(&raw_data, &key),
            raw_data,
            cloud_id,
        })
    }

    /// What a cloudID stands for, as `/wxa/getopendata` writes it.
    pub(super) fn open_data(&self, app: usize, openid: &str, cloud_id: &str) -> Value {
        let kept = self.cloud_ids.known.get(cloud_id).filter(|kept| {
            let fresh = self.now().since(kept.made_at) <= CLOUD_ID_LIFE;
            fresh && kept.app == app && kept.openid.as_str() == openid
        });
        match kept {
            Some(kept) => json!({ "cloudID": cloud_id, "data": kept.data }),
            None => {
                json!({ "cloudID": cloud_id, "errCode": -601_006, "errMsg": "cloudID expired." })
            }
        }
    }

    fn made_up(&self, app: usize, user: &str, kind: OpenDataKind) -> Map<String, Value> {
        let openid = self.openid(app, user);
        let data = match kind {
            OpenDataKind::UserInfo => {
                let mut info = json!({
                    "openId": openid.as_str(),
                    "nickName": user,
                    "gender": 0,
                    "language": "zh_CN",
                    "city": "Guangzhou",
                    "province": "Guangdong",
                    "country": "CN",
                    "avatarUrl": "https://thirdwx.qlogo.cn/mmopen/vi_32/sim/132",
                });
                if let Some(unionid) = self.unionid(app, user) {
                    info["unionId"] = json!(unionid.as_str());
                }
                info
            }
            OpenDataKind::Phone => {
                let number = self.phone_number(user);
                json!({ "phoneNumber": number, "purePhoneNumber": number, "countryCode": "86" })
            }
            OpenDataKind::WeRun => {
                let today = self.now().as_secs() / DAY_S * DAY_S;
                let days = (0..DAYS).rev().map(|ago| {
                    json!({ "timestamp": today.saturating_sub(ago * DAY_S), "step": 5000 + ago * 101 })
                });
                json!({ "stepInfoList": days.collect::<Vec<_>>() })
            }
            OpenDataKind::Group => json!({
                "opengid": format!("tG{}", &openid.as_str()[1..]),
                "group_openid": openid.as_str(),
                "chat_type": 3,
            }),
            OpenDataKind::Share => json!({ "openGId": format!("tG{}", &openid.as_str()[1..]) }),
            OpenDataKind::Private => {
                json!({ "activityId": format!("1023_{openid:.6}", openid = openid.as_str()) })
            }
        };
        match data {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    fn watermark(&self, app: usize, order: &OpenDataOrder) -> Value {
        let now = i64::try_from(self.now().as_secs()).unwrap_or(i64::MAX);
        let own = self.apps[app].known.appid.as_str();
        json!({
            "timestamp": order.timestamp.unwrap_or(now),
            "appid": order.appid.as_deref().unwrap_or(own),
        })
    }
}

impl CloudIds {
    fn keep(&mut self, cloud_id: String, kept: Kept) {
        let now = kept.made_at;
        while let Some(oldest) = self.order.front() {
            let known = self.known.get(oldest);
            if known.is_some_and(|kept| now.since(kept.made_at) <= CLOUD_ID_LIFE) {
                break;
            }
            self.known.remove(oldest);
            self.order.pop_front();
        }
        self.order.push_back(cloud_id.clone());
        self.known.insert(cloud_id, kept);
    }
}

fn encrypted(key: &SessionKey, iv: [u8; 16], plaintext: String) -> Vec<u8> {
    let mut bytes = plaintext.into_bytes();
    UnboundCipherKey::new(&AES_128, key.expose())
        .and_then(PaddedBlockEncryptingKey::cbc_pkcs7)
        .and_then(|cipher| {
            cipher.less_safe_encrypt(&mut bytes, EncryptionContext::Iv128(FixedLength::from(&iv)))
        })
        .expect("key and iv are 16 bytes, and a text fits in memory with its padding");
    bytes
}

fn signature(raw_data: &str, key: &SessionKey) -> String {
    let signed = format!("{raw_data}{}", base64_of(key));
    hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, signed.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::super::state::{CodeKind, SimApp, UserChange};
    use super::*;
    use crate::clock::Clock;
    use crate::domain::AppId;
    use crate::secret::Secret;

    fn state() -> State {
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_040_000));
        let appid = AppId::parse("wx0123456789abcdef").unwrap();
        let mut state = State::new(clock, 7, vec![SimApp::new(appid, Secret::new("s"))]);
        let code = state.issue_code(0, "alice", CodeKind::Login);
        state.log_in(0, &code).unwrap();
        state
    }

    fn kept(state: &State, encrypted: &Encrypted) -> Value {
        let openid = state.openid(0, "alice");
        state.open_data(0, openid.as_str(), &encrypted.cloud_id)["data"].clone()
    }

    #[test]
    fn the_cipher_and_the_signature_are_the_documentations() {
        // The example of the page on open data: WeChat's own key, iv and ciphertext, of which the first block will do.
        let key = SessionKey::parse("tiihtNczf5v6AKRyjwEUhQ==").unwrap();
        let iv = STANDARD.decode("r7BXXKkLb8qrSNn05n0qiA==").unwrap();
        let text = r#"{"openId":"oGZUI0"#;
        let made = encrypted(&key, iv.try_into().unwrap(), text.to_owned());
        assert_eq!(STANDARD.encode(&made[..15]), "CiyLU1Aw2KjvrjMdj8YK");

        let key = SessionKey::parse("HyVFkGl5F5OQWJZZaNzBBg==").unwrap();
        let raw_data = r#"{"nickName":"Band","gender":1,"language":"zh_CN","city":"Guangzhou","province":"Guangdong","country":"CN","avatarUrl":"http://wx.qlogo.cn/mmopen/vi_32/1vZvI39NWFQ9XM4LtQpFrQJ1xlgZxx3w7bQxKARol6503Iuswjjn6nIGBiaycAjAtpujxyzYsrztuuICqIM5ibXQ/0"}"#;
        assert_eq!(
            signature(raw_data, &key),
            "75e81ceda165f4ffa64f4068af58c64b8f54b88c"
        );
    }

    #[test]
    fn every_kind_has_its_fields_and_a_watermark() {
        let mut state = state();
        for (kind, fields) in [
            (
                OpenDataKind::UserInfo,
                &["openId", "unionId", "nickName"][..],
            ),
            (
                OpenDataKind::Phone,
                &["phoneNumber", "purePhoneNumber", "countryCode"],
            ),
            (OpenDataKind::WeRun, &["stepInfoList"]),
            (OpenDataKind::Group, &["opengid"]),
            (OpenDataKind::Share, &["openGId"]),
            (OpenDataKind::Private, &["activityId"]),
        ] {
            let made = state
                .encrypt(0, &OpenDataOrder::new("alice", kind))
                .unwrap();
            let data = kept(&state, &made);
            assert!(fields.iter().all(|field| !data[field].is_null()), "{data}");
            assert_eq!(
                data["watermark"],
                json!({ "timestamp": 1_700_000_040, "appid": "wx0123456789abcdef" })
            );
            assert!(!made.raw_data.contains("watermark") && !made.raw_data.contains("openId"));
        }
    }

    #[test]
    fn the_previous_key_stays_known_and_who_never_logged_in_has_none() {
        let mut state = state();
        let mut order = OpenDataOrder::new("alice", OpenDataKind::Phone);
        order.key = WhichKey::Previous;
        assert!(
            state.encrypt(0, &order).is_none(),
            "there has been one key only"
        );
        let before = state.users["alice"].sessions[&0].key.clone().unwrap().0;
        let rotate = UserChange {
            rotate: true,
            ..UserChange::default()
        };
        state.change_user("alice", &rotate);
        let made = state.encrypt(0, &order).unwrap();
        assert_eq!(made.signature, signature(&made.raw_data, &before));
        assert!(
            state
                .encrypt(0, &OpenDataOrder::new("bob", OpenDataKind::Phone))
                .is_none()
        );
    }

    #[test]
    fn what_is_ordered_to_be_wrong_is_wrong() {
        let mut state = state();
        let mut order = OpenDataOrder::new("alice", OpenDataKind::Phone);
        order.appid = Some("wxfedcba9876543210".to_owned());
        order.timestamp = Some(1);
        let made = state.encrypt(0, &order).unwrap();
        assert_eq!(
            kept(&state, &made)["watermark"],
            json!({ "timestamp": 1, "appid": "wxfedcba9876543210" })
        );
        order.data = json!({ "watermark": 7 }).as_object().cloned();
        let made = state.encrypt(0, &order).unwrap();
        assert_eq!(kept(&state, &made), json!({ "watermark": 7 }));
        order.text = Some("x".repeat(16));
        let made = state.encrypt(0, &order).unwrap();
        let ciphertext = STANDARD.decode(made.encrypted_data).unwrap();
        assert_eq!(ciphertext.len(), 32, "a block of padding more");
    }

    #[test]
    fn a_cloud_id_is_for_one_user_and_five_minutes() {
        let mut state = state();
        let order = OpenDataOrder::new("alice", OpenDataKind::Phone);
        let made = state.encrypt(0, &order).unwrap();
        let bob = state.openid(0, "bob");
        let of_bob = state.open_data(0, bob.as_str(), &made.cloud_id);
        assert_eq!(of_bob["errCode"], json!(-601_006));
        state.advance(CLOUD_ID_LIFE);
        assert!(kept(&state, &made).is_object());
        state.advance(Duration::from_millis(1));
        assert!(kept(&state, &made).is_null());
        state.encrypt(0, &order).unwrap();
        assert_eq!(
            state.cloud_ids.known.len(),
            1,
            "the expired one is forgotten"
        );
    }
}
