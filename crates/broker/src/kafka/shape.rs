//! Whether a request has the shape that its API's layout says, before the codec may look at it.
//!
//! The codec takes memory for as many entries as an array claims to have, and a client may claim two thousand million. So a
//! walk over the bytes, which takes no memory, makes sure that every entry is there, and that there are no more than
//! [`MAX_ENTRIES`] of them in all. It reads lengths exactly as the codec does; where the codec doesn't check that a tagged
//! field has the length that it claims, this does, so that both always see the same entries.

mod requests;

use kafka_protocol::messages::ApiKey;

/// Most entries of all arrays, and tagged fields, of one request. A request that names each partition of a thousand topics with
/// a hundred partitions each is as large.
pub(super) const MAX_ENTRIES: usize = 100_000;
/// Bytes of a variable-length integer of 32 bits.
const VARINT_BYTES: u32 = 5;

/// Why a request has not the shape of its API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ShapeError {
    /// A field reaches past the end.
    #[error("it ends within a field")]
    Cut,
    /// A length that is below nothing.
    #[error("a length of {0}")]
    Length(i32),
    /// More entries than a request may have.
    #[error("it has more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    /// A tagged field fills more or less than its length.
    #[error("a tagged field has another length than its content")]
    Tagged,
    /// A layout that nobody wrote down.
    #[error("its layout is not known")]
    Unknown,
}

/// A field of a request.
struct Field {
    /// Its number, for a tagged field.
    tag: Option<u32>,
    /// The versions that have it.
    from: i16,
    to: i16,
    kind: Kind,
}

