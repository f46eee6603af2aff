//! `getopendata`: cloudIDs become the data that they stand for.
//!
//! Source: developers.weixin.qq.com, 服务端 / 云开发 / getOpenData. A client gets a cloudID in place of encrypted data; it lives
//! for five minutes. Each is answered for itself: one that has expired does not spoil the others.
//!
//! The data are handed on as the bytes that they are, because fields are added over the years, and a number that is too
//! large for us is not ours to change.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::answer::{self, Answer, Invalid, Refusal};
use super::api::{Api, json_body};
use crate::domain::CloudId;

/// As it is called, by POST and with an access_token; the openid stands in the query.
pub const API: Api = Api {
    path: "/wxa/getopendata",
    if_lost: None,
};

/// What became of a cloudID. `Debug` does not print the data.
pub struct OpenData {
    /// Which it was.
    pub cloud_id: CloudId,
    /// The JSON that it stands for, with its watermark unchecked, or why there is none (-601006: it has expired).
    pub outcome: Result<Box<RawValue>, Refusal>,
}

/// The body of the call.
pub fn body(cloud_ids: &[CloudId]) -> Bytes {
    let list: Vec<&str> = cloud_ids.iter().map(CloudId::expose).collect();
    json_body(&json!({ "cloudid_list": list }))
}

/// Reads a success: one for each of `asked`, in that order.
pub fn parse(answer: &Answer, asked: &[CloudId]) -> Result<Vec<OpenData>, Invalid> {
    let list = answer.fields().get("data_list").and_then(Value::as_array);
    let list = list.ok_or(Invalid::Field("the data_list is missing or not a list"))?;
    asked
        .iter()
        .map(|cloud_id| {
            let told = |entry: &&Value| {
                entry.get("cloud_id").and_then(Value::as_str) == Some(cloud_id.expose())
            };
            let entry = list.iter().find(told);
            let json = entry
                .and_then(|entry| entry.get("json"))
                .ok_or(Invalid::Field("a cloudID is not answered"))?;
            Ok(OpenData {
                cloud_id: cloud_id.clone(),
                outcome: outcome(json)?,
            })
        })
        .collect()
}

/// What stands in `json`: text that is JSON once more. WeChat's own example has an object there, so that is taken too.
fn outcome(json: &Value) -> Result<Result<Box<RawValue>, Refusal>, Invalid> {
    /// The fields in the spelling that WeChat uses here.
    #[derive(Deserialize)]
    struct Inner<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
        #[serde(rename = "errCode", alias = "errcode")]
        errcode: Option<i64>,
        #[serde(rename = "errMsg", alias = "errmsg", default)]
        errmsg: String,
    }

    let object;
    let text = match json {
        Value::String(text) => text.as_str(),
        other => {
            object = other.to_string();
            object.as_str()
        }
    };
    // Refuses what could be read in two ways, such as a key that occurs twice.
    answer::parse(text.as_bytes())?;
    let inner: Inner<'_> = serde_json::from_str(text)
        .map_err(|_| Invalid::Field("what a cloudID stands for is not as documented"))?;
    match (inner.errcode, inner.data) {
        (None | Some(0), Some(data)) if data.get().starts_with('{') => Ok(Ok(data.to_owned())),
        (Some(errcode), _) if errcode != 0 => Ok(Err(Refusal::of(errcode, &inner.errmsg, &[]))),
        _ => Err(Invalid::Field("a cloudID stands for no object")),
    }
}

impl fmt::Debug for OpenData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.outcome.as_ref().map(|_| "***");
        f.debug_struct("OpenData")
            .field("outcome", &outcome)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(texts: &[&str]) -> Vec<CloudId> {
        texts
            .iter()
            .map(|text| CloudId::parse(text).unwrap())
            .collect()
    }

    fn answered(entries: &Value) -> Answer {
        let body = json!({ "errcode": 0, "errmsg": "ok", "data_list": entries });
        answer::parse(body.to_string().as_bytes()).ok().unwrap()
    }

    #[test]
    fn the_data_keep_their_bytes() {
        let data =
            r#"{"z":1.0,"step": 12345678901234567890123,"a":"\u4f60","watermark":{"appid":"wx"}}"#;
        let inner = format!(r#"{{"cloudID":"1_a","data":{data}}}"#);
        let answer = answered(&json!([{ "cloud_id": "1_a", "json": inner }]));
        let [open] = parse(&answer, &ids(&["1_a"])).unwrap().try_into().unwrap();
        assert_eq!(open.outcome.as_ref().unwrap().get(), data);
        assert!(!format!("{open:?}").contains("step"));
    }

    #[test]
    fn the_object_of_the_documentations_example_is_understood() {
        let answer = answered(
            &json!([{ "cloud_id": "x", "json": { "cloudID": "x", "data": { "step": 1 } } }]),
        );
        let [open] = parse(&answer, &ids(&["x"])).unwrap().try_into().unwrap();
        assert_eq!(open.outcome.unwrap().get(), r#"{"step":1}"#);
    }

    #[test]
    fn each_is_answered_for_itself_and_in_the_order_of_the_question() {
        let expired = r#"{"cloudID":"old","errCode":-601006,"errMsg":"cloudID expired."}"#;
        let good = r#"{"cloudID":"new","data":{}}"#;
        let answer = answered(&json!([
            { "cloud_id": "new", "json": good },
            { "cloud_id": "old", "json": expired },
        ]));
        let [old, new] = parse(&answer, &ids(&["old", "new"]))
            .unwrap()
            .try_into()
            .unwrap();
        assert_eq!(old.outcome.unwrap_err().errcode, -601_006);
        assert!(new.outcome.is_ok() && new.cloud_id.expose() == "new");
    }

    #[test]
    fn what_is_missing_or_ambiguous_or_no_object_is_invalid() {
        for entries in [
            json!([]),
            json!({}),
            json!([{ "cloud_id": "b", "json": r#"{"data":{}}"# }]),
            json!([{ "cloud_id": "a" }]),
            json!([{ "cloud_id": "a", "json": 7 }]),
            json!([{ "cloud_id": "a", "json": "" }]),
            json!([{ "cloud_id": "a", "json": "{}" }]),
            json!([{ "cloud_id": "a", "json": r#"{"data":[]}"# }]),
            json!([{ "cloud_id": "a", "json": r#"{"data":{"a":1,"a":2}}"# }]),
            json!([{ "cloud_id": "a", "json": r#"{"data":{}"# }]),
        ] {
            assert!(
                parse(&answered(&entries), &ids(&["a"])).is_err(),
                "{entries}"
            );
        }
    }
}
