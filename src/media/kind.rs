//! What a file is, by its first bytes, and what WeChat takes it for.
//!
//! Neither its name nor its Content-Type is asked: both are the client's words, and a page that is called a picture is
//! an attack on whoever opens it.

use crate::config::MediaSizes;
use crate::wechat::media::Kind;

/// How many bytes of a file tell what it is.
pub(crate) const TELLING: usize = 64;

const WEBP: &str = "image/webp";
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// A format that WeChat takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Jpeg,
    Png,
    Gif,
    Bmp,
    Amr,
    Mp3,
    Mp4,
}

/// What is known of a file that WeChat does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// With its article.
    pub(crate) what: (&'static str, &'static str),
    /// What to do about it.
    pub(crate) advice: (&'static str, &'static str),
}

impl Format {
    const ALL: [Self; 7] = [
        Self::Jpeg,
        Self::Png,
        Self::Gif,
        Self::Bmp,
        Self::Amr,
        Self::Mp3,
        Self::Mp4,
    ];

    /// Of a file that begins with `start`: [`TELLING`] bytes of it, or all if it has fewer.
    ///
    /// # Errors
    /// If WeChat does not take it: what else it is.
    pub(crate) fn of(start: &[u8]) -> Result<Self, Foreign> {
        match start {
            [0xff, 0xd8, 0xff, ..] => Ok(Self::Jpeg),
            [0xff, second, third, ..] if is_mp3_frame(*second, *third) => Ok(Self::Mp3),
            [b'B', b'M', ..] if is_bmp(start) => Ok(Self::Bmp),
            [_, _, _, _, b'f', b't', b'y', b'p', ..] => boxed(start),
            _ if start.starts_with(b"\x89PNG\r\n\x1a\n") => Ok(Self::Png),
            _ if start.starts_with(b"GIF87a") || start.starts_with(b"GIF89a") => Ok(Self::Gif),
            _ if start.starts_with(b"#!AMR\n") => Ok(Self::Amr),
            [b'I', b'D', b'3', 2..=4, 0..=0xfe, ..] => Ok(Self::Mp3),
            _ => Err(foreign(start)),
        }
    }

    /// What WeChat takes it for, if nobody says otherwise.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Jpeg | Self::Png | Self::Gif | Self::Bmp => Kind::Image,
            Self::Amr | Self::Mp3 => Kind::Voice,
            Self::Mp4 => Kind::Video,
        }
    }

    /// Whether WeChat takes it for `kind`, too.
    pub(crate) fn can_be(self, kind: Kind) -> bool {
        self.kind() == kind || (self == Self::Jpeg && kind == Kind::Thumb)
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Gif => "image/gif",
            Self::Bmp => "image/bmp",
            Self::Amr => "audio/amr",
            Self::Mp3 => "audio/mpeg",
            Self::Mp4 => "video/mp4",
        }
    }

    /// The end of its files' names, by which WeChat goes.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::Gif => "gif",
            Self::Bmp => "bmp",
            Self::Amr => "amr",
            Self::Mp3 => "mp3",
            Self::Mp4 => "mp4",
        }
    }

    /// As it is called in a sentence, with its article.
    pub(crate) fn described(self) -> (&'static str, &'static str) {
        match self {
            Self::Jpeg => ("a JPEG picture", "JPEG 图片"),
            Self::Png => ("a PNG picture", "PNG 图片"),
            Self::Gif => ("a GIF picture", "GIF 图片"),
            Self::Bmp => ("a BMP picture", "BMP 图片"),
            Self::Amr => ("an AMR sound", "AMR 音频"),
            Self::Mp3 => ("an MP3 sound", "MP3 音频"),
            Self::Mp4 => ("an MP4 film", "MP4 视频"),
        }
    }
}

/// What a medium is called that begins with `start`: nothing that a browser would run, whatever it is.
pub(crate) fn content_type(start: &[u8]) -> &'static str {
    match Format::of(start) {
        Ok(format) => format.content_type(),
        Err(_) if is_webp(start) => WEBP,
        Err(_) => UNKNOWN_TYPE,
    }
}

