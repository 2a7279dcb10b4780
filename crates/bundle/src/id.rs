//! The name of a container.

use accord_outcome::{Failure, Result};

/// The longest file name of Linux, as the id names a directory.
const NAME_MAX: usize = 255;

/// Checks a container's id: letters, digits and `_ + - .`, but neither `.` nor `..`.
pub fn valid_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    let plain = !id.is_empty() && id.bytes().all(allowed) && id != "." && id != "..";
    if !plain {
        return Err(Failure::text("container id", id, "invalid format"));
    }
    if id.len() > NAME_MAX {
        return Err(Failure::text("container id", id, "longer than 255 characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::valid_id;

    #[test]
    fn an_id_is_a_file_name_that_needs_no_quoting() {
        for id in ["a", "A_1", "x+y", "..a", "a.b-c", "-a", &"a".repeat(255)] {
            assert!(valid_id(id).is_ok(), "{id:?}");
        }
        let bad =
            ["", ".", "..", "a/b", "/", "a b", "a\n", "a\0", "ä", "a:b", "%", &"a".repeat(256)];
        for id in bad {
            assert!(valid_id(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn the_text_carries_no_words_of_the_id() {
        let text = valid_id("permission denied\n").unwrap_err().to_string();
        assert_eq!(text, r#"container id "permission\x20denied\n": invalid format"#);
    }
}
