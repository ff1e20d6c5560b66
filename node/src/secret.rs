//! Reads what all servers of a cluster know. The secret itself leaves this file only as an
//! [`Auth`], so that nothing can print it.

use std::path::Path;

use grid::Auth;
use grid::auth::SECRET_BYTES_MIN;

/// What a secret file must be, for error messages.
pub(crate) fn allowed() -> String {
    format!("a readable file of at least {SECRET_BYTES_MIN} bytes, its last newline not counted")
}

/// The authentication that the secret in this file makes, or what is wrong with the file.
pub(crate) fn read(path: &Path) -> Result<Auth, String> {
    let content = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let secret = trim_newline(&content);
    match secret.len() {
        0 => Err("the file is empty".to_owned()),
        _ => Auth::shared_secret(secret).map_err(|error| error.to_string()),
    }
}

/// Editors end a file with a newline; that is no part of the secret.
fn trim_newline(content: &[u8]) -> &[u8] {
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    content.strip_suffix(b"\r").unwrap_or(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newline_is_no_part_of_the_secret() {
        for content in ["secret", "secret\n", "secret\r\n"] {
            assert_eq!(trim_newline(content.as_bytes()), b"secret");
        }
        assert_eq!(trim_newline(b"secret\n\n"), b"secret\n");
        assert_eq!(trim_newline(b"\n"), b"");
    }
}
