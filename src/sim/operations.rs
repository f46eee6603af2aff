//! What WeChat tells an app of its own traffic.

use serde::Deserialize;
use serde_json::{Value, json};

use super::api::posted;
use super::exchange::Request;
use super::refusal::{Refusal, Refused};
use super::state::State;

/// `GET /cgi-bin/getcallbackip`.
pub(super) fn callback_ips(state: &State, request: &Request) -> Result<Value, Refused> {
    state.check_access_token(request.query.value("access_token"))?;
    Ok(json!({ "ip_list": ["101.226.233.128", "101.226.233.129", "183.3.234.0"] }))
}

/// `POST /cgi-bin/callback/check`. Nothing is pushed by the simulator, so no app of its has an address to be checked, and
/// that is what a call without a fault is told.
pub(super) fn callback_check(state: &State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        action: String,
        #[serde(default)]
        check_operator: String,
    }

    state.check_access_token(request.query.value("access_token"))?;
    let body: Body = posted(request)?;
    if !["dns", "ping", "all"].contains(&&*body.action) {
        return Err(Refusal::ActionInvalid.into());
    }
    if !["CHINANET", "UNICOM", "CAP", "DEFAULT"].contains(&&*body.check_operator) {
        return Err(Refusal::OperatorInvalid.into());
    }
    Err(Refusal::CallbackMissing.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::probe::Probe;

    #[test]
    fn the_addresses_that_pushes_come_from_are_told() {
        let mut probe = Probe::new();
        let told = probe.get("/cgi-bin/getcallbackip");
        assert!(
            told["ip_list"]
                .as_array()
                .unwrap()
                .iter()
                .all(Value::is_string)
        );
        probe.token = "x".repeat(136);
        assert_eq!(probe.get("/cgi-bin/getcallbackip")["errcode"], 40001);
    }

    #[test]
    fn a_check_is_refused_for_its_arguments_and_then_for_the_address_that_is_not_there() {
        const CHECK: &str = "/cgi-bin/callback/check";
        let mut probe = Probe::new();
        probe.assert_takes_json_with_a_token(CHECK);
        for (body, errcode) in [
            (json!({ "check_operator": "CAP" }), 40202),
            (json!({ "action": "all", "check_operator": "cap" }), 40203),
            (json!({ "action": "all", "check_operator": "CAP" }), 40201),
        ] {
            assert_eq!(probe.post(CHECK, &body)["errcode"], errcode, "{body}");
        }
    }
}
