//! Whose a file is, who may do what with it, and its extended attributes.

use super::*;

pub(super) fn permissions_are_kept(directory: &Path) {
    public(directory);
    let path = directory.join("file");
    fs::write(&path, "text").unwrap();
    set_bits(&path, 0o640);
    chown(&path, Some(0), Some(2000)).unwrap();
    let read = || fs::read(&path).map(drop);
    assert_eq!(errno(as_user(USER, USER, &[], read)), Errno::ACCESS);
    as_user(USER, USER, &[2000], read).unwrap();
    let write = || OpenOptions::new().append(true).open(&path).map(drop);
    assert_eq!(errno(as_user(USER, USER, &[2000], write)), Errno::ACCESS);
    let change = || fs::set_permissions(&path, Permissions::from_mode(0o666));
    assert_eq!(errno(as_user(USER, USER, &[2000], change)), Errno::PERM);
    set_bits(directory, 0o1777);
    let remove = || fs::remove_file(&path);
    assert_eq!(errno(as_user(USER, USER, &[], remove)), Errno::PERM, "sticky");
    set_bits(directory, 0o755);
    let make = || fs::write(directory.join("new"), "");
    assert_eq!(errno(as_user(USER, USER, &[], make)), Errno::ACCESS);
    set_bits(directory, 0o700);
    assert_eq!(errno(as_user(USER, USER, &[2000], read)), Errno::ACCESS, "no search");
    for bits_wanted in [0o4755, 0o2755, 0o1777, 0o000] {
        set_bits(&path, bits_wanted);
        assert_eq!(bits(&path), bits_wanted);
    }
    assert_eq!(fs::read(&path).unwrap(), b"text", "root reads what nobody may");
}

pub(super) fn the_umask_counts(directory: &Path) {
    umask(Mode::from_raw_mode(0o027));
    fs::write(directory.join("file"), "").unwrap();
    fs::create_dir(directory.join("dir")).unwrap();
    umask(Mode::empty());
    assert_eq!(bits(&directory.join("file")), 0o640);
    assert_eq!(bits(&directory.join("dir")), 0o750);
    fs::write(directory.join("open"), "").unwrap();
    assert_eq!(bits(&directory.join("open")), 0o666);
}

pub(super) fn files_belong_to_their_maker(directory: &Path) {
    public(directory);
    as_user(USER, 3000, &[4000], || {
        fs::write(directory.join("file"), "text").unwrap();
        fs::create_dir(directory.join("dir")).unwrap();
        symlink("file", directory.join("link")).unwrap();
        make_node(&directory.join("fifo"), FileType::Fifo, 0);
    });
    for name in ["file", "dir", "link", "fifo"] {
        let meta = fs::symlink_metadata(directory.join(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (USER, 3000), "{name}");
    }
    fs::write(directory.join("root"), "").unwrap();
    let meta = fs::metadata(directory.join("root")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (0, 0));
    as_user(0, 3000, &[], || fs::write(directory.join("group"), "").unwrap());
    let meta = fs::metadata(directory.join("group")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (0, 3000));
}

pub(super) fn a_directory_gives_its_group(directory: &Path) {
    public(directory);
    let shared = directory.join("shared");
    fs::create_dir(&shared).unwrap();
    chown(&shared, None, Some(5000)).unwrap();
    set_bits(&shared, 0o2777);
    as_user(USER, 3000, &[], || {
        fs::write(shared.join("file"), "").unwrap();
        fs::create_dir(shared.join("dir")).unwrap();
    });
    assert_eq!(fs::metadata(shared.join("file")).unwrap().gid(), 5000);
    let dir = fs::metadata(shared.join("dir")).unwrap();
    assert_eq!((dir.gid(), dir.mode() & 0o2000), (5000, 0o2000), "the bit is inherited");
}

pub(super) fn owners_change(directory: &Path) {
    public(directory);
    let path = directory.join("file");
    fs::write(&path, "").unwrap();
    chown(&path, Some(USER), Some(3000)).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (USER, 3000));
    let give = || chown(&path, Some(0), None);
    assert_eq!(errno(as_user(USER, 3000, &[], give)), Errno::PERM);
    as_user(USER, 3000, &[4000], || chown(&path, None, Some(4000)).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().gid(), 4000);
    set_bits(&path, 0o6755);
    chown(&path, Some(7), Some(7)).unwrap();
    assert_eq!(bits(&path), 0o755, "chown clears the privileges");
    chown(&path, Some(u32::MAX - 1), None).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().uid(), u32::MAX - 1, "a large id");
}

/// `security.capability`, version 2: CAP_NET_RAW permitted and effective.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub(super) fn a_write_clears_privileges(directory: &Path) {
    public(directory);
    let path = directory.join("file");
    let fresh = || {
        fs::write(&path, "text").unwrap();
        set_bits(&path, 0o6777);
        let none = XattrFlags::empty();
        setxattr(&path, "security.capability", &CAPABILITY, none).unwrap();
        assert_eq!(bits(&path), 0o6777);
        let mut value = [0; 32];
        assert_eq!(getxattr(&path, "security.capability", &mut value[..]).unwrap(), 20);
    };
    let cleared = |how: &str| {
        assert_eq!(bits(&path), 0o777, "{how}");
        let mut value = [0; 32];
        let left = getxattr(&path, "security.capability", &mut value[..]);
        assert_eq!(left.unwrap_err(), Errno::NODATA, "{how}");
    };
    fresh();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    as_user(USER, USER, &[], || file.write_all_at(b"x", 0).unwrap());
    cleared("write");
    fresh();
    as_user(USER, USER, &[], || drop(OpenOptions::new().write(true).truncate(true).open(&path)));
    cleared("open and truncate");
    fresh();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    as_user(USER, USER, &[], || file.set_len(1).unwrap());
    cleared("truncate");
    fresh();
    OpenOptions::new().write(true).open(&path).unwrap().write_all(b"x").unwrap();
    assert_eq!(bits(&path), 0o6777, "root keeps the bits");
}