/// What a field holds.
enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A string, or none.
    Text,
    /// Bytes, or none.
    Blob,
    /// Fields of its own.
    One(&'static [Field]),
    /// Fields of its own, or none.
    Maybe(&'static [Field]),
    /// An array of such.
    Each(&'static [Field]),
    /// An array of so many bytes each.
    EachFixed(usize),
    /// An array of strings.
    EachText,
}

/// Checks the content of a request, without its header.
pub(super) fn check(key: ApiKey, version: i16, content: &[u8]) -> Result<(), ShapeError> {
    let (fields, flexible_from) = requests::layout(key).ok_or(ShapeError::Unknown)?;
    let mut walk = Walk { rest: content, version, flexible: version >= flexible_from, entries: 0 };
    walk.fields(fields)
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    entries: usize,
}

impl Walk<'_> {
    fn fields(&mut self, fields: &[Field]) -> Result<(), ShapeError> {
        for field in fields {
            if field.tag.is_none() && (field.from..=field.to).contains(&self.version) {
                self.kind(&field.kind)?;
            }
        }
        if self.flexible { self.tagged_fields(fields) } else { Ok(()) }
    }

    fn tagged_fields(&mut self, fields: &[Field]) -> Result<(), ShapeError> {
        for _ in 0..self.varint()? {
            self.count(1)?;
            let tag = self.varint()?;
            let bytes = to_usize(self.varint()?)?;
            if bytes > self.rest.len() {
                return Err(ShapeError::Cut);
            }
            let after = self.rest.len() - bytes;
            match fields.iter().find(|field| field.tag == Some(tag)) {
                Some(field) => self.kind(&field.kind)?,
                None => self.skip(bytes)?,
            }
            if self.rest.len() != after {
                return Err(ShapeError::Tagged);
            }
        }
        Ok(())
    }

    fn kind(&mut self, kind: &Kind) -> Result<(), ShapeError> {
        match kind {
            Kind::Fixed(bytes) => self.skip(*bytes),
            Kind::Text => self.text(),
            Kind::Blob => {
                let bytes = self.length(4)?;
                self.skip(bytes)
            }
            Kind::One(fields) => self.fields(fields),
            Kind::Maybe(fields) => {
                let present = self.take::<1>()?;
                if present == [1] { self.fields(fields) } else { Ok(()) }
            }
            Kind::Each(fields) => {
                let entries = self.length(4)?;
                self.count(entries)?;
                (0..entries).try_for_each(|_| self.fields(fields))
            }
            Kind::EachFixed(bytes) => {
                let entries = self.length(4)?;
                self.count(entries)?;
                self.skip(entries.saturating_mul(*bytes))
            }
            Kind::EachText => {
                let entries = self.length(4)?;
                self.count(entries)?;
                (0..entries).try_for_each(|_| self.text())
            }
        }
    }

    fn text(&mut self) -> Result<(), ShapeError> {
        let bytes = self.length(2)?;
        self.skip(bytes)
    }

    /// A length or count, which has `plain_bytes` where it isn't compact. None is nothing.
    fn length(&mut self, plain_bytes: usize) -> Result<usize, ShapeError> {
        if self.flexible {
            return to_usize(self.varint()?.saturating_sub(1));
        }
        let length = if plain_bytes == 2 {
            i32::from(i16::from_be_bytes(self.take()?))
        } else {
            i32::from_be_bytes(self.take()?)
        };
        match length {
            -1 => Ok(0),
            length => usize::try_from(length).map_err(|_| ShapeError::Length(length)),
        }
    }

    /// As the codec reads it: up to five bytes, and bits beyond 32 are lost.
    fn varint(&mut self) -> Result<u32, ShapeError> {
        let mut value = 0;
        for place in 0..VARINT_BYTES {
            let [byte] = self.take()?;
            value |= u32::from(byte & 0x7f) << (place * 7);
            if byte < 0x80 {
                break;
            }
        }
        Ok(value)
    }

    fn count(&mut self, entries: usize) -> Result<(), ShapeError> {
        self.entries = self.entries.saturating_add(entries);
        if self.entries > MAX_ENTRIES { Err(ShapeError::TooManyEntries) } else { Ok(()) }
    }

    fn skip(&mut self, bytes: usize) -> Result<(), ShapeError> {
        self.rest = self.rest.get(bytes..).ok_or(ShapeError::Cut)?;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ShapeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(ShapeError::Cut)?;
        self.rest = rest;
        Ok(*taken)
    }
}

fn to_usize(length: u32) -> Result<usize, ShapeError> {
    usize::try_from(length).map_err(|_| ShapeError::Cut)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::MetadataRequest;
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
    use kafka_protocol::protocol::Encodable;

    use super::super::apis::Apis;
    use super::*;

    #[test]
    fn every_api_that_is_served_has_a_layout() {
        for row in Apis::new().rows() {
            assert!(requests::layout(row.key).is_some(), "{:?}", row.key);
        }
    }

    #[test]
    fn claimed_entries_that_are_not_there_are_refused() {
        let claims: [(i16, &[u8]); 4] = [
            (1, &[0x7f, 0xff, 0xff, 0xff]),
            (1, &[0, 1, 0x86, 0xa0, 0, 0]),
            (12, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (12, &[0x80, 0x80, 0x06, 0]),
        ];
        for (version, bytes) in claims {
            let refused = check(ApiKey::Metadata, version, bytes);
            assert!(matches!(refused, Err(ShapeError::TooManyEntries | ShapeError::Cut)), "{refused:?}");
        }
        assert_eq!(check(ApiKey::Metadata, 1, &[0xff, 0xff, 0xff, 0xfe]), Err(ShapeError::Length(-2)));
    }

    #[test]
    fn more_entries_than_are_allowed_are_refused_though_they_are_there() {
        let topics = vec![MetadataRequestTopic::default(); MAX_ENTRIES + 1];
        let mut bytes = BytesMut::new();
        MetadataRequest::default().with_topics(Some(topics)).encode(&mut bytes, 12).unwrap();
        assert_eq!(check(ApiKey::Metadata, 12, &bytes), Err(ShapeError::TooManyEntries));
    }

    #[test]
    fn a_known_tagged_field_must_fill_its_length() {
        // Fetch version 12 up to its tagged fields: nothing asked for.
        let mut request = vec![0; 4 * 4 + 1 + 4 + 4];
        request.extend([1, 1, 1]);
        let with = |tags: &[u8]| [request.as_slice(), tags].concat();
        assert_eq!(check(ApiKey::Fetch, 12, &with(&[0])), Ok(()));
        assert_eq!(check(ApiKey::Fetch, 12, &with(&[1, 0, 4, 4, b'a', b'b', b'c'])), Ok(()));
        assert_eq!(check(ApiKey::Fetch, 12, &with(&[1, 0, 2, 4, b'a', b'b', b'c'])), Err(ShapeError::Tagged));
        assert_eq!(check(ApiKey::Fetch, 12, &with(&[1, 9, 2, 4, 4])), Ok(()), "an unknown one is skipped");
    }
}
