//! Who may read a server's metrics: whoever has the token, everybody, or nobody.
//!
//! The token itself stays in no memory, so that nothing can print it: its digest is enough. Comparing
//! digests takes a time that says nothing about the token.

use std::path::Path;

use ::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

/// Shortest token, in bytes. One that can be guessed is none.
pub(crate) const TOKEN_BYTES_MIN: usize = 16;

/// Longest: a header has to hold it.
const TOKEN_BYTES_MAX: usize = 4_096;

/// Who may read metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody.
    Public,
    /// Whoever sends the token with this digest.
    Token([u8; 32]),
    /// Nobody: neither was configured.
    Closed,
}

/// Whether a request may have an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may.
    Allowed,
    /// Not without the right token.
    Unauthorized,
    /// Not at all.
    Forbidden,
}

impl Access {
    /// For this token.
    pub(crate) fn token(token: &str) -> Self {
        Self::Token(digest(token.as_bytes()))
    }

    /// Whether who sends these headers may read.
    pub(crate) fn judge(&self, headers: &HeaderMap) -> Verdict {
        match self {
            Self::Public => Verdict::Allowed,
            Self::Closed => Verdict::Forbidden,
            Self::Token(expected) => {
                let given = bearer(headers).map(|token| digest(token.as_bytes()));
                match given.is_some_and(|given| given == *expected) {
                    true => Verdict::Allowed,
                    false => Verdict::Unauthorized,
                }
            }
        }
    }
}

/// The token of `Authorization: Bearer …`.
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

/// The token in this file, or what is wrong with the file.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let content = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    // White space around it is the editor's.
    let token = content.trim_ascii();
    match token.len() {
        0 => return Err("the file is empty".to_owned()),
        TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX => {}
        bytes => return Err(format!("the token has {bytes} bytes")),
    }
    let token = token.iter().all(u8::is_ascii_graphic).then_some(token);
    let token = token.and_then(|token| std::str::from_utf8(token).ok());
    token.map(str::to_owned).ok_or_else(|| "the token has other characters".to_owned())
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn judge(access: &Access, authorization: Option<&str>) -> Verdict {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            let value = HeaderValue::from_str(value).expect("visible");
            headers.insert(header::AUTHORIZATION, value);
        }
        access.judge(&headers)
    }

    #[test]
    fn b71_only_the_right_token_lets_in() {
        let access = Access::token(TOKEN);
        for (authorization, verdict) in [
            (Some("Bearer 0123456789abcdef"), Verdict::Allowed),
            (Some("bearer  0123456789abcdef"), Verdict::Allowed),
            (Some("Bearer 0123456789abcdeF"), Verdict::Unauthorized),
            (Some("Bearer 0123456789abcde"), Verdict::Unauthorized),
            (Some("Bearer "), Verdict::Unauthorized),
            (Some("Bearer"), Verdict::Unauthorized),
            (Some("Basic 0123456789abcdef"), Verdict::Unauthorized),
            (None, Verdict::Unauthorized),
        ] {
            assert_eq!(judge(&access, authorization), verdict, "{authorization:?}");
        }
        assert_eq!(judge(&Access::Public, None), Verdict::Allowed);
        assert_eq!(judge(&Access::Closed, Some("Bearer 0123456789abcdef")), Verdict::Forbidden);
    }
}
