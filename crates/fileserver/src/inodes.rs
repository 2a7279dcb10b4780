//! What the guest knows: the inodes that it has looked up.
//!
//! An inode is held by an `O_PATH` descriptor, and one more while its data are used. The guest
//! gives inodes back when it likes, and has no reason to like: a `find` over 500,000 files
//! leaves as many behind. So when the process runs out of descriptors, those of inodes that
//! have not been used for longest are closed, and opened again by the place where they were
//! last seen, below the inode of their parent. What is found there must be the same inode, or
//! the guest gets ESTALE, whereupon its kernel looks the path up anew. (The other way to do
//! without descriptors, `open_by_handle_at(2)`, takes a capability that opens every file of
//! the file system.)

use std::collections::{HashMap, VecDeque};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat, openat2, statx,
};
use rustix::io::Errno;
use virtiofsd::filesystem::ROOT_ID;

/// More levels than any path has; a host that moves directories about can make a circle of
/// the places where the guest has seen them.
const MAX_DEPTH: usize = 4096;

/// One in so many descriptors is never a directory that the guest has open, so that it can get
/// at others meanwhile.
const FOR_INODES: usize = 8;

/// What an inode is told by while it lives: a number, in a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    mount: u64,
    number: u64,
}

/// What tells it from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Birth {
    kind: FileType,
    seconds: i64,
    nanoseconds: u32,
}

#[derive(Debug)]
struct Node {
    key: Key,
    birth: Birth,
    /// How often the guest was told of it and has not forgotten it.
    lookups: u64,
    /// Nodes whose place is below this one.
    children: u64,
    /// Parent and name. Without one - the root, a file that was removed - it stays open.
    place: Option<(u64, Box<CStr>)>,
    path: Option<OwnedFd>,
    data: Option<Data>,
    /// Used since the clock's hand last passed.
    recent: bool,
}

impl Node {
    fn new(status: &Statx) -> Self {
        Self {
            key: key(status),
            birth: birth(status),
            lookups: 0,
            children: 0,
            place: None,
            path: None,
            data: None,
            recent: true,
        }
    }

    fn descriptors(&self) -> usize {
        usize::from(self.path.is_some()).saturating_add(usize::from(self.data.is_some()))
    }
}

/// A regular file, open for its data.
#[derive(Debug)]
struct Data {
    file: File,
    writable: bool,
}

/// A directory that the guest has open.
#[derive(Debug)]
struct Handle {
    node: u64,
    directory: File,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Inodes {
    nodes: HashMap<u64, Node>,
    ids: HashMap<Key, u64>,
    handles: HashMap<u64, Handle>,
    next: u64,
    /// Nodes with descriptors, in the order in which they are looked at when one is needed.
    clock: VecDeque<u64>,
    /// How many descriptors nodes have.
    open: usize,
    /// Of nodes and handles together.
    limit: usize,
}

/// Everything that a reply may need, and what identifies an inode.
pub(crate) const STAT: StatxFlags =
    StatxFlags::BASIC_STATS.union(StatxFlags::BTIME).union(StatxFlags::MNT_ID);

/// The status of an open file or inode.
pub(crate) fn stat(fd: impl AsFd) -> io::Result<Statx> {
    Ok(statx(fd, c"", AtFlags::EMPTY_PATH, STAT)?)
}

/// A name in a directory, as a guest must not send it: one that leads elsewhere.
pub(crate) fn checked(name: &CStr) -> io::Result<&CStr> {
    match name.to_bytes() {
        b"" | b"." | b".." => Err(Errno::INVAL.into()),
        bytes if bytes.contains(&b'/') => Err(Errno::INVAL.into()),
        _ => Ok(name),
    }
}

/// The name of a descriptor in the working directory, which is `/proc/self/fd`.
pub(crate) fn descriptor_name(fd: BorrowedFd<'_>) -> String {
    fd.as_raw_fd().to_string()
}

fn key(stat: &Statx) -> Key {
    Key { mount: stat.stx_mnt_id, number: stat.stx_ino }
}

fn birth(stat: &Statx) -> Birth {
    let known = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    Birth {
        kind: FileType::from_raw_mode(stat.stx_mode.into()),
        seconds: if known { stat.stx_btime.tv_sec } else { 0 },
        nanoseconds: if known { stat.stx_btime.tv_nsec } else { 0 },
    }
}

/// Opens an inode by its name: nothing that is found there is followed.
fn open_path(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    Ok(openat2(parent, name, flags, Mode::empty(), resolve)?)
}

fn stale() -> io::Error {
    Errno::STALE.into()
}

impl Inodes {
    /// A table that knows the root only and uses `limit` descriptors at most.
    pub(crate) fn new(root: OwnedFd, limit: usize) -> io::Result<Self> {
        let stat = stat(&root)?;
        let mut inodes = Self {
            nodes: HashMap::new(),
            ids: HashMap::from([(key(&stat), ROOT_ID)]),
            handles: HashMap::new(),
            next: ROOT_ID.saturating_add(1),
            clock: VecDeque::new(),
            open: 1,
            limit,
        };
        // Its lookup is never taken back.
        let root = Node { lookups: 1, path: Some(root), ..Node::new(&stat) };
        inodes.nodes.insert(ROOT_ID, root);
        Ok(inodes)
    }

