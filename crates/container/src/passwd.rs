//! The one thing that is read from an image: a user's home directory.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};

/// More of `/etc/passwd` than this is not read.
const LIMIT: u64 = 1 << 20;

/// The home directory of a user in the root file system's `/etc/passwd`.
pub(crate) fn home(rootfs: &Path, uid: u32) -> Option<String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, rootfs, flags, Mode::empty()).ok()?;
    // Not to hang on a pipe and not to follow a link out.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(&root, "etc/passwd", flags, Mode::empty(), resolve).ok()?;
    let stat = fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut text = Vec::new();
    let _length = File::from(file).take(LIMIT).read_to_end(&mut text).ok()?;
    find(&String::from_utf8_lossy(&text), uid)
}

/// The sixth field of the first line whose third is `uid` (`passwd(5)`).
fn find(text: &str, uid: u32) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let number: u32 = fields.nth(2)?.parse().ok()?;
        let home = fields.nth(2)?;
        (number == uid && home.starts_with('/')).then(|| home.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::find;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n1000:x:0:0::/evil:/bin/sh\n\
                          broken\nu:x:1000:1000:a b:/home/u:/bin/sh\nv:x:7:7::rel:/bin/sh\n";

    #[test]
    fn users_are_found_by_number_only() {
        assert_eq!(find(PASSWD, 0).as_deref(), Some("/root"));
        assert_eq!(find(PASSWD, 1000).as_deref(), Some("/home/u"));
        assert_eq!(find(PASSWD, 7), None);
        assert_eq!(find(PASSWD, 9), None);
    }
}
