//! Authentication between servers by tokens ([P2], [P10]).
//!
//! The application provides two functions, one that makes a token and one that checks it.
//! [`Auth::shared_secret`] is a ready-made pair: HS256 JSON Web Tokens from a secret that all
//! servers share.
//!
//! [P2]: crate::protocol#p2
//! [P10]: crate::protocol#p10

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use jwt_compact::alg::{Hs256, Hs256Key};
use jwt_compact::{AlgorithmExt, Claims, Header, UntrustedToken};
use serde::{Deserialize, Serialize};

use crate::limits::CLOCK_SKEW_MAX;
use crate::time::Timestamp;

/// Shortest secret, in bytes.
pub const SECRET_BYTES_MIN: usize = 8;

/// Lifetime of a token, in seconds. Each dial makes a new token.
const TOKEN_SECONDS: i64 = 15 * 60;

/// Largest clock difference between two servers, in seconds: as a handshake accepts it (P11).
const LEEWAY_SECONDS: i64 = CLOCK_SKEW_MAX.as_secs() as i64;

/// Subject of the shared-secret tokens. A token with another subject, signed with the same secret,
/// is refused.
const SUBJECT: &str = "grid";

type MakeToken = dyn Fn(Timestamp) -> Result<String, AuthError> + Send + Sync;
type CheckToken = dyn Fn(&str, Timestamp) -> Result<(), AuthError> + Send + Sync;

/// Makes and checks tokens. Cheap to clone.
#[derive(Clone)]
pub struct Auth {
    make: Arc<MakeToken>,
    check: Arc<CheckToken>,
}

/// Why a token could not be made, or was refused. The text is sent to the dialer: it must contain
/// nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthError(pub String);

impl Auth {
    /// Uses the application's functions to make and check tokens. Both receive the wall clock of
    /// the manager. A check should compare in constant time.
    pub fn new(
        make: impl Fn(Timestamp) -> Result<String, AuthError> + Send + Sync + 'static,
        check: impl Fn(&str, Timestamp) -> Result<(), AuthError> + Send + Sync + 'static,
    ) -> Self {
        Self { make: Arc::new(make), check: Arc::new(check) }
    }

    /// Uses HS256 JSON Web Tokens, signed with a `secret` that all servers of the cluster share.
    ///
    /// # Errors
    ///
    /// [`AuthError`] if the secret has fewer than [`SECRET_BYTES_MIN`] bytes.
    pub fn shared_secret(secret: &[u8]) -> Result<Self, AuthError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(AuthError(format!(
                "the shared secret has {} bytes, at least {SECRET_BYTES_MIN} are needed",
                secret.len()
            )));
        }
        let key = Arc::new(Hs256Key::new(secret));
        let check_key = Arc::clone(&key);
        Ok(Self::new(
            move |now| make_token(&key, now),
            move |token, now| check_token(&check_key, token, now),
        ))
    }

    /// Makes a token for a dial at `now`.
    ///
    /// # Errors
    ///
    /// The error of the application's function.
    pub fn make_token(&self, now: Timestamp) -> Result<String, AuthError> {
        (self.make)(now)
    }

    /// Checks a dialer's token at `now`.
    ///
    /// # Errors
    ///
    /// The error of the application's function.
    pub fn check_token(&self, token: &str, now: Timestamp) -> Result<(), AuthError> {
        (self.check)(token, now)
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth")
    }
}

#[derive(Serialize, Deserialize)]
struct Subject {
    sub: String,
}

fn make_token(key: &Hs256Key, now: Timestamp) -> Result<String, AuthError> {
    let mut claims = Claims::new(Subject { sub: SUBJECT.into() });
    claims.expiration = DateTime::<Utc>::from_timestamp(now.seconds() + TOKEN_SECONDS, 0);
    Hs256
        .token(&Header::empty(), &claims, key)
        .map_err(|error| AuthError(format!("cannot make a token: {error}")))
}

fn check_token(key: &Hs256Key, token: &str, now: Timestamp) -> Result<(), AuthError> {
    let refused = |problem: &str| AuthError(problem.to_owned());
    let token = UntrustedToken::new(token).map_err(|_| refused("not a JSON Web Token"))?;
    // The signature is compared in constant time (jwt-compact's `CtOutput`).
    let token = Hs256
        .validator::<Subject>(key)
        .validate(&token)
        .map_err(|_| refused("signed with another secret, or not at all"))?;
    if token.claims().custom.sub != SUBJECT {
        return Err(refused("made for something else"));
    }
    let expires = token.claims().expiration.ok_or_else(|| refused("it never expires"))?;
    let expired_seconds = now.seconds().saturating_sub(expires.timestamp());
    if expired_seconds > LEEWAY_SECONDS {
        // Each dial makes a new token, so an expired one means a wrong clock. The error says so, or
        // an operator would search for a wrong secret.
        return Err(AuthError(format!(
            "expired {expired_seconds} s ago: compare the clocks of the two servers"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::new(seconds, 0)
    }

    fn auth(secret: &str) -> Auth {
        Auth::shared_secret(secret.as_bytes()).expect("long enough")
    }

    fn refusal(token: &str, now: i64) -> String {
        auth("the secret").check_token(token, at(now)).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_token_is_valid_for_its_lifetime_with_the_same_secret() {
        let token = auth("the secret").make_token(at(1_000)).expect("makes");
        auth("the secret").check_token(&token, at(1_000)).expect("valid");
        auth("the secret").check_token(&token, at(1_000 - 300)).expect("within the clock skew");
        let expired = "expired 301 s ago: compare the clocks of the two servers";
        assert_eq!(refusal(&token, 1_000 + 15 * 60 + 5 * 60 + 1), expired);
    }

    #[test]
    fn a_token_that_is_malformed_unsigned_or_of_another_secret_is_refused() {
        let other = auth("another secret").make_token(at(1_000)).expect("makes");
        assert_eq!(refusal(&other, 1_000), "signed with another secret, or not at all");
        let valid = auth("the secret").make_token(at(1_000)).expect("makes");
        let (unsigned, _) = valid.rsplit_once('.').expect("three parts");
        for token in ["", "x", "a.b.c", "..", &format!("{unsigned}."), unsigned] {
            refusal(token, 1_000);
        }
        // The same claims under the algorithm "none".
        let none = format!("eyJhbGciOiJub25lIn0.{}.", valid.split('.').nth(1).expect("claims"));
        refusal(&none, 1_000);
    }

    #[test]
    fn a_token_with_another_subject_or_without_expiry_is_refused() {
        let key = Hs256Key::new(b"the secret");
        let mut claims = Claims::new(Subject { sub: "console".into() });
        claims.expiration = DateTime::<Utc>::from_timestamp(2_000, 0);
        let token = Hs256.token(&Header::empty(), &claims, &key).expect("makes");
        assert_eq!(refusal(&token, 1_000), "made for something else");

        let claims = Claims::new(Subject { sub: SUBJECT.into() });
        let token = Hs256.token(&Header::empty(), &claims, &key).expect("makes");
        assert_eq!(refusal(&token, 1_000), "it never expires");
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert!(Auth::shared_secret(b"short").is_err());
    }
}
