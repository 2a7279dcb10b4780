//! The server without a machine: its jail, and peers that mean no good.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use tempfile::TempDir;
use virtiofsd::fuse::InHeader;
use vm_memory::ByteValued;

use crate::machine::server;
use crate::peer::{NEXT, Peer, ROOT, Reply, WRITE, body, ends, op, proc_text};

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID, MKNOD, SETFCAP.
const CAPABILITIES: &str = "00000000880000db";

macro_rules! tests {
    ($($name:ident)*) => {
        pub(crate) const TESTS: &[(&str, fn())] = &[$((stringify!($name), $name)),*];
    };
}

tests! {
    powers_are_few
    descriptors_are_few
    the_tree_is_all_there_is
    it_ends_with_the_front_end
    garbage_ends_the_server_and_nothing_else
    rings_that_are_nowhere
    chains_that_are_none
    requests_that_are_none
    names_that_lead_elsewhere
    links_are_not_followed
    devices_and_fifos_are_not_opened
    inodes_and_directories_that_are_none
    a_crowd_of_files
    the_corpus_does_no_harm
}

fn errno(reply: &Reply) -> i32 {
    reply.error
}

fn tree() -> TempDir {
    let tree = TempDir::new().unwrap();
    fs::write(tree.path().join("file"), "text").unwrap();
    fs::create_dir(tree.path().join("dir")).unwrap();
    tree
}

/// The value of a line of `/proc/PID/status`.
fn status(peer: &Peer, name: &str) -> String {
    let text = proc_text(&peer.process, "status");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn powers_are_few() {
    let tree = tree();
    let peer = Peer::start(tree.path());
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status(&peer, set), CAPABILITIES, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status(&peer, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(&peer, "NoNewPrivs"), "1");
    assert_eq!(status(&peer, "Seccomp"), "2");
    assert_eq!(status(&peer, "Threads"), "1");
    assert_eq!(status(&peer, "Groups"), "");
    assert_eq!(status(&peer, "Umask"), "0000");
    assert!(peer.end().success());
}

/// Standard error is the caller's in these tests; the rest is the server's own.
fn descriptors_are_few() {
    let tree = tree();
    let peer = Peer::connect(tree.path());
    let directory = format!("/proc/{}/fd", peer.process.id());
    let mut open = Vec::new();
    for entry in fs::read_dir(&directory).unwrap() {
        let entry = entry.unwrap();
        let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let target = fs::read_link(entry.path()).unwrap().display().to_string();
        open.push((number, target.split(':').next().unwrap().to_owned()));
    }
    let mut kinds: Vec<&str> =
        open.iter().filter(|(number, _)| *number != 2).map(|(_, kind)| kind.as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["/", "/dev/null", "/dev/null", "/memfd", "socket"], "{open:?}");
    assert!(peer.end().success());
}

fn the_tree_is_all_there_is() {
    let tree = tree();
    let peer = Peer::start(tree.path());
    let root = format!("/proc/{}/root", peer.process.id());
    let mut names: Vec<_> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["dir", "file"]);
    let mounts = proc_text(&peer.process, "mountinfo");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    let options = mounts.split(' ').nth(5).unwrap();
    for option in ["nosuid", "nodev", "noexec", "nosymfollow"] {
        assert!(options.split(',').any(|set| set == option), "{option} of {options}");
    }
    assert!(!mounts.contains("shared:") && !mounts.contains("master:"), "{mounts}");
    // `/proc/self/fd`, cut out.
    let here = fs::read_link(format!("/proc/{}/cwd", peer.process.id())).unwrap();
    assert_eq!(here, Path::new("/"), "it is the root of its mount");
    assert!(peer.end().success());
}

fn it_ends_with_the_front_end() {
    let tree = tree();
    let (mut process, socket) = server(tree.path());
    drop(socket);
    assert!(ends(&mut process).success(), "before a word");
    let (mut process, mut socket) = server(tree.path());
    socket.write_all(&[1, 0, 0, 0, 1, 0, 0]).unwrap();
    drop(socket);
    assert!(ends(&mut process).success(), "in the middle of one");
    let peer = Peer::start(tree.path());
    assert!(peer.end().success(), "at work");
}

