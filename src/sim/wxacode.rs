//! Mini Program codes: pictures on success, JSON on refusal, told apart by nothing but the body.
//!
//! The pictures are real ones that any decoder opens, of the width that was asked for. They cannot be scanned: their
//! pattern is the digest of the call, which their comment holds too, so that equal calls give equal bytes and others do
//! not. Both formats are written in their simplest form, a JPEG of flat blocks and a PNG without compression.

use ::http::HeaderMap;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::api::posted;
use super::exchange::{Answer, Request};
use super::ids::hex;
use super::refusal::{Refusal, Refused};
use super::state::State;
use crate::crypto::sha256;

/// Codes of the limited kinds that an app may ever make.
const LIMITED_CODES: u32 = 100_000;
/// In characters.
const LONGEST_SCENE: usize = 32;
const LONGEST_PATH: usize = 1024;
const LONGEST_QR_PATH: usize = 128;
/// Of a picture, in pixels.
const WIDTHS: (u32, u32) = (280, 1280);
const USUAL_WIDTH: u32 = 430;
/// Cells of the pattern in a row.
const CELLS: u32 = 32;

/// `POST /wxa/getwxacodeunlimit`.
pub(super) fn unlimited(state: &State, request: &Request) -> Result<Answer, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        scene: String,
        #[serde(default)]
        page: String,
        check_path: Option<bool>,
        #[serde(rename = "env_version")]
        _version: Option<EnvVersion>,
        #[serde(flatten)]
        look: Look,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = arguments(request, Refusal::SceneLengthInvalid)?;
    if !(1..=LONGEST_SCENE).contains(&body.scene.chars().count()) {
        return Err(Refusal::SceneLengthInvalid.into());
    }
    if !body.scene.bytes().all(may_stand_in_a_scene) {
        return Err(Refusal::SceneInvalid.into());
    }
    if body.scene.contains("scancode_time") {
        return Err(Refusal::SceneReserved.into());
    }
    // A released page is asked for even by a code of a trial version, unless the caller says otherwise. What belongs to
    // its query goes into the scene.
    if body.check_path.unwrap_or(true) && !state.apps[app].has_page(&body.page) {
        return Err(Refusal::PageInvalid.into());
    }
    Ok(picture(request, &body.look))
}

/// `POST /wxa/getwxacode`.
pub(super) fn limited(state: &mut State, request: &Request) -> Result<Answer, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        path: String,
        #[serde(rename = "env_version")]
        _version: Option<EnvVersion>,
        #[serde(flatten)]
        look: Look,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = arguments(request, Refusal::PathLengthInvalid)?;
    count(state, app, &body.path, LONGEST_PATH)?;
    Ok(picture(request, &body.look))
}

/// `POST /cgi-bin/wxaapp/createwxaqrcode`.
pub(super) fn qr_code(state: &mut State, request: &Request) -> Result<Answer, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        path: String,
        width: Option<u32>,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = arguments(request, Refusal::PathLengthInvalid)?;
    count(state, app, &body.path, LONGEST_QR_PATH)?;
    let look = Look {
        width: body.width,
        is_hyaline: false,
    };
    Ok(picture(request, &look))
}

/// Which version of the app a code opens. Only that there is such a version matters here.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum EnvVersion {
    Release,
    Trial,
    Develop,
}

/// What matters for the picture's form.
#[derive(Deserialize)]
struct Look {
    width: Option<u32>,
    /// Whether the ground is transparent, which makes it a PNG.
    #[serde(default)]
    is_hyaline: bool,
}

/// The arguments: what is no JSON object is refused by the endpoint's own number, what has a wrong type by the common one.
fn arguments<T: DeserializeOwned>(request: &Request, no_json: Refusal) -> Result<T, Refusal> {
    let object: serde_json::Map<_, _> = posted(request).map_err(|refusal| match refusal {
        Refusal::BodyMalformed => no_json,
        other => other,
    })?;
    serde_json::from_value(object.into()).map_err(|_| Refusal::ArgumentsInvalid)
}

fn may_stand_in_a_scene(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$&'()*+,/:;=?@-._~".contains(&byte)
}

fn count(state: &mut State, app: usize, path: &str, longest: usize) -> Result<(), Refusal> {
    if !(1..=longest).contains(&path.len()) {
        return Err(Refusal::PathLengthInvalid);
    }
    let made = &mut state.apps[app].limited_codes;
    if *made == LIMITED_CODES {
        return Err(Refusal::CodesUsedUp);
    }
    *made += 1;
    Ok(())
}

