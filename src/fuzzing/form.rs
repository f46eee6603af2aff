//! Forms: however the bytes are cut, the same is read, and what was read is every byte; what was put in the place of files
//! is read as fields of their names.

use super::Dice;
use crate::wire::form::{Boundary, Event, Form, FormError};

/// What a file gives way to.
const ID: &[u8] = b"media_id";

/// What was read of a form, without regard to how it came.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    parts: Vec<(String, Option<String>, Vec<u8>)>,
    /// Its bytes with all files replaced by fields.
    rewritten: Vec<u8>,
}

/// Any bytes, as a form of the boundary `b`, and their first line as a Content-Type.
pub fn form(data: &[u8]) {
    let first = data.split(|b| *b == b'\n').next().unwrap_or_default();
    if let Ok(Some(named)) = Boundary::of(first) {
        let _may_be_no_form = read(&named, data, &mut Dice::of(data), data.len());
    }
    let content_type = b"multipart/form-data; boundary=b";
    let Ok(Some(boundary)) = Boundary::of(content_type) else {
        unreachable!("it is a form's");
    };
    let mut dice = Dice::of(data);
    let at_once = read(&boundary, data, &mut dice, data.len());
    for most in [1, 7, 60] {
        let in_pieces = read(&boundary, data, &mut dice, most);
        assert_eq!(
            at_once.as_ref().ok(),
            in_pieces.as_ref().ok(),
            "cut differently, it is another form: {}",
            data.escape_ascii()
        );
    }
    let Ok(whole) = at_once else {
        return;
    };
    let again = read(&boundary, &whole.rewritten, &mut dice, 60);
    let again = again.expect("with other contents it is a form still");
    assert_eq!(again.rewritten, whole.rewritten);
    assert_eq!(again.parts.len(), whole.parts.len());
    for ((name, filename, content), before) in again.parts.iter().zip(&whole.parts) {
        assert_eq!((name, filename), (&before.0, &None));
        assert_eq!(
            content,
            if before.1.is_some() {
                ID
            } else {
                &before.2[..]
            }
        );
    }
}

/// Reads a form that comes in pieces of `most` bytes at the most.
fn read(boundary: &Boundary, data: &[u8], dice: &mut Dice, most: usize) -> Result<Read, FormError> {
    let mut form = Form::new(boundary);
    let (mut read, mut told) = (Read::default(), Vec::new());
    let mut rest = data;
    loop {
        let is_all = rest.is_empty();
        if is_all {
            form.finish();
        } else {
            let (piece, behind) = rest.split_at((1 + dice.below(most)).min(rest.len()));
            form.push(piece);
            rest = behind;
        }
        loop {
            match form.next()? {
                Event::Between(bytes) => {
                    told.extend_from_slice(bytes);
                    read.rewritten.extend_from_slice(bytes);
                }
                Event::Head(part, bytes) => {
                    told.extend_from_slice(bytes);
                    match part.filename {
                        Some(_) => read.rewritten.extend([&part.plain_head(), ID].concat()),
                        None => read.rewritten.extend_from_slice(bytes),
                    }
                    read.parts.push((part.name, part.filename, Vec::new()));
                }
                Event::Content(bytes) => {
                    told.extend_from_slice(bytes);
                    let (_, filename, content) = read.parts.last_mut().expect("a head came");
                    content.extend_from_slice(bytes);
                    if filename.is_none() {
                        read.rewritten.extend_from_slice(bytes);
                    }
                }
                Event::PartEnd => {}
                Event::More => {
                    assert!(!is_all, "at the end nothing is waited for");
                    break;
                }
                Event::End => {
                    assert_eq!(told, data, "every byte is told");
                    return Ok(read);
                }
            }
        }
    }
}
