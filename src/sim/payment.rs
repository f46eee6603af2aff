//! Virtual payment: coins that users buy, are given and spend.
//!
//! Every call shows that it knows the app's payment key of its environment, and one that touches a user's coins that it
//! knows the user's session_key too; both sign the very bytes of the body. The two environments share nothing. A repeated
//! order number is refused by a number that means "it has been done", which is how a caller whose answer was lost
//! learns of it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::api::{ok, posted};
use super::exchange::Request;
use super::ids::hex;
use super::refusal::{Refusal, Refused};
use super::state::State;
use crate::clock::Timestamp;
use crate::crypto::hmac_sha256;
use crate::secret::Secret;

/// The payment keys of an app.
#[derive(Clone, Debug)]
pub struct PayKeys {
    /// Of the real environment, `env` 0.
    pub production: Secret,
    /// Of the sandbox, `env` 1.
    pub sandbox: Secret,
}

/// Where a user's coins are kept: an app and an `env`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Till {
    pub(super) app: usize,
    pub(super) env: u8,
}

/// Accounts and orders.
#[derive(Default)]
pub(super) struct Payments {
    accounts: BTreeMap<(Till, String), Account>,
    /// What has been done with coins, by its order number.
    orders: BTreeMap<(Till, String), Order>,
    /// What has been bought for money, by its order number.
    purchases: BTreeMap<(Till, String), Purchase>,
}

/// A user's coins.
#[derive(Clone, Copy, Default)]
struct Account {
    bought: u64,
    given: u64,
    sum_bought: u64,
    sum_given: u64,
    sum_spent: u64,
}

enum Order {
    Gift,
    Refund,
    Payment {
        user: String,
        /// What is left of it to be paid back, by where it was taken from.
        bought: u64,
        given: u64,
    },
}

/// Coins bought for money.
struct Purchase {
    user: String,
    coins: u32,
    made_at: Timestamp,
}

/// What all calls say.
#[derive(Deserialize)]
struct Common {
    #[serde(default)]
    openid: String,
    env: u8,
}

/// `POST /xpay/query_user_balance`.
pub(super) fn balance(state: &State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "user_ip")]
        _user_ip: String,
    }

    let (till, user, _) = signed_by_user::<Body>(state, request)?;
    let account = state.payments.account(till, &user);
    Ok(ok(json!({
        "balance": account.balance(),
        "present_balance": account.given,
        "sum_save": account.sum_bought,
        "sum_present": account.sum_given,
        "sum_balance": account.sum_bought + account.sum_given,
        "sum_cost": account.sum_spent,
        "first_save_flag": account.sum_bought == 0,
    })))
}

/// `POST /xpay/currency_pay`. Coins that were given go first.
pub(super) fn pay(state: &mut State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "user_ip")]
        _user_ip: String,
        #[serde(rename = "payitem")]
        _payitem: String,
        amount: u32,
        order_id: String,
    }

    let (till, user, body) = signed_by_user::<Body>(state, request)?;
    let amount = u64::from(positive(body.amount)?);
    let order = state.payments.new_order(till, &body.order_id)?;
    let account = state.payments.account_mut(till, &user);
    if account.balance() < amount {
        return Err(Refusal::CoinsTooFew.into());
    }
    let given = amount.min(account.given);
    let bought = amount - given;
    account.given -= given;
    account.bought -= bought;
    account.sum_spent += amount;
    let balance = account.balance();
    let payment = Order::Payment {
        user,
        bought,
        given,
    };
    state.payments.orders.insert(order, payment);
    Ok(ok(json!({
        "order_id": body.order_id,
        "balance": balance,
        "used_present_amount": given,
    })))
}

