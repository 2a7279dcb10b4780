//! Quoting of names that a user, an image or a guest controls.

use std::fmt::{Display, Formatter, Result, Write};

/// A name between double quotes, on one line, that cannot be taken for our own words.
///
/// Engines classify errors by substring, and every phrase that they look for
/// holds a space (`permission denied`) or a back quote (`` `/proc/self/attr/exec` ``).
/// So besides control characters and quotes, these two are escaped as well: a
/// container called after an error changes no class, and a newline forges no record.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<T: AsRef<[u8]>>(pub T);

impl<T: AsRef<[u8]>> Display for Quoted<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_char('"')?;
        for chunk in self.0.as_ref().utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    ' ' | '`' => write!(f, "\\x{:02x}", u32::from(c))?,
                    '\'' => f.write_char(c)?,
                    _ => write!(f, "{}", c.escape_debug())?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::Quoted;

    #[test]
    fn a_plain_path_stays_readable() {
        assert_eq!(Quoted("/usr/bin/env").to_string(), r#""/usr/bin/env""#);
    }

    #[test]
    fn words_that_engines_match_are_broken_up() {
        assert_eq!(Quoted("permission denied").to_string(), r#""permission\x20denied""#);
        assert_eq!(
            Quoted("`/proc/self/attr/exec`").to_string(),
            r#""\x60/proc/self/attr/exec\x60""#
        );
    }

    #[test]
    fn a_record_cannot_be_forged() {
        let text = Quoted("x\n{\"level\":\"error\"}\r\u{2028}").to_string();
        assert_eq!(text, r#""x\n{\"level\":\"error\"}\r\u{2028}""#);
    }

    #[test]
    fn bytes_that_are_not_text_are_shown_as_such() {
        assert_eq!(Quoted(b"a\xffb".as_slice()).to_string(), r#""a\xffb""#);
    }
}
