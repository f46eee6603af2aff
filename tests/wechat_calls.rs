//! The calls about users against the simulator, which knows the rules of codes, cloudIDs, session keys and tokens, and
//! nothing of our code.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use wx_sidecar::domain::{CloudId, LoginCode, OpenId, PhoneCode, SessionKey};
use wx_sidecar::error::{Error, Kind, Side};
use wx_sidecar::gateway::{Gateway, Memory};
use wx_sidecar::sim::{Effect, Fault, OpenDataKind, OpenDataOrder, UserChange};
use wx_sidecar::telemetry::metrics::Metrics;
use wx_sidecar::wechat::signature::is_raw_data_signature;
use wx_sidecar::{Config, wechat::login::UserSession};

use crate::http_client::Client;
use crate::rig::{APPID, Rig, SECRET, canary};

const NO_APP: &str = "http://127.0.0.1:9";
const PHONE: &str = "/wxa/business/getuserphonenumber";
const STABLE_TOKEN: &str = "/cgi-bin/stable_token";
const CHECK: &str = "/wxa/checksession";

/// A rig, and a gateway of the same configuration beside its sidecar.
struct Calls {
    rig: Rig,
    gateway: Arc<Gateway>,
    metrics: Arc<Metrics>,
}

impl Calls {
    fn new() -> Self {
        let rig = Rig::new(NO_APP);
        let config = Config::from_toml(rig.config()).unwrap();
        let (memory, metrics) = (Memory::new(rig.clock.clone()), Arc::<Metrics>::default());
        let gateway = Gateway::new(&config.app, &config.wechat, &memory, Arc::clone(&metrics));
        Self {
            rig,
            gateway: Arc::new(gateway),
            metrics,
        }
    }

    async fn login(&self, user: &str) -> UserSession {
        let code = LoginCode::parse(&self.rig.code(user)).unwrap();
        self.gateway.code2session(&code).await.unwrap()
    }

    fn phone_code(&self, user: &str) -> PhoneCode {
        let code = self.rig.sim.issue_phone_code(user);
        canary(&code);
        canary(&self.rig.sim.phone_number(user));
        PhoneCode::parse(&code).unwrap()
    }

    /// The number of a code, or the errcode and the status of its refusal.
    async fn phone(&self, code: &PhoneCode, openid: Option<&OpenId>) -> Result<String, (i64, u16)> {
        let phone = self.gateway.phone_number(code, openid).await;
        phone
            .map(|phone| phone.number)
            .map_err(|error| refusal(&error))
    }

    async fn is_good(&self, openid: &OpenId, key: &SessionKey) -> bool {
        self.gateway.check_session_key(openid, key).await.unwrap()
    }

    /// The token that is kept, which must be in no output.
    async fn token(&self) -> String {
        let call = |token: wx_sidecar::domain::AccessToken| async move { Ok(token) };
        let token = self.gateway.with_access_token(call).await.unwrap();
        canary(token.expose());
        token.expose().to_owned()
    }

    /// As another process would that forces a refresh.
    fn force_a_refresh_elsewhere(&self) {
        let order = json!({
            "grant_type": "client_credential",
            "appid": APPID,
            "secret": SECRET,
            "force_refresh": true,
        });
        let mut client = Client::connect(self.rig.sim.addr());
        let answer = client.request("POST", STABLE_TOKEN, &[], order.to_string().as_bytes());
        assert!(answer.json()["access_token"].is_string());
    }

    fn fault(&self, path: &str, errcode: i64) {
        let errmsg = None;
        let effect = Effect::Errcode { errcode, errmsg };
        self.rig.sim.fault(Fault::new(path, 1, effect));
    }

    /// The families that have a series.
    fn metrics(&self) -> Vec<String> {
        let families = self.metrics.registry().gather();
        families
            .iter()
            .map(|family| family.name().to_owned())
            .collect()
    }
}

fn refusal(error: &Error) -> (i64, u16) {
    let errcode = error.fault().map_or(0, |fault| fault.meaning.code);
    (errcode, error.status())
}

#[tokio::test]
async fn a_phone_code_gives_the_users_number_once() {
    let calls = Calls::new();
    let code = calls.phone_code("alice");
    let number = calls.rig.sim.phone_number("alice");
    assert_eq!(calls.phone(&code, None).await, Ok(number));
    assert_eq!(calls.phone(&code, None).await, Err((40029, 401)));

    let change = UserChange {
        phone: Some("13912345678".to_owned()),
        ..UserChange::default()
    };
    calls.rig.sim.change_user("alice", &change);
    let openid = calls.rig.sim.openid("alice");
    let number = calls.phone(&calls.phone_code("alice"), Some(&openid)).await;
    assert_eq!(number.as_deref(), Ok("13912345678"));
}

