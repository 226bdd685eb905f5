//! Bytes out of what gzip, zlib or bare deflate has packed (RFC 1952, 1950, 1951), up to a limit that the caller sets.
//!
//! What packed the bytes is told by the bytes themselves: servers say of them whatever they like.

use std::fmt;

use flate2::{Crc, Decompress, FlushDecompress, Status};

/// Why nothing is unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InflateError {
    /// More comes out than the caller takes.
    TooLarge {
        /// The most bytes that may come out.
        max: usize,
    },
    /// It ends too soon.
    Truncated,
    /// It is not packed, or not as it came from the packer.
    Corrupt,
}

impl fmt::Display for InflateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { max } => write!(f, "it unpacks to more than {max} bytes"),
            Self::Truncated => f.write_str("the compressed data ends too soon"),
            Self::Corrupt => f.write_str("the compressed data is damaged"),
        }
    }
}

impl std::error::Error for InflateError {}

/// Whether bytes begin as a gzip file does.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&GZIP_MAGIC)
}

/// Whether bytes begin as gzip or zlib does.
pub fn is_packed(bytes: &[u8]) -> bool {
    is_gzip(bytes) || is_zlib(bytes)
}

/// Unpacks one layer of gzip (of one or several members), zlib or bare deflate, whichever it is. At most `max` bytes
/// come out, and not much more than that is ever held. Bytes after the end of what is packed are left alone.
///
/// # Errors
/// [`InflateError`], also for what is not packed at all.
pub fn inflate(bytes: &[u8], max: usize) -> Result<Vec<u8>, InflateError> {
    if is_gzip(bytes) {
        return inflate_gzip(bytes, max);
    }
    let as_zlib =
        if is_zlib(bytes) { inflate_as(bytes, Wrapping::Zlib, max) } else { Err(InflateError::Corrupt) };
    let inflated = match as_zlib {
        // Two bytes can look like a zlib header by chance.
        Err(InflateError::Corrupt) => inflate_as(bytes, Wrapping::None, max)?,
        inflated => inflated?,
    };
    Ok(inflated.bytes)
}

/// What is under the layers that something was packed in, once `is_right` likes it: `None` where it never does, and for
/// bytes that are right as they are. A server may pack a file that is packed already, so there can be several.
pub fn unpack(bytes: &[u8], max: usize, is_right: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    if is_right(bytes) {
        return None;
    }
    let mut unpacked = inflate(bytes, max).ok()?;
    for _ in 1..LAYERS_MAX {
        if is_right(&unpacked) {
            return Some(unpacked);
        }
        unpacked = inflate(&unpacked, max).ok()?;
    }
    is_right(&unpacked).then_some(unpacked)
}

/// What came out, and how much went in for it.
struct Inflated {
    bytes: Vec<u8>,
    consumed: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrapping {
    None,
    Zlib,
}

fn inflate_as(packed: &[u8], wrapping: Wrapping, max: usize) -> Result<Inflated, InflateError> {
    inflate_with(&mut Decompress::new(wrapping == Wrapping::Zlib), packed, max)
}

/// Unpacks with a machine that has unpacked nothing yet, or was reset.
fn inflate_with(machine: &mut Decompress, packed: &[u8], max: usize) -> Result<Inflated, InflateError> {
    let mut bytes = Vec::new();
    loop {
        let (before_in, before_out) = (machine.total_in(), machine.total_out());
        // One byte more than may come out tells a result that just fits from one that goes on.
        bytes.reserve_exact(STEP_LEN.min(max + 1 - bytes.len()));
        let rest = &packed[before_in as usize..];
        let status = machine.decompress_vec(rest, &mut bytes, FlushDecompress::None);
        if bytes.len() > max {
            return Err(InflateError::TooLarge { max });
        }
        match status {
            Ok(Status::StreamEnd) => break,
            Ok(_) if machine.total_in() == before_in && machine.total_out() == before_out => {
                return Err(InflateError::Truncated);
            }
            Ok(_) => {}
            Err(_) => return Err(InflateError::Corrupt),
        }
    }
    Ok(Inflated { bytes, consumed: machine.total_in() as usize })
}

fn inflate_gzip(packed: &[u8], max: usize) -> Result<Vec<u8>, InflateError> {
    let mut bytes = Vec::new();
    let mut rest = packed;
    // One for all members: it is much larger than an empty one, of which there can be very many.
    let mut machine = Decompress::new(false);
    while is_gzip(rest) {
        let body = &rest[gzip_head_len(rest)?..];
        machine.reset(false);
        let member = inflate_with(&mut machine, body, max - bytes.len());
        let member = member.map_err(|error| match error {
            InflateError::TooLarge { .. } => InflateError::TooLarge { max },
            error => error,
        })?;
        rest = &body[member.consumed..];
        // A sum that was cut off says nothing; one that is there must be right.
        if let Some((sum, after)) = rest.split_first_chunk::<4>() {
            let mut crc = Crc::new();
            crc.update(&member.bytes);
            if u32::from_le_bytes(*sum) != crc.sum() {
                return Err(InflateError::Corrupt);
            }
            rest = after.get(4..).unwrap_or_default();
        }
        bytes.extend_from_slice(&member.bytes);
    }
    Ok(bytes)
}

/// Bytes before the packed data (RFC 1952, section 2.3).
fn gzip_head_len(bytes: &[u8]) -> Result<usize, InflateError> {
    let flags = *bytes.get(3).ok_or(InflateError::Truncated)?;
    if bytes[2] != DEFLATE || flags & FLAGS_RESERVED != 0 {
        return Err(InflateError::Corrupt);
    }
    let mut len = 10;
    if flags & FLAG_EXTRA != 0 {
        let extra = bytes.get(len..len + 2).ok_or(InflateError::Truncated)?;
        len += 2 + usize::from(u16::from_le_bytes([extra[0], extra[1]]));
    }
    for text in [FLAG_NAME, FLAG_COMMENT] {
        if flags & text != 0 {
            let rest = bytes.get(len..).ok_or(InflateError::Truncated)?;
            len += rest.iter().position(|&byte| byte == 0).ok_or(InflateError::Truncated)? + 1;
        }
    }
    if flags & FLAG_HEAD_CRC != 0 {
        len += 2;
    }
    if len > bytes.len() { Err(InflateError::Truncated) } else { Ok(len) }
}

/// Whether the first two bytes are a zlib header: deflate, and a sum that fits.
fn is_zlib(bytes: &[u8]) -> bool {
    matches!(bytes, [method, flags, ..]
        if method & 15 == DEFLATE && u16::from_be_bytes([*method, *flags]) % 31 == 0)
}

/// Layers that are taken off: what a server, a relay and the author of a file may have added.
const LAYERS_MAX: usize = 3;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The one method that gzip and zlib know.
const DEFLATE: u8 = 8;
const FLAG_HEAD_CRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;
const FLAGS_RESERVED: u8 = 0xe0;

/// Bytes that room is made for at a time, so that a short text takes little and a bomb no more than its limit.
const STEP_LEN: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use flate2::{Compression, GzBuilder};
    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    const TEXT: &[u8] = b"d8:intervali60e5:peers6:\x7f\0\0\x01\x1a\xe1e";

