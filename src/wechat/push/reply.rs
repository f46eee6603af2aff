//! What an app may answer to a push, in the format that the push came in.
//!
//! WeChat takes nothing, `success`, or a document: a Mini Program's `transfer_customer_service`, the `ErrCode` of virtual
//! payment, the documents of logistics. Whatever else an app says, such as a framework's page of HTML, WeChat would show
//! to the user as a fault of the Mini Program, so it is refused here. A framework's `{}` says nothing.

use std::borrow::Cow;

use super::{Flaw, Format, json, text, xml};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// There is nothing to say; WeChat is told `success`.
    Nothing,
    /// A document in the format of the push.
    Document(Vec<u8>),
}

/// Turns an app's answer into the format of the push that it answers.
///
/// Nothing, white space, `success` and an object without fields are [`Reply::Nothing`]. A document in the same format goes
/// as it is, without the white space around it.
///
/// # Errors
/// If it is anything else, or if XML cannot say it.
pub fn passive_reply(format: Format, answer: &[u8]) -> Result<Reply, Flaw> {
    let answer = text(answer)?;
    if matches!(answer, "" | "success") {
        return Ok(Reply::Nothing);
    }
    let read = Format::of(answer.as_bytes()).ok_or(Flaw::NotAnObject)?;
    let answer = match read {
        Format::Json => json::text(answer)?,
        Format::Xml => Cow::Borrowed(answer),
    };
    let members = match read {
        Format::Json => json::parse(&answer)?,
        Format::Xml => xml::parse(&answer)?,
    };
    if members.is_empty() {
        return Ok(Reply::Nothing);
    }
    let written = match format {
        _ if read == format => answer.into_owned(),
        Format::Json => json::write(&members),
        Format::Xml => xml::write(&members)?,
    };
    Ok(Reply::Document(written.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(format: Format, answer: &str) -> Result<Reply, Flaw> {
        passive_reply(format, answer.as_bytes())
    }

    fn document(text: &str) -> Result<Reply, Flaw> {
        Ok(Reply::Document(text.as_bytes().to_vec()))
    }

    #[test]
    fn nothing_is_said_in_many_ways() {
        for format in [Format::Json, Format::Xml] {
            for answer in ["", " \r\n", "success", "\u{feff}success\n", "{}", " { } "] {
                assert_eq!(reply(format, answer), Ok(Reply::Nothing), "{answer:?}");
            }
        }
    }

    #[test]
    fn a_document_in_the_format_of_the_push_goes_as_it_is() {
        let json = r#"{"b" : 1.0, "a": "\u4f60\/"}"#;
        assert_eq!(
            reply(Format::Json, &format!("\u{feff} {json}\n")),
            document(json)
        );
        let xml = "<xml>\n<A><![CDATA[1]]></A><!-- b --></xml>";
        assert_eq!(reply(Format::Xml, &format!("{xml}\n")), document(xml));
    }

    #[test]
    fn the_documents_of_the_documentation_are_converted_both_ways() {
        for (json, xml) in [
            (
                r#"{"ToUserName":"oU","FromUserName":"gh_a","CreateTime":1399197672,"MsgType":"transfer_customer_service"}"#,
                "<xml><ToUserName><![CDATA[oU]]></ToUserName><FromUserName><![CDATA[gh_a]]></FromUserName>\
                 <CreateTime>1399197672</CreateTime><MsgType><![CDATA[transfer_customer_service]]></MsgType></xml>",
            ),
            (
                r#"{"ErrCode":0,"ErrMsg":"success"}"#,
                "<xml><ErrCode>0</ErrCode><ErrMsg><![CDATA[success]]></ErrMsg></xml>",
            ),
            (
                r#"{"a":{"b":[1,2,{"c":""}],"d":"007"},"e":-5}"#,
                "<xml><a><b>1</b><b>2</b><b><c><![CDATA[]]></c></b><d><![CDATA[007]]></d></a><e>-5</e></xml>",
            ),
            (
                r#"{"a":"x]]>y","b":"<&>\"]]","c":12345678901234567890123}"#,
                "<xml><a><![CDATA[x]]]]><![CDATA[>y]]></a><b><![CDATA[<&>\"]]]]></b><c>12345678901234567890123</c></xml>",
            ),
        ] {
            assert_eq!(reply(Format::Xml, json), document(xml));
            assert_eq!(reply(Format::Json, xml), document(json));
        }
    }

    #[test]
    fn what_only_json_has_becomes_what_xml_has() {
        for (json, xml) in [
            (
                r#"{"a":true,"b":null,"c":1.50}"#,
                "<a>true</a><b></b><c>1.50</c>",
            ),
            (r#"{"a":[],"b":{},"c":[[]]}"#, ""),
            (r#"{"a":{"b":[]},"c":["x"]}"#, "<a></a><c><![CDATA[x]]></c>"),
            (r#"{"a":"\u000d\n\t"}"#, "<a><![CDATA[\r\n\t]]></a>"),
        ] {
            let expected = match xml {
                "" => Err(Flaw::Syntax("a list in a list")),
                xml => document(&format!("<xml>{xml}</xml>")),
            };
            assert_eq!(reply(Format::Xml, json), expected, "{json}");
        }
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for format in [Format::Json, Format::Xml] {
            for answer in [
                "SUCCESS",
                "ok",
                "null",
                "[]",
                "[{}]",
                "\"success\"",
                "1",
                "{",
                "{\"a\":1}}",
                "<",
                "<xml/>",
                "<xml>",
                "<html><body>502</body></html>",
                "<!DOCTYPE html><html></html>",
                "{\"a\":1,\"a\":2}",
            ] {
                assert!(reply(format, answer).is_err(), "{answer}");
            }
            assert_eq!(passive_reply(format, b"\xff"), Err(Flaw::Encoding));
        }
        for (json, flaw) in [
            (r#"{"a b":1}"#, Flaw::Name),
            (r#"{"":1}"#, Flaw::Name),
            (r#"{"1":1}"#, Flaw::Name),
            (r#"{"a><b":1}"#, Flaw::Name),
            (r#"{"a":{"/a":1}}"#, Flaw::Name),
            (
                r#"{"a":"\u0000"}"#,
                Flaw::Syntax("a character that XML does not have"),
            ),
            (
                r#"{"a":"\u001b"}"#,
                Flaw::Syntax("a character that XML does not have"),
            ),
            (
                r#"{"a":["\uffff"]}"#,
                Flaw::Syntax("a character that XML does not have"),
            ),
        ] {
            assert_eq!(reply(Format::Xml, json), Err(flaw), "{json}");
            assert!(reply(Format::Json, json).is_ok(), "{json}");
        }
    }
}
