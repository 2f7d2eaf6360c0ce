//! What is kept of a password: salted, hashed often, and split into the two keys of SCRAM (RFC 5802).

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SecureRandom as _;
use ring::{digest, hmac, pbkdf2, rand};

/// Times that a password is hashed: what RFC 7677 asks for at least, and what clients accept.
pub(super) const ITERATIONS: u32 = 4096;
/// Most times that a given salted password may say: a check must stay cheap.
const MAX_ITERATIONS: u32 = 100_000;
const SALT_BYTES: usize = 16;

/// A hash function of SCRAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// What is kept of one user's password.
#[derive(Clone)]
pub struct Credentials {
    sha256: Option<Keys>,
    sha512: Option<Keys>,
}

/// The keys of one hash function.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) hash: Hash,
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Vec<u8>,
    pub(super) server_key: Vec<u8>,
}

/// Why a text holds no credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Not of the form.
    #[error("a salted password looks like SCRAM-SHA-256$4096:SALT$STORED_KEY:SERVER_KEY, in Base64")]
    Form,
    /// Hashed too often or not often enough.
    #[error("a salted password is hashed from {ITERATIONS} to {MAX_ITERATIONS} times")]
    Iterations,
}

impl Credentials {
    /// Of a password, or of a salted one: `SCRAM-SHA-256$4096:SALT$STORED_KEY:SERVER_KEY`, as PostgreSQL writes it, or the same
    /// with `SCRAM-SHA-512`.
    ///
    /// # Errors
    /// [`CredentialsError`] for a salted password that is none.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let salted = |hash, rest: &str| Keys::parse(hash, rest);
        if let Some(rest) = text.strip_prefix("SCRAM-SHA-256$") {
            return Ok(Self { sha256: Some(salted(Hash::Sha256, rest)?), sha512: None });
        }
        if let Some(rest) = text.strip_prefix("SCRAM-SHA-512$") {
            return Ok(Self { sha256: None, sha512: Some(salted(Hash::Sha512, rest)?) });
        }
        Ok(Self::of_password(text))
    }

    /// Of a password.
    pub fn of_password(password: &str) -> Self {
        let salt = random::<SALT_BYTES>();
        let keys = |hash| Some(Keys::derive(hash, password, &salt, ITERATIONS));
        Self { sha256: keys(Hash::Sha256), sha512: keys(Hash::Sha512) }
    }

    /// Of nobody, for as much work as with somebody.
    pub(super) fn decoy() -> Self {
        let length = Hash::Sha256.bytes();
        let keys = Keys {
            hash: Hash::Sha256,
            iterations: ITERATIONS,
            salt: vec![0; SALT_BYTES],
            stored_key: vec![0; length],
            server_key: vec![0; length],
        };
        Self { sha256: Some(keys), sha512: None }
    }

    /// The keys for a hash function, if there are any.
    pub(super) fn keys(&self, hash: Hash) -> Option<&Keys> {
        match hash {
            Hash::Sha256 => self.sha256.as_ref(),
            Hash::Sha512 => self.sha512.as_ref(),
        }
    }

    /// Whether this is the password. Takes milliseconds.
    pub(super) fn is_password(&self, password: &str) -> bool {
        let Some(keys) = self.sha256.as_ref().or(self.sha512.as_ref()) else { return false };
        let given = Keys::derive(keys.hash, password, &keys.salt, keys.iterations);
        same(&given.stored_key, &keys.stored_key)
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

impl Keys {
    fn derive(hash: Hash, password: &str, salt: &[u8], iterations: u32) -> Self {
        let mut salted = vec![0; hash.bytes()];
        let times = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(hash.pbkdf2(), times, salt, password.as_bytes(), &mut salted);
        Self {
            hash,
            iterations,
            salt: salt.to_vec(),
            stored_key: hash.digest(&hash.sign(&salted, b"Client Key")),
            server_key: hash.sign(&salted, b"Server Key"),
        }
    }

    /// `4096:SALT$STORED_KEY:SERVER_KEY`.
    fn parse(hash: Hash, text: &str) -> Result<Self, CredentialsError> {
        let (iterations, rest) = text.split_once(':').ok_or(CredentialsError::Form)?;
        let (salt, rest) = rest.split_once('$').ok_or(CredentialsError::Form)?;
        let (stored_key, server_key) = rest.split_once(':').ok_or(CredentialsError::Form)?;
        let iterations: u32 = iterations.parse().map_err(|_| CredentialsError::Form)?;
        if !(ITERATIONS..=MAX_ITERATIONS).contains(&iterations) {
            return Err(CredentialsError::Iterations);
        }
        let bytes = |text: &str| BASE64.decode(text).map_err(|_| CredentialsError::Form);
        let (salt, stored_key, server_key) = (bytes(salt)?, bytes(stored_key)?, bytes(server_key)?);
        if salt.is_empty() || stored_key.len() != hash.bytes() || server_key.len() != hash.bytes() {
            return Err(CredentialsError::Form);
        }
        Ok(Self { hash, iterations, salt, stored_key, server_key })
    }
}

impl Hash {
    /// Bytes of what it gives.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Sha256 => digest::SHA256_OUTPUT_LEN,
            Self::Sha512 => digest::SHA512_OUTPUT_LEN,
        }
    }

    pub(super) fn digest(self, bytes: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, bytes).as_ref().to_vec()
    }

    pub(super) fn sign(self, key: &[u8], bytes: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), bytes).as_ref().to_vec()
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}

/// Whether two runs of bytes are the same, in a time that doesn't tell where they differ.
pub(super) fn same(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |found, (a, b)| found | (a ^ b));
    one.len() == other.len() && differences == 0
}

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::SystemRandom::new().fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again_and_another_is_not() {
        let credentials = Credentials::parse("pencil").unwrap();
        assert!(credentials.is_password("pencil"));
        assert!(!credentials.is_password("Pencil"));
        assert!(!Credentials::decoy().is_password(""));
        assert_eq!(format!("{credentials:?}"), "Credentials", "nothing of it is shown");
    }

    #[test]
    fn a_salted_password_is_read_and_what_is_none_is_refused() {
        let keys = Keys::derive(Hash::Sha512, "pencil", b"saltsalt", 5000);
        let text = format!(
            "SCRAM-SHA-512$5000:{}${}:{}",
            BASE64.encode(&keys.salt),
            BASE64.encode(&keys.stored_key),
            BASE64.encode(&keys.server_key)
        );
        let credentials = Credentials::parse(&text).unwrap();
        assert!(credentials.is_password("pencil"));
        assert!(credentials.keys(Hash::Sha256).is_none());
        assert_eq!(
            Credentials::parse(&text.replace("$5000", "$1")).err(),
            Some(CredentialsError::Iterations)
        );
        for bad in ["SCRAM-SHA-256$", "SCRAM-SHA-256$4096:a$b", "SCRAM-SHA-256$4096:YQ==$YQ==:YQ=="] {
            assert_eq!(Credentials::parse(bad).err(), Some(CredentialsError::Form), "{bad}");
        }
    }
}
