//! Signals by name and number, as `kill` takes them.

use linux_raw_sys::general as linux;

use crate::usage::Parsed;

/// The highest signal of Linux.
const MAX: u8 = 64;
/// The first real-time signal that the C library leaves to programs.
const RTMIN: u8 = 34;

const NAMES: &[(&str, u32)] = &[
    ("HUP", linux::SIGHUP),
    ("INT", linux::SIGINT),
    ("QUIT", linux::SIGQUIT),
    ("ILL", linux::SIGILL),
    ("TRAP", linux::SIGTRAP),
    ("ABRT", linux::SIGABRT),
    ("IOT", linux::SIGIOT),
    ("BUS", linux::SIGBUS),
    ("FPE", linux::SIGFPE),
    ("KILL", linux::SIGKILL),
    ("USR1", linux::SIGUSR1),
    ("SEGV", linux::SIGSEGV),
    ("USR2", linux::SIGUSR2),
    ("PIPE", linux::SIGPIPE),
    ("ALRM", linux::SIGALRM),
    ("TERM", linux::SIGTERM),
    ("STKFLT", linux::SIGSTKFLT),
    ("CHLD", linux::SIGCHLD),
    ("CLD", linux::SIGCHLD),
    ("CONT", linux::SIGCONT),
    ("STOP", linux::SIGSTOP),
    ("TSTP", linux::SIGTSTP),
    ("TTIN", linux::SIGTTIN),
    ("TTOU", linux::SIGTTOU),
    ("URG", linux::SIGURG),
    ("XCPU", linux::SIGXCPU),
    ("XFSZ", linux::SIGXFSZ),
    ("VTALRM", linux::SIGVTALRM),
    ("PROF", linux::SIGPROF),
    ("WINCH", linux::SIGWINCH),
    ("IO", linux::SIGIO),
    ("POLL", linux::SIGIO),
    ("PWR", linux::SIGPWR),
    ("SYS", linux::SIGSYS),
];

/// `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+1`, `RTMAX-1`; 0 only asks whether there is a process.
pub(crate) fn parse(text: &str) -> Parsed<u8> {
    const UNKNOWN: &str = "unknown signal";
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| *number <= MAX).ok_or(UNKNOWN);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return u8::try_from(*number).map_err(|_| UNKNOWN);
    }
    realtime(name).ok_or(UNKNOWN)
}

fn realtime(name: &str) -> Option<u8> {
    let (name, offset) = match name.find(['+', '-']) {
        Some(at) => name.split_at(at),
        None => (name, "+0"),
    };
    let (sign, digits) = offset.split_at(1);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let offset: u8 = digits.parse().ok()?;
    let number = match (name, sign) {
        ("RTMIN", "+") => RTMIN.checked_add(offset)?,
        ("RTMAX", "-") => MAX.checked_sub(offset)?,
        ("RTMAX", "+") if offset == 0 => MAX,
        _ => return None,
    };
    (RTMIN..=MAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_and_numbers() {
        let known = [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("KILL", 9),
            ("9", 9),
            ("0", 0),
            ("64", 64),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+1", 35),
            ("rtmin+30", 64),
            ("RTMAX", 64),
            ("SIGRTMAX-14", 50),
            ("IOT", 6),
            ("POLL", 29),
        ];
        for (text, number) in known {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        let unknown = [
            "",
            "65",
            "256",
            "-1",
            "+9",
            "SIG",
            "FOO",
            "SIGSIGTERM",
            "RTMIN-1",
            "RTMIN+31",
            "RTMAX-31",
            "RTMAX+1",
            "RTMIN+",
            "RTMIN+-1",
            " 9",
            "9 ",
        ];
        for text in unknown {
            assert_eq!(parse(text), Err("unknown signal"), "{text:?}");
        }
    }
}
