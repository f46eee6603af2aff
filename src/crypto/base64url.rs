//! base64url without padding (RFC 4648 §5), decoded by table: it is much of what a token costs beside its cipher.

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
    let len = text.len() / 4 * 3 + (text.len() % 4).saturating_sub(1);
    let out = out.get_mut(..len)?;
    let (blocks, tail) = text.as_chunks::<16>();
    let (whole, rest) = out.split_at_mut(blocks.len() * 12);
    let mut marks = 0;
    for (block, bytes) in blocks.iter().zip(whole.as_chunks_mut::<12>().0) {
        *bytes = decode_block(block, &mut marks);
    }
    // What is left becomes a block of its own, filled up with zeros.
    let mut block = [b'A'; 16];
    block[..tail.len()].copy_from_slice(tail);
    let bytes = decode_block(&block, &mut marks);
    let (bytes, beyond) = bytes.split_at(rest.len());
    rest.copy_from_slice(bytes);
    // A single character is no byte, and bits beyond the last byte would be a second way to write it.
    let one_way = text.len() % 4 != 1 && beyond.iter().all(|&byte| byte == 0);
    (one_way && marks & FOREIGN == 0).then_some(out)
}

/// Sixteen characters are twelve bytes. Adds to `marks` what is wrong with them.
#[inline]
fn decode_block(block: &[u8; 16], marks: &mut u32) -> [u8; 12] {
    let group = |at: usize| {
        PLACES[0][usize::from(block[at])]
            | PLACES[1][usize::from(block[at + 1])]
            | PLACES[2][usize::from(block[at + 2])]
            | PLACES[3][usize::from(block[at + 3])]
    };
    let [a, b, c, d] = [group(0), group(4), group(8), group(12)];
    *marks |= a | b | c | d;
    let high = u64::from(a) << 40 | u64::from(b) << 16 | u64::from(c >> 8);
    let low = c << 24 | d;
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&high.to_be_bytes());
    bytes[8..].copy_from_slice(&low.to_be_bytes());
    bytes
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
