//! Jute, ZooKeeper's encoding: big-endian numbers, and texts and buffers that begin with their length.
//!
//! A packet is one length and what it counts. There are no tags, so whoever reads must know what was written; what is
//! there but not asked for, as later versions add at the end, is left alone.

use zeroize::Zeroizing;

/// Where the length of a packet stands.
pub(super) const LENGTH: usize = 4;

/// A packet that is being written. Wiped when it is dropped, because configurations and passwords are in it.
pub(super) struct Packet(Zeroizing<Vec<u8>>);

/// What is left to read of a packet.
pub(super) struct Fields<'a>(&'a [u8]);

/// What ZooKeeper says of a node beside its content. Two that are equal belong to the same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// The transaction that wrote the content.
    pub(super) mzxid: i64,
    /// When the node was created and when its content was written, by the leader's clock. A wiped ensemble counts its
    /// transactions anew; its clock goes on.
    ctime: i64,
    mtime: i64,
    pub(super) version: i32,
    pub(super) length: usize,
}

impl Packet {
    /// `room` is how long it will be at most: a buffer that grows leaves a copy behind.
    pub(super) fn with_room(room: usize) -> Self {
        let mut bytes = Vec::with_capacity(LENGTH + room);
        bytes.extend_from_slice(&[0; LENGTH]);
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn int(mut self, value: i32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn long(mut self, value: i64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn flag(mut self, value: bool) -> Self {
        self.0.push(u8::from(value));
        self
    }

    pub(super) fn buffer(mut self, value: &[u8]) -> Self {
        self = self.int(length_of(value));
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn text(self, value: &str) -> Self {
        self.buffer(value.as_bytes())
    }

    /// The packet as it goes over the wire.
    pub(super) fn finish(mut self) -> Zeroizing<Vec<u8>> {
        let length = length_of(&self.0[LENGTH..]);
        self.0[..LENGTH].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

impl<'a> Fields<'a> {
    pub(super) fn of(packet: &'a [u8]) -> Self {
        Self(packet)
    }

    pub(super) fn int(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// A buffer; one that is absent (length -1) counts as empty.
    pub(super) fn buffer(&mut self) -> Option<&'a [u8]> {
        let length = self.int()?;
        let (buffer, rest) = self
            .0
            .split_at_checked(length.max(0).unsigned_abs() as usize)?;
        self.0 = rest;
        Some(buffer)
    }

    pub(super) fn stat(&mut self) -> Option<Stat> {
        let (_czxid, mzxid) = (self.long()?, self.long()?);
        let (ctime, mtime) = (self.long()?, self.long()?);
        let (version, _children_version, _acl_version) = (self.int()?, self.int()?, self.int()?);
        let _ephemeral_owner = self.long()?;
        let length = self.int()?;
        Some(Stat {
            mzxid,
            ctime,
            mtime,
            version,
            length: length.max(0).unsigned_abs() as usize,
        })
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }
}

fn length_of(bytes: &[u8]) -> i32 {
    i32::try_from(bytes.len()).expect("what is sent is about a MiB at most")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_its_length_and_its_fields() {
        let packet = Packet::with_room(40)
            .int(-2)
            .long(3)
            .flag(true)
            .text("/a")
            .buffer(b"");
        let expected =
            b"\0\0\0\x17\xff\xff\xff\xfe\0\0\0\0\0\0\0\x03\x01\0\0\0\x02/a\0\0\0\0".as_slice();
        assert_eq!(packet.finish().as_slice(), expected);
    }

    #[test]
    fn fields_are_read_in_the_order_in_which_they_were_written() {
        let packet = Packet::with_room(64)
            .int(7)
            .long(-9)
            .text("x")
            .int(-1)
            .finish();
        let mut fields = Fields::of(&packet[LENGTH..]);
        assert_eq!(fields.int(), Some(7));
        assert_eq!(fields.long(), Some(-9));
        assert_eq!(fields.buffer(), Some(b"x".as_slice()));
        assert_eq!(fields.buffer(), Some(b"".as_slice()), "absent is empty");
        assert_eq!(fields.int(), None, "nothing is left");
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        let whole = Packet::with_room(32).text("a text").finish();
        for end in LENGTH..whole.len() {
            assert_eq!(
                Fields::of(&whole[LENGTH..end]).buffer(),
                None,
                "up to {end}"
            );
        }
        let upto_length = 4 * 8 + 3 * 4 + 8 + 4;
        assert_eq!(Fields::of(&vec![0; upto_length - 1]).stat(), None);
        assert!(Fields::of(&vec![0; upto_length]).stat().is_some());
    }

    #[test]
    fn a_stat_is_read_out_of_its_eleven_fields() {
        let packet = Packet::with_room(68)
            .long(1)
            .long(2)
            .long(3)
            .long(4)
            .int(5)
            .int(6)
            .int(7)
            .long(8)
            .int(9)
            .int(10)
            .long(11)
            .finish();
        let stat = Fields::of(&packet[LENGTH..]).stat();
        let expected = Stat {
            mzxid: 2,
            ctime: 3,
            mtime: 4,
            version: 5,
            length: 9,
        };
        assert_eq!(stat, Some(expected));
    }
}
