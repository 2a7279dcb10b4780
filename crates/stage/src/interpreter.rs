//! Carrying out a plan.

use core::ffi::CStr;

use accord_sys::process::{self, Fork, exit, fork, setns, unshare};
use accord_sys::security::{
    CapabilitySets, Ids, join_session_keyring, keep_capabilities, seccomp_filter, set_affinity,
    set_ids, set_io_priority, set_mempolicy, set_no_new_privs, set_personality, set_scheduler,
    set_undumpable,
};
use accord_sys::{Errno, exec as sys_exec};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::mounts::{self, At as _, Done, Fault};
use crate::plan::{Attributes, Op, Plan, Request, Slot, Source, Spread, Str, Strings};
use crate::protocol::{Call, Header, Kind, await_go, send};
use crate::target::{self, Last, Make};
use crate::{copy_up, credentials, exec, hook, terminal};

/// Exit statuses of a child that could not become its program (docs/exit-status.md).
const OWN_FAILURE: u8 = 1;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// What the child has besides its plan.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// What the slots of the plan stand for.
    pub fds: &'a [BorrowedFd<'a>],
    /// The child's end of the socket pair.
    pub sync: BorrowedFd<'a>,
}

/// Carries out `plan.ops` and never returns: it ends as the program, or with a
/// failure sent to whoever waits.
pub fn run(plan: &Plan<'_>, start: Start<'_>) -> ! {
    Stage::new(start, plan.bootstrap.len()).carry_out(plan.ops)
}

/// Carries out `plan.bootstrap` in an intermediate process, clones the real one
/// into `plan.clone` as a sibling, sends its pidfd to the parent, and ends.
pub fn bootstrap(plan: &Plan<'_>, start: Start<'_>) -> ! {
    let mut stage = Stage::new(start, 0);
    for op in plan.bootstrap {
        stage.step(op);
    }
    // The clone may be born into a pid namespace in which others could look into it.
    let _undumpable = set_undumpable().is_ok();
    let parent = u64::from(linux_raw_sys::general::CLONE_PARENT);
    #[expect(unsafe_code, reason = "the clone goes on in this crate")]
    // SAFETY: this crate has no heap and no locks; this process has one thread.
    let forked = unsafe { fork(plan.clone.0 | parent, None) };
    match forked.at(Call::Create) {
        Ok(Fork::Child) => match await_go(start.sync) {
            // The parent knows us now. What is said before that would overtake `Child`,
            // and be taken for words of the intermediate process.
            Ok(()) => run(plan, start),
            Err(_) => exit(OWN_FAILURE),
        },
        Ok(Fork::Parent { pidfd, .. }) => {
            let sent = send(start.sync, &Header::of(Kind::Child), [b"", b""], Some(pidfd.as_fd()));
            exit(u8::from(sent.is_err()))
        }
        Err(fault) => stage.fail(fault),
    }
}

struct Stage<'a> {
    start: Start<'a>,
    /// Number of the operation that is being carried out.
    index: usize,
    /// The container's root, from `BindRoot` on.
    root: Option<OwnedFd>,
    /// Where in it something was made last.
    last: Last<'a>,
    /// What masked paths are hidden behind.
    covers: mounts::Covers,
    /// A procfs of our own.
    proc: Option<OwnedFd>,
    /// The connection that `start` made: failures go there from then on.
    started: Option<OwnedFd>,
    /// The program that was found.
    program: Option<&'a CStr>,
}

impl<'a> Stage<'a> {
    fn new(start: Start<'a>, index: usize) -> Self {
        Self {
            start,
            index,
            root: None,
            last: Last::default(),
            covers: mounts::Covers::default(),
            proc: None,
            started: None,
            program: None,
        }
    }