/// What begins with `start` if it is surely no medium: nothing, or a text such as those of errors, whatever it is called.
pub(crate) fn no_medium(start: &[u8]) -> Option<(&'static str, &'static str)> {
    let text = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(start);
    match text.trim_ascii_start().first() {
        _ if start.is_empty() => Some((
            "there is nothing where a medium should be",
            "媒体文件是空的",
        )),
        Some(b'<') => Some((
            "a page, and no medium, came from WeChat",
            "微信返回的是网页，不是媒体文件",
        )),
        Some(b'{') => Some((
            "JSON, and no medium, came from WeChat",
            "微信返回的是 JSON，不是媒体文件",
        )),
        _ => None,
    }
}

/// The same name, if it is one that [`content_type`] gives.
pub(crate) fn known_content_type(name: &str) -> Option<&'static str> {
    let formats = Format::ALL.into_iter().map(Format::content_type);
    let mut known = formats.chain([WEBP, UNKNOWN_TYPE]);
    known.find(|known| *known == name)
}

fn is_webp(start: &[u8]) -> bool {
    start.starts_with(b"RIFF") && start.get(8..12) == Some(b"WEBP")
}

/// How large a file of that kind may be.
pub(crate) fn most(sizes: &MediaSizes, kind: Kind) -> u64 {
    match kind {
        Kind::Image => sizes.image,
        Kind::Voice => sizes.voice,
        Kind::Video => sizes.video,
        Kind::Thumb => sizes.thumb,
    }
}

/// Whether these follow 0xff in the header of an MPEG audio frame of layer III: a version, a bit rate and a sampling rate
/// that there are (ISO/IEC 11172-3 §2.4.1.3).
fn is_mp3_frame(second: u8, third: u8) -> bool {
    let (sync, version, layer) = (second & 0xe0, second >> 3 & 0b11, second >> 1 & 0b11);
    let (bit_rate, sampling_rate) = (third >> 4, third >> 2 & 0b11);
    sync == 0xe0
        && version != 0b01
        && layer == 0b01
        && !matches!(bit_rate, 0 | 0b1111)
        && sampling_rate != 0b11
}

/// Whether the header is one of those that there are, because two letters begin many a text.
fn is_bmp(start: &[u8]) -> bool {
    let header = start.get(14..18).and_then(|bytes| bytes.try_into().ok());
    let known = [12, 16, 40, 52, 56, 64, 108, 124];
    header.is_some_and(|bytes| known.contains(&u32::from_le_bytes(bytes)))
}

/// What is in boxes (ISO/IEC 14496-12 §4.3) says by brands what can play it: one that it is made for, and others.
fn boxed(start: &[u8]) -> Result<Format, Foreign> {
    let brand = |at: usize| start.get(at..at + 4);
    let length = start
        .first_chunk()
        .map_or(0, |bytes| u32::from_be_bytes(*bytes) as usize);
    let Some(major) = brand(8).filter(|_| length >= 16) else {
        return Err(UNKNOWN);
    };
    if let Some(foreign) = foreign_brand(major) {
        return Err(foreign);
    }
    let compatible = (16..length.min(start.len())).step_by(4).filter_map(brand);
    match is_mp4_brand(major) || compatible.into_iter().any(is_mp4_brand) {
        true => Ok(Format::Mp4),
        false => Err(UNKNOWN),
    }
}

fn is_mp4_brand(brand: &[u8]) -> bool {
    match brand {
        [b'i', b's', b'o', b'm' | b'2'..=b'9'] => true,
        [b'm', b'p', b'4', b'1' | b'2'] => true,
        _ => matches!(
            brand,
            b"avc1" | b"M4V " | b"M4VH" | b"M4VP" | b"MSNV" | b"mmp4" | b"dash"
        ),
    }
}

