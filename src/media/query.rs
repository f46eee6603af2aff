//! What the query of a medium's URL says. Parameters that nobody asks for are nobody's business: page caches and trackers
//! add their own.

use crate::wire::form::url_decoded;

/// A parameter stands there more than once, so it has no meaning.
pub(crate) struct Repeated;

/// The value of a parameter as it stands there.
pub(crate) fn raw<'q>(query: &'q [u8], name: &str) -> Result<Option<&'q [u8]>, Repeated> {
    let mut values = query.split(|&b| b == b'&').filter_map(|pair| {
        let end = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let (key, value) = pair.split_at(end);
        (key == name.as_bytes()).then(|| value.strip_prefix(b"=").unwrap_or(value))
    });
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Repeated),
        (value, None) => Ok(value),
    }
}

/// The text of a parameter, as forms write it: `+` is a space. What is not UTF-8 is replaced.
pub(crate) fn text(query: &[u8], name: &str) -> Result<Option<String>, Repeated> {
    let decoded = |value: &[u8]| String::from_utf8_lossy(&url_decoded(value)).into_owned();
    Ok(raw(query, name)?.map(decoded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_by_its_whole_name_and_once() {
        let query = b"ab=1&b=2&c&d=%E7%8C%AB+1%2b&d2=&b3=b=4&e=1&e=1";
        let text = |name| text(query, name).ok();
        assert_eq!(text("b"), Some(Some("2".to_owned())));
        assert_eq!(text("a"), Some(None));
        assert_eq!(text("c"), Some(Some(String::new())));
        assert_eq!(text("d"), Some(Some("猫 1+".to_owned())));
        assert_eq!(text("b3"), Some(Some("b=4".to_owned())));
        assert_eq!(text("e"), None);
        assert_eq!(raw(b"", "e").ok(), Some(None));
    }
}