    fn carry_out(mut self, ops: &'a [Op<'a>]) -> ! {
        process::reset_signals();
        // Nothing in the container may look into this process (CVE-2016-9962). But an
        // undumpable process is root's in /proc, and an ordinary user could not write
        // its id maps: until then it is alone in its namespaces anyway.
        let writes_maps = |op: &Op<'_>| matches!(op, Op::Ask { request: Request::IdMaps });
        if !ops.iter().any(writes_maps) {
            let _undumpable = set_undumpable().is_ok();
        }
        for op in ops {
            self.step(op);
            if writes_maps(op) {
                let _undumpable = set_undumpable().is_ok();
            }
        }
        // Every plan ends with an execution.
        self.fail(Fault::from(Errno::NOEXEC))
    }

    fn step(&mut self, op: &Op<'a>) {
        if let Err(fault) = self.dispatch(op) {
            self.fail(fault);
        }
        self.index = self.index.saturating_add(1);
    }

    /// Where failures go.
    fn listener(&self) -> BorrowedFd<'_> {
        self.started.as_ref().map_or(self.start.sync, AsFd::as_fd)
    }

    fn fail(&self, fault: Fault) -> ! {
        self.report(fault, [b"", b""]);
        exit(OWN_FAILURE)
    }

    fn report(&self, fault: Fault, text: [&[u8]; 2]) {
        let header = Header {
            call: fault.call as u8,
            detail: fault.detail,
            index: u16::try_from(self.index).unwrap_or(u16::MAX),
            split: u16::try_from(text[0].len()).unwrap_or(u16::MAX),
            errno: fault.errno,
            ..Header::of(Kind::Failed)
        };
        // If nobody listens any more, the exit status still says it.
        let _heard = send(self.listener(), &header, text, None).is_ok();
    }

    fn refuse(&self, name: &CStr, refusal: &exec::Refusal) -> ! {
        let fault = Fault { call: refusal.call, detail: 0, errno: refusal.errno };
        self.report(fault, [name.to_bytes(), refusal.interpreter()]);
        let missing = match refusal.call {
            Call::NotInPath | Call::Interpreter => true,
            _ => refusal.errno == Errno::NOENT.raw_os_error(),
        };
        exit(if missing { NOT_FOUND } else { NOT_EXECUTABLE })
    }

    fn fd(&self, slot: Slot) -> Done<BorrowedFd<'a>> {
        self.start.fds.get(usize::from(slot.0)).copied().ok_or(Fault::from(Errno::BADF))
    }

    fn root(&self) -> Done<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd).ok_or(Fault::from(Errno::BADF))
    }

    /// The root, and where something was made in it last.
    fn place(&mut self) -> Done<(BorrowedFd<'_>, &mut Last<'a>)> {
        let root = self.root.as_ref().map(AsFd::as_fd).ok_or(Fault::from(Errno::BADF))?;
        Ok((root, &mut self.last))
    }

    fn dispatch(&mut self, op: &Op<'a>) -> Done {
        let makes = matches!(
            op,
            Op::Mount { .. }
                | Op::Bind { .. }
                | Op::MakeDirectory { .. }
                | Op::MakeDevice { .. }
                | Op::Symlink { .. }
        );
        if !makes {
            // It may put something else in its place.
            self.last.forget();
        }
        match *op {
            Op::Ask { request } => self.ask(request),
            Op::Join { namespace, fd, .. } => Ok(setns(self.fd(fd)?, namespace.0)?),
            Op::JoinProcess { pidfd, namespaces } => Ok(setns(self.fd(pidfd)?, namespaces.0)?),
            Op::EnterCgroup { fd, .. } => Ok(rustix::io::write(self.fd(fd)?, b"0").map(drop)?),
            Op::Limit { resource, soft, hard, .. } => Ok(set_limit(resource, soft, hard)?),
            Op::Unshare { namespaces } => Ok(unshare(namespaces.0)?),
            Op::TimeOffsets { offsets } => write_file(CWD, c"/proc/self/timens_offsets", offsets.0),
            Op::RootIds => {
                set_ids(Ids::Gid(0))?;
                Ok(set_ids(Ids::Uid(0))?)
            }
            Op::NewSession => Ok(rustix::process::setsid().map(drop)?),
            Op::Keyring { name } => match join_session_keyring(Some(name.0)) {
                // No keyrings in this kernel, or a filter around us that knows none.
                Err(Errno::NOSYS | Errno::PERM) => Ok(()),
                other => Ok(other?),
            },
            Op::Propagation { path, spread } => Ok(mounts::spread(CWD, path.0, spread)?),
            Op::BindRoot { path, spread, idmap } => {
                let idmap = idmap.map(|slot| self.fd(slot)).transpose()?;
                self.root = Some(mounts::bind_root(path.0, spread, idmap)?);
                Ok(())
            }
            Op::OpenRoot { path } => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                self.root = Some(openat(CWD, path.0, flags, Mode::empty())?);
                Ok(())
            }
            Op::Mount { .. } => self.mount(op),
            Op::Bind { .. } => self.bind(op),
            Op::MakeDirectory { path } => {
                let (root, last) = self.place()?;
                target::open_or_make(root, path.0, Make::Directory, false, last)
                    .at(Call::Target)
                    .map(drop)
            }
            Op::MakeDevice { path, kind, major, minor, mode, uid, gid } => {
                let (root, last) = self.place()?;
                mounts::make_device(root, last, path.0, kind, (major, minor), mode, (uid, gid))
            }
            Op::Symlink { path, target } => {
                let (root, last) = self.place()?;
                mounts::symlink(root, last, path.0, target.0)
            }
            Op::Terminal { size, uid, console, ptmx } => {
                let root = self.root.as_ref().map(AsFd::as_fd);
                let master = terminal::open(root, ptmx.0, uid, size, console)?;
                let message = Header::of(Kind::Terminal);
                send(self.start.sync, &message, [b"", b""], Some(master.as_fd())).at(Call::Protocol)
            }
            Op::Mask { path } => {
                let root = self.root.as_ref().ok_or(Fault::from(Errno::BADF))?;
                mounts::mask(root.as_fd(), path.0, &mut self.covers)
            }
            Op::ReadOnlyPath { path } => mounts::read_only_path(self.root()?, path.0),
            Op::Remount { path, ref change } => {
                let mount = target::open(self.root()?, path.0, false).at(Call::Target)?;
                mounts::change(mount.as_fd(), change).at(Call::Change)
            }
            Op::ReadOnlyRoot => {
                let change = crate::Change { set: Attributes::READ_ONLY, ..Default::default() };
                mounts::change(self.root()?, &change).at(Call::Change)
            }
            Op::Hook(ref hook) => self.hook(hook),
            Op::Pivot { spread } => self.pivot(spread),
            Op::MoveRoot => {
                mounts::move_root(self.root()?)?;
                self.root = None;
                Ok(())
            }
            Op::Chroot => {
                rustix::process::fchdir(self.root()?)?;
                rustix::process::chroot(c".")?;
                self.root = None;
                Ok(rustix::process::chdir(c"/")?)
            }
            Op::PrivateProc => {
                self.proc = Some(mounts::new_filesystem(c"proc", c"proc", &[], Attributes(0xe))?);
                Ok(())
            }
            Op::Sysctl { path, value } => write_file(self.proc()?, path.0, value.0),
            Op::Label { attribute, value, .. } => write_file(self.proc()?, attribute.0, value.0),
            Op::Hostname { name } => Ok(rustix::system::sethostname(name.0.to_bytes())?),
            Op::Domainname { name } => Ok(rustix::system::setdomainname(name.0.to_bytes())?),
            Op::Personality { persona } => Ok(set_personality(persona)?),
            Op::Scheduler { ref scheduler, .. } => Ok(set_scheduler(scheduler)?),
            Op::IoPriority { value } => Ok(set_io_priority(value)?),
            Op::Affinity { mask, .. } => Ok(set_affinity(mask)?),
            Op::MemoryPolicy { mode, nodes } => Ok(set_mempolicy(mode, nodes)?),
            Op::Umask { mask } => {
                let _old = rustix::process::umask(Mode::from_raw_mode(mask));
                Ok(())
            }
            Op::BoundingSet { keep } => Ok(credentials::cut_bounding_set(keep)?),
            Op::SetGroups { groups } => Ok(set_ids(Ids::Groups(groups))?),
            Op::SetGid { gid } => Ok(set_ids(Ids::Gid(gid))?),
            Op::SetUid { uid } => {
                keep_capabilities(true)?;
                set_ids(Ids::Uid(uid))?;
                Ok(keep_capabilities(false)?)
            }
            Op::SetCapabilities { effective, permitted, inheritable, ambient } => {
                let sets = CapabilitySets {
                    effective: effective.0,
                    permitted: permitted.0,
                    inheritable: inheritable.0,
                };
                Ok(credentials::set_capabilities(sets, ambient)?)
            }
            Op::NoNewPrivileges => Ok(set_no_new_privs()?),
            Op::MakeWorkingDirectory { path } => make_directory(path.0),
            Op::WorkingDirectory { path } => enter_directory(path.0),
            Op::Resolve { name, candidates, search, foreign } => {
                match exec::resolve(candidates, search, foreign) {
                    Ok(number) => self.program = candidates.get(number).map(|path| path.0),
                    Err(refusal) => self.refuse(name.0, &refusal),
                }
                Ok(())
            }
            Op::CloseFds { first } => Ok(process::close_on_exec_from(first)?),
            Op::Ready { socket } => self.ready(socket),
            Op::Seccomp { filter, flags, privileged } => {
                let load = || seccomp_filter(filter.0, flags);
                let listener = if privileged { credentials::with_admin(load)? } else { load()? };
                let Some(listener) = listener else { return Ok(()) };
                let message = Header::of(Kind::Listener);
                send(self.start.sync, &message, [b"", b""], Some(listener.as_fd()))
                    .at(Call::Protocol)
            }
            Op::Exec { name, ref args, ref env } => {
                let path = self.program.ok_or(Fault::from(Errno::NOENT))?;
                let errno = sys_exec::execve(path, &args.0, &env.0);
                self.refuse(name.0, &exec::explain(path, errno))
            }
            Op::ExecSelf { fd, pass, ref args, ref env } => self.exec_self(fd, pass, args, env),
        }
    }

    fn exec_self(
        &self,
        binary: Slot,
        pass: &[Slot],
        args: &Strings<'_>,
        env: &Strings<'_>,
    ) -> Done {
        const MOST: usize = 7;
        let binary = rustix::io::fcntl_dupfd_cloexec(self.fd(binary)?, 64)?;
        let mut fds = [self.start.sync; MOST + 1];
        for (place, slot) in fds.iter_mut().skip(1).zip(pass) {
            *place = self.fd(*slot)?;
        }
        let count = pass.len().min(MOST).saturating_add(1);
        process::close_on_exec_from(3).at(Call::Open)?;
        #[expect(unsafe_code, reason = "descriptors of a process that becomes another program")]
        // SAFETY: what follows is the execution, or a failure over a socket that
        // is at number 3 then.
        unsafe { process::place(fds.get(..count).unwrap_or_default(), 3) }.at(Call::Open)?;
        Err(sys_exec::execve_fd(binary.as_fd(), &args.0, &env.0).into())
    }

    fn ask(&self, request: Request) -> Done {
        let message = Header { call: request as u8, ..Header::of(Kind::Ask) };
        send(self.start.sync, &message, [b"", b""], None).at(Call::Protocol)?;
        await_go(self.start.sync).at(Call::Protocol)
    }

    fn mount(&mut self, op: &Op<'a>) -> Done {
        let Op::Mount { fs, source, target, options, attributes, spread, strict, copy_up } = *op
        else {
            return Ok(());
        };
        let mount = mounts::new_filesystem(fs.0, source.0, options, attributes)?;
        let (root, last) = self.place()?;
        let place = mounts::target_for(root, last, target.0, mount.as_fd(), strict)?;
        if copy_up {
            copy_up::copy(place.as_fd(), mount.as_fd()).at(Call::Change)?;
        }
        for how in spread {
            mounts::spread(mount.as_fd(), c"", *how).at(Call::Spread)?;
        }
        mounts::attach(mount.as_fd(), place.as_fd()).at(Call::Attach)
    }

    fn bind(&mut self, op: &Op<'a>) -> Done {
        let Op::Bind {
            source,
            target,
            recursive,
            ref change,
            spread,
            idmap,
            no_follow_source,
            no_follow_target,
            optional,
            ..
        } = *op
        else {
            return Ok(());
        };
        let cloned;
        let tree = match source {
            Source::Tree(slot) => self.fd(slot)?,
            Source::Path(Str(path)) => {
                match mounts::clone_tree(CWD, path, recursive, no_follow_source) {
                    Err(Errno::NOENT) if optional => return Ok(()),
                    other => cloned = other.at(Call::Open)?,
                }
                cloned.as_fd()
            }
        };
        if let Some((userns, whole)) = idmap {
            mounts::map_ids(tree, self.fd(userns)?, whole).at(Call::Change)?;
        }
        let (root, last) = self.place()?;
        let place = mounts::target_for(root, last, target.0, tree, no_follow_target)?;
        mounts::change(tree, change).at(Call::Change)?;
        for how in spread {
            mounts::spread(tree, c"", *how).at(Call::Spread)?;
        }
        mounts::attach(tree, place.as_fd()).at(Call::Attach)
    }

    fn pivot(&mut self, after: Option<Spread>) -> Done {
        mounts::pivot(self.root()?)?;
        self.root = None;
        if let Some(spread) = after {
            mounts::spread(CWD, c"/", spread).at(Call::Spread)?;
        }
        Ok(())
    }

    fn hook(&self, hook: &crate::Hook<'_>) -> Done {
        let ran = hook::run(hook, self.fd(hook.state)?, self.fd(hook.output)?);
        if let (Err(fault), true) = (ran, self.started.is_some()) {
            // `start` has no plan to look the hook up in.
            self.report(fault, [hook.label.0.to_bytes(), b""]);
            exit(OWN_FAILURE)
        }
        ran
    }

    fn proc(&self) -> Done<BorrowedFd<'_>> {
        self.proc.as_ref().map(AsFd::as_fd).ok_or(Fault::from(Errno::BADF))
    }

    fn ready(&mut self, socket: Option<Slot>) -> Done {
        send(self.start.sync, &Header::of(Kind::Ready), [b"", b""], None).at(Call::Protocol)?;
        // A runtime that dies before that has not written down who we are.
        await_go(self.start.sync).at(Call::Protocol)?;
        let Some(socket) = socket else { return Ok(()) };
        // From here on the runtime may be gone: only `start` or a signal ends the wait.
        let socket = self.fd(socket)?;
        let connection = loop {
            match accept_with(socket, SocketFlags::CLOEXEC) {
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                other => break other.at(Call::Protocol)?,
            }
        };
        self.started = Some(connection);
        Ok(())
    }
}