fn garbage_ends_the_server_and_nothing_else() {
    let tree = tree();
    let (mut process, mut socket) = server(tree.path());
    socket.write_all(&[0xa5; 4096]).unwrap();
    let status = ends(&mut process);
    assert_eq!((status.code(), status.signal()), (Some(1), None));
    assert_eq!(fs::read(tree.path().join("file")).unwrap(), b"text");
}

fn rings_that_are_nowhere() {
    let tree = tree();
    for (table, available, used) in [
        (1 << 40, 0x2000, 0x3000),
        (0x1000, 0x3f_fffe, 0x3000),
        (0x1000, 0x2000, 0x40_0000),
        (u64::MAX - 8, 0x2000, 0x3000),
        (0x1001, 0x2001, 0x3001),
    ] {
        let mut peer = Peer::connect(tree.path());
        if peer.set_up_queue(table, available, used).is_ok() {
            peer.kick();
        }
        let ended = peer.end();
        assert!(matches!(ended.code(), Some(0 | 1)), "{table:x} {available:x} {used:x}: {ended}");
    }
}

/// The server stays with a guest whose descriptors are nonsense.
fn chains_that_are_none() {
    let tree = tree();
    let mut peer = Peer::start(tree.path());
    for chain in [
        // Outside the memory, in several ways.
        &[(1 << 40, 64, NEXT, 1), (0x20_0000, 4096, WRITE, 0)][..],
        &[(u64::MAX - 3, 64, NEXT, 1), (0x20_0000, 4096, WRITE, 0)],
        &[(0x1_0000, u32::MAX, NEXT, 1), (0x20_0000, 4096, WRITE, 0)],
        &[(0x1_0000, 64, NEXT, 1), (0x3f_fff0, 4096, WRITE, 0)],
        // A ring, a next that is none, none at all.
        &[(0x1_0000, 64, NEXT, 0)],
        &[(0x1_0000, 64, NEXT, 4000)],
        &[(0x1_0000, 0, 0, 0)],
        &[(0x20_0000, 4096, WRITE, 0)],
        // The reply before the request.
        &[(0x20_0000, 4096, WRITE | NEXT, 1), (0x1_0000, 64, 0, 0)],
        // Indirect without having been offered, and to itself.
        &[(0x1000, 16, 4, 0)],
        &[(0x1000, 32, 4 | NEXT, 1), (0x1_0000, 64, 0, 0)],
    ] {
        peer.post(chain);
        assert_eq!(peer.look_up(ROOT, "file").error, 0, "after {chain:x?}");
    }
    assert!(peer.end().success());
}

fn requests_that_are_none() {
    let tree = tree();
    let mut peer = Peer::start(tree.path());
    let header =
        |opcode, len| InHeader { len, opcode, unique: 77, nodeid: ROOT, ..InHeader::default() };
    for opcode in 0..60 {
        for length in [0, 1, 39, 40, 41, 48, 4096, 1 << 20, u32::MAX] {
            for rest in [&[][..], &[0], &[0xff; 7], &[0; 64], &[0xff; 200]] {
                let bytes = [header(opcode, length).as_slice(), rest].concat();
                // INIT and DESTROY begin anew, which is what they are for.
                let _reply = peer.send(&bytes);
            }
        }
    }
    assert_eq!(peer.request(9999, ROOT, &[]).error, libc::ENOSYS);
    assert!(peer.send(&[1, 2, 3]).is_none());
    assert_eq!(peer.look_up(ROOT, "file").error, 0);
    assert!(peer.end().success());
    assert_eq!(fs::read(tree.path().join("file")).unwrap(), b"text");
}

