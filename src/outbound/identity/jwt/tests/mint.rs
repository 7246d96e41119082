//! Creates keys and tokens, valid and invalid, with the crypto library only: shares no code with the validation.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// An issuer's keys, one of each kind.
pub(super) struct Mint {
    rsa: RsaKeyPair,
    p256: Vec<u8>,
    p384: Vec<u8>,
    ed: Ed25519KeyPair,
}

pub(super) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Mint {
    pub(super) fn new() -> Self {
        let random = SystemRandom::new();
        let ec = |algorithm| EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap().as_ref().to_vec();
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            p256: ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            p384: ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            ed: Ed25519KeyPair::generate().unwrap(),
        }
    }

    /// The modulus of the RSA key.
    pub(super) fn modulus(&self) -> Vec<u8> {
        RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public_key()).n
    }

    /// The published keys, each with the name of its kind as the id.
    pub(super) fn published(&self) -> Vec<Value> {
        let rsa = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public_key());
        let ec = |kid: &str, curve: &str, algorithm, pkcs8: &[u8]| {
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8).unwrap();
            let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
            json!({ "kty": "EC", "kid": kid, "crv": curve, "x": base64(x), "y": base64(y) })
        };
        vec![
            json!({ "kty": "RSA", "kid": "rsa", "use": "sig", "n": base64(rsa.n), "e": base64(rsa.e) }),
            ec("p256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING, &self.p256),
            ec("p384", "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING, &self.p384),
            json!({ "kty": "OKP", "kid": "ed", "crv": "Ed25519", "alg": "EdDSA", "x": base64(self.ed.public_key()) }),
        ]
    }

    /// Signs with the key of an algorithm. `ASN1` is ES256 in another form, `n` is HS256 with the RSA modulus as the
    /// secret.
    pub(super) fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |encoding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(encoding, &random, message, &mut signature).unwrap();
            signature
        };
        let ec = |algorithm: &'static EcdsaSigningAlgorithm, pkcs8: &[u8]| {
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8).unwrap();
            pair.sign(&random, message).unwrap().as_ref().to_vec()
        };
        match algorithm {
            "RS256" => rsa(&signature::RSA_PKCS1_SHA256),
            "RS384" => rsa(&signature::RSA_PKCS1_SHA384),
            "RS512" => rsa(&signature::RSA_PKCS1_SHA512),
            "PS256" => rsa(&signature::RSA_PSS_SHA256),
            "PS384" => rsa(&signature::RSA_PSS_SHA384),
            "PS512" => rsa(&signature::RSA_PSS_SHA512),
            "ES256" => ec(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.p256),
            "ASN1" => ec(&ECDSA_P256_SHA256_ASN1_SIGNING, &self.p256),
            "ES384" => ec(&ECDSA_P384_SHA384_FIXED_SIGNING, &self.p384),
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            "n" => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &self.modulus());
                hmac::sign(&key, message).as_ref().to_vec()
            }
            other => panic!("no key for {other}"),
        }
    }

    /// A token of these texts, signed with `algorithm`, whatever its header contains.
    pub(super) fn token(&self, algorithm: &str, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", base64(header), base64(claims));
        let signature = self.sign(algorithm, message.as_bytes());
        format!("{message}.{}", base64(signature))
    }
}

/// The published key id of an algorithm.
pub(super) fn kid(algorithm: &str) -> &'static str {
    match algorithm {
        "ES256" => "p256",
        "ES384" => "p384",
        "EdDSA" => "ed",
        _ => "rsa",
    }
}
