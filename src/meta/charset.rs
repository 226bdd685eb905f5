//! The encoding that a torrent's texts have when they are not UTF-8.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8};

/// An encoding of texts, as a torrent declares it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Charset(Option<&'static Encoding>);

impl Charset {
    /// The encoding of that name, as in the key `encoding` (`GBK`, `Shift-JIS`, `windows-1251`, `cp936`); of an unknown
    /// one nothing is decoded.
    pub fn named(name: &[u8]) -> Self {
        let name = name.trim_ascii().to_ascii_lowercase();
        let page = [&b"cp"[..], b"ms", b"windows-", b"x-cp"]
            .into_iter()
            .find_map(|prefix| name.strip_prefix(prefix));
        let page = page.and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
        let encoding = Encoding::for_label(&name).or_else(|| Self::code_page(page?).0);
        Self(encoding.filter(|&encoding| encoding != UTF_8))
    }

    /// The encoding of a code page of Windows, as in the key `codepage`.
    pub fn code_page(number: u64) -> Self {
        let label = match number {
            866 => "ibm866",
            874 => "windows-874",
            932 => "shift_jis",
            936 => "gbk",
            949 => "euc-kr",
            950 => "big5",
            1250..=1258 => return Self(Encoding::for_label(format!("windows-{number}").as_bytes())),
            20866 => "koi8-r",
            20932 | 51932 => "euc-jp",
            21866 => "koi8-u",
            28591 => "latin1",
            51949 => "euc-kr",
            54936 => "gb18030",
            _ => return Self(None),
        };
        Self(Encoding::for_label(label.as_bytes()))
    }

    /// A text as UTF-8, as far as it can be told: what is UTF-8 already stays, whatever was declared, because programs
    /// declare what their system has and write UTF-8.
    pub fn decode(self, bytes: &[u8]) -> Cow<'_, [u8]> {
        match self.0 {
            Some(encoding) if str::from_utf8(bytes).is_err() => {
                let (text, _) = encoding.decode_without_bom_handling(bytes);
                // What stands for bytes that mean nothing; names have another character for it.
                text.replace(char::REPLACEMENT_CHARACTER, "_").into_bytes().into()
            }
            _ => bytes.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_encodings_are_decoded() {
        for (name, bytes, expected) in [
            ("GBK", &b"\xd6\xd0\xce\xc4.txt"[..], "中文.txt"),
            ("gb2312", b"\xd6\xd0", "中"),
            ("CP936", b"\xd6\xd0", "中"),
            ("Shift-JIS", b"\x93\xfa\x96{\x8c\xea", "日本語"),
            ("Shift_JIS", b"\x93\xfa", "日"),
            ("Big5", b"\xa4\xa4\xa4\xe5", "中文"),
            ("windows-1251", b"\xcc\xe8\xf0", "Мир"),
            ("KOI8-R", b"\xed\xc9\xd2", "Мир"),
            ("euc-kr", b"\xc7\xd1", "한"),
            ("ISO-8859-1", b"caf\xe9", "café"),
            (" latin1 ", b"caf\xe9", "café"),
            ("GBK", "中文".as_bytes(), "中文"),
            ("GBK", b"a\xff", "a_"),
        ] {
            assert_eq!(*Charset::named(name.as_bytes()).decode(bytes), *expected.as_bytes(), "{name}");
        }
        for unknown in ["UTF-8", "utf8", "klingon", "", "cp", "cp65001", "windows-9"] {
            assert_eq!(Charset::named(unknown.as_bytes()), Charset::default(), "{unknown}");
        }
        assert_eq!(*Charset::default().decode(b"caf\xe9"), *b"caf\xe9");
        assert_eq!(*Charset::code_page(1252).decode(b"caf\xe9"), *"café".as_bytes());
        assert_eq!(*Charset::code_page(936).decode(b"\xd6\xd0"), *"中".as_bytes());
    }
}