    /// Looks a name up and counts it as told to the guest: the inode, its status, and whether
    /// a mount lies between it and its parent.
    pub(crate) fn look_up(&mut self, parent: u64, name: &CStr) -> io::Result<(u64, Statx, bool)> {
        let name = checked(name)?;
        // Most names that are asked for are known or do not exist.
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let mut status = statx(self.path(parent)?, name, flags, STAT)?;
        let id = match self.known(&status) {
            Some((id, true)) => id,
            _ => {
                self.make_room()?;
                let path = open_path(self.path(parent)?, name)?;
                status = stat(&path)?;
                let id = self.known(&status).map_or_else(|| self.add(&status), |(id, _)| id);
                self.hold(id, path)?;
                id
            }
        };
        self.settle(id, Some((parent, name.into())));
        let mount = self.nodes.get(&parent).map(|parent| parent.key.mount);
        let node = self.node(id)?;
        node.lookups = node.lookups.saturating_add(1);
        let crossed = mount != Some(node.key.mount);
        Ok((id, status, crossed))
    }

    /// The inode with this status, if it is in the table, and whether it has a descriptor.
    fn known(&self, stat: &Statx) -> Option<(u64, bool)> {
        let id = *self.ids.get(&key(stat))?;
        let node = self.nodes.get(&id)?;
        (node.birth == birth(stat)).then_some((id, node.path.is_some()))
    }

    fn add(&mut self, stat: &Statx) -> u64 {
        let id = self.next;
        self.next = id.saturating_add(1);
        let node = Node::new(stat);
        // An earlier inode of this number has gone from the host: its node is stale for good.
        self.ids.insert(node.key, id);
        self.nodes.insert(id, node);
        id
    }

    fn node(&mut self, id: u64) -> io::Result<&mut Node> {
        self.nodes.get_mut(&id).ok_or_else(|| Errno::BADF.into())
    }