fn picture(request: &Request, look: &Look) -> Answer {
    let pattern = Pattern {
        width: look.width.unwrap_or(USUAL_WIDTH).clamp(WIDTHS.0, WIDTHS.1),
        digest: sha256(&[request.path.as_bytes(), b"\n", &request.body].concat()),
    };
    let (content_type, body) = if look.is_hyaline {
        ("image/png", pattern.png())
    } else {
        ("image/jpeg", pattern.jpeg())
    };
    Answer::file(content_type, HeaderMap::new(), Bytes::from(body))
}

/// A square of black and white cells, four times the bits of a digest.
struct Pattern {
    /// In pixels.
    width: u32,
    digest: [u8; 32],
}

impl Pattern {
    fn is_dark(&self, x: u32, y: u32) -> bool {
        let (column, row) = (x * CELLS / self.width, y * CELLS / self.width);
        let bit = (row * CELLS + column) as usize % 256;
        self.digest[bit / 8] >> (bit % 8) & 1 == 1
    }

    /// One bit for each pixel; 0 is transparent and 1 black.
    fn png(&self) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend(self.width.to_be_bytes());
        header.extend(self.width.to_be_bytes());
        // Depth 1, colours by a palette; the only methods there are; not interlaced.
        header.extend([1, 3, 0, 0, 0]);
        let mut comment = b"Comment\0".to_vec();
        comment.extend(hex(&self.digest).bytes());
        let mut rows = Vec::new();
        for y in 0..self.width {
            // Each row tells its filter first: none.
            rows.push(0);
            rows.extend((0..self.width.div_ceil(8)).map(|byte| {
                (0..8).fold(0, |bits, bit| {
                    let x = byte * 8 + bit;
                    bits << 1 | u8::from(x < self.width && self.is_dark(x, y))
                })
            }));
        }

        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        chunk(&mut png, b"IHDR", &header);
        chunk(&mut png, b"PLTE", &[255, 255, 255, 0, 0, 0]);
        chunk(&mut png, b"tRNS", &[0]);
        chunk(&mut png, b"tEXt", &comment);
        chunk(&mut png, b"IDAT", &stored(&rows));
        chunk(&mut png, b"IEND", b"");
        png
    }

    /// Baseline, grey, each block of 8 by 8 pixels black or white.
    fn jpeg(&self) -> Vec<u8> {
        let size = u16::try_from(self.width).expect("a width is at most 1280");
        let [high, low] = size.to_be_bytes();
        let mut jpeg = b"\xff\xd8".to_vec();
        segment(&mut jpeg, 0xe0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
        segment(&mut jpeg, 0xfe, hex(&self.digest).as_bytes());
        // All steps are 8, which makes a flat block's only coefficient its brightness, less 128.
        segment(&mut jpeg, 0xdb, &[&[0][..], &[8; 64]].concat());
        // Eight bits deep; one component, with the one quantisation table.
        segment(&mut jpeg, 0xc0, &[8, high, low, high, low, 1, 1, 0x11, 0]);
        let codes = |class: u8, lengths: &[u8], symbols: &[u8]| {
            let mut table = vec![class];
            table.extend(lengths.iter().chain(&[0; 16]).take(16));
            table.extend(symbols);
            table
        };
        // Differences of brightness: `0` is none, `10` one of eight bits, `110` one of seven; then `0` ends the block.
        segment(&mut jpeg, 0xc4, &codes(0x00, &[1, 1, 1], &[0, 8, 7]));
        segment(&mut jpeg, 0xc4, &codes(0x10, &[1], &[0]));
        segment(&mut jpeg, 0xda, &[1, 1, 0, 0, 63, 0]);

        let mut bits = Bits::default();
        let mut before: i32 = 0;
        let blocks = self.width.div_ceil(8);
        for (row, column) in
            (0..blocks).flat_map(|row| (0..blocks).map(move |column| (row, column)))
        {
            let now = if self.is_dark(column * 8, row * 8) {
                -128
            } else {
                127
            };
            match now - before {
                0 => bits.push(0b0, 1),
                127 => bits.push(0b110 << 7 | 127, 10),
                // A negative difference is written as its magnitude with all bits turned.
                difference if difference < 0 => {
                    bits.push(0b10 << 8 | (255 - difference.unsigned_abs()), 10);
                }
                difference => bits.push(0b10 << 8 | difference.unsigned_abs(), 10),
            }
            bits.push(0b0, 1);
            before = now;
        }
        jpeg.extend(bits.end());
        jpeg.extend(b"\xff\xd9");
        jpeg
    }
}

