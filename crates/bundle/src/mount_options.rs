//! The options of a mount: the words of `mounts[].options` as attributes, flags and data.
//!
//! A word is an attribute of the mount, a flag of the superblock, a propagation,
//! an instruction to the runtime, or else data for the filesystem. The table
//! [`WORDS`] is the only place that knows which; `features` lists the same words.

use linux_raw_sys::general::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_RELATIME, MOUNT_ATTR_STRICTATIME, MS_DIRSYNC, MS_I_VERSION, MS_LAZYTIME,
    MS_MANDLOCK, MS_POSIXACL, MS_PRIVATE, MS_REC, MS_SHARED, MS_SILENT, MS_SLAVE, MS_SYNCHRONOUS,
    MS_UNBINDABLE,
};

/// The options of one mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// The attributes of the mount itself.
    pub attrs: Attrs,
    /// The attributes of the mount and of everything below it (`rro` and its like).
    pub rec_attrs: Attrs,
    /// Flags of the superblock, as the `MS_*` bits of `mount(2)`.
    pub sb_flags: u32,
    /// Flags of the superblock that are asked to be off (`async`, `nolazytime`).
    pub sb_flags_clear: u32,
    /// What the filesystem itself understands, in the order given.
    pub data: Vec<(String, Option<String>)>,
    /// The propagations, to be set one after the other.
    pub propagation: Vec<Propagation>,
    /// A bind mount.
    pub bind: Option<Bind>,
    /// Change a mount that exists.
    pub remount: bool,
    /// Copy what the image has at the destination into the new tmpfs.
    pub tmpcopyup: bool,
    /// Map the ids of the mount.
    pub idmap: Option<Idmap>,
    /// Copy a symbolic link given as source instead of following it.
    pub copy_symlink: bool,
    /// Bind a symbolic link given as source itself.
    pub src_nofollow: bool,
    /// Mount over a symbolic link at the destination itself.
    pub dest_nofollow: bool,
}

/// What `mount_setattr(2)` sets and clears, as `MOUNT_ATTR_*` bits.
///
/// No bit is in both, but those of `MOUNT_ATTR__ATIME`: it is one value, which
/// the kernel wants cleared whole before another is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attrs {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear.
    pub clear: u64,
}

impl Attrs {
    /// Whether there is nothing to change.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Whether this makes the mount read-only.
    pub fn read_only(self) -> bool {
        self.set & u64::from(MOUNT_ATTR_RDONLY) != 0
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Set(bits) => {
                self.set |= u64::from(bits);
                self.clear &= !u64::from(bits);
            }
            Change::Clear(bits) => {
                self.set &= !u64::from(bits);
                self.clear |= u64::from(bits);
            }
            Change::Atime(value) => {
                self.set = self.set & !u64::from(MOUNT_ATTR__ATIME) | u64::from(value);
                self.clear |= u64::from(MOUNT_ATTR__ATIME);
            }
            // The kernel's default is relatime: an access-time mode that is switched off gives that.
            Change::NotAtime(value) => {
                if self.set & u64::from(MOUNT_ATTR__ATIME) == u64::from(value) {
                    self.apply(Change::Atime(MOUNT_ATTR_RELATIME));
                }
            }
        }
    }
}

/// A bind mount, of one mount or of the tree below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// `bind`.
    Bind,
    /// `rbind`.
    Rbind,
}

/// Which mounts get the id map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idmap {
    /// `idmap`: this one.
    Idmap,
    /// `ridmap`: the tree.
    Ridmap,
}

/// A propagation: the `MS_*` bits of `mount(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`.
    pub kind: u32,
    /// Whether for the tree.
    pub recursive: bool,
}

impl Propagation {
    /// The propagation of this name (`rslave`), of a mount or of `linux.rootfsPropagation`.
    pub fn from_name(name: &str) -> Option<Self> {
        match find(name) {
            Some(Word::Propagation(bits)) => {
                Some(Self { kind: bits & !MS_REC, recursive: bits & MS_REC != 0 })
            }
            _ => None,
        }
    }