fn names_of(path: &Path) -> Vec<String> {
    let mut list = vec![0; 4096];
    let length = listxattr(path, &mut list[..]).unwrap();
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect()
}

pub(super) fn extended_attributes(directory: &Path) {
    let path = directory.join("file");
    fs::write(&path, "").unwrap();
    let set = |name: &str, value: &[u8], flags| setxattr(&path, name, value, flags);
    set("user.one", b"1", XattrFlags::empty()).unwrap();
    set("user.two", &[0, 255, 0], XattrFlags::CREATE).unwrap();
    assert_eq!(set("user.one", b"2", XattrFlags::CREATE).unwrap_err(), Errno::EXIST);
    assert_eq!(set("user.none", b"2", XattrFlags::REPLACE).unwrap_err(), Errno::NODATA);
    let mut value = [9; 8];
    assert_eq!(getxattr(&path, "user.two", &mut value[..]).unwrap(), 3);
    assert_eq!(value[..3], [0, 255, 0]);
    assert_eq!(getxattr(&path, "user.two", &mut value[..1]).unwrap_err(), Errno::RANGE);
    assert_eq!(getxattr(&path, "user.none", &mut value[..]).unwrap_err(), Errno::NODATA);
    let mut names = names_of(&path);
    names.retain(|name| name.starts_with("user."));
    names.sort();
    assert_eq!(names, ["user.one", "user.two"]);
    removexattr(&path, "user.one").unwrap();
    assert_eq!(removexattr(&path, "user.one").unwrap_err(), Errno::NODATA);
    set("user.empty", b"", XattrFlags::empty()).unwrap();
    assert_eq!(getxattr(&path, "user.empty", &mut value[..]).unwrap(), 0);
    setxattr(directory, "user.dir", b"d", XattrFlags::empty()).unwrap();
    assert_eq!(names_of(directory).iter().filter(|name| *name == "user.dir").count(), 1);
    let large = pattern(3000);
    set("user.large", &large, XattrFlags::empty()).unwrap();
    let mut read = vec![0; 4000];
    assert_eq!(getxattr(&path, "user.large", &mut read[..]).unwrap(), 3000);
    assert!(read[..3000] == large);
}

pub(super) fn extended_attributes_of_links_and_fifos(directory: &Path) {
    let fifo = directory.join("fifo");
    make_node(&fifo, FileType::Fifo, 0);
    let none = XattrFlags::empty();
    assert_eq!(setxattr(&fifo, "user.x", b"1", none).unwrap_err(), Errno::PERM);
    let list = user_may_read();
    setxattr(&fifo, "system.posix_acl_access", &list, none).unwrap();
    let mut value = [0; 64];
    assert_eq!(getxattr(&fifo, "system.posix_acl_access", &mut value[..]).unwrap(), list.len());
    assert_eq!(bits(&fifo), 0o640);
    let link = directory.join("link");
    symlink("fifo", &link).unwrap();
    let listed = rustix::fs::llistxattr(&link, &mut value[..]);
    assert!(listed == Ok(0) || value.starts_with(b"security."), "{listed:?}");
    let set = rustix::fs::lsetxattr(&link, "user.x", b"1", none);
    assert_eq!(set.unwrap_err(), Errno::PERM);
    // The server has no power over these.
    let set = setxattr(&fifo, "trusted.x", b"1", none);
    assert!(matches!(set, Err(Errno::PERM | Errno::OPNOTSUPP)), "{set:?}");
}

/// The id of an entry that has none.
const NOBODY: u32 = u32::MAX;

/// `system.posix_acl_*`: version 2, then (tag, permissions, id) of 2, 2 and 4 bytes.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Read and write for the owner, read for [`USER`].
fn user_may_read() -> Vec<u8> {
    acl(&[(1, 6, NOBODY), (2, 4, USER), (4, 0, NOBODY), (0x10, 4, NOBODY), (0x20, 0, NOBODY)])
}

pub(super) fn access_control_lists(directory: &Path) {
    public(directory);
    let path = directory.join("file");
    fs::write(&path, "text").unwrap();
    set_bits(&path, 0o600);
    let read = || fs::read(&path).map(drop);
    assert_eq!(errno(as_user(USER, USER, &[], read)), Errno::ACCESS);
    setxattr(&path, "system.posix_acl_access", &user_may_read(), XattrFlags::empty()).unwrap();
    as_user(USER, USER, &[], read).unwrap();
    assert_eq!(errno(as_user(USER + 1, USER, &[], read)), Errno::ACCESS);
    assert_eq!(bits(&path), 0o640, "the mask shows as the group's bits");
    let default = directory.join("default");
    fs::create_dir(&default).unwrap();
    set_bits(&default, 0o755);
    let list =
        acl(&[(1, 7, NOBODY), (2, 7, USER), (4, 5, NOBODY), (0x10, 7, NOBODY), (0x20, 0, NOBODY)]);
    setxattr(&default, "system.posix_acl_default", &list, XattrFlags::empty()).unwrap();
    umask(Mode::from_raw_mode(0o077));
    fs::write(default.join("file"), "text").unwrap();
    umask(Mode::empty());
    assert_eq!(bits(&default.join("file")), 0o660, "a default list replaces the umask");
    as_user(USER, USER, &[], || fs::write(default.join("file"), "new").unwrap());
}
