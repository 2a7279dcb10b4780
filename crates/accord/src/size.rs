//! Sizes of memory, as `update` takes them.

use crate::usage::Parsed;

/// `1073741824`, `512m`, `1g`, `64KiB`, `-1`: bytes, with a unit of 1024.
pub(crate) fn parse(text: &str) -> Parsed<i64> {
    const WRONG: &str = "not a size";
    if text == "-1" {
        return Ok(-1);
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = unit.to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if !unit.starts_with('i') => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(WRONG),
    };
    let number: i64 = digits.parse().map_err(|_| WRONG)?;
    number.checked_mul(1024_i64.pow(power)).ok_or(WRONG)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn numbers_and_units() {
        let right = [
            ("0", 0),
            ("4096", 4096),
            ("1b", 1),
            ("64k", 65536),
            ("64KiB", 65536),
            ("512M", 536_870_912),
            ("1gb", 1_073_741_824),
            ("-1", -1),
        ];
        for (text, bytes) in right {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "-2", "m", "1x", "1 g", "ib", "1ib", "1kk", "9999999999999p", "+1", "1.5g"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
