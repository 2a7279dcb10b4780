//! `Foreground` on real terminals, pipes and signals.
//!
//! Each case runs in a process of its own, because `Foreground` wants one with a single
//! thread, and signals are sent to processes: this program runs itself again as that
//! process, and is a test harness otherwise.
#![expect(unsafe_code, reason = "the process that is waited for is forked by hand")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use accord_runtime::foreground::Foreground;
use accord_sys::exec::{CStrArray, execve};
use accord_sys::kernel::set_controlling_terminal;
use accord_sys::process::{Fork, dup_onto_stdio, exit, fork, kill, reset_signals};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::setsid;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

/// No case takes longer than this.
const PATIENCE: Duration = Duration::from_secs(30);
/// Set for the process that waits in the foreground: the shell script to wait for.
const SCRIPT: &str = "FOREGROUND_SCRIPT";
/// A signal that it sends itself while the process does not exist yet.
const EARLY: &str = "FOREGROUND_EARLY_SIGNAL";
/// What else it is to do: some of `terminal`, `subreaper` and `session`.
const DO: &str = "FOREGROUND_DO";

const TERM: i32 = 15;

fn main() -> ExitCode {
    if let Ok(script) = std::env::var(SCRIPT) {
        return foreground(&script);
    }
    let cases: [(&str, fn()); 19] = [
        ("the_status_is_the_process's", the_status_is_the_process_s),
        ("signals_are_forwarded", signals_are_forwarded),
        ("a_signal_before_the_process_exists", a_signal_before_the_process_exists),
        ("a_window_change_without_a_terminal", a_window_change_without_a_terminal),
        ("orphans_are_adopted_and_reaped", orphans_are_adopted_and_reaped),
        ("orphans_are_left_alone", orphans_are_left_alone),
        ("keys_and_text_go_through", keys_and_text_go_through),
        ("the_terminal_is_raw_meanwhile", the_terminal_is_raw_meanwhile),
        ("the_terminal_is_restored_after_a_signal", the_terminal_is_restored_after_a_signal),
        ("the_terminal_is_raw_again_after_a_stop", the_terminal_is_raw_again_after_a_stop),
        ("the_size_follows_the_window", the_size_follows_the_window),
        ("nothing_is_lost_to_a_slow_reader", nothing_is_lost_to_a_slow_reader),
        ("nothing_is_lost_to_a_slow_pipe", nothing_is_lost_to_a_slow_pipe),
        ("pipes_instead_of_a_terminal", pipes_instead_of_a_terminal),
        ("input_that_ends_within_a_line", input_that_ends_within_a_line),
        ("no_input_at_all", no_input_at_all),
        ("a_reader_that_goes_away_hangs_up", a_reader_that_goes_away_hangs_up),
        ("a_window_that_closes_hangs_up", a_window_that_closes_hangs_up),
        ("a_terminal_that_stays_open", a_terminal_that_stays_open),
    ];
    let trial = |(name, case): (&str, fn())| {
        Trial::test(name, move || {
            case();
            Ok::<(), Failed>(())
        })
    };
    libtest_mimic::run(&Arguments::from_args(), cases.map(trial).into()).exit_code()
}

// The process that waits.

fn foreground(script: &str) -> ExitCode {
    let todo = std::env::var(DO).unwrap_or_default();
    if todo.contains("session") {
        setsid().unwrap();
        set_controlling_terminal(rustix::stdio::stdin()).unwrap();
    }
    let foreground = Foreground::new(todo.contains("subreaper")).unwrap();
    if let Ok(signal) = std::env::var(EARLY) {
        let me = rustix::process::getpid().as_raw_nonzero().get();
        kill(me, signal.parse().unwrap()).unwrap();
    }
    let (master, slave) = todo.contains("terminal").then(terminal).unzip();
    let (pid, pidfd) = start(script, slave.as_ref().map(AsFd::as_fd));
    drop(slave);
    let outcome = foreground.wait(pid, pidfd.as_fd(), master).unwrap();
    ExitCode::from(outcome.code())
}

fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
    (master, slave)
}

fn start(script: &str, terminal: Option<BorrowedFd<'_>>) -> (i32, OwnedFd) {
    let script = std::ffi::CString::new(script).unwrap();
    let (args, mut pointers) = ([c"sh", c"-c", &*script], [std::ptr::null(); 4]);
    let args = CStrArray::new(&args, &mut pointers).unwrap();
    let (env, mut pointers) = ([c"PATH=/usr/bin:/bin"], [std::ptr::null(); 2]);
    let env = CStrArray::new(&env, &mut pointers).unwrap();
    // SAFETY: there is one thread, and the child makes system calls only.
    match unsafe { fork(0, None) }.unwrap() {
        Fork::Parent { pid, pidfd } => (pid, pidfd),
        Fork::Child => {
            reset_signals();
            let ready = setsid().is_ok()
                && terminal.is_none_or(|terminal| {
                    set_controlling_terminal(terminal).is_ok()
                        && (0..3).all(|number| dup_onto_stdio(terminal, number).is_ok())
                });
            if ready {
                execve(c"/bin/sh", &args, &env);
            }
            exit(126)
        }
    }
}