fn set_limit(resource: Resource, soft: u64, hard: u64) -> accord_sys::Result<()> {
    // RLIM_INFINITY.
    let value = |value: u64| (value != u64::MAX).then_some(value);
    setrlimit(resource, Rlimit { current: value(soft), maximum: value(hard) })
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a directory by its path in the container. A magic link (`/proc/self/fd/N`)
/// could lead out (CVE-2024-21626).
fn open_directory(path: &CStr) -> accord_sys::Result<OwnedFd> {
    openat2(CWD, path, DIRECTORY, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

fn make_directory(path: &CStr) -> Done {
    match open_directory(path) {
        Err(Errno::NOENT) => {
            let slash = openat(CWD, c"/", DIRECTORY, Mode::empty())?;
            let mut last = Last::default();
            let made = target::open_or_make(slash.as_fd(), path, Make::Directory, false, &mut last);
            made.map(drop).at(Call::Create)
        }
        // The user may be allowed where root is not (a network file system), or be told.
        _ => Ok(()),
    }
}

fn enter_directory(path: &CStr) -> Done {
    rustix::process::fchdir(open_directory(path)?)?;
    match accord_sys::kernel::cwd_is_inside()? {
        true => Ok(()),
        false => Err(Errno::NOENT).at(Call::Outside),
    }
}

/// Writes a whole value with one `write(2)`, as procfs files want it.
fn write_file(dir: BorrowedFd<'_>, path: &CStr, value: &CStr) -> Done {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = openat(dir, path, flags, Mode::empty()).at(Call::Open)?;
    let bytes = value.to_bytes();
    match rustix::io::write(&file, bytes)? {
        written if written == bytes.len() => Ok(()),
        _ => Err(Fault::from(Errno::IO)),
    }
}
