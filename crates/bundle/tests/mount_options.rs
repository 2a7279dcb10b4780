//! Mount options, whatever is given in whatever order.

use accord_bundle::mount_options::{Attrs, names, parse};
use linux_raw_sys::general::{MOUNT_ATTR__ATIME, MOUNT_ATTR_RDONLY};
use proptest::prelude::*;

const READ_ONLY: u64 = MOUNT_ATTR_RDONLY as u64;

/// Words that we know, and words that only a file system could.
fn any_word() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::sample::select(names().collect::<Vec<_>>()).prop_map(str::to_owned),
        1 => "x-[a-z]{1,5}(=[a-z0-9=,]{0,5})?",
    ]
}

fn any_words() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(any_word(), 0..12)
}

fn is_coherent(attrs: Attrs) -> bool {
    attrs.set & attrs.clear & !u64::from(MOUNT_ATTR__ATIME) == 0
}

proptest! {
    #[test]
    fn no_bit_is_both_set_and_cleared(words in any_words()) {
        let options = parse(&words);
        prop_assert!(is_coherent(options.attrs), "{options:?}");
        prop_assert!(is_coherent(options.rec_attrs), "{options:?}");
        prop_assert_eq!(options.sb_flags & options.sb_flags_clear, 0);
    }

    #[test]
    fn the_last_word_wins(words in any_words(), read_only: bool) {
        let mut words = words;
        words.push(if read_only { "ro" } else { "rw" }.into());
        let attrs = parse(&words).attrs;
        prop_assert_eq!(attrs.set & READ_ONLY != 0, read_only);
        prop_assert_eq!(attrs.clear & READ_ONLY != 0, !read_only);
    }

    #[test]
    fn what_is_not_known_goes_to_the_file_system_as_it_is(words in any_words()) {
        let foreign: Vec<&String> = words.iter().filter(|word| word.starts_with("x-")).collect();
        let data: Vec<String> = parse(&words)
            .data
            .into_iter()
            .map(|(key, value)| value.map_or(key.clone(), |value| format!("{key}={value}")))
            .filter(|word| word.starts_with("x-"))
            .collect();
        prop_assert_eq!(data.iter().collect::<Vec<_>>(), foreign);
    }
}
