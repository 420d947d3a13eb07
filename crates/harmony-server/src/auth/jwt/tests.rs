use std::path::PathBuf;

use super::*;

/// A key of the tests.
fn key(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

fn config(method: Algorithm, name: &str) -> JwtConfig {
    let public_key = (!name.is_empty()).then(|| key(&format!("{name}.pub.pem")));
    let private_key = Some(key(&format!("{}.pem", if name.is_empty() { "ed" } else { name })));
    JwtConfig { method, public_key, private_key, ttl: Duration::from_secs(60) }
}

#[track_caller]
fn refused(config: &JwtConfig, file: &str, reason: &str) {
    match Jwt::new(config) {
        Err(AuthError::Key { path, reason: said }) => {
            assert!(path.ends_with(file) && said.contains(reason), "{}: {said}", path.display());
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn every_method_signs_what_it_reads() {
    use Algorithm::{ES256, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
    let methods = [
        (HS256, ""),
        (HS384, ""),
        (HS512, ""),
        (RS256, "rsa"),
        (RS384, "rsa"),
        (RS512, "rsa"),
        (PS256, "rsa"),
        (PS384, "rsa"),
        (PS512, "rsa"),
        (ES256, "ec"),
        (EdDSA, "ed"),
    ];
    let mut tokens = Vec::new();
    for (method, name) in methods {
        let jwt = Jwt::new(&config(method, name)).unwrap_or_else(|error| panic!("{method:?}: {error}"));
        let text = jwt.sign("alice", 7, 1_000_500).unwrap();
        let claims = jwt.claims(&text).unwrap();
        assert_eq!(claims, Claims { username: "alice".into(), revision: 7, exp: Some(1060.0) }, "{method:?}");
        assert!(!claims.is_expired(1_060_000) && claims.is_expired(1_060_001));
        let mut parts: Vec<&str> = text.split('.').collect();
        parts[2] = "AAAA";
        assert_eq!(jwt.claims(&parts.join(".")), None, "{method:?}");
        tokens.push((jwt, text));
    }
    // The method is the one that was configured, whatever the token says; above all not "the public key is the secret".
    for (slot, (jwt, _)) in tokens.iter().enumerate() {
        for (other, (_, text)) in tokens.iter().enumerate().filter(|(other, _)| slot != *other) {
            assert_eq!(jwt.claims(text), None, "{slot} took {other}");
        }
    }
    for nonsense in ["", ".", "..", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
        assert!(tokens.iter().all(|(jwt, _)| jwt.claims(nonsense).is_none()), "{nonsense}");
    }
}

#[test]
fn a_member_with_the_public_key_alone_checks_and_makes_none() {
    let both = Jwt::new(&config(Algorithm::RS256, "rsa")).unwrap();
    let checks = Jwt::new(&JwtConfig { private_key: None, ..config(Algorithm::RS256, "rsa") }).unwrap();
    assert_eq!(checks.sign("alice", 1, 0), None);
    assert!(checks.claims(&both.sign("alice", 1, 0).unwrap()).is_some());
}

#[test]
fn claims_of_other_issuers_are_read_by_their_types() {
    let jwt = Jwt::new(&config(Algorithm::HS256, "")).unwrap();
    let claims = |claims: serde_json::Value| {
        let text = jsonwebtoken::encode(&jwt.header, &claims, jwt.signing.as_ref().unwrap()).unwrap();
        jwt.claims(&text)
    };
    let endless = claims(serde_json::json!({"username": "u", "revision": 1, "aud": "x"})).unwrap();
    assert!(!endless.is_expired(u64::MAX));
    let fraction = claims(serde_json::json!({"username": "u", "revision": 1, "exp": 1.5})).unwrap();
    assert!(!fraction.is_expired(1500) && fraction.is_expired(1501));
    assert_eq!(claims(serde_json::json!({"username": "u", "revision": 1, "exp": "soon"})), None);
    assert_eq!(claims(serde_json::json!({"username": "u"})), None);
    assert_eq!(claims(serde_json::json!({"username": 1, "revision": 1})), None);
}

#[test]
fn keys_that_cannot_be_used_are_named() {
    let rsa = config(Algorithm::RS256, "rsa");
    refused(&JwtConfig { public_key: Some(key("none.pem")), ..rsa.clone() }, "none.pem", "No such file");
    refused(
        &JwtConfig { public_key: Some(key("ec.pub.pem")), ..rsa.clone() },
        "ec.pub.pem",
        "no key in PEM form",
    );
    refused(&JwtConfig { private_key: Some(key("rsa.pub.pem")), ..rsa.clone() }, "rsa.pub.pem", "");
    refused(
        &JwtConfig { public_key: Some(key("other.pub.pem")), ..rsa },
        "other.pub.pem",
        "is not the public key of the private key",
    );
}
