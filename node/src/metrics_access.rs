//! Read access to a server's metrics: with a token, public, or forbidden.
//!
//! Only a digest of the token is kept in memory, so that the token cannot be printed. Comparing
//! digests leaks no timing information about the token.

use std::path::Path;

use ::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

/// Shortest token, in bytes. A shorter one could be guessed.
pub(crate) const TOKEN_BYTES_MIN: usize = 16;

/// Longest token, in bytes. It must fit into a header.
const TOKEN_BYTES_MAX: usize = 4_096;

/// Access policy of the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    /// Readable without a token.
    Public,
    /// Readable with the token that has this digest.
    Token([u8; 32]),
    /// Not readable: neither a token nor public access was configured.
    Forbidden,
}

/// The result of checking a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessCheck {
    /// Access allowed.
    Allowed,
    /// The token is missing or wrong.
    Unauthorized,
    /// No token gives access.
    Forbidden,
}

impl Access {
    /// Returns the policy that requires this token.
    pub(crate) fn token(token: &str) -> Self {
        Self::Token(digest(token.as_bytes()))
    }

    /// Checks the headers of a request.
    pub(crate) fn check(&self, headers: &HeaderMap) -> AccessCheck {
        match self {
            Self::Public => AccessCheck::Allowed,
            Self::Forbidden => AccessCheck::Forbidden,
            Self::Token(expected) => {
                let given = bearer(headers).map(|token| digest(token.as_bytes()));
                match given.is_some_and(|given| given == *expected) {
                    true => AccessCheck::Allowed,
                    false => AccessCheck::Unauthorized,
                }
            }
        }
    }
}

/// Returns the token of `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// What a token file must be, for error messages.
pub(crate) fn allowed() -> String {
    format!(
        "a readable file with one token of at least {TOKEN_BYTES_MIN} visible ASCII characters, \
         without spaces"
    )
}

/// Returns the token in this file, or the problem of the file.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let content = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    // Editors append a newline.
    let token = content.trim_ascii();
    match token.len() {
        0 => return Err("the file is empty".to_owned()),
        TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX => {}
        bytes => return Err(format!("the token has {bytes} bytes")),
    }
    let token = token.iter().all(u8::is_ascii_graphic).then_some(token);
    let token = token.and_then(|token| std::str::from_utf8(token).ok());
    token
        .map(str::to_owned)
        .ok_or_else(|| "the token has characters that are not visible ASCII".to_owned())
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn check(access: &Access, authorization: Option<&str>) -> AccessCheck {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            let value = HeaderValue::from_str(value).expect("visible");
            headers.insert(header::AUTHORIZATION, value);
        }
        access.check(&headers)
    }

    #[test]
    fn b71_only_the_correct_token_gives_access() {
        let access = Access::token(TOKEN);
        for (authorization, expected) in [
            (Some("Bearer 0123456789abcdef"), AccessCheck::Allowed),
            (Some("bearer  0123456789abcdef"), AccessCheck::Allowed),
            (Some("Bearer 0123456789abcdeF"), AccessCheck::Unauthorized),
            (Some("Bearer 0123456789abcde"), AccessCheck::Unauthorized),
            (Some("Bearer "), AccessCheck::Unauthorized),
            (Some("Bearer"), AccessCheck::Unauthorized),
            (Some("Basic 0123456789abcdef"), AccessCheck::Unauthorized),
            (None, AccessCheck::Unauthorized),
        ] {
            assert_eq!(check(&access, authorization), expected, "{authorization:?}");
        }
        assert_eq!(check(&Access::Public, None), AccessCheck::Allowed);
        assert_eq!(
            check(&Access::Forbidden, Some("Bearer 0123456789abcdef")),
            AccessCheck::Forbidden
        );
    }
}