    /// The bits for `mount(2)`.
    pub fn bits(self) -> u32 {
        if self.recursive { self.kind | MS_REC } else { self.kind }
    }
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Set(u32),
    Clear(u32),
    Atime(u32),
    NotAtime(u32),
}

#[derive(Debug, Clone, Copy)]
enum Word {
    Nothing,
    Attr(Change),
    RecAttr(Change),
    Superblock(u32),
    NotSuperblock(u32),
    Propagation(u32),
    Bind(Bind),
    Remount,
    Tmpcopyup,
    Idmap(Idmap),
    CopySymlink,
    SrcNofollow,
    DestNofollow,
}

use Change::{Atime, Clear, NotAtime, Set};

/// Sorted, for the search and for `features`.
const WORDS: &[(&str, Word)] = &[
    ("acl", Word::Superblock(MS_POSIXACL)),
    ("async", Word::NotSuperblock(MS_SYNCHRONOUS)),
    ("atime", Word::Attr(Atime(MOUNT_ATTR_RELATIME))),
    ("bind", Word::Bind(Bind::Bind)),
    ("copy-symlink", Word::CopySymlink),
    ("defaults", Word::Nothing),
    ("dest-nofollow", Word::DestNofollow),
    ("dev", Word::Attr(Clear(MOUNT_ATTR_NODEV))),
    ("diratime", Word::Attr(Clear(MOUNT_ATTR_NODIRATIME))),
    ("dirsync", Word::Superblock(MS_DIRSYNC)),
    ("exec", Word::Attr(Clear(MOUNT_ATTR_NOEXEC))),
    ("idmap", Word::Idmap(Idmap::Idmap)),
    ("iversion", Word::Superblock(MS_I_VERSION)),
    ("lazytime", Word::Superblock(MS_LAZYTIME)),
    ("loud", Word::NotSuperblock(MS_SILENT)),
    ("mand", Word::Superblock(MS_MANDLOCK)),
    ("noacl", Word::NotSuperblock(MS_POSIXACL)),
    ("noatime", Word::Attr(Atime(MOUNT_ATTR_NOATIME))),
    ("nodev", Word::Attr(Set(MOUNT_ATTR_NODEV))),
    ("nodiratime", Word::Attr(Set(MOUNT_ATTR_NODIRATIME))),
    ("noexec", Word::Attr(Set(MOUNT_ATTR_NOEXEC))),
    ("noiversion", Word::NotSuperblock(MS_I_VERSION)),
    ("nolazytime", Word::NotSuperblock(MS_LAZYTIME)),
    ("nomand", Word::NotSuperblock(MS_MANDLOCK)),
    ("norelatime", Word::Attr(NotAtime(MOUNT_ATTR_RELATIME))),
    ("nostrictatime", Word::Attr(NotAtime(MOUNT_ATTR_STRICTATIME))),
    ("nosuid", Word::Attr(Set(MOUNT_ATTR_NOSUID))),
    ("nosymfollow", Word::Attr(Set(MOUNT_ATTR_NOSYMFOLLOW))),
    ("private", Word::Propagation(MS_PRIVATE)),
    ("ratime", Word::RecAttr(Atime(MOUNT_ATTR_RELATIME))),
    ("rbind", Word::Bind(Bind::Rbind)),
    ("rdev", Word::RecAttr(Clear(MOUNT_ATTR_NODEV))),
    ("rdiratime", Word::RecAttr(Clear(MOUNT_ATTR_NODIRATIME))),
    ("relatime", Word::Attr(Atime(MOUNT_ATTR_RELATIME))),
    ("remount", Word::Remount),
    ("rexec", Word::RecAttr(Clear(MOUNT_ATTR_NOEXEC))),
    ("ridmap", Word::Idmap(Idmap::Ridmap)),
    ("rnoatime", Word::RecAttr(Atime(MOUNT_ATTR_NOATIME))),
    ("rnodev", Word::RecAttr(Set(MOUNT_ATTR_NODEV))),
    ("rnodiratime", Word::RecAttr(Set(MOUNT_ATTR_NODIRATIME))),
    ("rnoexec", Word::RecAttr(Set(MOUNT_ATTR_NOEXEC))),
    ("rnorelatime", Word::RecAttr(NotAtime(MOUNT_ATTR_RELATIME))),
    ("rnostrictatime", Word::RecAttr(NotAtime(MOUNT_ATTR_STRICTATIME))),
    ("rnosuid", Word::RecAttr(Set(MOUNT_ATTR_NOSUID))),
    ("rnosymfollow", Word::RecAttr(Set(MOUNT_ATTR_NOSYMFOLLOW))),
    ("ro", Word::Attr(Set(MOUNT_ATTR_RDONLY))),
    ("rprivate", Word::Propagation(MS_PRIVATE | MS_REC)),
    ("rrelatime", Word::RecAttr(Atime(MOUNT_ATTR_RELATIME))),
    ("rro", Word::RecAttr(Set(MOUNT_ATTR_RDONLY))),
    ("rrw", Word::RecAttr(Clear(MOUNT_ATTR_RDONLY))),
    ("rshared", Word::Propagation(MS_SHARED | MS_REC)),
    ("rslave", Word::Propagation(MS_SLAVE | MS_REC)),
    ("rstrictatime", Word::RecAttr(Atime(MOUNT_ATTR_STRICTATIME))),
    ("rsuid", Word::RecAttr(Clear(MOUNT_ATTR_NOSUID))),
    ("rsymfollow", Word::RecAttr(Clear(MOUNT_ATTR_NOSYMFOLLOW))),
    ("runbindable", Word::Propagation(MS_UNBINDABLE | MS_REC)),
    ("rw", Word::Attr(Clear(MOUNT_ATTR_RDONLY))),
    ("shared", Word::Propagation(MS_SHARED)),
    ("silent", Word::Superblock(MS_SILENT)),
    ("slave", Word::Propagation(MS_SLAVE)),
    ("src-nofollow", Word::SrcNofollow),
    ("strictatime", Word::Attr(Atime(MOUNT_ATTR_STRICTATIME))),
    ("suid", Word::Attr(Clear(MOUNT_ATTR_NOSUID))),
    ("symfollow", Word::Attr(Clear(MOUNT_ATTR_NOSYMFOLLOW))),
    ("sync", Word::Superblock(MS_SYNCHRONOUS)),
    ("tmpcopyup", Word::Tmpcopyup),
    ("unbindable", Word::Propagation(MS_UNBINDABLE)),
];