/// `POST /xpay/cancel_currency_pay`: pays back, the coins that were bought first, which were spent last.
pub(super) fn cancel(state: &mut State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "user_ip")]
        _user_ip: String,
        pay_order_id: String,
        order_id: String,
        amount: u32,
    }

    let (till, user, body) = signed_by_user::<Body>(state, request)?;
    let amount = u64::from(positive(body.amount)?);
    let refund = state.payments.new_order(till, &body.order_id)?;
    let paid = (till, body.pay_order_id);
    let (left_bought, left_given) = match state.payments.orders.get_mut(&paid) {
        Some(Order::Payment {
            user: payer,
            bought,
            given,
        }) if *payer == user => (bought, given),
        _ => {
            return Err(parameter(
                "pay_order_id: there is no such payment of the user",
            ));
        }
    };
    match *left_bought + *left_given {
        0 => return Err(Refusal::OrderRefunded.into()),
        left if left < amount => return Err(Refusal::CoinsTooFew.into()),
        _ => {}
    }
    let bought = amount.min(*left_bought);
    let given = amount - bought;
    *left_bought -= bought;
    *left_given -= given;
    let account = state.payments.account_mut(till, &user);
    account.bought += bought;
    account.given += given;
    account.sum_spent -= amount;
    state.payments.orders.insert(refund, Order::Refund);
    Ok(ok(json!({ "order_id": body.order_id })))
}

/// `POST /xpay/present_currency`.
pub(super) fn present(state: &mut State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        order_id: String,
        amount: u32,
    }

    let (till, common, body) = signed_by_app::<Body>(state, request)?;
    let user = state
        .user_of(till.app, &common.openid)
        .ok_or(Refusal::PayerInvalid)?;
    let amount = u64::from(positive(body.amount)?);
    let gift = state.payments.new_order(till, &body.order_id)?;
    let account = state.payments.account_mut(till, &user);
    account.given += amount;
    account.sum_given += amount;
    let (balance, given) = (account.balance(), account.given);
    state.payments.orders.insert(gift, Order::Gift);
    Ok(ok(json!({
        "balance": balance,
        "order_id": body.order_id,
        "present_balance": given,
    })))
}

/// `POST /xpay/query_order`, which knows what was bought for money and not what was paid with coins.
pub(super) fn order(state: &State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        order_id: String,
        #[serde(default)]
        wx_order_id: String,
    }

    let (till, common, body) = signed_by_app::<Body>(state, request)?;
    let user = state
        .user_of(till.app, &common.openid)
        .ok_or(Refusal::PayerInvalid)?;
    let number = match (&*body.order_id, &*body.wx_order_id) {
        ("", "") => return Err(parameter("order_id: it or wx_order_id is needed")),
        ("", theirs) => theirs.strip_prefix(WECHATS_ORDER).unwrap_or_default(),
        (ours, _) => ours,
    };
    let purchase = state
        .payments
        .purchases
        .get(&(till, number.to_owned()))
        .filter(|purchase| purchase.user == user)
        .ok_or_else(|| parameter("order_id: there is no such order of the user"))?;
    let time = purchase.made_at.as_secs();
    Ok(ok(json!({
        "order": {
            "order_id": number,
            "wx_order_id": format!("{WECHATS_ORDER}{number}"),
            "create_time": time,
            "update_time": time,
            "paid_time": time,
            "provide_time": time,
            // Delivered, as coins are at once.
            "status": 4,
            "order_type": 0,
            "biz_type": 1,
            "order_fee": purchase.coins,
            "paid_fee": purchase.coins,
            "coupon_fee": 0,
            "refund_fee": 0,
            "left_fee": purchase.coins,
            "env_type": till.env + 1,
        },
    })))
}

/// What WeChat's own number of an order has before ours.
const WECHATS_ORDER: &str = "WX";

impl State {
    /// A user buys coins on the phone, for as many fen. `None` if the order number was used before.
    pub(super) fn buy_coins(
        &mut self,
        till: Till,
        user: &str,
        order_id: &str,
        coins: u32,
    ) -> Option<()> {
        let purchase = (till, order_id.to_owned());
        if self.payments.purchases.contains_key(&purchase) {
            return None;
        }
        self.users.entry(user.to_owned()).or_default();
        let made_at = self.now();
        let account = self.payments.account_mut(till, user);
        account.bought += u64::from(coins);
        account.sum_bought += u64::from(coins);
        let user = user.to_owned();
        let bought = Purchase {
            user,
            coins,
            made_at,
        };
        self.payments.purchases.insert(purchase, bought);
        Some(())
    }
}