#[tokio::test]
async fn a_phone_code_is_no_login_code_and_no_other_users() {
    let calls = Calls::new();
    let login = PhoneCode::parse(&calls.rig.code("alice")).unwrap();
    assert_eq!(calls.phone(&login, None).await, Err((40029, 401)));
    let phone = calls.phone_code("alice");
    let as_login = LoginCode::parse(phone.expose()).unwrap();
    let error = calls.gateway.code2session(&as_login).await.unwrap_err();
    assert_eq!(refusal(&error), (40029, 401));
    let bob = calls.rig.sim.openid("bob");
    assert_eq!(calls.phone(&phone, Some(&bob)).await, Err((40003, 400)));
    assert!(
        calls.phone(&phone, None).await.is_ok(),
        "none of it spent the code"
    );
    let late = calls.phone_code("alice");
    calls.rig.advance(Duration::from_secs(301));
    assert_eq!(calls.phone(&late, None).await, Err((40029, 401)));
}

#[tokio::test]
async fn cloud_ids_give_what_they_stand_for_each_for_itself() {
    let calls = Calls::new();
    let alice = calls.login("alice").await.openid;
    let cloud_id = |kind| {
        let order = OpenDataOrder::new("alice", kind);
        let encrypted = calls.rig.sim.encrypt(&order).unwrap();
        canary(&encrypted.cloud_id);
        CloudId::parse(&encrypted.cloud_id).unwrap()
    };
    let old = cloud_id(OpenDataKind::Phone);
    calls.rig.advance(Duration::from_secs(301));
    let asked = [
        cloud_id(OpenDataKind::WeRun),
        old,
        cloud_id(OpenDataKind::Phone),
    ];
    let open = calls.gateway.open_data(&alice, &asked).await.unwrap();
    let told: Vec<&CloudId> = open.iter().map(|open| &open.cloud_id).collect();
    assert_eq!(told, asked.iter().collect::<Vec<_>>());

    let data = |place: usize| -> Value {
        let raw = open[place].outcome.as_ref().unwrap();
        serde_json::from_str(raw.get()).unwrap()
    };
    assert_eq!(data(0)["stepInfoList"].as_array().unwrap().len(), 31);
    assert_eq!(data(0)["watermark"]["appid"], APPID);
    let expired = open[1].outcome.as_ref().unwrap_err();
    assert_eq!(expired.errcode, -601_006);
    assert_eq!(
        data(2)["purePhoneNumber"],
        calls.rig.sim.phone_number("alice")
    );

    let nobody = OpenId::parse("o-nobody").unwrap();
    let error = calls.gateway.open_data(&nobody, &asked).await.unwrap_err();
    assert_eq!(refusal(&error), (40003, 400));
}

#[tokio::test]
async fn a_session_key_is_good_until_it_is_rotated_or_reset() {
    let calls = Calls::new();
    let user = calls.login("alice").await;
    assert!(calls.is_good(&user.openid, &user.session_key).await);

    let new = calls
        .gateway
        .reset_session_key(&user.openid, &user.session_key)
        .await
        .unwrap();
    assert!(!calls.is_good(&user.openid, &user.session_key).await);
    assert!(calls.is_good(&user.openid, &new).await);
    canary(&user.session_key.to_text());

    let stale = calls
        .gateway
        .reset_session_key(&user.openid, &user.session_key)
        .await;
    assert_eq!(refusal(&stale.unwrap_err()), (87009, 401));
    let rotate = UserChange {
        rotate: true,
        ..UserChange::default()
    };
    calls.rig.sim.change_user("alice", &rotate);
    assert!(!calls.is_good(&user.openid, &new).await);
    canary(&new.to_text());
    let bob = calls.login("bob").await;
    assert!(!calls.is_good(&bob.openid, &user.session_key).await);
}

#[tokio::test]
async fn what_the_simulator_signs_we_believe() {
    let calls = Calls::new();
    let user = calls.login("alice").await;
    let order = OpenDataOrder::new("alice", OpenDataKind::UserInfo);
    let made = calls.rig.sim.encrypt(&order).unwrap();
    let believed = |raw_data| is_raw_data_signature(&made.signature, raw_data, &user.session_key);
    assert!(believed(&made.raw_data));
    assert!(!believed(&made.raw_data.replace("alice", "mallory")));
}