    /// Notes where an inode is.
    fn settle(&mut self, id: u64, place: Option<(u64, Box<CStr>)>) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.place != place) else { return };
        let before = std::mem::replace(&mut node.place, place);
        let parent = node.place.as_ref().map(|(parent, _)| *parent);
        if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.children = parent.children.saturating_add(1);
        }
        if let Some((parent, _)) = before {
            self.leave(parent);
        }
    }

    /// A child has gone from below this node: forgets it, and then its parents, if nobody
    /// else needs it.
    fn leave(&mut self, mut id: u64) {
        while let Some(node) = self.nodes.get_mut(&id) {
            node.children = node.children.saturating_sub(1);
            match self.remove_unneeded(id) {
                Some(parent) => id = parent,
                None => return,
            }
        }
    }

    /// Removes a node that nobody needs; its parent, which has lost a child.
    fn remove_unneeded(&mut self, id: u64) -> Option<u64> {
        let node = self.nodes.get(&id)?;
        if node.lookups > 0 || node.children > 0 {
            return None;
        }
        let node = self.nodes.remove(&id)?;
        if self.ids.get(&node.key) == Some(&id) {
            self.ids.remove(&node.key);
        }
        self.open = self.open.saturating_sub(node.descriptors());
        node.place.map(|(parent, _)| parent)
    }

    /// The guest has forgotten an inode `count` times.
    pub(crate) fn forget(&mut self, id: u64, count: u64) {
        let Some(node) = self.nodes.get_mut(&id).filter(|_| id != ROOT_ID) else { return };
        node.lookups = node.lookups.saturating_sub(count);
        if let Some(parent) = self.remove_unneeded(id) {
            self.leave(parent);
        }
    }

    /// The `O_PATH` descriptor of an inode.
    pub(crate) fn path(&mut self, id: u64) -> io::Result<BorrowedFd<'_>> {
        if self.node(id)?.path.is_none() {
            let path = self.reopen(id)?;
            self.hold(id, path)?;
        }
        let node = self.node(id)?;
        node.recent = true;
        node.path.as_ref().map(AsFd::as_fd).ok_or_else(stale)
    }

    /// The name in the working directory by which an inode's own file is reached.
    pub(crate) fn path_name(&mut self, id: u64) -> io::Result<String> {
        self.path(id).map(descriptor_name)
    }

    /// Opens an inode again, from the nearest ancestor that is open downwards.
    fn reopen(&mut self, id: u64) -> io::Result<OwnedFd> {
        let mut way = vec![id];
        let mut start = self.place(id)?.0;
        while self.node(start)?.path.is_none() {
            if way.len() >= MAX_DEPTH {
                return Err(stale());
            }
            way.push(start);
            start = self.place(start)?.0;
        }
        self.walk(start, &way)
    }

    /// Goes down from an open node. Each step is the inode that it should be.
    fn walk(&mut self, start: u64, way: &[u64]) -> io::Result<OwnedFd> {
        let mut parent: Option<(u64, OwnedFd)> = None;
        let mut steps = way.iter().rev().peekable();
        while let Some(&step) = steps.next() {
            let node = self.nodes.get(&step).ok_or_else(stale)?;
            let (_, name) = node.place.as_ref().ok_or_else(stale)?;
            let path = match &parent {
                Some((_, parent)) => open_path(parent.as_fd(), name)?,
                None => {
                    let start = self.nodes.get(&start).and_then(|start| start.path.as_ref());
                    open_path(start.ok_or_else(stale)?.as_fd(), name)?
                }
            };
            let found = stat(&path)?;
            if key(&found) != node.key || birth(&found) != node.birth {
                return Err(stale());
            }
            if let Some((id, path)) = parent.take() {
                self.hold(id, path)?;
            }
            if steps.peek().is_none() {
                return Ok(path);
            }
            parent = Some((step, path));
        }
        Err(stale())
    }

    fn place(&self, id: u64) -> io::Result<&(u64, Box<CStr>)> {
        self.nodes.get(&id).and_then(|node| node.place.as_ref()).ok_or_else(stale)
    }

    /// Gives a node its descriptor.
    fn hold(&mut self, id: u64, path: OwnedFd) -> io::Result<()> {
        if self.node(id)?.path.is_some() {
            return Ok(());
        }
        self.make_room()?;
        self.opened(id)?.path = Some(path);
        Ok(())
    }

    /// A node that is about to have one descriptor more.
    fn opened(&mut self, id: u64) -> io::Result<&mut Node> {
        let node = self.nodes.get_mut(&id).ok_or(Errno::BADF)?;
        if node.descriptors() == 0 {
            self.clock.push_back(id);
        }
        self.open = self.open.saturating_add(1);
        node.recent = true;
        Ok(node)
    }

    /// Sees to it that one more descriptor may be used.
    fn make_room(&mut self) -> io::Result<()> {
        if self.clock.len() > self.open.saturating_mul(2).saturating_add(1024) {
            // Nodes that were forgotten.
            let nodes = &self.nodes;
            self.clock.retain(|id| nodes.get(id).is_some_and(|node| node.descriptors() > 0));
        }
        // The hand passes each node twice: once to see that it was used, once to close it.
        for _ in 0..self.clock.len().saturating_mul(2) {
            if self.open.saturating_add(self.handles.len()) < self.limit {
                return Ok(());
            }
            let Some(id) = self.clock.pop_front() else { break };
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let before = node.descriptors();
            if node.recent {
                node.recent = false;
            } else {
                node.data = None;
                if node.place.is_some() {
                    node.path = None;
                }
            }
            let after = node.descriptors();
            self.open = self.open.saturating_sub(before.saturating_sub(after));
            if after > 0 {
                self.clock.push_back(id);
            }
        }
        if self.open.saturating_add(self.handles.len()) < self.limit {
            return Ok(());
        }
        Err(Errno::NFILE.into())
    }

    /// The inode at a name that is about to be removed or taken by another, held open: it may
    /// live on without a name.
    pub(crate) fn hold_named(&mut self, parent: u64, name: &CStr) -> Option<u64> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let status = statx(self.path(parent).ok()?, name, flags, STAT).ok()?;
        let (id, open) = self.known(&status)?;
        if !open {
            let path = open_path(self.path(parent).ok()?, name).ok()?;
            if self.known(&stat(&path).ok()?)? != (id, false) {
                return None;
            }
            self.hold(id, path).ok()?;
        }
        Some(id)
    }

    /// A name has been removed. An inode that was last seen there has no known place now.
    pub(crate) fn removed(&mut self, id: u64, parent: u64, name: &CStr) {
        let place = self.nodes.get(&id).and_then(|node| node.place.as_ref());
        if place.is_some_and(|(at, called)| *at == parent && **called == *name) {
            self.settle(id, None);
        }
    }

    /// An inode has got a new name.
    pub(crate) fn moved(&mut self, id: u64, parent: u64, name: &CStr) {
        self.settle(id, Some((parent, name.into())));
    }

    /// A regular file, open for its data.
    pub(crate) fn data(&mut self, id: u64, writable: bool) -> io::Result<&File> {
        // The guest's kernel serves its own devices, fifos and sockets.
        if self.node(id)?.birth.kind != FileType::RegularFile {
            return Err(Errno::BADF.into());
        }
        let fits = |data: &Data| data.writable || !writable;
        if !self.node(id)?.data.as_ref().is_some_and(fits) {
            let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
            let file = self.open(id, access)?;
            if self.node(id)?.data.take().is_some() {
                self.open = self.open.saturating_sub(1);
            }
            self.make_room()?;
            self.opened(id)?.data = Some(Data { file, writable });
        }
        let node = self.node(id)?;
        node.recent = true;
        node.data.as_ref().map(|data| &data.file).ok_or_else(stale)
    }

    /// Opens the file of an inode, for which the caller answers.
    fn open(&mut self, id: u64, flags: OFlags) -> io::Result<File> {
        let name = self.path_name(id)?;
        Ok(File::from(openat(CWD, name, flags | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Opens a directory for the guest, under a number.
    pub(crate) fn open_directory(&mut self, node: u64) -> io::Result<u64> {
        if self.handles.len() >= self.limit.saturating_sub(self.limit / FOR_INODES) {
            return Err(Errno::NFILE.into());
        }
        let directory = self.open(node, OFlags::RDONLY | OFlags::DIRECTORY)?;
        self.make_room()?;
        let number = self.next;
        self.next = number.saturating_add(1);
        self.handles.insert(number, Handle { node, directory });
        Ok(number)
    }

    /// A directory that the guest has open.
    pub(crate) fn directory(&self, node: u64, number: u64) -> io::Result<&File> {
        let handle = self.handles.get(&number).filter(|handle| handle.node == node);
        handle.map(|handle| &handle.directory).ok_or_else(|| Errno::BADF.into())
    }

    pub(crate) fn close_directory(&mut self, node: u64, number: u64) -> io::Result<()> {
        self.directory(node, number)?;
        self.handles.remove(&number);
        Ok(())
    }
}
