//! The resume record: any bytes, and bytes whose digest is right so that what stands behind it is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringtide::disk::record::{Record, Unreadable};
use sha1::{Digest, Sha1};

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let signed = [bytes, &Sha1::digest(bytes)[..]].concat();
    if !check(&signed) {
        return;
    }
    // One bit off is no record, wherever it is.
    let at = usize::from(bytes[0] ^ bytes[bytes.len() - 1]) * 31 % (8 * signed.len());
    let mut damaged = signed;
    damaged[at / 8] ^= 1 << (at % 8);
    assert!(Record::parse(&damaged).is_err());
});

/// Whether that is a record, which then comes out as it went in.
fn check(bytes: &[u8]) -> bool {
    let record = match Record::parse(bytes) {
        Ok(record) => record,
        Err(Unreadable::Foreign | Unreadable::Version(_) | Unreadable::Damaged) => return false,
    };
    let set_len = record.geometry.piece_count().div_ceil(8) as usize;
    assert_eq!((record.durable.len(), record.verified.len()), (set_len, set_len));
    assert_eq!(record.encode(), bytes);
    assert_eq!(Record::parse(bytes), Ok(record));
    true
}
