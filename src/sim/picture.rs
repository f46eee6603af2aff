//! Pictures that look like Mini Program codes, and are as large as WeChat's.
//!
//! They lead nowhere: a camera reads nothing in them. But they are valid JPEG and PNG, which is what clients look at, the
//! same order gives the same bytes, and another one gives others. No picture is compressed, which keeps the encoders
//! short and makes the pictures large.

use crate::crypto::sha256;

/// Modules along an edge, without the margin.
const MODULES: u32 = 37;

/// What is to be drawn.
pub(super) struct Code {
    /// In pixels; the picture is square.
    width: u16,
    modules: Vec<bool>,
}

impl Code {
    /// The code for `meaning`.
    pub(super) fn new(width: u16, meaning: &[u8]) -> Self {
        let seed = sha256(meaning);
        let digests = (0..(MODULES * MODULES).div_ceil(256)).flat_map(|n| {
            let part = [&seed[..], &n.to_be_bytes()].concat();
            sha256(&part)
        });
        let bits = digests.flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
        Self {
            width,
            modules: bits.take((MODULES * MODULES) as usize).collect(),
        }
    }

    /// Whether there is ink at a place of a grid of `places` along each edge. The margin is a module wide.
    fn is_dark(&self, x: u32, y: u32, places: u32) -> bool {
        let module = |at: u32| (at * (MODULES + 2) / places).checked_sub(1);
        match (module(x), module(y)) {
            (Some(x), Some(y)) if x < MODULES && y < MODULES => {
                self.modules[(y * MODULES + x) as usize]
            }
            _ => false,
        }
    }

    /// As a baseline JPEG in grey (ITU-T T.81). Each block of eight by eight pixels has one brightness, and each Huffman
    /// code is of whole bytes, so that the picture is written byte by byte. None of them is FF.
    pub(super) fn jpeg(&self) -> Vec<u8> {
        let [high, low] = self.width.to_be_bytes();
        let blocks = u32::from(self.width).div_ceil(8);
        let mut out = vec![0xff, 0xd8];
        segment(&mut out, 0xe0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
        segment(&mut out, 0xdb, &[&[0][..], &[8; 64]].concat());
        segment(&mut out, 0xc0, &[8, high, low, high, low, 1, 1, 0x11, 0]);
        // Differences of brightness: 00 for none, 01 for one of eight bits, which follow.
        let lengths = |at: usize| std::array::from_fn::<u8, 16, _>(|n| if n == at { 2 } else { 0 });
        segment(
            &mut out,
            0xc4,
            &[&[0x00][..], &lengths(7), &[0x00, 0x08]].concat(),
        );
        // What is within a block: 00 00 ends it, 00 01 is sixteen times nothing.
        segment(
            &mut out,
            0xc4,
            &[&[0x10][..], &lengths(15), &[0x00, 0xf0]].concat(),
        );
        segment(&mut out, 0xda, &[1, 1, 0, 0, 63, 0]);

        // White is 128 above the middle and ink 100 below it. The margin comes first, so the first difference is 128.
        let mut before = None;
        for y in 0..blocks {
            for x in 0..blocks {
                let dark = self.is_dark(x, y, blocks);
                match before.replace(dark) {
                    Some(same) if same == dark => out.push(0x00),
                    Some(_) if dark => out.extend([0x01, 255 - 228]),
                    Some(_) => out.extend([0x01, 228]),
                    None => out.extend([0x01, 128]),
                }
                out.extend([0, 1, 0, 1, 0, 1, 0, 0]);
            }
        }
        out.extend([0xff, 0xd9]);
        out
    }

    /// As a PNG (RFC 2083) with black ink on a ground that one sees through.
    pub(super) fn png(&self) -> Vec<u8> {
        let width = u32::from(self.width);
        let mut rows = Vec::new();
        for y in 0..width {
            rows.push(0);
            rows.extend((0..width).map(|x| u8::from(self.is_dark(x, y, width))));
        }
        let size = width.to_be_bytes();
        let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
        chunk(
            &mut out,
            *b"IHDR",
            &[&size[..], &size, &[8, 3, 0, 0, 0]].concat(),
        );
        chunk(&mut out, *b"PLTE", &[255, 255, 255, 0, 0, 0]);
        chunk(&mut out, *b"tRNS", &[0, 255]);
        chunk(&mut out, *b"IDAT", &stored(&rows));
        chunk(&mut out, *b"IEND", &[]);
        out
    }
}

/// A segment of JPEG; its length counts itself.
fn segment(out: &mut Vec<u8>, marker: u8, content: &[u8]) {
    out.extend([0xff, marker]);
    let length = u16::try_from(content.len() + 2).expect("segments are short");
    out.extend(length.to_be_bytes());
    out.extend(content);
}

fn chunk(out: &mut Vec<u8>, kind: [u8; 4], content: &[u8]) {
    let length = u32::try_from(content.len()).expect("a picture is small");
    out.extend(length.to_be_bytes());
    let begins = out.len();
    out.extend(kind);
    out.extend(content);
    let sum = crc32(&out[begins..]);
    out.extend(sum.to_be_bytes());
}

/// A zlib stream (RFC 1950) of blocks that are not compressed.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let mut blocks = bytes.chunks(usize::from(u16::MAX)).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).expect("chunks are no longer");
        out.push(u8::from(blocks.peek().is_none()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
    }
    out.extend(adler32(bytes).to_be_bytes());
    out
}

fn adler32(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1, 0);
    // So many bytes cannot overflow the sums (RFC 1950, section 9).
    for part in bytes.chunks(5552) {
        for byte in part {
            a += u32::from(*byte);
            b += a;
        }
        (a, b) = (a % 65_521, b % 65_521);
    }
    b << 16 | a
}

fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut n = 0;
        while n < 256 {
            let (mut sum, mut bit) = (n as u32, 0);
            while bit < 8 {
                sum = if sum & 1 == 1 {
                    0xedb8_8320 ^ sum >> 1
                } else {
                    sum >> 1
                };
                bit += 1;
            }
            table[n] = sum;
            n += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |sum, byte| {
        TABLE[usize::from(sum as u8 ^ byte)] ^ sum >> 8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_known_ones() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
        assert_eq!(adler32(&vec![0xff; 1 << 20]), {
            let (mut a, mut b) = (1_u64, 0_u64);
            for _ in 0..1 << 20 {
                a = (a + 255) % 65_521;
                b = (b + a) % 65_521;
            }
            u32::try_from(b << 16 | a).unwrap()
        });
    }

    #[test]
    fn the_same_order_gives_the_same_bytes_and_another_gives_others() {
        let [one, same, other] = [&b"a"[..], b"a", b"b"].map(|it| Code::new(280, it));
        assert_eq!(one.jpeg(), same.jpeg());
        assert_ne!(one.jpeg(), other.jpeg());
        assert_eq!(one.png(), same.png());
        assert_ne!(one.png(), other.png());
    }

    /// What a decoder would see: the brightness of each block.
    fn decoded(jpeg: &[u8]) -> Vec<i32> {
        let mut rest = jpeg.strip_prefix(&[0xff, 0xd8]).unwrap();
        loop {
            let (marker, length) = (rest[1], u16::from_be_bytes([rest[2], rest[3]]));
            assert_eq!(rest[0], 0xff);
            rest = &rest[2 + usize::from(length)..];
            if marker == 0xda {
                break;
            }
        }
        let mut data = rest.strip_suffix(&[0xff, 0xd9]).unwrap().iter();
        assert!(!data.clone().any(|byte| *byte == 0xff));
        let (mut seen, mut level) = (Vec::new(), 0);
        while let Some(code) = data.next() {
            if *code == 1 {
                let bits = i32::from(*data.next().unwrap());
                level += if bits < 128 { bits - 255 } else { bits };
            }
            let within: Vec<u8> = data.by_ref().take(8).copied().collect();
            assert_eq!(within, [0, 1, 0, 1, 0, 1, 0, 0]);
            seen.push(level);
        }
        seen
    }

    #[test]
    fn a_jpeg_has_its_size_and_two_levels_of_brightness_in_every_block() {
        for width in [280, 430, 1280] {
            let jpeg = Code::new(width, b"x").jpeg();
            let seen = decoded(&jpeg);
            let blocks = usize::from(width).div_ceil(8);
            assert_eq!(seen.len(), blocks * blocks);
            assert!(seen.iter().all(|level| [128, -100].contains(level)));
            assert!(seen[..blocks].iter().all(|level| *level == 128), "a margin");
            assert!(seen.contains(&-100));
        }
        assert!(Code::new(1280, b"x").jpeg().len() > 200_000);
    }

    #[test]
    fn a_png_has_valid_chunks_and_a_byte_for_each_pixel() {
        let png = Code::new(300, b"x").png();
        let mut rest = png.strip_prefix(b"\x89PNG\r\n\x1a\n").unwrap();
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            let sum = &rest[8 + length..12 + length];
            assert_eq!(crc32(&rest[4..8 + length]).to_be_bytes(), sum);
            kinds.push(std::str::from_utf8(&rest[4..8]).unwrap());
            rest = &rest[12 + length..];
        }
        assert_eq!(kinds, ["IHDR", "PLTE", "tRNS", "IDAT", "IEND"]);
        assert!(png.len() > 300 * 300);
    }
}