/// A chunk of a PNG.
fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    let length = u32::try_from(data.len()).expect("a picture is some hundred KiB");
    png.extend(length.to_be_bytes());
    let checked = png.len();
    png.extend(kind);
    png.extend(data);
    let check = crc32(&png[checked..]);
    png.extend(check.to_be_bytes());
}

/// A zlib stream (RFC 1950) of stored blocks (RFC 1951).
fn stored(data: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let mut blocks = data.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).expect("it was cut so");
        stream.push(u8::from(blocks.peek().is_none()));
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend(block);
    }
    stream.extend(adler32(data).to_be_bytes());
    stream
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}

fn adler32(data: &[u8]) -> u32 {
    let (a, b) = data.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

/// A segment of a JPEG.
fn segment(jpeg: &mut Vec<u8>, marker: u8, data: &[u8]) {
    let length = u16::try_from(data.len() + 2).expect("all segments are short");
    jpeg.extend([0xff, marker]);
    jpeg.extend(length.to_be_bytes());
    jpeg.extend(data);
}

/// The bits of a JPEG's scan, the highest of a byte first; a byte of ones is followed by zeros, to be no marker.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    pending: u32,
    length: u32,
}

impl Bits {
    fn push(&mut self, bits: u32, length: u32) {
        self.pending = self.pending << length | bits;
        self.length += length;
        while self.length >= 8 {
            self.length -= 8;
            let byte = (self.pending >> self.length) as u8;
            self.bytes.push(byte);
            if byte == 0xff {
                self.bytes.push(0);
            }
        }
    }

    /// The bytes, the last one filled with ones.
    fn end(mut self) -> Vec<u8> {
        let missing = (8 - self.length) % 8;
        self.push((1 << missing) - 1, missing);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use ::http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::sim::probe::Probe;

    const UNLIMITED: &str = "/wxa/getwxacodeunlimit";
    const LIMITED: &str = "/wxa/getwxacode";
    const QR: &str = "/cgi-bin/wxaapp/createwxaqrcode";

    fn picture_of(probe: &mut Probe, path: &str, body: &Value) -> Answer {
        let target = probe.with_token(path);
        let answer = probe.call(Method::POST, &target, body.to_string().as_bytes());
        let content_type = answer.content_type.to_str().unwrap();
        assert!(content_type.starts_with("image/"), "{answer:?}");
        answer
    }

    #[test]
    fn the_arguments_of_an_unlimited_code_are_checked() {
        let mut probe = Probe::new();
        probe.state.apps[0].known.pages = Some(vec!["pages/index".to_owned()]);
        let long = "x".repeat(33);
        let refused = [
            (json!([]), 40169),
            (json!({}), 40169),
            (json!({ "scene": "" }), 40169),
            (json!({ "scene": long }), 40169),
            (json!({ "scene": "a b" }), 40129),
            (json!({ "scene": "a%" }), 40129),
            (json!({ "scene": "你" }), 40129),
            (json!({ "scene": "scancode_time=1" }), 85096),
            (json!({ "scene": "a", "page": "/pages/index" }), 41030),
            (json!({ "scene": "a", "page": "pages/index?x=1" }), 41030),
            (json!({ "scene": "a", "page": "pages/new" }), 41030),
            (json!({ "scene": "a", "width": "wide" }), 40097),
            (json!({ "scene": "a", "env_version": "beta" }), 40097),
        ];
        for (body, errcode) in refused {
            assert_eq!(probe.post(UNLIMITED, &body)["errcode"], errcode, "{body}");
        }
        assert_eq!(probe.post_text(UNLIMITED, "{")["errcode"], 40169);
        assert_eq!(probe.post_text(UNLIMITED, "")["errcode"], 44002);
        assert_eq!(probe.get(UNLIMITED)["errcode"], 43002);
        for body in [
            json!({ "scene": "a=1&b=!#$'()*+,/:;?@-._~" }),
            json!({ "scene": "a", "page": "pages/index" }),
            json!({ "scene": "a", "page": "pages/new", "check_path": false, "env_version": "trial" }),
        ] {
            picture_of(&mut probe, UNLIMITED, &body);
        }
    }

    #[test]
    fn the_codes_of_the_limited_kinds_have_one_limit() {
        let mut probe = Probe::new();
        for path in [LIMITED, QR] {
            for body in ["{}", "{", r#"{"path":""}"#] {
                assert_eq!(probe.post_text(path, body)["errcode"], 40159);
            }
        }
        let body = json!({ "path": "p".repeat(129) });
        assert_eq!(probe.post(QR, &body)["errcode"], 40159);
        picture_of(&mut probe, LIMITED, &body);
        probe.state.apps[0].limited_codes = LIMITED_CODES - 1;
        let body = json!({ "path": "pages/index?x=1" });
        picture_of(&mut probe, QR, &body);
        assert_eq!(probe.post(QR, &body)["errcode"], 45029);
        assert_eq!(probe.post(LIMITED, &body)["errcode"], 45029);
        picture_of(&mut probe, UNLIMITED, &json!({ "scene": "a" }));
    }

    #[test]
    fn equal_calls_give_equal_pictures_and_larger_ones_more_bytes() {
        let mut probe = Probe::new();
        for is_hyaline in [false, true] {
            let mut of = |scene: &str, width: u32| {
                let body = json!({ "scene": scene, "width": width, "is_hyaline": is_hyaline });
                picture_of(&mut probe, UNLIMITED, &body).body
            };
            assert_eq!(of("a", 430), of("a", 430));
            assert_ne!(of("a", 430), of("b", 430));
            assert!(of("a", 430).len() > of("a", 280).len());
            assert_eq!(of("a", 9999).len(), of("a", 9999).len());
        }
    }

    #[test]
    fn a_hyaline_code_is_a_png_whose_chunks_add_up() {
        let mut probe = Probe::new();
        let body = json!({ "scene": "a", "width": 1281, "is_hyaline": true });
        let answer = picture_of(&mut probe, UNLIMITED, &body);
        assert_eq!(answer.content_type, "image/png");
        let (magic, mut rest) = answer.body.split_at(8);
        assert_eq!(magic, b"\x89PNG\r\n\x1a\n");
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            let (chunk, after) = rest[4..].split_at(length + 8);
            let (checked, check) = chunk.split_at(length + 4);
            assert_eq!(crc32(checked).to_be_bytes(), check);
            if checked.starts_with(b"IHDR") {
                assert_eq!(checked[4..12], [0, 0, 5, 0, 0, 0, 5, 0], "1280 by 1280");
            }
            if checked.starts_with(b"IDAT") {
                let rows = 1280 * 161;
                let blocks = usize::div_ceil(rows, 0xffff);
                assert_eq!(length, 2 + blocks * 5 + rows + 4);
            }
            kinds.push(String::from_utf8(checked[..4].to_vec()).unwrap());
            rest = after;
        }
        assert_eq!(kinds, ["IHDR", "PLTE", "tRNS", "tEXt", "IDAT", "IEND"]);
    }

