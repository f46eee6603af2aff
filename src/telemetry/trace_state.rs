//! `tracestate` and `baggage`: what else the systems of a trace tell each other. They are taken from trusted peers only, and
//! not more of them than their specifications have everybody carry.

/// The most members of a `tracestate` (W3C Trace Context §3.3.1.1).
const MOST_MEMBERS: usize = 32;
/// How much of a `tracestate` everybody carries, in bytes (§3.3.1.5).
const LONGEST_STATE: usize = 512;
/// Members that are longer are the first to go if it is too long.
const LONG_MEMBER: usize = 128;
/// How much baggage everybody carries, in bytes (W3C Baggage §3.3.2).
const LONGEST_BAGGAGE: usize = 8192;

/// Appends the members of a `tracestate` that go on, joined; nothing if any of them is not one.
pub(crate) fn append_state<'a, I>(members: impl Fn() -> I, out: &mut Vec<u8>)
where
    I: Iterator<Item = &'a [u8]>,
{
    let members = || members().filter(|member| !member.is_empty());
    if !members().all(is_member) {
        return;
    }
    let whole: usize = members().map(|member| member.len() + 1).sum();
    let is_too_long = whole > LONGEST_STATE + 1;
    let start = out.len();
    let fitting = members().filter(|member| !is_too_long || member.len() <= LONG_MEMBER);
    for member in fitting.take(MOST_MEMBERS) {
        let comma = usize::from(out.len() > start);
        if out.len() - start + comma + member.len() > LONGEST_STATE {
            return;
        }
        out.extend_from_slice(&b","[..comma]);
        out.extend_from_slice(member);
    }
}

/// Whether baggage of these lines goes on.
pub(crate) fn is_carried<'a>(lines: impl Iterator<Item = &'a [u8]>) -> bool {
    lines.map(|line| line.len() + 1).sum::<usize>() <= LONGEST_BAGGAGE + 1
}

/// Whether it is `key=value` (§3.3.1.3).
fn is_member(member: &[u8]) -> bool {
    let Some(equals) = memchr::memchr(b'=', member) else {
        return false;
    };
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    let of_key = |byte: &u8| {
        byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@')
    };
    let of_value = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    let begins = key
        .first()
        .is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit());
    begins
        && key.len() <= 256
        && key.iter().all(of_key)
        && (1..=256).contains(&value.len())
        && value.iter().all(of_value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(state: &str) -> String {
        let mut out = b"tracestate: ".to_vec();
        let members = || state.split(',').map(|member| member.trim().as_bytes());
        append_state(members, &mut out);
        String::from_utf8(out.split_off(12)).unwrap()
    }

    #[test]
    fn a_tracestate_goes_on_as_it_came_but_for_empty_members() {
        for (given, written) in [
            ("vendor=a", "vendor=a"),
            ("a=1,b=2", "a=1,b=2"),
            ("a=1, ,b=2,", "a=1,b=2"),
            (
                "0tenant@system=x y!~,*/_-@=",
                "", // A key begins with a letter or a digit.
            ),
            ("0tenant@system=x y!~", "0tenant@system=x y!~"),
            ("", ""),
        ] {
            assert_eq!(kept(given), written, "{given}");
        }
    }

    #[test]
    fn a_tracestate_with_a_member_that_is_none_does_not_go_on() {
        for bad in [
            "a", "a=", "=1", "A=1", "a=1=2", "a b=1", "a=\u{e4}", "a=\t1\t2",
        ] {
            assert_eq!(kept(bad), "", "{bad}");
            assert_eq!(kept(&format!("good=1,{bad}")), "", "{bad}");
        }
        let longest = format!("a={}", "v".repeat(256));
        assert_eq!(kept(&longest), longest);
        assert_eq!(kept(&format!("{longest}v")), "");
    }

    #[test]
    fn of_a_long_tracestate_large_members_go_first_and_then_the_last() {
        let many: Vec<_> = (0..40).map(|n| format!("k{n}=v")).collect();
        assert_eq!(kept(&many.join(",")), many[..32].join(","));

        let large = format!("large={}", "v".repeat(130));
        let small: Vec<_> = (0..30)
            .map(|n| format!("k{n:02}=0123456789abcde"))
            .collect();
        let state = format!("{large},{}", small.join(","));
        let kept = kept(&state);
        assert!(kept.len() <= LONGEST_STATE, "{}", kept.len());
        assert_eq!(kept, small[..25].join(","));
    }

    #[test]
    fn baggage_that_is_larger_than_everybody_carries_does_not_go_on() {
        let (most, rest) = (vec![b'x'; 8000], vec![b'x'; 191]);
        assert!(is_carried([&most[..], &rest[..]].into_iter()));
        assert!(!is_carried([&most[..], &rest[..], b"x"].into_iter()));
    }
}
