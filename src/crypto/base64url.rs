//! base64url without padding (RFC 4648 §5), decoded by table: it is most of what a token costs beside its cipher.

/// Marks a character that is not one of the alphabet. No group of four good ones reaches this bit.
const FOREIGN: u32 = 1 << 31;

/// The bits of each character at each of the four places of a group.
static PLACES: [[u32; 256]; 4] = [place(18), place(12), place(6), place(0)];

const fn place(shift: u32) -> [u32; 256] {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut table = [FOREIGN; 256];
    let mut value = 0;
    while value < alphabet.len() {
        table[alphabet[value] as usize] = (value as u32) << shift;
        value += 1;
    }
    table
}

/// Decodes `text` into the front of `out`. `None` if it is not the one way to write those bytes, or they do not fit.
pub fn decode<'a>(text: &[u8], out: &'a mut [u8]) -> Option<&'a mut [u8]> {
    let (groups, tail) = text.as_chunks::<4>();
    let tail_len = match tail.len() {
        0 => 0,
        1 => return None,
        characters => characters - 1,
    };
    let out = out.get_mut(..groups.len() * 3 + tail_len)?;
    let (triples, rest) = out.as_chunks_mut::<3>();
    let mut all = 0;
    for (group, triple) in groups.iter().zip(triples) {
        let bits = bits(*group);
        all |= bits;
        let [_, a, b, c] = bits.to_be_bytes();
        *triple = [a, b, c];
    }
    if !tail.is_empty() {
        let mut group = [b'A'; 4];
        group[..tail.len()].copy_from_slice(tail);
        let bits = bits(group);
        all |= bits;
        let [_, bytes @ ..] = bits.to_be_bytes();
        // Bits beyond the last byte would be a second way to write it.
        if bytes[tail_len..].iter().any(|&byte| byte != 0) {
            return None;
        }
        rest.copy_from_slice(&bytes[..tail_len]);
    }
    (all & FOREIGN == 0).then_some(out)
}

fn bits(group: [u8; 4]) -> u32 {
    let [a, b, c, d] = group.map(usize::from);
    PLACES[0][a] | PLACES[1][b] | PLACES[2][c] | PLACES[3][d]
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    fn decoded(text: &[u8]) -> Option<Vec<u8>> {
        let mut out = [0; 64];
        decode(text, &mut out).map(|bytes| bytes.to_vec())
    }

    #[test]
    fn it_agrees_with_rfc_4648() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg", b"f"),
            ("Zm8", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYmFy", b"foobar"),
            ("-_-_", b"\xfb\xff\xbf"),
        ] {
            assert_eq!(decoded(text.as_bytes()).as_deref(), Some(bytes), "{text}");
        }
        for bad in [
            "A", "Zh", "Zm9=", "Zg==", "Zm+v", "Zm/v", "Zm9v\n", " Zm9v", "Zm9vA",
        ] {
            assert_eq!(decoded(bad.as_bytes()), None, "{bad:?}");
        }
        let mut small = [0; 2];
        assert_eq!(decode(b"Zm9v", &mut small), None);
    }

    proptest! {
        #[test]
        fn it_undoes_what_the_encoder_does(bytes in proptest::collection::vec(any::<u8>(), 0..48)) {
            let text = URL_SAFE_NO_PAD.encode(&bytes);
            prop_assert_eq!(decoded(text.as_bytes()), Some(bytes));
        }

        #[test]
        fn it_accepts_what_the_base64_crate_accepts(
            text in proptest::collection::vec(prop_oneof![
                20 => proptest::sample::select(&b"ABYZabyz0189-_"[..]),
                1 => any::<u8>(),
            ], 0..24)
        ) {
            prop_assert_eq!(decoded(&text), URL_SAFE_NO_PAD.decode(&text).ok());
        }
    }
}
