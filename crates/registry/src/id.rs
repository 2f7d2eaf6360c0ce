//! Names of services and checks.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest name of a service, in bytes.
pub const MAX_SERVICE_ID_BYTES: usize = 128;
/// The longest name of a check, in bytes.
pub const MAX_CHECK_NAME_BYTES: usize = 64;
/// What both kinds of name look like, as a regular expression without its length.
pub const NAME_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]*$";

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a name of a {what}: letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most {most}"
)]
pub struct NameError {
    what: &'static str,
    most: usize,
    text: String,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $most:ident;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name(Arc<str>);

            impl $name {
                /// Its text.
                pub fn as_str(&self) -> &str {
                    &self.0
                }
            }

            impl FromStr for $name {
                type Err = NameError;

                fn from_str(text: &str) -> Result<Self, NameError> {
                    if is_name(text) && text.len() <= $most {
                        return Ok(Self(text.into()));
                    }
                    Err(NameError { what: $what, most: $most, text: text.chars().take(40).collect() })
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&self.0)
                }
            }

            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.serialize_str(&self.0)
                }
            }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                    text.parse().map_err(de::Error::custom)
                }
            }
        )*
    };
}

names! {
    /// A service's name: the `source` of its events.
    ServiceId, "service", MAX_SERVICE_ID_BYTES;
    /// A check's name, unique within its service.
    CheckName, "check", MAX_CHECK_NAME_BYTES;
}

fn is_name(text: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric()) && text.bytes().all(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_bounded() {
        for good in ["shop", "api-gateway", "a.b_c-9", "7"] {
            assert_eq!(good.parse::<ServiceId>().unwrap().as_str(), good);
        }
        let long = "x".repeat(MAX_SERVICE_ID_BYTES + 1);
        for bad in ["", "-a", ".a", "a b", "a/b", "ção", "a\n", long.as_str()] {
            assert!(bad.parse::<ServiceId>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(MAX_CHECK_NAME_BYTES + 1).parse::<CheckName>().is_err());
    }
}
