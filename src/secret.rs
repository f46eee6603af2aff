//! Secrets as types that cannot be printed.
//!
//! An AppSecret, a session key or a token key in a log line is an incident. `Secret` has no `Display`, its `Debug` says
//! only that something is there, comparison takes constant time, and its bytes are wiped when it is dropped. Whoever
//! needs the value writes `expose`, which is easy to search for in review.

use std::fmt;

use zeroize::Zeroizing;

/// A secret string, such as an AppSecret.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of the secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The secret itself. The caller must not log, store or echo it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        crate::crypto::constant_time_eq(self.0.as_bytes(), other.0.as_bytes())
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_does_not_hold_the_secret() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(***)");
    }
}