    #[test]
    fn each_wrapping_is_told_by_its_bytes() {
        for packed in [gzip(TEXT), zlib(TEXT), deflate(TEXT)] {
            assert_eq!(inflate(&packed, TEXT.len()).unwrap(), TEXT);
            let longer = [&packed[..], b"\r\n"].concat();
            assert_eq!(inflate(&longer, TEXT.len()).unwrap(), TEXT, "bytes behind it");
        }
        assert_eq!(inflate(&gzip(b""), 0).unwrap(), b"");
    }

    #[test]
    fn a_gzip_head_may_hold_a_name_a_comment_and_more() {
        let builder = GzBuilder::new().filename("x.torrent").comment("c").extra([7; 300]);
        let mut encoder = builder.write(Vec::new(), Compression::none());
        encoder.write_all(TEXT).unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(inflate(&packed, 100).unwrap(), TEXT);
        for len in 2..packed.len() - 8 {
            assert_eq!(inflate(&packed[..len], 100), Err(InflateError::Truncated), "{len} bytes");
        }
    }

    #[test]
    fn members_follow_each_other() {
        let packed = [gzip(&TEXT[..9]), gzip(b""), gzip(&TEXT[9..])].concat();
        assert_eq!(inflate(&packed, TEXT.len()).unwrap(), TEXT);
        let max = TEXT.len() - 1;
        assert_eq!(inflate(&packed, max), Err(InflateError::TooLarge { max }));
    }

    #[test]
    fn a_bomb_is_left_at_the_limit() {
        let zeroes = vec![0; 8 << 20];
        for packed in [gzip(&zeroes), zlib(&zeroes), deflate(&zeroes)] {
            assert!(packed.len() < 10_000);
            for max in [0, 1, 65_535, 65_536, zeroes.len() - 1] {
                assert_eq!(inflate(&packed, max), Err(InflateError::TooLarge { max }));
            }
            assert_eq!(inflate(&packed, zeroes.len()).unwrap().len(), zeroes.len());
        }
    }

    #[test]
    fn damage_is_seen_and_a_sum_that_was_cut_off_is_none() {
        let packed = gzip(TEXT);
        let sum_at = packed.len() - 8;
        let mut wrong = packed.clone();
        wrong[sum_at] ^= 1;
        assert_eq!(inflate(&wrong, 100), Err(InflateError::Corrupt));
        assert_eq!(inflate(&packed[..sum_at], 100).unwrap(), TEXT);
        for text in [&b"<html>"[..], b"failure", b"\xff\xff", b"\x1f\x8b\x07\0\0\0\0\0\0\x03\x03\0"] {
            assert!(inflate(text, 100).is_err(), "{text:?}");
        }
        assert_eq!(inflate(b"", 100), Err(InflateError::Truncated));
    }

    #[test]
    fn layers_come_off_until_the_content_is_there() {
        let is_right = |bytes: &[u8]| bytes == TEXT;
        for packed in [gzip(TEXT), gzip(&gzip(TEXT)), zlib(&deflate(&gzip(TEXT)))] {
            assert_eq!(unpack(&packed, 1000, is_right).unwrap(), TEXT);
        }
        for packed in [TEXT.to_vec(), gzip(b"else"), gzip(&gzip(&gzip(&gzip(TEXT)))), b"<html>".to_vec()] {
            assert_eq!(unpack(&packed, 1000, is_right), None);
        }
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_out(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            for packed in [gzip(&bytes), zlib(&bytes), deflate(&bytes)] {
                prop_assert_eq!(inflate(&packed, bytes.len()), Ok(bytes.clone()));
            }
        }

        #[test]
        fn garbage_is_an_error_or_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..300), gzip: bool) {
            let head: &[u8] = if gzip { b"\x1f\x8b\x08\x1e\0\0\0\0\0\0" } else { b"" };
            if let Ok(inflated) = inflate(&[head, &bytes].concat(), 1000) {
                prop_assert!(inflated.len() <= 1000);
            }
        }
    }
}