// The test's side.

/// The caller: its streams, and what it has read.
struct Caller {
    child: Child,
    started: Instant,
    /// Where keys are typed.
    keys: Option<File>,
    text: Arc<Text>,
}

#[derive(Default)]
struct Text {
    read: Mutex<(Vec<u8>, bool)>,
    changed: Condvar,
}

struct Setup {
    script: String,
    todo: &'static str,
    early: Option<i32>,
}

fn script(script: &str) -> Setup {
    Setup { script: script.to_owned(), todo: "", early: None }
}

/// The script, on a terminal of its own.
fn on_terminal(script: &str) -> Setup {
    Setup { script: script.to_owned(), todo: "terminal", early: None }
}

impl Setup {
    fn command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(SCRIPT, &self.script).env(DO, self.todo).stderr(Stdio::inherit());
        if let Some(signal) = self.early {
            command.env(EARLY, signal.to_string());
        }
        command
    }

    /// The caller has a pipe on each side.
    fn with_pipes(&self) -> Caller {
        let mut child =
            self.command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let keys = child.stdin.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        let from = File::from(OwnedFd::from(child.stdout.take().unwrap()));
        Caller::new(child, keys, from, Duration::ZERO)
    }

    /// The caller sits at a terminal, whose other end is held here.
    fn with_window(&self, master: &OwnedFd, slave: OwnedFd, slowness: Duration) -> Caller {
        let mut command = self.command();
        command.stdin(slave.try_clone().unwrap()).stdout(slave);
        // The command holds the slave as well.
        let child = command.spawn().unwrap();
        drop(command);
        let keys = File::from(master.try_clone().unwrap());
        Caller::new(child, Some(keys), File::from(master.try_clone().unwrap()), slowness)
    }
}

impl Caller {
    /// Reads in the background, `slowness` late.
    fn new(child: Child, keys: Option<File>, mut from: File, slowness: Duration) -> Self {
        let text = Arc::<Text>::default();
        let caller = Self { child, started: Instant::now(), keys, text: Arc::clone(&text) };
        thread::spawn(move || {
            let mut buffer = [0; 1000];
            loop {
                thread::sleep(slowness);
                let length = match from.read(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    // A terminal that nobody holds any more says EIO.
                    Ok(0) | Err(_) => break,
                    Ok(length) => length,
                };
                text.read.lock().unwrap().0.extend(&buffer[..length]);
                text.changed.notify_all();
            }
            text.read.lock().unwrap().1 = true;
            text.changed.notify_all();
        });
        caller
    }

    /// Waits until this has been read.
    fn sees(&self, expected: &str) {
        let seen = |text: &(Vec<u8>, bool)| {
            text.0.windows(expected.len()).any(|window| window == expected.as_bytes())
        };
        let (text, _) = self
            .text
            .changed
            .wait_timeout_while(self.text.read.lock().unwrap(), PATIENCE, |text| {
                !seen(text) && !text.1
            })
            .unwrap();
        assert!(seen(&text), "{expected:?} is not in {:?}", String::from_utf8_lossy(&text.0));
    }

