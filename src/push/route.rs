//! Where a message goes: the first route that matches, or the usual way.

use crate::config::{Delivery, Push};
use crate::push::entry::Head;

/// What is done with messages, kind by kind.
pub(super) struct Routes {
    routes: Vec<crate::config::PushRoute>,
    usual: Delivery,
}

impl Routes {
    pub(super) fn new(push: &Push) -> Self {
        Self {
            routes: push.routes.clone(),
            usual: push.delivery.clone(),
        }
    }

    pub(super) fn of(&self, head: &Head) -> &Delivery {
        let is = |wanted: &Option<String>, it: Option<&str>| match wanted {
            None => true,
            Some(wanted) => it == Some(wanted.as_str()),
        };
        let route = self.routes.iter().find(|route| {
            is(&route.msg_type, Some(&head.msg_type))
                && is(&route.event, head.event.as_deref())
                && route.content.as_deref().is_none_or(|pattern| {
                    head.content
                        .as_deref()
                        .is_some_and(|text| is_like(pattern, text))
                })
        });
        route.map_or(&self.usual, |route| &route.delivery)
    }
}

/// Whether a text is what a pattern says, in which `*` stands for any characters.
fn is_like(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return rest.is_empty();
    };
    // The first place is always the best one: what is left is longest.
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asterisk_stands_for_any_characters() {
        for (pattern, text) in [
            ("人工", "人工"),
            ("人工*", "人工客服"),
            ("*客服", "人工客服"),
            ("*", ""),
            ("*", "anything"),
            ("a*b*c", "a__b__b__c"),
            ("*a*", "bab"),
            ("**", "x"),
            ("aa*aa", "aaaa"),
        ] {
            assert!(is_like(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("人工", "人工客服"),
            ("人工*", "找人工"),
            ("a*b*c", "a__c__b"),
            ("aa*aa", "aaa"),
            ("a", ""),
        ] {
            assert!(!is_like(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn the_first_route_that_matches_takes_the_message() {
        let config = crate::Config::from_toml(
            "[app]\nappid = \"wx0123456789abcdef\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
             [inbound]\nupstream = \"http://127.0.0.1:1\"\n\
             [push]\ntoken = \"AAAAA\"\nmode = \"plaintext\"\n\
             [[push.route]]\ncontent = \"人工*\"\ndeliver = \"/human\"\nreply = \"wait\"\n\
             [[push.route]]\nevent = \"debug_demo\"\ndeliver = \"/debug\"\nenvelope = \"cloudevents\"\n\
             [[push.route]]\ntype = \"image\"\ndeliver = \"/image\"\n",
        );
        let routes = Routes::new(&config.unwrap().push.unwrap());
        let path = |msg_type: &str, event: Option<&str>, content: Option<&str>| {
            let head = Head {
                msg_type: msg_type.to_owned(),
                event: event.map(str::to_owned),
                content: content.map(str::to_owned),
                ..Head::example()
            };
            routes.of(&head).path.clone()
        };
        assert_eq!(path("text", None, Some("人工客服")), "/human");
        assert_eq!(path("text", None, Some("hello")), "/wx/push");
        assert_eq!(path("image", None, None), "/image");
        assert_eq!(path("event", Some("debug_demo"), None), "/debug");
        assert_eq!(path("event", Some("other"), None), "/wx/push");
    }
}
