//! The one thing that we want to know of a certificate ourselves: from when and until when it is good (RFC 5280 §4.1.2.5).
//!
//! Whether it is good at all is for TLS to say; here a certificate is followed only as far as to those dates, and whatever
//! is not as it should be has none.

/// Seconds of a day.
const DAY: i64 = 86_400;

/// When a certificate is good, in Unix time; both moments are part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: i64,
    /// The last one.
    pub not_after: i64,
}

/// When the certificate (DER) is good. `None` if that cannot be read.
pub fn validity(certificate: &[u8]) -> Option<Validity> {
    let mut signed = Der(Der(certificate).expect(SEQUENCE)?);
    let mut fields = Der(signed.expect(SEQUENCE)?);
    let mut first = fields.next()?;
    if first.0 == VERSION {
        first = fields.next()?;
    }
    let (INTEGER, _serial_number) = first else {
        return None;
    };
    let _algorithm = fields.expect(SEQUENCE)?;
    let _issuer = fields.expect(SEQUENCE)?;
    let mut validity = Der(fields.expect(SEQUENCE)?);
    Some(Validity {
        not_before: date(validity.next()?)?,
        not_after: date(validity.next()?)?,
    })
}

fn date(element: (u8, &[u8])) -> Option<i64> {
    match element {
        (UTC_TIME, text) => {
            let (year, rest) = digits(text, 2)?;
            time(if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (GENERALIZED_TIME, text) => {
            let (year, rest) = digits(text, 4)?;
            time(year, rest)
        }
        _ => None,
    }
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// Elements of DER, one behind the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and what is in it.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, length], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match length {
            0..=0x7f => (usize::from(length), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
                let length = bytes
                    .iter()
                    .fold(0, |length, byte| length << 8 | usize::from(*byte));
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content) = self.next()?;
        (found == tag).then_some(content)
    }
}

/// `MMDDHHMMSSZ` in a year.
fn time(year: i64, text: &[u8]) -> Option<i64> {
    let (month, text) = digits(text, 2)?;
    let (day, text) = digits(text, 2)?;
    let (hour, text) = digits(text, 2)?;
    let (minute, text) = digits(text, 2)?;
    let (second, text) = digits(text, 2)?;
    let is_fine = (1..=12).contains(&month) && (1..=31).contains(&day) && text == b"Z";
    is_fine.then(|| days(year, month, day) * DAY + hour * 3600 + minute * 60 + second)
}

fn digits(text: &[u8], count: usize) -> Option<(i64, &[u8])> {
    let (number, rest) = text.split_at_checked(count)?;
    let number = number.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + i64::from(byte - b'0'))
    })?;
    Some((number, rest))
}

/// Days from 1970-01-01 to a day of the Gregorian calendar. Years begin in March, so that a leap day is their last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        month => (year, month - 3),
    };
    let of_years = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    of_years + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2001, 9, 9);
        params.not_after = date_time_ymd(year, month, day);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_dates_are_read_in_both_forms() {
        for (date, expected) in [
            ((2024, 2, 29), 1_709_164_800),
            ((2026, 12, 31), 1_798_675_200),
            ((2049, 3, 1), 2_498_169_600),
            ((2050, 1, 1), 2_524_608_000),
            ((2100, 3, 1), 4_107_542_400),
        ] {
            let der = certificate(date.0, date.1, date.2);
            let expected = Validity {
                not_before: 999_993_600,
                not_after: expected,
            };
            assert_eq!(validity(&der), Some(expected), "{date:?}");
        }
    }

    #[test]
    fn what_is_cut_or_something_else_has_no_date() {
        let der = certificate(2030, 1, 1);
        for end in 0..der.len() {
            assert_eq!(validity(&der[..end]), None);
        }
        for at in 0..200 {
            let mut broken = der.clone();
            broken[at] ^= 0x80;
            let _anything_but_a_panic = validity(&broken);
        }
        assert_eq!(validity(b"\x30\x84\xff\xff\xff\xff"), None);
    }
}