fn foreign_brand(brand: &[u8]) -> Option<Foreign> {
    Some(match brand {
        b"qt  " => film(("a QuickTime film (MOV)", "QuickTime 视频（MOV）")),
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => {
            picture(("an HEIC picture", "HEIC 图片"))
        }
        b"avif" | b"avis" => picture(("an AVIF picture", "AVIF 图片")),
        b"M4A " | b"M4B " | b"M4P " => sound(("an AAC sound (M4A)", "AAC 音频（M4A）")),
        b"crx " => picture(("a raw picture (CR3)", "RAW 图片（CR3）")),
        [b'3', b'g', ..] => film(("a 3GPP film", "3GPP 视频")),
        _ => return None,
    })
}

const UNKNOWN: Foreign = Foreign {
    what: ("nothing that WeChat takes", "类型未知"),
    advice: (
        "WeChat takes pictures (JPEG, PNG, GIF, BMP), sound (AMR, MP3) and films (MP4)",
        "微信接受图片（JPEG、PNG、GIF、BMP）、音频（AMR、MP3）和视频（MP4）",
    ),
};

const fn picture(what: (&'static str, &'static str)) -> Foreign {
    let advice = (
        "send pictures as JPEG, PNG, GIF or BMP; wx.compressImage makes a JPEG of one",
        "请发送 JPEG、PNG、GIF 或 BMP 图片；wx.compressImage 可将图片转为 JPEG",
    );
    Foreign { what, advice }
}

const fn sound(what: (&'static str, &'static str)) -> Foreign {
    let advice = (
        "send sound as MP3 or AMR; a RecorderManager records MP3 with format: \"mp3\"",
        "请发送 MP3 或 AMR 音频；RecorderManager 设置 format: \"mp3\" 即录制 MP3",
    );
    Foreign { what, advice }
}

const fn film(what: (&'static str, &'static str)) -> Foreign {
    let advice = ("send films as MP4", "请发送 MP4 视频");
    Foreign { what, advice }
}

const fn other(what: (&'static str, &'static str)) -> Foreign {
    let advice = UNKNOWN.advice;
    Foreign { what, advice }
}

/// What else begins like this.
fn foreign(start: &[u8]) -> Foreign {
    if let [b'R', b'I', b'F', b'F', _, _, _, _, form @ ..] = start {
        match form.first_chunk() {
            Some(b"WEBP") => return picture(("a WebP picture", "WebP 图片")),
            Some(b"WAVE") => return sound(("a WAV sound", "WAV 音频")),
            Some(b"AVI ") => return film(("an AVI film", "AVI 视频")),
            _ => {}
        }
    }
    let known = SIGNATURES
        .iter()
        .find(|(signature, _)| start.starts_with(signature));
    known.map_or_else(|| markup(start), |(_, foreign)| *foreign)
}

