//! The server's side of SCRAM (RFC 5802), pure: tokens in, tokens out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::credentials::{Hash, ITERATIONS, Keys, same};

/// Longest nonce of a client.
const MAX_NONCE_BYTES: usize = 256;

/// An exchange of which the first half is done.
pub(super) struct Exchange {
    user: String,
    keys: Keys,
    /// Whether there is such a user.
    known: bool,
    /// What the client must send back of its first token.
    binding: String,
    nonce: String,
    /// Both first messages, which the proof signs.
    signed_so_far: String,
}

/// How an exchange ends.
pub(super) enum Step {
    /// The client is who it says it is.
    Proven {
        /// Who.
        user: String,
        /// The server's proof that it knows the user.
        answer: Vec<u8>,
    },
    /// It is not, or nobody knows.
    Refused,
}

impl Exchange {
    /// Takes the client's first token, and gives the answer. `None` if it is no such token.
    pub(super) fn begin(
        hash: Hash,
        token: &[u8],
        lookup: impl FnOnce(&str) -> Option<Keys>,
        decoy_key: &[u8],
        server_nonce: &[u8],
    ) -> Option<(Self, Vec<u8>)> {
        let text = std::str::from_utf8(token).ok()?;
        let mut fields = text.splitn(3, ',');
        let (flag, for_whom, bare) = (fields.next()?, fields.next()?, fields.next()?);
        // `p=` would bind the exchange to the TLS channel, which nobody offers here.
        if !matches!(flag, "n" | "y") {
            return None;
        }
        let mut attributes = bare.split(',');
        let user = unescaped(attributes.next()?.strip_prefix("n=")?)?;
        let client_nonce = attributes.next()?.strip_prefix("r=")?;
        if !for_whom.is_empty() && unescaped(for_whom.strip_prefix("a=")?)? != user {
            return None;
        }
        // Extensions, such as Kafka's delegation tokens, change what is to be proven.
        if attributes.next().is_some() || client_nonce.is_empty() || client_nonce.len() > MAX_NONCE_BYTES {
            return None;
        }
        let (known, keys) = match lookup(&user) {
            Some(keys) => (true, keys),
            None => (false, decoy(hash, decoy_key, &user)),
        };
        let nonce = format!("{client_nonce}{}", BASE64.encode(server_nonce));
        let answer = format!("r={nonce},s={},i={}", BASE64.encode(&keys.salt), keys.iterations);
        let signed_so_far = format!("{bare},{answer}");
        let binding = BASE64.encode(format!("{flag},{for_whom},"));
        Some((Self { user, keys, known, binding, nonce, signed_so_far }, answer.into_bytes()))
    }

    /// Takes the client's last token.
    pub(super) fn finish(self, token: &[u8]) -> Step {
        match self.proof(token) {
            Some(answer) if self.known => Step::Proven { user: self.user, answer },
            _ => Step::Refused,
        }
    }

    fn proof(&self, token: &[u8]) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(token).ok()?;
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let proof = BASE64.decode(proof).ok()?;
        let (binding, nonce) = without_proof.strip_prefix("c=")?.split_once(",r=")?;
        // librdkafka before 2.6.1 says its own nonce once more in front. Kafka takes it, too: what is fresh is the server's
        // part, and the proof covers all that was sent.
        if binding != self.binding || nonce.contains(',') || !nonce.ends_with(&self.nonce) {
            return None;
        }
        let signed = format!("{},{without_proof}", self.signed_so_far);
        let hash = self.keys.hash;
        let signature = hash.sign(&self.keys.stored_key, signed.as_bytes());
        if proof.len() != signature.len() {
            return None;
        }
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        if !same(&hash.digest(&client_key), &self.keys.stored_key) {
            return None;
        }
        let answer = BASE64.encode(hash.sign(&self.keys.server_key, signed.as_bytes()));
        Some(format!("v={answer}").into_bytes())
    }
}

/// A name with `=2C` for a comma and `=3D` for an equals sign.
fn unescaped(name: &str) -> Option<String> {
    let rest = name.replace("=2C", ",");
    let without = rest.replace("=3D", "");
    (!name.is_empty() && !without.contains('=')).then(|| rest.replace("=3D", "="))
}

/// Keys for a user that doesn't exist: always the same salt for one name, and a key that nobody has.
fn decoy(hash: Hash, decoy_key: &[u8], user: &str) -> Keys {
    let mut salt = hash.sign(decoy_key, user.as_bytes());
    let stored_key = hash.digest(&salt);
    salt.truncate(16);
    Keys { hash, iterations: ITERATIONS, salt, server_key: stored_key.clone(), stored_key }
}

#[cfg(test)]
mod tests {
    use ring::pbkdf2;

    use super::super::credentials::Credentials;
    use super::*;

    const SERVER_NONCE: &[u8] = b"server";

    fn begin(hash: Hash, token: &str, password: &str) -> Option<(Exchange, Vec<u8>)> {
        let credentials = Credentials::of_password(password);
        let lookup = |name: &str| (name == "user").then(|| credentials.keys(hash).unwrap().clone());
        Exchange::begin(hash, token.as_bytes(), lookup, b"decoy", SERVER_NONCE)
    }

