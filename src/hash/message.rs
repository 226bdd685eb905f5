//! What is hashed: a message in segments.

use smallvec::SmallVec;

/// A SHA-1 digest, as it stands in a torrent's `pieces`.
pub type Digest = [u8; 20];

/// The bytes of one message (a piece), in order, in as many segments as they have (a piece that spans files has one a
/// file). Segments may be of any length, also empty, and start at any address.
#[derive(Clone, Default, Debug)]
pub struct Message<'a> {
    segments: SmallVec<[&'a [u8]; 2]>,
}

impl<'a> Message<'a> {
    /// The segments it is made of.
    pub fn segments(&self) -> &[&'a [u8]] {
        &self.segments
    }

    /// Bytes of all segments.
    pub fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.len()).sum()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.segments.iter().all(|segment| segment.is_empty())
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::from_iter([bytes])
    }
}

impl<'a> FromIterator<&'a [u8]> for Message<'a> {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(segments: I) -> Self {
        Self { segments: segments.into_iter().collect() }
    }
}
