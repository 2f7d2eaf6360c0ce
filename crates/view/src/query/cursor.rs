//! Cursors: the sort key of the last row of a page, as text that callers hand back without looking into it.
//!
//! A cursor is a JSON array in hexadecimal: the name of the list and its order, then the key. What comes back is checked in
//! length, form and name; a made-up one can at worst start a page somewhere else.

use rusqlite::types::Value as SqlValue;
use serde_json::Value;

use crate::error::ViewError;

/// No cursor made here is longer, in bytes: a sensor's id, escaped, twice.
const MAX_BYTES: usize = 8 * 1024;

/// A cursor after the row with this key.
pub(crate) fn encode(list: &str, key: &[SqlValue]) -> String {
    let parts = std::iter::once(Value::from(list)).chain(key.iter().map(|part| match part {
        SqlValue::Integer(number) => Value::from(*number),
        // As bits, because not every number survives being printed and read.
        SqlValue::Real(number) => Value::from(vec![Value::from(number.to_bits())]),
        SqlValue::Text(text) => Value::from(text.as_str()),
        SqlValue::Null | SqlValue::Blob(_) => Value::Null,
    }));
    let json = Value::from_iter(parts).to_string();
    json.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// The key of a cursor that [`encode`] made for the same list, with as many parts.
pub(crate) fn decode<const N: usize>(list: &str, cursor: &str) -> Result<[SqlValue; N], ViewError> {
    let parts = parse(cursor).ok_or(ViewError::InvalidCursor)?;
    let Some((Value::String(name), key)) = parts.split_first() else { return Err(ViewError::InvalidCursor) };
    if name != list {
        return Err(ViewError::InvalidCursor);
    }
    let key: Option<Vec<SqlValue>> = key.iter().map(sql_value).collect();
    key.and_then(|key| key.try_into().ok()).ok_or(ViewError::InvalidCursor)
}

fn parse(cursor: &str) -> Option<Vec<Value>> {
    if cursor.len() > MAX_BYTES || !cursor.len().is_multiple_of(2) || !cursor.is_ascii() {
        return None;
    }
    let digits = cursor.as_bytes().chunks_exact(2);
    let json: Option<Vec<u8>> =
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    serde_json::from_slice(&json?).ok()
}

fn sql_value(part: &Value) -> Option<SqlValue> {
    match part {
        Value::Number(number) => number.as_i64().map(SqlValue::Integer),
        Value::String(text) => Some(SqlValue::Text(text.clone())),
        Value::Array(bits) => match bits.as_slice() {
            [bits] => {
                bits.as_u64().map(f64::from_bits).filter(|number| number.is_finite()).map(SqlValue::Real)
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part() -> impl Strategy<Value = SqlValue> {
        prop_oneof![
            any::<i64>().prop_map(SqlValue::Integer),
            proptest::num::f64::NORMAL.prop_map(SqlValue::Real),
            "\\PC{0,40}".prop_map(SqlValue::Text),
        ]
    }

    proptest! {
        #[test]
        fn a_cursor_gives_back_its_key(first in part(), second in part()) {
            let text = encode("sensors", &[first.clone(), second.clone()]);
            prop_assert_eq!(decode::<2>("sensors", &text).unwrap(), [first, second]);
            prop_assert!(matches!(decode::<2>("alerts", &text), Err(ViewError::InvalidCursor)));
            prop_assert!(matches!(decode::<3>("sensors", &text), Err(ViewError::InvalidCursor)));
        }

        #[test]
        fn made_up_cursors_are_refused_without_a_panic(text in "\\PC{0,80}|[0-9a-f]{0,80}") {
            prop_assert!(matches!(decode::<1>("sensors", &text), Err(ViewError::InvalidCursor)));
        }
    }
}