const SIGNATURES: &[(&[u8], Foreign)] = &[
    (b"#!AMR-WB", sound(("an AMR-WB sound", "AMR-WB 音频"))),
    (
        b"#!AMR",
        sound(("an AMR sound of several channels", "多声道 AMR 音频")),
    ),
    (b"#!SILK", sound(("a SILK sound", "SILK 音频"))),
    (b"\x02#!SILK", sound(("a SILK sound", "SILK 音频"))),
    (b"OggS", sound(("an Ogg sound or film", "Ogg 音频或视频"))),
    (b"fLaC", sound(("a FLAC sound", "FLAC 音频"))),
    (b"MThd", sound(("a MIDI file", "MIDI 文件"))),
    (b"\xff\xf1", sound(("an AAC sound", "AAC 音频"))),
    (b"\xff\xf9", sound(("an AAC sound", "AAC 音频"))),
    (
        b"\x1a\x45\xdf\xa3",
        film(("a Matroska or WebM film", "Matroska 或 WebM 视频")),
    ),
    (b"FLV", film(("an FLV film", "FLV 视频"))),
    (
        b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
        film(("a Windows Media file", "Windows Media 文件")),
    ),
    (b"\x00\x00\x01\xba", film(("an MPEG film", "MPEG 视频"))),
    (b"II*\0", picture(("a TIFF picture", "TIFF 图片"))),
    (b"MM\0*", picture(("a TIFF picture", "TIFF 图片"))),
    (b"8BPS", picture(("a Photoshop picture", "Photoshop 图片"))),
    (b"\x00\x00\x01\x00", picture(("an ICO picture", "ICO 图片"))),
    (b"\xff\x0a", picture(("a JPEG XL picture", "JPEG XL 图片"))),
    (
        b"\x00\x00\x00\x0cJXL ",
        picture(("a JPEG XL picture", "JPEG XL 图片")),
    ),
    (b"%PDF-", other(("a PDF document", "PDF 文档"))),
    (b"%!PS", other(("a PostScript document", "PostScript 文档"))),
    (
        b"PK\x03\x04",
        other((
            "a ZIP archive, or a document that is one",
            "ZIP 压缩包，或以 ZIP 为容器的文档",
        )),
    ),
    (
        b"PK\x05\x06",
        other(("a ZIP archive without files", "空的 ZIP 压缩包")),
    ),
    (b"Rar!\x1a", other(("a RAR archive", "RAR 压缩包"))),
    (b"7z\xbc\xaf\x27\x1c", other(("a 7z archive", "7z 压缩包"))),
    (b"\x1f\x8b", other(("a gzip archive", "gzip 压缩包"))),
    (
        b"\xd0\xcf\x11\xe0",
        other(("an Office document", "Office 文档")),
    ),
    (b"\x7fELF", other(("a program", "可执行程序"))),
    (b"MZ", other(("a program", "可执行程序"))),
    (b"\xca\xfe\xba\xbe", other(("a program", "可执行程序"))),
    (b"#!", other(("a script", "脚本"))),
    (b"<?php", other(("a script", "脚本"))),
];

