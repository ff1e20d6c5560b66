//! The token of a request: an HS256 JSON Web Token, signed with the caller's secret.
//!
//! It names its issuer (the access key) and its purpose, so that a token of the grid, which may be
//! signed with the same secret, is not accepted here. Neither the response nor its timing shows
//! whether the issuer exists: for an unknown issuer, the signature is checked with another key.

use chrono::{DateTime, Utc};
use grid::time::Timestamp;
use http::{HeaderMap, header};
use jwt_compact::alg::{Hs256, Hs256Key};
use jwt_compact::{AlgorithmExt, Claims, Header, UntrustedToken};
use serde::{Deserialize, Serialize};

/// Validity of a token, in seconds. Each request has its own token.
const TOKEN_SECONDS: i64 = 60;

/// Largest tolerated clock difference between a tool and a server, in seconds.
const LEEWAY_SECONDS: i64 = 300;

/// Largest token, in bytes.
const TOKEN_BYTES_MAX: usize = 4_096;

/// Subject of the tokens.
const SUBJECT: &str = "iam";

/// Key for the signatures of unknown issuers. Their tokens are refused even if it matches.
const UNKNOWN_ISSUER_SECRET: &[u8] = b"key for tokens of unknown issuers";

#[derive(Serialize, Deserialize)]
struct IssuerClaims {
    iss: String,
    sub: String,
}

/// Signs a token for a request at `now`.
pub(super) fn sign(access_key: &str, secret: &[u8], now: Timestamp) -> Result<String, String> {
    let mut claims =
        Claims::new(IssuerClaims { iss: access_key.to_owned(), sub: SUBJECT.to_owned() });
    claims.expiration = DateTime::<Utc>::from_timestamp(now.seconds() + TOKEN_SECONDS, 0);
    let token = Hs256.token(&Header::empty(), &claims, &Hs256Key::new(secret));
    token.map_err(|error| error.to_string())
}

/// Checks a token at `now`, and returns its issuer. `secret_of` looks up the issuer's secret.
pub(crate) fn check<S: AsRef<[u8]>>(
    token: &str,
    now: Timestamp,
    secret_of: impl FnOnce(&str) -> Option<S>,
) -> Option<String> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let token = UntrustedToken::new(token).ok()?;
    let claimed = token.deserialize_claims_unchecked::<IssuerClaims>().ok()?;
    let secret = secret_of(&claimed.custom.iss);
    let is_known = secret.is_some();
    let key = Hs256Key::new(secret.as_ref().map_or(UNKNOWN_ISSUER_SECRET, AsRef::as_ref));
    // The signature is compared in constant time (jwt-compact's `CtOutput`).
    let signed = Hs256.validator::<IssuerClaims>(&key).validate(&token).ok()?;
    let Claims { expiration, custom, .. } = signed.claims();
    let left = expiration.as_ref()?.timestamp() - now.seconds();
    // A token that expires later than a token made here could be replayed.
    let is_within_lifetime = (-LEEWAY_SECONDS..=TOKEN_SECONDS + LEEWAY_SECONDS).contains(&left);
    let is_valid = is_known && custom.sub == SUBJECT && is_within_lifetime;
    is_valid.then(|| custom.iss.clone())
}

/// Returns the token of `Authorization: Bearer …`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::new(seconds, 0)
    }

    fn secret_of(access_key: &str) -> Option<&'static [u8]> {
        (access_key == "alice").then_some(b"correct horse")
    }

    #[test]
    fn b61_token_expires_and_names_its_issuer() {
        let token = sign("alice", b"correct horse", at(10_000)).expect("signs");
        let at_times = [9_000, 10_000, 10_360, 10_361]
            .map(|now| check(&token, at(now), secret_of).as_deref() == Some("alice"));
        assert_eq!(at_times, [false, true, true, false]);
    }

    #[test]
    fn b61_tokens_of_unknown_issuers_or_for_other_purposes_are_refused() {
        let wrong = sign("alice", b"battery staple", at(10_000)).expect("signs");
        let unknown = sign("mallory", UNKNOWN_ISSUER_SECRET, at(10_000)).expect("signs");
        let of_grid = grid::Auth::shared_secret(b"correct horse").expect("long enough");
        let of_grid = of_grid.make_token(at(10_000)).expect("signs");
        let good = sign("alice", b"correct horse", at(10_000)).expect("signs");
        let unsigned = format!("{}.", good.rsplit_once('.').expect("three parts").0);
        for token in ["", "a.b.c", &wrong, &unknown, &of_grid, &unsigned] {
            assert_eq!(check(token, at(10_000), secret_of), None, "{token}");
        }
    }
}