impl Payments {
    fn account(&self, till: Till, user: &str) -> Account {
        let known = self.accounts.get(&(till, user.to_owned()));
        known.copied().unwrap_or_default()
    }

    fn account_mut(&mut self, till: Till, user: &str) -> &mut Account {
        self.accounts.entry((till, user.to_owned())).or_default()
    }

    /// The place of an order that has not been made yet.
    fn new_order(&self, till: Till, number: &str) -> Result<(Till, String), Refused> {
        if number.is_empty() {
            return Err(parameter("order_id: is empty"));
        }
        let order = (till, number.to_owned());
        if self.orders.contains_key(&order) {
            return Err(Refusal::AlreadyDone.into());
        }
        Ok(order)
    }
}

impl Account {
    fn balance(&self) -> u64 {
        self.bought + self.given
    }
}

/// Checks a call that the payment key of its environment has signed.
fn signed_by_app<T: DeserializeOwned>(
    state: &State,
    request: &Request,
) -> Result<(Till, Common, T), Refused> {
    let app = state.check_access_token(request.query.value("access_token"))?;
    let value: Value = posted(request)?;
    let common: Common = parsed(value.clone())?;
    let known = &state.apps[app].known;
    let keys = known.pay_keys.as_ref().ok_or(Refusal::Unauthorized)?;
    let key = match common.env {
        0 => &keys.production,
        1 => &keys.sandbox,
        _ => return Err(parameter("env: is 0 or 1")),
    };
    let signed = [request.path.as_bytes(), b"&", &request.body];
    let expected = hex(&hmac_sha256(key.expose().as_bytes(), &signed));
    if request.query.value("pay_sig") != Some(&*expected) {
        return Err(wrong_signature("支付签名(pay_sig)校验失败"));
    }
    let till = Till {
        app,
        env: common.env,
    };
    Ok((till, common, parsed(value)?))
}

/// Checks a call that the user's session_key has signed too; then whose it is.
fn signed_by_user<T: DeserializeOwned>(
    state: &State,
    request: &Request,
) -> Result<(Till, String, T), Refused> {
    let (till, common, body) = signed_by_app(state, request)?;
    let signature = request.query.value("signature").unwrap_or_default();
    let user = state
        .check_signature(till.app, &common.openid, signature, &request.body)
        .map_err(|refusal| match refusal {
            Refusal::OpenIdInvalid => Refusal::PayerInvalid.into(),
            Refusal::SessionKeyMissing => Refusal::PayerLoggedOut.into(),
            _ => wrong_signature("用户态签名(signature)校验失败"),
        })?;
    Ok((till, user, body))
}

fn parsed<T: DeserializeOwned>(value: Value) -> Result<T, Refused> {
    serde_json::from_value(value).map_err(|error| parameter(&error.to_string()))
}

fn wrong_signature(which: &str) -> Refused {
    Refusal::PaySignatureInvalid.saying(which.to_owned())
}

fn parameter(problem: &str) -> Refused {
    Refusal::PayParameterInvalid.saying(format!("请求参数字段错误, {problem}"))
}

fn positive(amount: u32) -> Result<u32, Refused> {
    if amount == 0 {
        return Err(parameter("amount: is 0"));
    }
    Ok(amount)
}

#[cfg(test)]
mod tests {
    use ::http::Method;

    use super::*;
    use crate::sim::ids::session_signature;
    use crate::sim::probe::{Probe, json};

    const BALANCE: &str = "/xpay/query_user_balance";
    const PAY: &str = "/xpay/currency_pay";
    const CANCEL: &str = "/xpay/cancel_currency_pay";
    const PRESENT: &str = "/xpay/present_currency";
    const ORDER: &str = "/xpay/query_order";

    fn probe() -> Probe {
        let mut probe = Probe::new();
        probe.state.apps[0].known.pay_keys = Some(PayKeys {
            production: Secret::new("12345"),
            sandbox: Secret::new("54321"),
        });
        probe
    }

    fn pay_sig(key: &str, path: &str, body: &str) -> String {
        hex(&hmac_sha256(
            key.as_bytes(),
            &[path.as_bytes(), b"&", body.as_bytes()],
        ))
    }