    fn types(&mut self, keys: &str) {
        self.keys.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    fn signal(&self, signal: i32) {
        kill(i32::try_from(self.child.id()).unwrap(), signal).unwrap();
    }

    /// How the process in the foreground has ended.
    fn ends(&mut self) -> ExitStatus {
        while self.started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let text = self.text.read.lock().unwrap().0.clone();
        panic!("it hangs, having said {:?}", String::from_utf8_lossy(&text));
    }

    fn ends_with(&mut self, code: i32) {
        let status = self.ends();
        assert_eq!((status.code(), status.signal()), (Some(code), None));
    }

    /// All that has been read, up to the end.
    fn text(&self) -> String {
        let (text, wait) = self
            .text
            .changed
            .wait_timeout_while(self.text.read.lock().unwrap(), PATIENCE, |text| !text.1)
            .unwrap();
        assert!(!wait.timed_out(), "the output does not end");
        String::from_utf8(text.0.clone()).unwrap()
    }
}

fn window() -> (OwnedFd, OwnedFd) {
    terminal()
}

fn resize(terminal: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}

/// Says `ready` once `actions` are set, then sleeps in short steps, so that traps run.
fn trapping(actions: &str) -> String {
    format!("{actions}; echo ready; while :; do sleep 0.02; done")
}

// Without a terminal.

fn the_status_is_the_process_s() {
    for (text, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -SEGV $$", 139)]
    {
        let mut caller = script(text).with_pipes();
        caller.ends_with(code);
    }
    let mut caller = script("head -c 1000000 /dev/zero | tr '\\0' x; exit 7").with_pipes();
    caller.ends_with(7);
    assert_eq!(caller.text().len(), 1_000_000);
}

fn signals_are_forwarded() {
    // HUP INT QUIT USR1 USR2 ALRM TERM URG IO and two real-time ones.
    for signal in [1, 2, 3, 10, 12, 14, TERM, 23, 29, 37, 64] {
        let mut caller = script(&trapping(&format!("trap 'exit 33' {signal}"))).with_pipes();
        caller.sees("ready");
        caller.signal(signal);
        caller.ends_with(33);
    }
    // Without a trap it dies of it, and we do not.
    let mut caller = script("echo ready; exec sleep 60").with_pipes();
    caller.sees("ready");
    caller.signal(TERM);
    caller.ends_with(128 + TERM);
    // One that cannot be forwarded is the caller's own affair; the process stays.
    let mut caller = script("echo ready; exec sleep 1").with_pipes();
    caller.sees("ready");
    caller.signal(9);
    assert_eq!(caller.ends().signal(), Some(9));
}

fn a_signal_before_the_process_exists() {
    let setup = Setup { early: Some(TERM), ..script("exec sleep 60") };
    setup.with_pipes().ends_with(128 + TERM);
}

fn a_window_change_without_a_terminal() {
    let mut caller = script(&trapping("trap 'exit 33' WINCH")).with_pipes();
    caller.sees("ready");
    caller.signal(28);
    caller.ends_with(33);
}

/// Leaves a process behind, says who its parent is, and whether it is gone after its end.
const ORPHAN: &str = "orphan=$(sh -c 'sleep 1 >/dev/null & echo $!')
    sleep 0.2
    parent=$(sed -n 's/^PPid:.//p' /proc/$orphan/status)
    [ $parent = $PPID ] && echo adopted || echo elsewhere
    sleep 1.2
    [ -e /proc/$orphan ] && echo zombie || echo gone";

fn orphans_are_adopted_and_reaped() {
    let mut caller = Setup { todo: "subreaper", ..script(ORPHAN) }.with_pipes();
    caller.ends_with(0);
    assert_eq!(caller.text(), "adopted\ngone\n");
}

fn orphans_are_left_alone() {
    let mut caller = script(ORPHAN).with_pipes();
    caller.ends_with(0);
    // Whether it is gone depends on who adopts it.
    assert!(caller.text().starts_with("elsewhere\n"));
}

// With a terminal.

fn keys_and_text_go_through() {
    let (master, slave) = window();
    let mut caller = on_terminal("echo ready; read line; echo got:$line; exit 5").with_window(
        &master,
        slave,
        Duration::ZERO,
    );
    // The whole line: the terminal may echo in the middle of it.
    caller.sees("ready\r\n");
    caller.types("hello\r");
    caller.sees("got:hello\r\n");
    caller.ends_with(5);
    // The echo is the container's terminal's, and there is one.
    drop(master);
    assert_eq!(caller.text(), "ready\r\nhello\r\ngot:hello\r\n");
}

fn the_terminal_is_raw_meanwhile() {
    let (master, slave) = window();
    let before = tcgetattr(&slave).unwrap();
    let watched = slave.try_clone().unwrap();
    let mut caller =
        on_terminal(&trapping("trap 'exit 4' INT")).with_window(&master, slave, Duration::ZERO);
    caller.sees("ready");
    let during = tcgetattr(&watched).unwrap();
    let cooked = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
    assert!(!during.local_modes.intersects(cooked));
    // ^C is a key here, and becomes a signal in the container's terminal.
    caller.types("\x03");
    caller.ends_with(4);
    let after = tcgetattr(&watched).unwrap();
    assert_eq!(format!("{after:?}"), format!("{before:?}"));
}

fn the_terminal_is_restored_after_a_signal() {
    let (master, slave) = window();
    let before = tcgetattr(&slave).unwrap();
    let watched = slave.try_clone().unwrap();
    let mut caller =
        on_terminal("echo ready; exec sleep 60").with_window(&master, slave, Duration::ZERO);
    caller.sees("ready");
    caller.signal(TERM);
    caller.ends_with(128 + TERM);
    let after = tcgetattr(&watched).unwrap();
    assert_eq!(format!("{after:?}"), format!("{before:?}"));
}

fn the_terminal_is_raw_again_after_a_stop() {
    let (master, slave) = window();
    let before = tcgetattr(&slave).unwrap();
    let watched = slave.try_clone().unwrap();
    let mut caller = on_terminal(&trapping("trap 'echo continued' CONT; trap 'exit 4' INT"))
        .with_window(&master, slave, Duration::ZERO);
    caller.sees("ready");
    caller.signal(19);
    // What a shell does when its job has stopped.
    tcsetattr(&watched, OptionalActions::Now, &before).unwrap();
    caller.signal(18);
    caller.sees("continued");
    assert!(!tcgetattr(&watched).unwrap().local_modes.contains(LocalModes::ICANON));
    caller.types("\x03");
    caller.ends_with(4);
}

fn the_size_follows_the_window() {
    let (master, slave) = window();
    resize(&master, 33, 101);
    // The first size is set when the waiting starts.
    let text = trapping(
        "until [ \"$(stty size)\" != '0 0' ]; do :; done; stty size
        trap 'stty size; exit 3' WINCH",
    );
    let setup = Setup { todo: "terminal session", ..on_terminal(&text) };
    let mut caller = setup.with_window(&master, slave, Duration::ZERO);
    caller.sees("33 101\r\nready");
    resize(&master, 44, 122);
    caller.sees("44 122");
    caller.ends_with(3);
}

const MILLION: &str = "head -c 1000000 /dev/zero | tr '\\0' x; exit 7";

fn nothing_is_lost_to_a_slow_reader() {
    let (master, slave) = window();
    let mut caller = on_terminal(MILLION).with_window(&master, slave, Duration::from_millis(1));
    caller.ends_with(7);
    drop(master);
    assert_eq!(caller.text().len(), 1_000_000);
}

fn nothing_is_lost_to_a_slow_pipe() {
    // The process has ended long before the first byte is read.
    for length in [1, 3000, 100_000] {
        let text = format!("head -c {length} /dev/zero | tr '\\0' x; exit 7");
        let mut child = on_terminal(&text)
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(500));
        let from = File::from(OwnedFd::from(child.stdout.take().unwrap()));
        let mut caller = Caller::new(child, None, from, Duration::ZERO);
        caller.ends_with(7);
        assert_eq!(caller.text().len(), length);
    }
}

fn pipes_instead_of_a_terminal() {
    let mut caller = on_terminal("stty -echo; echo ready; cat; exit 6").with_pipes();
    caller.sees("ready");
    caller.types("hello\n");
    caller.keys = None;
    caller.ends_with(6);
    assert_eq!(caller.text(), "ready\r\nhello\r\n");
}

fn input_that_ends_within_a_line() {
    let mut caller = on_terminal("stty -echo; echo ready; cat; exit 6").with_pipes();
    caller.sees("ready");
    caller.types("hello");
    caller.keys = None;
    caller.ends_with(6);
    assert_eq!(caller.text(), "ready\r\nhello");
}

fn no_input_at_all() {
    let mut child = on_terminal("cat; echo end; exit 6").command();
    let output = child.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "end\r\n");
}

