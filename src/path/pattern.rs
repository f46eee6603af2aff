//! Patterns of paths, as the configuration has them.

/// Literal segments, `*` for one segment, `**` at the end for any rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    segments: Vec<Segment>,
    /// Whether any rest matches.
    open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Any,
}

impl Pattern {
    /// `text` was checked with the configuration.
    pub(crate) fn parse(text: &str) -> Self {
        let (text, open) = match text.strip_suffix("/**") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let segment = |text: &str| match text {
            "*" => Segment::Any,
            literal => Segment::Literal(literal.to_owned()),
        };
        let segments = if open && text.is_empty() {
            Vec::new()
        } else {
            text.split('/').skip(1).map(segment).collect()
        };
        Self { segments, open }
    }

    /// Whether a canonical path is meant.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let mut given = path.split(|&b| b == b'/').skip(1);
        for segment in &self.segments {
            match (segment, given.next()) {
                (Segment::Literal(literal), Some(text)) if literal.as_bytes() == text => {}
                (Segment::Any, Some(text)) if !text.is_empty() => {}
                _ => return false,
            }
        }
        self.open || given.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_segments() {
        for (pattern, path, matches) in [
            ("/api/**", "/api", true),
            ("/api/**", "/api/", true),
            ("/api/**", "/api/users/1", true),
            ("/api/**", "/apis", false),
            ("/api/*", "/api/users", true),
            ("/api/*", "/api/", false),
            ("/api/*", "/api/users/1", false),
            ("/api/*/posts", "/api/7/posts", true),
            ("/**", "/", true),
            ("/**", "/anything/at/all", true),
            ("/", "/", true),
            ("/", "/a", false),
            ("/api/", "/api/", true),
            ("/api/", "/api", false),
            ("/Api", "/api", false),
        ] {
            assert_eq!(
                Pattern::parse(pattern).matches(path.as_bytes()),
                matches,
                "{pattern} on {path}"
            );
        }
    }
}
