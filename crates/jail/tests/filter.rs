//! What a process in the jail cannot do, however it is asked.

use std::os::unix::process::{ExitStatusExt, parent_id};
use std::process::Command;

const JAILED: &str = "ACCORD_TEST_JAILED";
const SIGSYS: i32 = 31;

#[test]
fn a_jailed_process_signals_only_itself() {
    const TEST: &str = "a_jailed_process_signals_only_itself";
    let kill = |pid: u32| {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::test_kill_process(pid)
    };
    match std::env::var(JAILED).as_deref() {
        Ok(whom) => {
            let parent = parent_id();
            accord_jail::allow_only(&["write"]).unwrap();
            kill(if whom == "parent" { parent } else { std::process::id() }).unwrap();
        }
        Err(_) => {
            let ends = |whom: &str| {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args(["--exact", TEST, "--test-threads", "1"]).env(JAILED, whom);
                command.output().unwrap().status
            };
            assert_eq!(ends("itself").code(), Some(0));
            assert_eq!(ends("parent").signal(), Some(SIGSYS));
        }
    }
}
