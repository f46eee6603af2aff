//! A text in pieces that WeChat takes.
//!
//! WeChat counts 字 and does not say what an emoji is; they count as two here, as in UTF-16, so that a piece is within the
//! limit either way. Pieces overlap, or a word that is cut in two would be seen by nobody.

use crate::wechat::content_check::LONGEST_TEXT;

/// How many pieces of one request WeChat is asked about.
pub(super) const MOST: usize = 8;
/// How many characters at the end of a piece stand at the beginning of the next, too.
const OVERLAP: usize = 50;

/// What WeChat is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece<'t> {
    /// Where it stood.
    pub(super) field: &'t str,
    pub(super) text: &'t str,
}

/// The pieces of all texts, each with its field; equal ones once. `None` if they are too many.
pub(super) fn cut<'t>(texts: impl Iterator<Item = (&'t str, &'t str)>) -> Option<Vec<Piece<'t>>> {
    let mut pieces: Vec<Piece<'t>> = Vec::new();
    for (field, text) in texts {
        let mut rest = text;
        while !rest.trim().is_empty() {
            let end = fitting(rest);
            let piece = &rest[..end];
            if !pieces.iter().any(|known| known.text == piece) {
                if pieces.len() == MOST {
                    return None;
                }
                pieces.push(Piece { field, text: piece });
            }
            if end == rest.len() {
                break;
            }
            rest = &rest[end - tail(piece)..];
        }
    }
    Some(pieces)
}

/// How many bytes of a text are one piece.
fn fitting(text: &str) -> usize {
    let mut units = 0;
    for (at, character) in text.char_indices() {
        units += character.len_utf16();
        if units > LONGEST_TEXT {
            return at;
        }
    }
    text.len()
}

/// How many bytes of a piece the next begins with.
fn tail(piece: &str) -> usize {
    piece.chars().rev().take(OVERLAP).map(char::len_utf8).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lengths(text: &str) -> Option<Vec<usize>> {
        let pieces = cut([("a", text)].into_iter())?;
        Some(
            pieces
                .iter()
                .map(|piece| piece.text.chars().count())
                .collect(),
        )
    }

    /// Text in which no two places look alike.
    fn varied(length: usize) -> String {
        (0..length)
            .map(|i| char::from_u32(0x4E00 + u32::try_from(i).unwrap() % 20_000).unwrap())
            .collect()
    }

    #[test]
    fn characters_count_and_not_bytes() {
        assert_eq!(lengths(&varied(2500)), Some(vec![2500]));
        assert_eq!(lengths(&varied(2501)), Some(vec![2500, 51]));
        assert_eq!(lengths(&"😀".repeat(1250)), Some(vec![1250]));
        assert_eq!(lengths(&"😀".repeat(1251)), Some(vec![1250, 51]));
    }

    #[test]
    fn a_word_at_the_seam_is_whole_in_one_piece() {
        let mut text = varied(2495);
        text.push_str("word at the seam");
        text.push_str(&varied(100));
        let pieces = cut([("a", &*text)].into_iter()).unwrap();
        assert!(
            pieces
                .iter()
                .any(|piece| piece.text.contains("word at the seam"))
        );
    }

    #[test]
    fn there_are_no_more_than_eight() {
        let most = 2500 + 7 * 2450;
        assert_eq!(lengths(&varied(most)).unwrap().len(), 8);
        assert_eq!(lengths(&varied(most + 1)), None);
    }

    #[test]
    fn white_space_is_no_text_and_equal_texts_are_one() {
        let texts = [("a", " \n\u{3000}"), ("b", "x"), ("c", "x"), ("d", "")];
        let pieces = cut(texts.into_iter()).unwrap();
        assert_eq!(
            pieces,
            [Piece {
                field: "b",
                text: "x"
            }]
        );
    }

    proptest! {
        #[test]
        fn every_stretch_of_fifty_characters_is_in_some_piece(
            text in proptest::collection::vec(any::<char>(), 2400..6000), at in 0..2350_usize,
        ) {
            let stretch: String = text[at..at + 50].iter().collect();
            let text: String = text.into_iter().collect();
            let pieces = cut([("a", &*text)].into_iter()).unwrap();
            prop_assert!(stretch.trim().is_empty() || pieces.iter().any(|piece| piece.text.contains(&stretch)));
        }
    }
}
