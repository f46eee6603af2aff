//! Assertions: proof for the app of who a request comes from.
//!
//! The identity headers are as trustworthy as the way from the sidecar to the app. An app that others can reach around the
//! sidecar asks for proof: a JWT (RFC 7519) that the sidecar signs for each request, and that whoever has the public key
//! can verify. It is EdDSA (RFC 8037) because the app must be able to verify and not to sign. The keys come from the same
//! secrets as those of the tokens, so replicas agree and rotate together; `/wx/jwks.json` has the public halves of all.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::clock::Timestamp;
use crate::crypto::{self, SigningKey};
use crate::domain::{AppId, User};
use crate::secret::Secret;

/// How long an assertion is good, in seconds: a request takes no longer to the app next door.
const LIFE: u64 = 60;

/// Signs assertions.
pub(crate) struct Assertions {
    /// Newest first; the first one signs. At least one.
    keys: Vec<Key>,
    appid: AppId,
    env: String,
}

struct Key {
    id: String,
    key: SigningKey,
    /// The first part of all tokens that it signs, with the dot behind it.
    header: String,
}

impl Assertions {
    /// Derives the keys from secrets, newest first. There is at least one secret.
    pub(crate) fn derive(appid: &AppId, env: &str, secrets: &[Secret]) -> Self {
        Self {
            keys: secrets
                .iter()
                .map(|secret| Key::derive(appid, secret))
                .collect(),
            appid: appid.clone(),
            env: env.to_owned(),
        }
    }

    /// A JWT that says that a request comes from `user`, good for a minute and for one request.
    pub(crate) fn sign(&self, user: &User, now: Timestamp) -> String {
        let key = &self.keys[0];
        let issued = now.as_secs();
        let mut claims = json!({
            "iss": "wx-sidecar",
            "aud": self.appid.as_str(),
            "sub": user.openid.as_str(),
            "env": self.env,
            "iat": issued,
            "exp": issued + LIFE,
            "jti": URL_SAFE_NO_PAD.encode(crypto::random::<16>()),
        });
        if let Some(unionid) = &user.unionid {
            claims["unionid"] = Value::from(unionid.as_str());
        }
        let mut token = key.header.clone();
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let signature = key.key.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }

    /// The public keys, as a JWK Set (RFC 7517).
    pub(crate) fn key_set(&self) -> Answer {
        let keys = self.keys.iter().map(Key::to_jwk).collect::<Vec<_>>();
        let mut answer = Answer::json(200, &json!({ "keys": keys }));
        for (name, value) in &mut answer.fields {
            match *name {
                "content-type" => "application/jwk-set+json".clone_into(value),
                // Public, and old enough when a rotation begins to use a new one: an app asks again for an unknown `kid`.
                "cache-control" => "public, max-age=300".clone_into(value),
                _ => {}
            }
        }
        answer
    }
}

impl Key {
    fn derive(appid: &AppId, secret: &Secret) -> Self {
        let seed = crypto::derive_key(
            secret.expose().as_bytes(),
            appid.as_str().as_bytes(),
            b"wx-sidecar assertion key 1",
        );
        let key = SigningKey::from_seed(&seed);
        let id = URL_SAFE_NO_PAD.encode(&crypto::sha256(&key.public())[..9]);
        let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": id }).to_string();
        Self {
            header: URL_SAFE_NO_PAD.encode(header) + ".",
            id,
            key,
        }
    }

    fn to_jwk(&self) -> Value {
        json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": "EdDSA",
            "use": "sig",
            "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(self.key.public()),
        })
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    use super::*;
    use crate::domain::{OpenId, UnionId};

    fn assertions(secrets: &[&str]) -> Assertions {
        let appid = AppId::parse("wx0123456789abcdef").unwrap();
        let secrets: Vec<_> = secrets.iter().copied().map(Secret::new).collect();
        Assertions::derive(&appid, "prod", &secrets)
    }

    fn part(token: &str, index: usize) -> Vec<u8> {
        URL_SAFE_NO_PAD
            .decode(token.split('.').nth(index).unwrap())
            .unwrap()
    }

    #[test]
    fn an_assertion_says_who_for_whom_and_for_how_long_under_a_published_key() {
        let assertions = assertions(&["new-secret-of-the-app", "old-secret-of-the-app"]);
        let user = User {
            openid: OpenId::parse("o6zAJs1Zf_WpsZ3G8vVC").unwrap(),
            unionid: UnionId::parse("oU-123456").ok(),
        };
        let token = assertions.sign(&user, Timestamp::from_millis(1_800_000_000_999));
        let claims: Value = serde_json::from_slice(&part(&token, 1)).unwrap();
        assert_eq!(claims["sub"], "o6zAJs1Zf_WpsZ3G8vVC");
        assert_eq!(claims["unionid"], "oU-123456");
        assert_eq!(claims["aud"], "wx0123456789abcdef");
        assert_eq!(claims["exp"], 1_800_000_060);
        let again = assertions.sign(&user, Timestamp::from_millis(1_800_000_000_999));
        let again: Value = serde_json::from_slice(&part(&again, 1)).unwrap();
        assert_ne!(claims["jti"], again["jti"]);

        let keys: Value = serde_json::from_slice(&assertions.key_set().body).unwrap();
        assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
        let header: Value = serde_json::from_slice(&part(&token, 0)).unwrap();
        let key = &keys["keys"][0];
        assert_eq!(
            header,
            json!({ "alg": "EdDSA", "typ": "JWT", "kid": key["kid"] })
        );
        let public = URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap();
        let signed = token.rsplit_once('.').unwrap().0;
        let public = UnparsedPublicKey::new(&ED25519, public);
        assert!(public.verify(signed.as_bytes(), &part(&token, 2)).is_ok());
    }

    #[test]
    fn replicas_agree_on_keys_and_a_rotation_keeps_the_old_one_published() {
        let ids = |assertions: &Assertions| {
            let ids = assertions.keys.iter().map(|key| key.id.clone());
            ids.collect::<Vec<_>>()
        };
        let before = ids(&assertions(&["old-secret-of-the-app"]));
        let during = ids(&assertions(&[
            "new-secret-of-the-app",
            "old-secret-of-the-app",
        ]));
        assert_eq!(before[0], during[1]);
        assert_ne!(before[0], during[0]);
    }
}