fn names_that_lead_elsewhere() {
    let outer = TempDir::new().unwrap();
    fs::write(outer.path().join("secret"), "secret").unwrap();
    let tree = outer.path().join("tree");
    fs::create_dir_all(tree.join("dir")).unwrap();
    fs::write(tree.join("file"), "text").unwrap();
    let mut peer = Peer::start(&tree);
    let dir = peer.look_up(ROOT, "dir").word();
    let file = peer.look_up(ROOT, "file").word();
    let (low, high) = (u32::try_from(ROOT).unwrap(), 0);
    for name in ["..", ".", "", "../secret", "dir/../../secret", "/", "/secret", "dir/x", "x/"] {
        for parent in [ROOT, dir] {
            let replies = [
                peer.look_up(parent, name),
                peer.request(op::MKDIR, parent, &body(&[0o755, 0], &[name])),
                peer.request(op::MKNOD, parent, &body(&[0o100644, 0, 0, 0], &[name])),
                peer.request(op::SYMLINK, parent, &body(&[], &[name, "target"])),
                peer.request(op::UNLINK, parent, &body(&[], &[name])),
                peer.request(op::RMDIR, parent, &body(&[], &[name])),
                peer.request(op::RENAME, parent, &body(&[low, high], &["file", name])),
                peer.request(op::RENAME, parent, &body(&[low, high], &[name, "new"])),
                peer.request(op::LINK, parent, &body(&[u32::try_from(file).unwrap(), 0], &[name])),
            ];
            let errors: Vec<i32> = replies.iter().map(errno).collect();
            assert_eq!(errors, [libc::EINVAL; 9], "{name:?}");
        }
    }
    assert!(peer.end().success());
    let mut left: Vec<_> =
        fs::read_dir(outer.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["secret", "tree"]);
}

/// READ of 100 bytes, or READDIR of an open directory.
fn read(handle: u64) -> Vec<u8> {
    let [low, high] = [handle & 0xffff_ffff, handle >> 32].map(|half| u32::try_from(half).unwrap());
    body(&[low, high, 0, 0, 100, 0, 0, 0, 0, 0], &[])
}

/// SETATTR of the size, to 0.
fn truncate() -> Vec<u8> {
    body(&[[8].as_slice(), &[0; 21]].concat(), &[])
}

fn links_are_not_followed() {
    let tree = tree();
    symlink("/", tree.path().join("link")).unwrap();
    symlink("/proc/self/root", tree.path().join("magic")).unwrap();
    symlink("file", tree.path().join("near")).unwrap();
    let mut peer = Peer::start(tree.path());
    for name in ["link", "magic", "near"] {
        let link = peer.look_up(ROOT, name).word();
        assert_eq!(peer.look_up(link, "etc").error, libc::ENOTDIR, "below {name}");
        assert_eq!(peer.request(op::READ, link, &read(0)).error, libc::EBADF, "{name}");
        assert_eq!(peer.request(op::SETATTR, link, &truncate()).error, libc::EBADF, "{name}");
        assert_eq!(peer.request(op::OPENDIR, link, &[0; 8]).error, libc::ENOTDIR, "{name}");
    }
    assert!(peer.end().success());
    assert_eq!(fs::read(tree.path().join("file")).unwrap(), b"text");
}

fn devices_and_fifos_are_not_opened() {
    let tree = tree();
    let mut peer = Peer::start(tree.path());
    // /dev/null, a FIFO (which would block), a socket.
    for (name, mode, device) in
        [("null", 0o020_666, 0x103), ("fifo", 0o010_666, 0), ("socket", 0o140_666, 0)]
    {
        let made = peer.request(op::MKNOD, ROOT, &body(&[mode, device, 0, 0], &[name]));
        let node = made.word();
        assert_eq!(peer.request(op::READ, node, &read(0)).error, libc::EBADF, "{name}");
        assert_eq!(peer.request(op::SETATTR, node, &truncate()).error, libc::EBADF, "{name}");
        assert_eq!(peer.request(op::OPENDIR, node, &[0; 8]).error, libc::ENOTDIR, "{name}");
    }
    assert!(peer.end().success());
}

