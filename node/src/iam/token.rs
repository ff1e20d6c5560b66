//! The token that a request brings: an HS256 JSON Web Token, signed with the caller's secret.
//!
//! It names its issuer, the access key, and what it is for, so that a token of the grid's, which may be
//! made with the same secret, is none of these. Whether the issuer exists is not seen in the answer, nor
//! in the time that it takes: for one that nobody knows, the signature is checked with another key.

use chrono::{DateTime, Utc};
use grid::time::Timestamp;
use http::{HeaderMap, header};
use jwt_compact::alg::{Hs256, Hs256Key};
use jwt_compact::{AlgorithmExt, Claims, Header, UntrustedToken};
use serde::{Deserialize, Serialize};

/// How long a token holds, in seconds. One is made for each request.
const TOKEN_SECONDS: i64 = 60;

/// How far the clocks of a tool and a server may be apart, in seconds.
const LEEWAY_SECONDS: i64 = 300;

/// Largest token.
const TOKEN_BYTES_MAX: usize = 4_096;

/// What tokens are for.
const SUBJECT: &str = "iam";

/// What the signatures of unknown issuers are checked with. Nobody signs with it: whatever they are,
/// they are refused.
const NOBODYS_SECRET: &[u8] = b"the secret of those whom nobody knows";

#[derive(Serialize, Deserialize)]
struct Issued {
    iss: String,
    sub: String,
}

/// A token for a request at `now`.
pub(super) fn make(access_key: &str, secret: &[u8], now: Timestamp) -> Result<String, String> {
    let mut claims = Claims::new(Issued { iss: access_key.to_owned(), sub: SUBJECT.to_owned() });
    claims.expiration = DateTime::<Utc>::from_timestamp(now.seconds() + TOKEN_SECONDS, 0);
    let token = Hs256.token(&Header::empty(), &claims, &Hs256Key::new(secret));
    token.map_err(|error| error.to_string())
}

/// Who has signed it, if it is good at `now`. `secret_of` knows the secrets.
pub(crate) fn check<S: AsRef<[u8]>>(
    token: &str,
    now: Timestamp,
    secret_of: impl FnOnce(&str) -> Option<S>,
) -> Option<String> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let token = UntrustedToken::new(token).ok()?;
    let claimed = token.deserialize_claims_unchecked::<Issued>().ok()?;
    let secret = secret_of(&claimed.custom.iss);
    let is_known = secret.is_some();
    let key = Hs256Key::new(secret.as_ref().map_or(NOBODYS_SECRET, AsRef::as_ref));
    // The signature is compared in constant time (jwt-compact's `CtOutput`).
    let signed = Hs256.validator::<Issued>(&key).validate(&token).ok()?;
    let Claims { expiration, custom, .. } = signed.claims();
    let left = expiration.as_ref()?.timestamp() - now.seconds();
    // One that holds longer than any that is made here could be kept and used again.
    let is_timely = (-LEEWAY_SECONDS..=TOKEN_SECONDS + LEEWAY_SECONDS).contains(&left);
    let is_good = is_known && custom.sub == SUBJECT && is_timely;
    is_good.then(|| custom.iss.clone())
}

/// The token of `Authorization: Bearer …`.
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
    fn b61_a_token_is_good_for_a_short_time_and_for_who_signed_it() {
        let token = make("alice", b"correct horse", at(10_000)).expect("makes");
        let at_times = [9_000, 10_000, 10_360, 10_361]
            .map(|now| check(&token, at(now), secret_of).as_deref() == Some("alice"));
        assert_eq!(at_times, [false, true, true, false]);
    }

    #[test]
    fn b61_what_nobody_known_has_signed_for_this_is_refused() {
        let wrong = make("alice", b"battery staple", at(10_000)).expect("makes");
        let unknown = make("mallory", NOBODYS_SECRET, at(10_000)).expect("makes");
        let of_grid = grid::Auth::shared_secret(b"correct horse").expect("long enough");
        let of_grid = of_grid.make_token(at(10_000)).expect("makes");
        let good = make("alice", b"correct horse", at(10_000)).expect("makes");
        let unsigned = format!("{}.", good.rsplit_once('.').expect("three parts").0);
        for token in ["", "a.b.c", &wrong, &unknown, &of_grid, &unsigned] {
            assert_eq!(check(token, at(10_000), secret_of), None, "{token}");
        }
    }
}
