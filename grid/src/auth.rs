//! How servers prove to each other that they belong together (P2, P10).
//!
//! The application gives two functions, one that makes a token and one that checks it.
//! [`Auth::shared_secret`] is a ready pair: HS256 JSON Web Tokens from a secret that all servers
//! know.

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

/// How long a token holds, in seconds. One is made for each attempt to connect.
const TOKEN_SECONDS: i64 = 15 * 60;

/// How far apart the clocks of two servers may be, in seconds: what a handshake accepts (P11).
const LEEWAY_SECONDS: i64 = CLOCK_SKEW_MAX.as_secs() as i64;

/// Who the tokens of the ready pair are for. One that was made for something else with the same
/// secret is refused.
const SUBJECT: &str = "grid";

type Make = dyn Fn(Timestamp) -> Result<String, AuthError> + Send + Sync;
type Check = dyn Fn(&str, Timestamp) -> Result<(), AuthError> + Send + Sync;

/// Makes and checks tokens. Cheap to clone.
#[derive(Clone)]
pub struct Auth {
    make: Arc<Make>,
    check: Arc<Check>,
}

/// Why a token could not be made, or was refused. The text travels to the dialler: it must not
/// hold anything secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthError(pub String);

impl Auth {
    /// Tokens made and checked by the application's functions. Both get the wall clock of the
    /// manager. A check should compare in constant time.
    pub fn new(
        make: impl Fn(Timestamp) -> Result<String, AuthError> + Send + Sync + 'static,
        check: impl Fn(&str, Timestamp) -> Result<(), AuthError> + Send + Sync + 'static,
    ) -> Self {
        Self { make: Arc::new(make), check: Arc::new(check) }
    }

    /// HS256 JSON Web Tokens, signed with `secret`, which all servers of the cluster have.
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

    /// A token for a dial at `now`.
    ///
    /// # Errors
    ///
    /// Whatever the application's function says.
    pub fn make_token(&self, now: Timestamp) -> Result<String, AuthError> {
        (self.make)(now)
    }

    /// Whether a dialler's token is good at `now`.
    ///
    /// # Errors
    ///
    /// Whatever the application's function says.
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
        // A dialler makes one for each dial: an old one is a clock that is wrong, and nobody should
        // have to look at secrets for that.
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
    fn a_token_is_good_for_its_time_with_the_same_secret() {
        let token = auth("the secret").make_token(at(1_000)).expect("makes");
        auth("the secret").check_token(&token, at(1_000)).expect("good");
        auth("the secret").check_token(&token, at(1_000 - 300)).expect("clocks may differ");
        let expired = "expired 301 s ago: compare the clocks of the two servers";
        assert_eq!(refusal(&token, 1_000 + 15 * 60 + 5 * 60 + 1), expired);
    }

    #[test]
    fn what_is_not_our_token_is_refused() {
        let other = auth("another secret").make_token(at(1_000)).expect("makes");
        assert_eq!(refusal(&other, 1_000), "signed with another secret, or not at all");
        let good = auth("the secret").make_token(at(1_000)).expect("makes");
        let (unsigned, _) = good.rsplit_once('.').expect("three parts");
        for token in ["", "x", "a.b.c", "..", &format!("{unsigned}."), unsigned] {
            refusal(token, 1_000);
        }
        // The same claims under the algorithm "none".
        let none = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).expect("claims"));
        refusal(&none, 1_000);
    }

    #[test]
    fn a_token_made_for_something_else_or_for_ever_is_refused() {
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