#[tokio::test]
async fn a_token_that_another_process_killed_is_replaced_without_force_and_no_code_is_lost() {
    let calls = Calls::new();
    let before = calls.token().await;
    for _ in 0..2 {
        calls.force_a_refresh_elsewhere();
        calls.rig.advance(Duration::from_secs(31));
    }
    let asked = calls.rig.sim.calls(STABLE_TOKEN);
    assert!(calls.phone(&calls.phone_code("alice"), None).await.is_ok());
    assert_eq!(calls.rig.sim.calls(PHONE), 2);
    assert_eq!(calls.rig.sim.calls(STABLE_TOKEN), asked + 1);
    assert_ne!(calls.token().await, before);
}

#[tokio::test]
async fn a_token_that_has_run_out_by_wechats_clock_is_replaced() {
    let calls = Calls::new();
    let before = calls.token().await;
    calls.rig.advance(Duration::from_secs(7200));
    assert!(calls.phone(&calls.phone_code("alice"), None).await.is_ok());
    assert_ne!(calls.token().await, before);
    assert_eq!(calls.rig.sim.calls(STABLE_TOKEN), 2);
}

#[tokio::test]
async fn a_good_token_that_wechat_refuses_is_replaced_by_force_once() {
    let calls = Calls::new();
    let before = calls.token().await;
    calls.fault(PHONE, 40001);
    assert!(calls.phone(&calls.phone_code("alice"), None).await.is_ok());
    assert_eq!(
        calls.rig.sim.calls(STABLE_TOKEN),
        3,
        "asked for, asked again, forced"
    );
    let after = calls.token().await;
    assert_ne!(after, before);

    // Half a minute has not passed, so a second such refusal stands.
    calls.fault(PHONE, 40001);
    let code = calls.phone_code("alice");
    assert_eq!(calls.phone(&code, None).await, Err((40001, 502)));
    assert_eq!(calls.token().await, after);
    assert!(
        calls.phone(&code, None).await.is_ok(),
        "nobody looked at the code"
    );
}

#[tokio::test]
async fn trouble_of_wechats_is_told_and_nothing_is_repeated() {
    // The clock stands at the beginning of a minute, and eight hours before midnight in Beijing; that early in a minute the
    // one before it may be meant.
    for (errcode, status, after) in [(-1, 503, 1), (45011, 429, 5), (45009, 429, 28_801)] {
        let calls = Calls::new();
        calls.token().await;
        let code = calls.phone_code("alice");
        calls.fault(PHONE, errcode);
        let error = calls.gateway.phone_number(&code, None).await.unwrap_err();
        assert_eq!(refusal(&error), (errcode, status));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(after)));
        assert_eq!(calls.rig.sim.calls(PHONE), 1);
    }
    let calls = Calls::new();
    calls
        .rig
        .sim
        .fault(Fault::new(PHONE, 1, Effect::ResetMidBody));
    let code = calls.phone_code("alice");
    let error = calls.gateway.phone_number(&code, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WechatUnreachable);
    assert_eq!(
        calls.phone(&code, None).await,
        Err((40029, 401)),
        "it was spent"
    );
}

#[tokio::test]
async fn without_a_token_a_call_is_a_503_and_the_next_one_tries_again() {
    let calls = Calls::new();
    calls.fault(STABLE_TOKEN, -1);
    let code = calls.phone_code("alice");
    let error = calls.gateway.phone_number(&code, None).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.side()),
        (Kind::AccessTokenUnavailable, Side::Wechat)
    );
    assert_eq!((error.status(), calls.rig.sim.calls(PHONE)), (503, 0));
    assert!(calls.phone(&code, None).await.is_ok());
    let metrics = calls.metrics();
    for family in [
        "token_refresh_total",
        "token_age_seconds",
        "token_expiry_seconds",
    ] {
        assert!(
            metrics.contains(&format!("wx_sidecar_wx_{family}")),
            "{metrics:?}"
        );
    }
}

#[tokio::test]
async fn calls_at_once_share_the_token_of_the_first() {
    let calls = Calls::new();
    let user = calls.login("alice").await;
    let checks: Vec<_> = (0..50)
        .map(|_| {
            let (gateway, user) = (Arc::clone(&calls.gateway), user.clone());
            tokio::spawn(async move {
                let checked = gateway.check_session_key(&user.openid, &user.session_key);
                checked.await.unwrap()
            })
        })
        .collect();
    for check in checks {
        assert!(check.await.unwrap());
    }
    assert_eq!(calls.rig.sim.calls(STABLE_TOKEN), 1);
    assert_eq!(calls.rig.sim.calls(CHECK), 50);
}
