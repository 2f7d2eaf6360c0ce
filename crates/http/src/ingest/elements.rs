//! The elements of a JSON array, handed out one by one as the parser comes to them, so that a body of a million tiny
//! elements never becomes a list of a million.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Calls `each` with the index and text of every element of the array in `body`.
///
/// # Errors
/// `body` is no JSON array (elements before the fault have been handed out), or has more than `limit` elements.
pub(crate) fn for_each<'b>(
    body: &'b [u8],
    limit: usize,
    each: impl FnMut(usize, &'b [u8]),
) -> Result<usize, serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_slice(body);
    let count = Elements { limit, each }.deserialize(&mut parser)?;
    parser.end()?;
    Ok(count)
}

struct Elements<F> {
    limit: usize,
    each: F,
}

impl<'de, F: FnMut(usize, &'de [u8])> DeserializeSeed<'de> for Elements<F> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(usize, &'de [u8])> Visitor<'de> for Elements<F> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<usize, A::Error> {
        let mut index = 0;
        while let Some(element) = seq.next_element::<&'de RawValue>()? {
            if index == self.limit {
                return Err(A::Error::custom(format_args!("more than {} elements", self.limit)));
            }
            (self.each)(index, element.get().as_bytes());
            index += 1;
        }
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &str, limit: usize) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        for_each(body.as_bytes(), limit, |_, text| found.push(String::from_utf8_lossy(text).into_owned()))
            .map(|_| found.clone())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn every_element_comes_as_it_was_written() {
        assert_eq!(texts(" [ {\"a\" : 1} ,2, [3 ,4]] ", 9).unwrap(), ["{\"a\" : 1}", "2", "[3 ,4]"]);
        assert!(texts("[]", 9).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_array_or_too_long_is_refused() {
        for body in ["", "{}", "[1", "[1,]", "[1] x"] {
            assert!(texts(body, 9).is_err(), "{body}");
        }
        assert!(texts("[1,2,3]", 2).unwrap_err().contains("more than 2 elements"));
    }
}
