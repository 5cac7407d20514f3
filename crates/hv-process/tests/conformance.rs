//! The conformance suite in child processes: as whoever runs it, as nobody, and in a
//! user namespace; and what is said where it is forbidden.
#![allow(unsafe_code, reason = "a test forbids a process a system call before it starts")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use cellule_hv::conformance;
use cellule_hv_process::Process;

#[test]
fn process_conforms() {
    let process = Process::open().unwrap();
    println!("backends: process");
    let outcomes = conformance::suite(&process);
    for outcome in &outcomes {
        let result = outcome.failure.as_deref().unwrap_or("ok");
        println!("process  {:60} {result}", outcome.name);
    }
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.failure.is_some()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// This program, where everybody may execute it.
struct Copied(PathBuf);

impl Copied {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir();
        let path = directory.join(format!("cellule-{name}-{}", std::process::id()));
        std::fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        Self(path)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn suite_arguments(command: &mut Command) -> &mut Command {
    command.args(["process_conforms", "--exact", "--nocapture"]).current_dir("/")
}

/// Prints what kept the other user's run from starting, if something did.
fn passed(what: &str, run: io::Result<Output>) {
    let output = match run {
        Ok(output) => output,
        Err(error) => return println!("not {what}: {error}"),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{what}: {text}");
    let cases = text.lines().filter(|line| line.starts_with("process ")).count();
    println!("{what}: {cases} cases");
    assert!(cases > 40, "{what}: {text}");
}

/// Only root can become nobody; who is not root has shown it already.
#[test]
fn process_conforms_for_a_user_without_privileges() {
    let program = Copied::new("nobody");
    let mut command = Command::new(&program.0);
    passed("as nobody", suite_arguments(&mut command).uid(65534).gid(65534).output());
}

#[test]
fn process_conforms_in_a_user_namespace() {
    let program = Copied::new("namespace");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--"]).arg(&program.0);
    passed("in a user namespace", suite_arguments(&mut command).output());
}

/// Not a test of its own: others run it where something is forbidden.
#[test]
#[ignore = "it is run where something is forbidden"]
fn says_why_not() {
    println!("said: {}", Process::open().unwrap_err());
}

/// What is said where a system call is refused.
fn said_without(call: libc::c_long) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["says_why_not", "--exact", "--ignored", "--nocapture"]);
    // SAFETY: the function makes system calls only, on a copy of data of its own.
    let output = unsafe { command.pre_exec(move || forbid(call)) }.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let said: Vec<_> = text.lines().filter_map(|line| line.split_once("said: ")).collect();
    assert_eq!(said.len(), 1, "one line should be said: {text}");
    said[0].1.to_owned()
}

/// Has this process and what it becomes refused a system call, as containers do it.
fn forbid(call: libc::c_long) -> io::Result<()> {
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let number = u32::try_from(call).map_err(io::Error::other)?;
    let mut filter = [
        instruction(0x20, 0, 0, 0),
        instruction(0x15, 0, 1, number),
        instruction(0x06, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
        instruction(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: no memory is touched.
    let prepared = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: a program of four instructions, all of which are live locals.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    if prepared == 0 && set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[test]
fn where_something_is_forbidden_one_sentence_says_what() {
    let table = [
        (libc::SYS_ptrace, "trace its children", "--cap-add=SYS_PTRACE"),
        (libc::SYS_seccomp, "forbid itself system calls", "CONFIG_SECCOMP_FILTER"),
        (libc::SYS_munmap, "unmap what the kernel maps", "CONFIG_MSEAL_SYSTEM_MAPPINGS"),
        (libc::SYS_close_range, "close all files", "Linux 5.9"),
    ];
    for (call, what, remedy) in table {
        let said = said_without(call);
        println!("{said}");
        assert!(said.contains(what) && said.contains(remedy), "{said}");
    }
}
