//! Where WebSocket frames begin and end (RFC 6455 §5.2), which is all that a proxy must know to say a word of its own
//! between two of them.

/// A Close frame as servers send it: 1001, going away.
pub(crate) const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];

const CLOSE: u8 = 0x8;

/// How far the frames of one direction have passed.
#[derive(Default)]
pub(crate) struct Frames {
    /// The head of the current frame, as far as it has come.
    head: [u8; 14],
    seen: usize,
    /// How much of the current frame's payload is still to come, once its head is complete.
    payload: Option<u64>,
    closed: bool,
}

impl Frames {
    /// Whether the next byte begins a frame.
    pub(crate) fn is_between(&self) -> bool {
        self.seen == 0
    }

    /// Whether a Close frame has passed, after which no other may follow.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Lets bytes pass.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.pass_some(bytes)..];
        }
    }

    /// Lets bytes pass up to the end of the current frame, and says how many those are.
    pub(crate) fn pass_frame(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while passed < bytes.len() && !(self.is_between()) {
            passed += self.pass_some(&bytes[passed..]);
        }
        passed
    }

    /// One step: some of a head, or some of a payload.
    fn pass_some(&mut self, bytes: &[u8]) -> usize {
        if let Some(left) = self.payload {
            let count = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.take_payload(left - count as u64);
            return count;
        }
        self.head[self.seen] = bytes[0];
        self.seen += 1;
        if let Some(length) = self.payload_length() {
            self.closed |= self.head[0] & 0x0f == CLOSE;
            self.take_payload(length);
        }
        1
    }

    fn take_payload(&mut self, left: u64) {
        if left == 0 {
            self.seen = 0;
            self.payload = None;
        } else {
            self.payload = Some(left);
        }
    }

    /// The length in the head, once the head is complete.
    fn payload_length(&self) -> Option<u64> {
        let second = *self.head[..self.seen].get(1)?;
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.seen < 2 + extended + mask {
            return None;
        }
        let length = self.head[2..2 + extended].iter();
        Some(if extended == 0 {
            u64::from(second & 0x7f)
        } else {
            length.fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, masked: bool, payload: usize) -> Vec<u8> {
        let mask_bit = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match payload {
            0..=125 => frame.push(mask_bit | payload as u8),
            126..=0xffff => {
                frame.push(mask_bit | 126);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask_bit | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend([1, 2, 3, 4]);
        }
        frame.extend(std::iter::repeat_n(0x88, payload));
        frame
    }

    #[test]
    fn a_close_frame_is_seen_and_a_payload_is_not_taken_for_one() {
        let mut frames = Frames::default();
        frames.pass(&frame(1, false, 300));
        assert!(frames.is_between() && !frames.is_closed());
        frames.pass(&GOING_AWAY);
        assert!(frames.is_between() && frames.is_closed());
    }

    proptest! {
        #[test]
        fn frames_end_where_they_end_wherever_they_are_cut(
            sizes in proptest::collection::vec(
                (prop_oneof![0usize..130, 60_000usize..70_000], any::<bool>()), 1..5),
            cut in any::<prop::sample::Index>(),
        ) {
            let all: Vec<Vec<u8>> = sizes.iter().map(|(size, masked)| frame(2, *masked, *size)).collect();
            let stream = all.concat();
            let ends: Vec<usize> = all.iter()
                .scan(0, |end, frame| { *end += frame.len(); Some(*end) })
                .collect();
            let cut = cut.index(stream.len() + 1);
            let mut frames = Frames::default();
            frames.pass(&stream[..cut]);
            let boundary = cut == 0 || ends.contains(&cut);
            prop_assert_eq!(frames.is_between(), boundary);
            let next = cut + frames.pass_frame(&stream[cut..]);
            let expected = if boundary { cut } else { *ends.iter().find(|end| **end > cut).unwrap() };
            prop_assert_eq!(next, expected);
            prop_assert!(frames.is_between() && !frames.is_closed());
        }
    }
}
