//! What the app's answer to a message becomes (被动回复).
//!
//! A Mini Program may hand a conversation over to customer service, and some events want a document. Everything else that an
//! app may happen to answer (`OK`, a page, `{}`) would be shown to the user as a fault, so it is not passed on.

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::wechat::push::{Format, Message, Reply, passive_reply};

const TRANSFER: &str = "transfer_customer_service";

/// What has to be known of a message to answer it.
pub(super) struct About {
    to: Option<String>,
    from: Option<String>,
    is_of_user: bool,
}

impl About {
    pub(super) fn new(message: &Message) -> Self {
        Self {
            to: message.to().map(str::to_owned),
            from: message.from().map(str::to_owned),
            is_of_user: message.is_user_message(),
        }
    }
}

/// The document for WeChat, not encrypted yet; `None` if the app has nothing to say.
///
/// # Errors
/// If it cannot be passed on; why, for the log.
pub(super) fn document(
    said: &[u8],
    about: &About,
    format: Format,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, String> {
    let completed = match serde_json::from_slice::<Map<String, Value>>(said) {
        Ok(members) if members.is_empty() => return Ok(None),
        Ok(members) => completed(members, about, now)?,
        Err(_) => None,
    };
    let said = completed.as_deref().unwrap_or(said);
    let of = |format| match passive_reply(format, said) {
        Ok(Reply::Nothing) => Ok(None),
        Ok(Reply::Document(document)) => Ok(Some(document)),
        Err(flaw) => Err(format!("the app's reply is no document: {flaw}")),
    };
    let document = of(format)?;
    if document.is_some()
        && about.is_of_user
        && !of(Format::Json)?.is_some_and(|json| is_transfer(&json))
    {
        return Err(format!(
            "to a user's message WeChat takes `{{\"MsgType\":\"{TRANSFER}\"}}` and no other document"
        ));
    }
    Ok(document)
}

fn is_transfer(json: &[u8]) -> bool {
    let members = serde_json::from_slice::<Map<String, Value>>(json);
    members.is_ok_and(|it| it.get("MsgType").and_then(Value::as_str) == Some(TRANSFER))
}

/// A transfer with what the app has left out of it, if it has.
fn completed(
    mut members: Map<String, Value>,
    about: &About,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, String> {
    if members.get("MsgType").and_then(Value::as_str) != Some(TRANSFER) {
        return Ok(None);
    }
    if !about.is_of_user {
        return Err(
            "only a user's message, and no event, can be handed over to customer service"
                .to_owned(),
        );
    }
    let before = members.len();
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            members.entry(name).or_insert(value);
        }
    };
    let text = |text: &Option<String>| text.clone().map(Value::String);
    // What came from the user goes back to the user.
    add("ToUserName", text(&about.from));
    add("FromUserName", text(&about.to));
    add("CreateTime", Some(now.as_secs().into()));
    Ok((members.len() > before).then(|| Value::Object(members).to_string().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_123);

    fn about(is_of_user: bool) -> About {
        About {
            to: Some("gh_1".to_owned()),
            from: Some("oUser".to_owned()),
            is_of_user,
        }
    }

    fn json(said: &str, is_of_user: bool) -> Result<Option<String>, String> {
        let document = document(said.as_bytes(), &about(is_of_user), Format::Json, NOW)?;
        Ok(document.map(|document| String::from_utf8(document).unwrap()))
    }

    #[test]
    fn a_transfer_is_completed_with_who_speaks_to_whom() {
        let said = json("{\"MsgType\":\"transfer_customer_service\"}", true);
        let said: Value = serde_json::from_str(&said.unwrap().unwrap()).unwrap();
        assert_eq!(said["ToUserName"], "oUser");
        assert_eq!(said["FromUserName"], "gh_1");
        assert_eq!(said["CreateTime"], 1_700_000_000);
        let own = "{\"ToUserName\":\"a\",\"FromUserName\":\"b\",\"CreateTime\":1,\"MsgType\":\"transfer_customer_service\"}";
        assert_eq!(json(own, true), Ok(Some(own.to_owned())), "byte for byte");
    }

    #[test]
    fn an_event_cannot_be_handed_over() {
        assert!(json("{\"MsgType\":\"transfer_customer_service\"}", false).is_err());
    }

    #[test]
    fn an_app_that_says_nothing_in_particular_says_nothing() {
        for said in ["", "success", " \n", "{}"] {
            assert_eq!(json(said, true), Ok(None), "{said:?}");
        }
        for said in ["OK", "<html></html>", "[]", "null", "true"] {
            assert!(json(said, true).is_err(), "{said:?}");
        }
    }

    #[test]
    fn documents_go_in_the_format_of_the_message() {
        let said = b"{\"ErrCode\":0,\"ErrMsg\":\"success\"}";
        assert_eq!(
            json("{\"ErrCode\":0,\"ErrMsg\":\"success\"}", false),
            Ok(Some("{\"ErrCode\":0,\"ErrMsg\":\"success\"}".to_owned()))
        );
        let xml = document(said, &about(false), Format::Xml, NOW)
            .unwrap()
            .unwrap();
        assert_eq!(
            String::from_utf8(xml).unwrap(),
            "<xml><ErrCode>0</ErrCode><ErrMsg><![CDATA[success]]></ErrMsg></xml>"
        );
    }
}