    /// A call of alice's app in production, with both signatures.
    fn call(probe: &mut Probe, path: &str, fields: &Value) -> Value {
        let mut body = json!({ "openid": probe.openid, "env": 0, "user_ip": "127.0.0.1" });
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        let body = body.to_string();
        let key = if body.contains(r#""env":1"#) {
            "54321"
        } else {
            "12345"
        };
        let session = &probe.state.users["alice"].sessions[&0];
        let (session_key, _) = session.key.clone().unwrap();
        let signature = session_signature(&session_key, body.as_bytes());
        let sig = pay_sig(key, path, &body);
        probe.post_text(
            &format!("{path}?pay_sig={sig}&signature={signature}"),
            &body,
        )
    }

    fn pay(probe: &mut Probe, order_id: &str, amount: i64) -> Value {
        let fields = json!({ "order_id": order_id, "amount": amount, "payitem": "[]" });
        call(probe, PAY, &fields)
    }

    #[test]
    fn the_signature_of_the_app_agrees_with_the_documentations() {
        let body = r#"{"openid": "xxx", "user_ip": "127.0.0.1", "env": 0}"#;
        assert_eq!(
            pay_sig("12345", BALANCE, body),
            "c37809f27c6d7fd1837ad2500a04512b66b34fd793a39a385fade56dca89a4b5"
        );
        let mut probe = probe();
        let mut told = |target: &str| {
            let target = probe.with_token(target);
            json(&probe.call(Method::POST, &target, body.as_bytes()))["errcode"].clone()
        };
        let sig = "c37809f27c6d7fd1837ad2500a04512b66b34fd793a39a385fade56dca89a4b5";
        assert_eq!(told(BALANCE), 268_490_003);
        assert_eq!(
            told(&format!("{ORDER}?pay_sig={sig}")),
            268_490_003,
            "it names its path"
        );
        assert_eq!(
            told(&format!("{BALANCE}?pay_sig={sig}")),
            268_490_001,
            "xxx is nobody"
        );
    }

    #[test]
    fn both_signatures_are_of_the_bytes_that_were_sent_and_of_the_right_key() {
        let mut probe = probe();
        let body = json!({ "openid": probe.openid, "env": 1, "user_ip": "::1" }).to_string();
        let session = &probe.state.users["alice"].sessions[&0];
        let (session_key, _) = session.key.clone().unwrap();
        let signature = session_signature(&session_key, body.as_bytes());
        let (right, wrong) = (
            pay_sig("54321", BALANCE, &body),
            pay_sig("12345", BALANCE, &body),
        );
        let mut told = |pay_sig: &str, signature: &str, body: &str| {
            let target = format!("{BALANCE}?pay_sig={pay_sig}&signature={signature}");
            probe.post_text(&target, body)["errcode"].clone()
        };
        assert_eq!(told(&right, &signature, &body), 0);
        assert_eq!(told(&wrong, &signature, &body), 268_490_003);
        assert_eq!(told(&right, "", &body), 268_490_003);
        assert_eq!(told(&right, &signature, &format!("{body} ")), 268_490_003);
        probe.state.users.get_mut("alice").unwrap().sessions.clear();
        let target = format!("{BALANCE}?pay_sig={right}&signature={signature}");
        assert_eq!(probe.post_text(&target, &body)["errcode"], 268_490_009);
    }

    #[test]
    fn payments_want_a_token_and_json_and_an_app_that_has_keys() {
        for path in [BALANCE, PAY, CANCEL, PRESENT, ORDER] {
            Probe::new().assert_takes_json_with_a_token(path);
            assert_eq!(call(&mut Probe::new(), path, &json!({}))["errcode"], 48001);
        }
        let mut probe = probe();
        for (fields, problem) in [
            (json!({ "env": 2 }), "env: is 0 or 1"),
            (
                json!({ "amount": 0, "order_id": "A", "payitem": "[]" }),
                "amount: is 0",
            ),
            (
                json!({ "amount": 1, "order_id": "", "payitem": "[]" }),
                "order_id: is empty",
            ),
            (
                json!({ "amount": 1, "order_id": "A" }),
                "missing field `payitem`",
            ),
        ] {
            let told = call(&mut probe, PAY, &fields);
            assert_eq!(told["errcode"], 268_490_002);
            assert!(told["errmsg"].as_str().unwrap().contains(problem), "{told}");
        }
    }

