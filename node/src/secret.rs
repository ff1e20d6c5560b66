//! Reads secrets from files. Secrets are wiped from memory when dropped, and have no `Debug`
//! output.

use std::fmt;
use std::path::Path;

use grid::auth::SECRET_BYTES_MIN;
use zeroize::Zeroizing;

/// Largest secret, in bytes. A larger file is most likely another file.
const SECRET_BYTES_MAX: usize = 64 * 1_024;

/// A secret, wiped from memory when dropped.
#[derive(Clone)]
pub(crate) struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self(Zeroizing::new(secret.to_vec()))
    }

    /// The bytes, to compute a signature or a key from.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes")
    }
}

/// What a secret file must be, for error messages.
pub(crate) fn allowed() -> String {
    format!("a readable file of at least {SECRET_BYTES_MIN} bytes, not counting a final newline")
}

/// Returns the secret in this file, or the problem of the file.
pub(crate) fn read(path: &Path) -> Result<SecretBytes, String> {
    let content = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let content = Zeroizing::new(content);
    let secret = trim_newline(&content);
    match secret.len() {
        0 => Err("the file is empty".to_owned()),
        bytes if bytes < SECRET_BYTES_MIN => {
            Err(format!("the secret has {bytes} bytes, at least {SECRET_BYTES_MIN} are needed"))
        }
        bytes if bytes > SECRET_BYTES_MAX => {
            Err(format!("the secret has {bytes} bytes, at most {SECRET_BYTES_MAX} are allowed"))
        }
        _ => Ok(SecretBytes::new(secret)),
    }
}

/// Editors end a file with a newline, which is not part of the secret.
fn trim_newline(content: &[u8]) -> &[u8] {
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    content.strip_suffix(b"\r").unwrap_or(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_newline_is_not_part_of_the_secret() {
        for content in ["secret", "secret\n", "secret\r\n"] {
            assert_eq!(trim_newline(content.as_bytes()), b"secret");
        }
        assert_eq!(trim_newline(b"secret\n\n"), b"secret\n");
        assert_eq!(trim_newline(b"\n"), b"");
    }
}
