//! What an app may answer to a push, in the format that the push came in.
//!
//! WeChat takes nothing, `success`, or a document: a Mini Program's `transfer_customer_service`, the `ErrCode` of virtual
//! payment, the documents of logistics. Whatever else an app says (a framework's `{}` is a document, its HTML is not)
//! would be shown to the user as a fault of the Mini Program, so it is refused here.

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
/// Nothing, white space and `success` are [`Reply::Nothing`]. A document in the same format goes as it is, without what
/// stands around it.
///
/// # Errors
/// If it is anything else, or if XML cannot say it.
pub fn passive_reply(format: Format, answer: &[u8]) -> Result<Reply, Flaw> {
    let answer = text(answer)?;
    if matches!(answer, "" | "success") {
        return Ok(Reply::Nothing);
    }
    let written = match (Format::of(answer.as_bytes()), format) {
        (None, _) => return Err(Flaw::NotAnObject),
        (Some(Format::Json), _) => {
            let answer = json::text(answer)?;
            let members = json::parse(&answer)?;
            match format {
                Format::Json => answer.into_owned(),
                Format::Xml => xml::write(&members)?,
            }
        }
        (Some(Format::Xml), _) => {
            let members = xml::parse(answer)?;
            match format {
                Format::Json => json::write(&members),
                Format::Xml => answer.to_owned(),
            }
        }
    };
    Ok(Reply::Document(written.into_bytes()))
}