/// Every word that is not left to the filesystem, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|(name, _)| *name)
}

fn find(name: &str) -> Option<Word> {
    let index = WORDS.binary_search_by_key(&name, |(word, _)| word).ok()?;
    WORDS.get(index).map(|(_, word)| *word)
}

/// Reads the options of one mount; a later word overrides an earlier one.
pub fn parse<S: AsRef<str>>(options: &[S]) -> MountOptions {
    let mut parsed = MountOptions::default();
    for option in options {
        let option = option.as_ref();
        match find(option) {
            Some(word) => parsed.apply(word),
            None => parsed.data.push(match option.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (option.to_owned(), None),
            }),
        }
    }
    parsed
}

impl MountOptions {
    /// Whether a mount with these options and this type is a bind mount: one without a type is.
    pub fn is_bind(&self, kind: Option<&str>) -> bool {
        !self.remount && (self.bind.is_some() || kind.unwrap_or("bind") == "bind")
    }

    fn apply(&mut self, word: Word) {
        match word {
            Word::Nothing => {}
            Word::Attr(change) => self.attrs.apply(change),
            Word::RecAttr(change) => self.rec_attrs.apply(change),
            Word::Superblock(bits) => {
                self.sb_flags |= bits;
                self.sb_flags_clear &= !bits;
            }
            Word::NotSuperblock(bits) => {
                self.sb_flags &= !bits;
                self.sb_flags_clear |= bits;
            }
            Word::Propagation(bits) => self
                .propagation
                .push(Propagation { kind: bits & !MS_REC, recursive: bits & MS_REC != 0 }),
            Word::Bind(bind) => self.bind = Some(bind),
            Word::Remount => self.remount = true,
            Word::Tmpcopyup => self.tmpcopyup = true,
            Word::Idmap(idmap) => self.idmap = Some(idmap),
            Word::CopySymlink => self.copy_symlink = true,
            Word::SrcNofollow => self.src_nofollow = true,
            Word::DestNofollow => self.dest_nofollow = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(names: &[u32]) -> u64 {
        names.iter().map(|bit| u64::from(*bit)).sum()
    }

    #[test]
    fn the_table_is_sorted_and_without_doubles() {
        assert!(names().zip(names().skip(1)).all(|(one, next)| one < next));
    }

    #[test]
    fn a_later_word_overrides_an_earlier_one() {
        let parsed = parse(&["ro", "rw", "noexec", "suid", "nosuid", "sync", "async"]);
        assert_eq!(parsed.attrs.set, bits(&[MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID]));
        assert_eq!(parsed.attrs.clear, bits(&[MOUNT_ATTR_RDONLY]));
        assert_eq!((parsed.sb_flags, parsed.sb_flags_clear), (0, MS_SYNCHRONOUS));
        assert!(!parsed.attrs.read_only());
    }

    #[test]
    fn the_access_time_is_one_value() {
        let atime = u64::from(MOUNT_ATTR__ATIME);
        let cases: &[(&[&str], u32, u64)] = &[
            (&["noatime"], MOUNT_ATTR_NOATIME, atime),
            (&["noatime", "strictatime"], MOUNT_ATTR_STRICTATIME, atime),
            (&["strictatime", "relatime"], MOUNT_ATTR_RELATIME, atime),
            (&["noatime", "atime"], MOUNT_ATTR_RELATIME, atime),
            (&["strictatime", "nostrictatime"], MOUNT_ATTR_RELATIME, atime),
            (&["noatime", "nostrictatime"], MOUNT_ATTR_NOATIME, atime),
        ];
        for (options, set, clear) in cases {
            assert_eq!(
                parse(options).attrs,
                Attrs { set: u64::from(*set), clear: *clear },
                "{options:?}"
            );
        }
    }

    #[test]
    fn recursive_attributes_are_kept_apart() {
        let parsed = parse(&["rbind", "ro", "rro", "rnodev", "rstrictatime"]);
        assert_eq!(parsed.bind, Some(Bind::Rbind));
        assert_eq!(parsed.attrs, Attrs { set: bits(&[MOUNT_ATTR_RDONLY]), clear: 0 });
        assert_eq!(
            parsed.rec_attrs.set,
            bits(&[MOUNT_ATTR_RDONLY, MOUNT_ATTR_NODEV, MOUNT_ATTR_STRICTATIME])
        );
        assert_eq!(parsed.rec_attrs.clear, u64::from(MOUNT_ATTR__ATIME));
    }

    #[test]
    fn what_no_table_knows_is_for_the_filesystem() {
        let parsed = parse(&["defaults", "size=64k", "upperdir=/a=b", "newinstance", ""]);
        let data =
            [("size", Some("64k")), ("upperdir", Some("/a=b")), ("newinstance", None), ("", None)];
        let data = data.map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
        assert_eq!(parsed, MountOptions { data: data.to_vec(), ..MountOptions::default() });
    }

    #[test]
    fn propagations_are_kept_in_order() {
        let parsed = parse(&["rslave", "shared"]);
        assert_eq!(
            parsed.propagation.iter().map(|one| one.bits()).collect::<Vec<_>>(),
            [MS_SLAVE | MS_REC, MS_SHARED]
        );
        assert_eq!(
            Propagation::from_name("runbindable"),
            Some(Propagation { kind: MS_UNBINDABLE, recursive: true })
        );
        assert_eq!(Propagation::from_name("bind"), None);
    }

    #[test]
    fn instructions_to_the_runtime() {
        let parsed = parse(&[
            "tmpcopyup",
            "ridmap",
            "copy-symlink",
            "src-nofollow",
            "dest-nofollow",
            "remount",
        ]);
        assert_eq!(
            parsed,
            MountOptions {
                tmpcopyup: true,
                idmap: Some(Idmap::Ridmap),
                copy_symlink: true,
                src_nofollow: true,
                dest_nofollow: true,
                remount: true,
                ..MountOptions::default()
            }
        );
    }
}