fn inodes_and_directories_that_are_none() {
    let tree = tree();
    let mut peer = Peer::start(tree.path());
    for node in [0, 2, 999, u64::MAX] {
        assert_eq!(peer.request(op::GETATTR, node, &[0; 16]).error, libc::EBADF, "{node}");
        assert_eq!(peer.look_up(node, "file").error, libc::EBADF, "{node}");
        assert_eq!(peer.request(op::OPENDIR, node, &[0; 8]).error, libc::EBADF, "{node}");
        assert_eq!(peer.request(op::READ, node, &read(0)).error, libc::EBADF, "{node}");
    }
    let directory = peer.look_up(ROOT, "dir").word();
    let handle = peer.request(op::OPENDIR, directory, &[0; 8]).word();
    assert_eq!(peer.request(op::READDIR, directory, &read(handle)).error, 0);
    for (node, handle) in
        [(ROOT, handle), (directory, handle + 1), (directory, u64::MAX), (999, handle)]
    {
        assert_eq!(peer.request(op::READDIR, node, &read(handle)).error, libc::EBADF);
    }
    let file = peer.look_up(ROOT, "file").word();
    assert_eq!(peer.request(op::READ, file, &read(0)).body, b"text");
    // More often forgotten than known, the root included.
    let often = u64::MAX.to_ne_bytes();
    peer.request(op::FORGET, file, &often);
    peer.request(op::FORGET, ROOT, &often);
    assert_eq!(peer.request(op::GETATTR, file, &[0; 16]).error, libc::EBADF);
    assert_eq!(peer.request(op::READ, file, &read(0)).error, libc::EBADF);
    assert_eq!(peer.request(op::GETATTR, ROOT, &[0; 16]).error, 0);
    assert_ne!(peer.look_up(ROOT, "file").word(), file, "numbers are not used again");
    assert!(peer.end().success());
}

/// More files than descriptors; those that are open stay so, the rest are found again.
fn a_crowd_of_files() {
    let tree = tree();
    for number in 0..5000 {
        fs::write(tree.path().join(format!("f{number}")), "").unwrap();
    }
    let mut peer = Peer::start(tree.path());
    let nodes: Vec<u64> =
        (0..5000).map(|number| peer.look_up(ROOT, &format!("f{number}")).word()).collect();
    for node in &nodes {
        assert_eq!(peer.request(op::GETATTR, *node, &[0; 16]).error, 0);
    }
    // What the host has changed meanwhile is not mistaken for what was there.
    fs::remove_file(tree.path().join("f0")).unwrap();
    fs::write(tree.path().join("f0"), "another").unwrap();
    fs::rename(tree.path().join("f1"), tree.path().join("g1")).unwrap();
    assert_eq!(peer.request(op::GETATTR, nodes[0], &[0; 16]).error, libc::ESTALE);
    assert_eq!(peer.request(op::GETATTR, nodes[1], &[0; 16]).error, libc::ENOENT);
    assert_ne!(peer.look_up(ROOT, "f0").word(), nodes[0]);
    assert_eq!(peer.look_up(ROOT, "g1").word(), nodes[1], "it is still the same");
    assert_eq!(peer.request(op::GETATTR, nodes[1], &[0; 16]).error, 0);
    for node in &nodes[2..] {
        assert_eq!(peer.request(op::READ, *node, &read(0)).error, 0);
    }
    let directory = peer.look_up(ROOT, "dir").word();
    let mut opened = 0;
    let refused = loop {
        let open = peer.request(op::OPENDIR, directory, &[0; 8]);
        if open.error != 0 {
            break open.error;
        }
        opened += 1;
    };
    assert_eq!(refused, libc::ENFILE);
    assert!(opened > 800, "{opened} open at once");
    assert_eq!(peer.request(op::GETATTR, nodes[2], &[0; 16]).error, 0);
    assert_eq!(peer.request(op::READ, nodes[3], &read(0)).error, 0);
    assert!(peer.end().success());
}

/// What the fuzzer starts from and has found: `fuzz/src/lib.rs` says how it is written.
fn the_corpus_does_no_harm() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/virtio_fs_requests");
    let mut number = 0;
    for seed in fs::read_dir(seeds).unwrap() {
        let bytes = fs::read(seed.unwrap().path()).unwrap();
        let tree = tree();
        let mut peer = Peer::start(tree.path());
        let mut rest = &bytes[..];
        while let [opcode, node, length, more @ ..] = rest {
            let (body, more) = more.split_at(usize::from(*length).min(more.len()));
            peer.request((*opcode).into(), (*node).into(), body);
            rest = more;
        }
        assert_eq!(peer.look_up(ROOT, "dir").error, 0);
        assert!(peer.end().success());
        number += 1;
    }
    assert!(number > 0);
}