    #[test]
    fn the_checksums_agree_with_their_known_values() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }

    #[test]
    fn a_jpegs_scan_reads_back_as_the_pattern() {
        let pattern = Pattern {
            width: 283,
            digest: sha256(b"any"),
        };
        let jpeg = pattern.jpeg();
        assert_eq!(jpeg[..2], [0xff, 0xd8]);
        let mut rest = &jpeg[2..];
        let mut markers = Vec::new();
        while markers.last() != Some(&0xda) {
            let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
            markers.push(rest[1]);
            rest = &rest[2 + length..];
        }
        assert_eq!(markers, [0xe0, 0xfe, 0xdb, 0xc0, 0xc4, 0xc4, 0xda]);
        let scan = rest.strip_suffix(b"\xff\xd9").unwrap();
        let mut bytes = scan.to_vec();
        let mut at = 0;
        while let Some(found) = bytes[at..].windows(2).position(|pair| pair == [0xff, 0]) {
            at += found + 1;
            bytes.remove(at);
        }
        let mut bits = bytes
            .iter()
            .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
        let mut brightness = 0;
        for (row, column) in (0..36).flat_map(|row| (0..36).map(move |column| (row, column))) {
            let ones = bits.by_ref().take_while(|bit| *bit == 1).count();
            let length = [0, 8, 7][ones];
            let value = bits
                .by_ref()
                .take(length)
                .fold(0, |value, bit| value << 1 | i32::from(bit));
            let negative = length > 0 && value >> (length - 1) == 0;
            brightness += if negative {
                value - ((1 << length) - 1)
            } else {
                value
            };
            assert_eq!(bits.next(), Some(0), "the block ends");
            let dark = pattern.is_dark(column * 8, row * 8);
            assert_eq!(brightness, if dark { -128 } else { 127 });
        }
        assert!(bits.all(|bit| bit == 1));
    }
}
