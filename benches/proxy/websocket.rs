//! Just enough WebSocket (RFC 6455) for small binary frames back and forth: the generator's side and the app's.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// One key for all connections; nobody here has to be kept from replaying it.
const KEY: &str = "wx-sidecar bench";
const MASK: [u8; 4] = [0x3a, 0x91, 0x5c, 0x07];
const PAYLOAD: &[u8] = b"{\"room\":7,\"move\":\"e2e4\",\"clock\":58}";
const FINAL_BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
/// The head of a masked frame with a short payload: two bytes and the mask.
const HEAD: usize = 6;

/// The fields with which a client asks for the upgrade.
pub(crate) fn request_fields() -> String {
    format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n",
        STANDARD.encode(KEY)
    )
}

/// What proves that the peer has understood the key.
pub(crate) fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// Judges the answer to the handshake by its `Sec-WebSocket-Accept`.
pub(crate) fn check(accepted: &str) -> Result<(), String> {
    if accepted == accept(&STANDARD.encode(KEY)) {
        Ok(())
    } else {
        Err(format!("Sec-WebSocket-Accept is {accepted:?}"))
    }
}

/// The frame a client sends.
pub(crate) fn frame() -> Vec<u8> {
    let mut frame = vec![FINAL_BINARY, MASKED | PAYLOAD.len() as u8];
    frame.extend(MASK);
    frame.extend(masked(PAYLOAD, MASK));
    frame
}

/// The frame that must come back.
pub(crate) fn echo() -> Vec<u8> {
    server_frame(PAYLOAD)
}

/// The app's answer to the first frame in `bytes`, and how many bytes that took; `None` while it is incomplete.
pub(crate) fn answer(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let [kind, length, ..] = *bytes else {
        return Ok(None);
    };
    let length = usize::from(length & !MASKED);
    if kind != FINAL_BINARY || bytes[1] & MASKED == 0 || length > 125 {
        return Err("not a short binary frame of a client".to_owned());
    }
    let Some(payload) = bytes.get(HEAD..HEAD + length) else {
        return Ok(None);
    };
    let mask = [bytes[2], bytes[3], bytes[4], bytes[5]];
    let payload: Vec<u8> = masked(payload, mask).collect();
    Ok(Some((server_frame(&payload), HEAD + length)))
}

fn server_frame(payload: &[u8]) -> Vec<u8> {
    [&[FINAL_BINARY, payload.len() as u8], payload].concat()
}

fn masked(payload: &[u8], mask: [u8; 4]) -> impl Iterator<Item = u8> {
    payload
        .iter()
        .zip(mask.into_iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
}
