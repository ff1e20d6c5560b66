//! All terminal output: results on stdout, the final error on stderr. Everything else is logged.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};

/// Writes one or several lines to stdout.
pub(crate) fn print_line(text: &dyn Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Writes the error that ends the process to stderr.
pub(crate) fn print_error(error: &dyn Display) {
    // A closed stderr cannot be reported; the exit code still shows the failure.
    let _ = writeln!(io::stderr().lock(), "error: {error}");
}

/// Escapes control characters, and nothing else: text from other machines must not control
/// the terminal.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => escaped.extend(character.escape_debug()),
            false => escaped.push(character),
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_text_keeps_quotes_and_escapes_control_characters_only() {
        for text in ["it's \"quoted\"", r"C:\data", "Größe µs → ✓", ""] {
            assert_eq!(printable(text), text);
        }
        assert_eq!(printable("it's\u{1b}[2J"), r"it's\u{1b}[2J");
        assert_eq!(printable("a\tb\r\n\"c\" \u{85}"), r#"a\tb\r\n"c" \u{85}"#);
    }
}
