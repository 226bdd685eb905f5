//! Canonical bencode, written as it is described: nothing is kept but the bytes.

/// Writes values to the end of a buffer.
///
/// ```
/// use ringtide::meta::bencode::Writer;
///
/// let mut bytes = Vec::new();
/// Writer::new(&mut bytes).dict(|dict| {
///     dict.key("m").dict(|m| m.key("ut_metadata").integer(1));
///     dict.key("reqq").integer(250);
/// });
/// assert_eq!(bytes, b"d1:md11:ut_metadatai1ee4:reqqi250ee");
/// ```
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// A writer that adds to `out`.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Writes a string.
    pub fn bytes(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.out.extend_from_slice(bytes.len().to_string().as_bytes());
        self.out.push(b':');
        self.out.extend_from_slice(bytes);
    }

    /// Writes an integer.
    pub fn integer(&mut self, number: impl Into<i128>) {
        self.out.push(b'i');
        self.out.extend_from_slice(number.into().to_string().as_bytes());
        self.out.push(b'e');
    }

    /// Writes a list of what `fill` writes.
    pub fn list(&mut self, fill: impl FnOnce(&mut Writer<'_>)) {
        self.out.push(b'l');
        fill(&mut Writer { out: self.out });
        self.out.push(b'e');
    }

    /// Writes a dictionary of what `fill` writes.
    pub fn dict(&mut self, fill: impl FnOnce(&mut DictWriter<'_>)) {
        self.out.push(b'd');
        fill(&mut DictWriter { out: self.out, key: None });
        self.out.push(b'e');
    }

    /// Writes a value that is bencode already, such as [`Value::raw`](super::Value::raw).
    pub fn raw(&mut self, value: &[u8]) {
        self.out.extend_from_slice(value);
    }
}

/// Writes the entries of a dictionary.
#[derive(Debug)]
pub struct DictWriter<'a> {
    out: &'a mut Vec<u8>,
    /// Where the latest key stands in `out`.
    key: Option<std::ops::Range<usize>>,
}

impl DictWriter<'_> {
    /// Writes a key; exactly one value must be written next.
    ///
    /// # Panics
    /// When the key is not above the one before: keys are the program's own, and only ascending ones are canonical.
    pub fn key(&mut self, key: impl AsRef<[u8]>) -> Writer<'_> {
        let key = key.as_ref();
        if let Some(before) = self.key.take() {
            let before = &self.out[before];
            assert!(before < key, "key {} after {}", key.escape_ascii(), before.escape_ascii());
        }
        Writer { out: self.out }.bytes(key);
        self.key = Some(self.out.len() - key.len()..self.out.len());
        Writer { out: self.out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_it_is_told() {
        let mut out = b"before".to_vec();
        Writer::new(&mut out).list(|list| {
            list.integer(-52);
            list.integer(u64::MAX);
            list.bytes("");
            list.bytes([0xff]);
            list.dict(|_| ());
            list.raw(b"i7e");
        });
        assert_eq!(out, b"beforeli-52ei18446744073709551615e0:1:\xffdei7ee");
    }

    #[test]
    #[should_panic(expected = "key a after b")]
    fn keys_must_ascend() {
        Writer::new(&mut Vec::new()).dict(|dict| {
            dict.key("b").integer(1);
            dict.key("a").integer(1);
        });
    }
}