/// What is written in angle brackets, behind whatever readers of it step over.
fn markup(start: &[u8]) -> Foreign {
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let text = text.trim_ascii_start();
    let begins = |with: &[u8]| {
        let beginning = text.get(..with.len());
        beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(with))
    };
    if begins(b"<svg") {
        return picture(("an SVG picture", "SVG 图片"));
    }
    if begins(b"<?xml") {
        return other((
            "an XML document, such as an SVG picture",
            "XML 文档（例如 SVG 图片）",
        ));
    }
    if begins(b"<!doctype") || begins(b"<html") || begins(b"<!--") || begins(b"<script") {
        return other(("an HTML page", "HTML 网页"));
    }
    match text.first() {
        Some(b'<') => other(("a text in markup", "标记文本")),
        Some(_)
            if start
                .iter()
                .all(|b| matches!(b, b'\t' | b'\n' | b'\r' | b' '..=b'~')) =>
        {
            other(("a text", "文本"))
        }
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_no_medium_whatever_it_is_called() {
        for (start, is_none) in [
            (&b""[..], true),
            (b"<html>", true),
            (b"\xEF\xBB\xBF \r\n<!DOCTYPE html>", true),
            (b"{\"errcode\":40007}", true),
            (b" {", true),
            (b"\x89PNG\r\n\x1a\n", false),
            (b"\xff\xd8\xff", false),
            (b"#!AMR\n", false),
            (b"plain", false),
            (b" ", false),
        ] {
            assert_eq!(no_medium(start).is_some(), is_none, "{start:?}");
        }
    }

    const MP4: &[u8] = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\0\x08";

    fn bmp() -> Vec<u8> {
        let mut file = b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
        file.extend([0; 40]);
        file
    }

    #[test]
    fn what_wechat_takes_is_known_by_its_first_bytes() {
        let bmp = bmp();
        for (start, format) in [
            (&b"\xff\xd8\xff\xe0\0\x10JFIF"[..], Format::Jpeg),
            (b"\xff\xd8\xff", Format::Jpeg),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", Format::Png),
            (b"GIF87a", Format::Gif),
            (b"GIF89a\x01\0", Format::Gif),
            (&bmp, Format::Bmp),
            (b"#!AMR\n\x3c", Format::Amr),
            (b"ID3\x03\0\0\0\0\0\0", Format::Mp3),
            (b"\xff\xfb\x90\x44", Format::Mp3),
            (b"\xff\xf3\x48\xc4", Format::Mp3),
            (MP4, Format::Mp4),
            (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41", Format::Mp4),
            (b"\0\0\0\x18ftypXAVC\0\0\0\0XAVCmp42", Format::Mp4),
        ] {
            assert_eq!(Format::of(start), Ok(format), "{}", start.escape_ascii());
        }
    }

    #[test]
    fn what_it_does_not_take_is_told_by_its_name() {
        for (start, what) in [
            (&b"RIFF\x10\0\0\0WEBPVP8 "[..], "WebP"),
            (b"RIFF\x10\0\0\0WAVEfmt ", "WAV"),
            (b"\0\0\0\x14ftypqt  \0\0\0\0qt  isom", "QuickTime"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
            (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "AVIF"),
            (b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42", "AAC"),
            (b"\0\0\0\x18ftyp3gp4\0\0\0\0isom3gp4", "3GPP"),
            (b"#!AMR-WB\n", "AMR-WB"),
            (b"\x02#!SILK_V3", "SILK"),
            (b"\xff\xf1\x50\x80", "AAC"),
            (b"<!DOCTYPE html><p>", "HTML"),
            (b"\xef\xbb\xbf\r\n <HTML>", "HTML"),
            (b"<script>alert(1)</script>", "HTML"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'>", "SVG"),
            (b"<?xml version='1.0'?><svg>", "SVG"),
            (b"#!/bin/sh\n", "script"),
            (b"<?php system();", "script"),
            (b"PK\x03\x04\x14\0", "ZIP"),
            (b"%PDF-1.7", "PDF"),
            (b"{\"a\": 1}", "a text"),
            (b"BMW is no picture of theirs", "a text"),
        ] {
            let foreign = Format::of(start).unwrap_err();
            assert!(foreign.what.0.contains(what), "{what}: {foreign:?}");
        }
    }

    #[test]
    fn what_only_looks_a_bit_like_it_is_nothing() {
        for start in [
            &b"\xff\xfe<\0h\0t\0m\0l\0>\0"[..],
            b"\xff\xfb\xf0\0",
            b"\xff\xfb\x9c\0",
            b"\xff\xeb\x90\0",
            b"\xff\xfd\x90\0",
            b"\0\0\0\x08ftypisom",
            b"\0\0\0\x14ftypzzzz\0\0\0\0zzzz",
            b"\x89PNG\n",
            b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x29\0\0\0",
            b"\xff\xd8",
            b"",
        ] {
            assert_eq!(Format::of(start), Err(UNKNOWN), "{}", start.escape_ascii());
        }
    }

    #[test]
    fn a_cut_anywhere_in_the_first_bytes_is_no_panic_and_no_other_format() {
        for file in [&bmp()[..], MP4, b"RIFF\x10\0\0\0WEBPVP8 ", b"ID3\x03\0\0"] {
            let whole = Format::of(file).ok();
            for end in 0..file.len() {
                let cut = Format::of(&file[..end]).ok();
                assert!(cut.is_none() || cut == whole, "{end}");
            }
        }
    }

    #[test]
    fn only_a_jpeg_can_be_a_thumb_and_nothing_is_of_two_other_kinds() {
        let all = [
            Format::Jpeg,
            Format::Png,
            Format::Gif,
            Format::Bmp,
            Format::Amr,
            Format::Mp3,
            Format::Mp4,
        ];
        for format in all {
            let kinds: Vec<_> = Kind::ALL
                .into_iter()
                .filter(|kind| format.can_be(*kind))
                .collect();
            match format {
                Format::Jpeg => assert_eq!(kinds, [Kind::Image, Kind::Thumb]),
                _ => assert_eq!(kinds, [format.kind()]),
            }
        }
    }
}