    #[test]
    fn coins_are_given_and_bought_and_the_given_ones_are_spent_first() {
        let mut probe = probe();
        let gift = json!({ "order_id": "G1", "amount": 30 });
        let told = call(&mut probe, PRESENT, &gift);
        assert_eq!(
            (&told["balance"], &told["present_balance"]),
            (&json!(30), &json!(30))
        );
        assert_eq!(call(&mut probe, PRESENT, &gift)["errcode"], 268_490_004);
        let till = Till { app: 0, env: 0 };
        assert!(probe.state.buy_coins(till, "alice", "N1", 100).is_some());
        assert!(probe.state.buy_coins(till, "alice", "N1", 100).is_none());

        let told = pay(&mut probe, "P1", 50);
        assert_eq!(
            (&told["balance"], &told["used_present_amount"]),
            (&json!(80), &json!(30))
        );
        assert_eq!(pay(&mut probe, "P1", 50)["errcode"], 268_490_004);
        assert_eq!(pay(&mut probe, "P2", 81)["errcode"], 268_490_006);
        let told = call(&mut probe, BALANCE, &json!({}));
        for (field, expected) in [
            ("balance", json!(80)),
            ("present_balance", json!(0)),
            ("sum_save", json!(100)),
            ("sum_present", json!(30)),
            ("sum_balance", json!(130)),
            ("sum_cost", json!(50)),
            ("first_save_flag", json!(false)),
        ] {
            assert_eq!(told[field], expected, "{field}");
        }
        let sandbox = call(&mut probe, BALANCE, &json!({ "env": 1 }));
        assert_eq!(sandbox["balance"], 0, "the environments share nothing");
    }

    #[test]
    fn a_payment_is_paid_back_in_parts_and_not_beyond_itself() {
        let mut probe = probe();
        call(
            &mut probe,
            PRESENT,
            &json!({ "order_id": "G1", "amount": 50 }),
        );
        pay(&mut probe, "P1", 50);
        let mut cancel = |paid: &str, order_id: &str, amount: u32| {
            let fields = json!({ "pay_order_id": paid, "order_id": order_id, "amount": amount });
            call(&mut probe, CANCEL, &fields)["errcode"].clone()
        };
        assert_eq!(cancel("nothing", "R1", 1), 268_490_002);
        assert_eq!(cancel("G1", "R1", 1), 268_490_002, "a gift is no payment");
        assert_eq!(cancel("P1", "R1", 51), 268_490_006);
        assert_eq!(cancel("P1", "R1", 20), 0);
        assert_eq!(cancel("P1", "R1", 20), 268_490_004);
        assert_eq!(cancel("P1", "R2", 30), 0);
        assert_eq!(cancel("P1", "R3", 1), 268_490_005);
        let told = call(&mut probe, BALANCE, &json!({}));
        assert_eq!(
            (&told["balance"], &told["sum_cost"]),
            (&json!(50), &json!(0))
        );
        assert_eq!(told["present_balance"], 50, "they are given ones again");
    }

    #[test]
    fn an_order_is_known_by_either_number_and_to_its_user() {
        let mut probe = probe();
        let till = Till { app: 0, env: 1 };
        probe.state.buy_coins(till, "alice", "N1", 100);
        probe.state.buy_coins(till, "bob", "N2", 100);
        let told = call(&mut probe, ORDER, &json!({ "env": 1, "order_id": "N1" }));
        let order = &told["order"];
        assert_eq!(
            (&order["status"], &order["paid_fee"]),
            (&json!(4), &json!(100))
        );
        assert_eq!(order["env_type"], 2);
        let theirs = json!({ "env": 1, "wx_order_id": order["wx_order_id"] });
        assert_eq!(&call(&mut probe, ORDER, &theirs)["order"], order);
        for fields in [
            json!({ "env": 1 }),
            json!({ "env": 1, "order_id": "N2" }),
            json!({ "env": 0, "order_id": "N1" }),
        ] {
            assert_eq!(call(&mut probe, ORDER, &fields)["errcode"], 268_490_002);
        }
    }
}