fn a_reader_that_goes_away_hangs_up() {
    let mut child =
        on_terminal("yes").command().stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut from = child.stdout.take().unwrap();
    from.read_exact(&mut [0; 10]).unwrap();
    drop(from);
    let keys = None;
    let nothing = File::open("/dev/null").unwrap();
    // The shell is the leader of the terminal's session.
    Caller::new(child, keys, nothing, Duration::ZERO).ends_with(128 + 1);
}

fn a_window_that_closes_hangs_up() {
    let (master, slave) = window();
    let text = trapping("trap 'exit 9' HUP");
    let setup = Setup { todo: "terminal session", ..on_terminal(&text) };
    let mut command = setup.command();
    let child = command.stdin(slave.try_clone().unwrap()).stdout(slave).spawn().unwrap();
    drop(command);
    let mut window = File::from(master);
    let mut text = Vec::<u8>::new();
    while !text.windows(5).any(|word| word == b"ready") {
        let mut buffer = [0; 100];
        let length = window.read(&mut buffer).unwrap();
        text.extend(&buffer[..length]);
    }
    drop(window);
    let nothing = File::open("/dev/null").unwrap();
    Caller::new(child, None, nothing, Duration::ZERO).ends_with(9);
}

fn a_terminal_that_stays_open() {
    // A silent process keeps the terminal, ...
    let mut caller =
        on_terminal("trap '' HUP; sleep 20 2>/dev/null & echo end; exit 3").with_pipes();
    caller.ends_with(3);
    caller.sees("end");
    assert!(caller.started.elapsed() < Duration::from_secs(10));
    // ... or a loud one: both are left behind.
    let mut caller = on_terminal("trap '' HUP; yes & sleep 0.2; exit 3").with_pipes();
    caller.ends_with(3);
}