    /// What a client of RFC 5802 sends last.
    fn client_final(
        hash: Hash,
        password: &str,
        first_bare: &str,
        server_first: &str,
        binding: &str,
    ) -> String {
        let nonce = server_first.split(',').find_map(|field| field.strip_prefix("r=")).unwrap();
        client_final_with(hash, password, first_bare, server_first, binding, nonce)
    }

    fn client_final_with(
        hash: Hash,
        password: &str,
        first_bare: &str,
        server_first: &str,
        binding: &str,
        nonce: &str,
    ) -> String {
        let field = |name: &str| server_first.split(',').find_map(|field| field.strip_prefix(name)).unwrap();
        let salt = BASE64.decode(field("s=")).unwrap();
        let mut salted = vec![0; hash.bytes()];
        let algorithm = match hash {
            Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Hash::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        pbkdf2::derive(algorithm, field("i=").parse().unwrap(), &salt, password.as_bytes(), &mut salted);
        let client_key = hash.sign(&salted, b"Client Key");
        let without_proof = format!("c={binding},r={nonce}");
        let signed = format!("{first_bare},{server_first},{without_proof}");
        let signature = hash.sign(&hash.digest(&client_key), signed.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        format!("{without_proof},p={}", BASE64.encode(proof))
    }

    #[test]
    fn the_right_password_is_proven_and_a_wrong_one_or_an_unknown_user_is_not() {
        for hash in [Hash::Sha256, Hash::Sha512] {
            for (user, password, proven) in
                [("user", "pencil", true), ("user", "pen", false), ("nobody", "pencil", false)]
            {
                let bare = format!("n={user},r=abc");
                let (exchange, server_first) = begin(hash, &format!("n,,{bare}"), "pencil").unwrap();
                let server_first = String::from_utf8(server_first).unwrap();
                let last = client_final(hash, password, &bare, &server_first, "biws");
                let step = exchange.finish(last.as_bytes());
                assert_eq!(matches!(step, Step::Proven { .. }), proven, "{user} {password}");
            }
        }
    }

    #[test]
    fn the_example_of_rfc_7677_is_proven() {
        let text = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        let keys = Credentials::parse(text).unwrap().keys(Hash::Sha256).unwrap().clone();
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let first = "n=user,r=rOprNGfwEbeRWgbNEkqO";
        let exchange = Exchange {
            user: "user".to_owned(),
            keys,
            known: true,
            binding: "biws".to_owned(),
            nonce: nonce.to_owned(),
            signed_so_far: format!("{first},r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
        };
        let last = format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let Step::Proven { answer, .. } = exchange.finish(last.as_bytes()) else { panic!("refused") };
        assert_eq!(answer, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_client_that_says_its_nonce_twice_is_proven_and_one_without_the_servers_is_not() {
        let bare = "n=user,r=abc";
        type Saying = fn(&str) -> String;
        let sayings: [(Saying, bool); 5] = [
            (str::to_owned, true),
            (|nonce| format!("abc{nonce}"), true),
            (|_| "abc".to_owned(), false),
            (|nonce| format!("{nonce}x"), false),
            (|nonce| format!("x,{nonce}"), false),
        ];
        for (place, (say, proven)) in sayings.into_iter().enumerate() {
            let (exchange, first) = begin(Hash::Sha256, &format!("n,,{bare}"), "pencil").unwrap();
            let first = String::from_utf8(first).unwrap();
            let nonce = say(first.split(',').next().unwrap().strip_prefix("r=").unwrap());
            let last = client_final_with(Hash::Sha256, "pencil", bare, &first, "biws", &nonce);
            let step = exchange.finish(last.as_bytes());
            assert_eq!(matches!(step, Step::Proven { .. }), proven, "saying {place}");
        }
    }

    #[test]
    fn tokens_that_are_none_are_refused() {
        for bad in [
            "",
            "n,,",
            "n,,n=user",
            "n,,r=abc,n=user",
            "p=tls-unique,,n=user,r=abc",
            "n,a=other,n=user,r=abc",
            "n,,n=us=er,r=abc",
            "n,,n=,r=abc",
            "n,,n=user,r=",
            "n,,n=user,r=abc,tokenauth=true",
        ] {
            assert!(begin(Hash::Sha256, bad, "pencil").is_none(), "{bad}");
        }
        let (_, first) = begin(Hash::Sha256, "n,,n=user,r=abc", "pencil").unwrap();
        let first = String::from_utf8(first).unwrap();
        let good = client_final(Hash::Sha256, "pencil", "n=user,r=abc", &first, "biws");
        for bad in [
            String::new(),
            good.replace("c=biws", "c=eSws"),
            good.replace("r=abc", "r=abd"),
            good[..20].to_owned(),
        ] {
            let (exchange, _) = begin(Hash::Sha256, "n,,n=user,r=abc", "pencil").unwrap();
            assert!(matches!(exchange.finish(bad.as_bytes()), Step::Refused), "{bad}");
        }
    }

    #[test]
    fn names_are_unescaped() {
        assert_eq!(unescaped("a=2Cb=3Dc").as_deref(), Some("a,b=c"));
        assert_eq!(unescaped("a=b"), None);
        assert_eq!(unescaped(""), None);
    }
}
