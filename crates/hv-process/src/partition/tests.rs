//! What stands between a guest and the host, seen from the host; and what a call costs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cellule_hv::conformance::{DATA, LATE, STACK, SUPERVISOR, TEXT};
use cellule_hv::space::PAGE_BYTES;
use cellule_hv::{AddressSpace, Backing, Fault, Mapping, Plan, Protection, Start};
use cellule_mem::Sealed;

use super::*;
use crate::trace::Pid;

/// out 1, al; jmp to the start.
const RING: [u8; 4] = [0xe6, 1, 0xeb, 0xfc];
/// inc rax; jmp to the start, until the first byte of data is set; out 1, al.
const SPIN: [u8; 14] = [0x48, 0xff, 0xc0, 0x80, 0x3c, 0x25, 0, 0x20, 0x40, 0, 0, 0x74, 0xf3, 0x90];
/// mov eax, 39 (getpid); syscall; out 1, al.
const GETPID: [u8; 9] = [0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xe6, 1];

fn space() -> AddressSpace {
    let mapping = |name, gva, protection, backing| Mapping {
        name,
        gva: Gva(gva),
        len: PAGE_BYTES,
        protection,
        backing,
    };
    let mappings = vec![
        mapping("text", TEXT, Protection::ReadExecute, Backing::Shared(0)),
        mapping("rodata", TEXT + PAGE_BYTES, Protection::Read, Backing::Shared(0)),
        mapping("data", DATA, Protection::ReadWrite, Backing::Private(0)),
        mapping("stack", STACK, Protection::ReadWrite, Backing::Private(PAGE_BYTES)),
        mapping("late", LATE, Protection::ReadWrite, Backing::Private(2 * PAGE_BYTES)),
    ];
    AddressSpace::new(mappings, Gva(SUPERVISOR)).unwrap()
}

fn template(code: &[u8]) -> ProcessTemplate {
    let plan = Plan {
        space: Arc::new(space()),
        shared: Arc::new(Sealed::new(code).unwrap()),
        early_len: 2 * PAGE_BYTES,
        start: Start { entry: Gva(TEXT), stack: Gva(STACK + PAGE_BYTES), argument: Gva(0) },
    };
    ProcessTemplate::new(plan, crate::dirty::promised()).unwrap()
}

fn guest(code: &[u8]) -> ProcessPartition {
    ProcessPartition::new(&template(code)).unwrap()
}

fn ring(partition: &mut ProcessPartition) -> Exit {
    let mut exits = std::iter::repeat_with(|| partition.run().unwrap());
    exits.find(|exit| *exit != Exit::Kicked).unwrap()
}

fn proc(child: Pid, name: &str) -> String {
    fs::read_to_string(format!("/proc/{}/{name}", child.0)).unwrap()
}

/// A page as `/proc/PID/maps` tells it: address, protection, offset in its file.
fn pages_of(maps: &str) -> Vec<(u64, String, u64)> {
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let lines = maps.lines().filter(|line| !line.ends_with("[vsyscall]"));
    let of = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (start, end) = words[0].split_once('-').unwrap();
        let (start, end, offset) = (number(start), number(end), number(words[2]));
        let protection = words[1].to_owned();
        let pages = (0..(end - start) / PAGE_BYTES).map(|page| page * PAGE_BYTES);
        pages.map(move |at| (start + at, protection.clone(), offset + at)).collect::<Vec<_>>()
    };
    lines.flat_map(of).collect()
}

#[test]
fn a_child_has_the_memory_of_its_address_space_and_nothing_else() {
    println!("backends: process");
    let mut partition = guest(&RING);
    let expected: Vec<_> = (space().mappings().iter())
        .map(|mapping| {
            let (offset, sharing) = match mapping.backing {
                Backing::Shared(offset) => (offset, "p"),
                Backing::Private(offset) => (offset, "s"),
            };
            (mapping.gva.0, format!("{}{sharing}", mapping.protection), offset)
        })
        .collect();
    assert_eq!(pages_of(&proc(partition.child.pid(), "maps")), expected);
    assert_eq!(ring(&mut partition), Exit::Doorbell(0));
    partition.extend().unwrap();
    assert_eq!(ring(&mut partition), Exit::Doorbell(0));
    assert_eq!(pages_of(&proc(partition.child.pid(), "maps")), expected);
}

#[test]
fn a_child_has_no_file_no_environment_no_privilege_and_a_filter() {
    let partition = guest(&RING);
    let child = partition.child.pid();
    let files = fs::read_dir(format!("/proc/{}/fd", child.0)).unwrap().count();
    assert_eq!(files, 0);
    let environment = fs::read(format!("/proc/{}/environ", child.0));
    assert!(environment.map_or(true, |bytes| bytes.is_empty()), "it should have none");
    let status = proc(child, "status");
    let value = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().to_owned()
    };
    assert_eq!(value("Seccomp:"), "2");
    assert_eq!(value("NoNewPrivs:"), "1");
    let tracer = format!("/proc/self/task/{}", value("TracerPid:"));
    assert!(fs::metadata(tracer).is_ok(), "this process should trace it");
    assert_eq!(value("Threads:"), "1");
    let limits = proc(child, "limits");
    let core = limits.lines().find(|line| line.starts_with("Max core")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "it should leave no core dump");
}

/// The second wall: here the first is left out.
#[test]
fn a_child_that_is_let_into_a_system_call_is_killed() {
    let munmap_of_the_stub = {
        // mov eax, 11; mov rdi, BASE; mov esi, 0x2000; syscall
        let base = crate::stub::BASE.to_le_bytes();
        [&[0xb8, 11, 0, 0, 0, 0x48, 0xbf], &base[..], &[0xbe, 0, 0x20, 0, 0, 0x0f, 0x05]].concat()
    };
    // mov eax, 20 (the other getpid); int 0x80
    let int_80 = [0xb8, 20, 0, 0, 0, 0xcd, 0x80];
    // mov ebp, DATA; mov eax, 20; sysenter
    let sysenter = [0xbd, 0, 0x20, 0x40, 0, 0xb8, 20, 0, 0, 0, 0x0f, 0x34];
    for code in [&GETPID[..], &munmap_of_the_stub, &int_80, &sysenter] {
        let partition = guest(code);
        let child = partition.child.pid();
        child.set_registers(partition.child.registers()).unwrap();
        child.resume_stub().unwrap();
        let died = partition.child.wait_for_end();
        assert_eq!(died, libc::SIGSYS, "{code:x?}");
    }
}

#[test]
fn a_system_call_is_an_exception() {
    let mut partition = guest(&GETPID);
    let rip = Gva(TEXT + 5);
    let rsp = Gva(STACK + PAGE_BYTES);
    let undefined = Fault { vector: 6, error_code: 0, address: None, rip, rsp };
    assert_eq!(ring(&mut partition), Exit::Fault(undefined));
}

/// Stops, continuations, terminations, and those that look like an exception.
#[test]
fn a_signal_of_somebody_else_s_does_not_reach_a_guest() {
    const SIGNALS: [i32; 12] = [
        libc::SIGSTOP,
        libc::SIGCONT,
        libc::SIGTSTP,
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGWINCH,
        libc::SIGSEGV,
        libc::SIGTRAP,
        libc::SIGBUS,
        libc::SIGSYS,
        50,
    ];
    let code = [&SPIN[..13], &[0xe6, 1]].concat();
    let mut partition = guest(&code);
    let child = partition.child.pid();
    let kicker = partition.kicker();
    for signal in SIGNALS {
        // One before it runs, and one while it may.
        child.kill(signal);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                child.kill(signal);
                kicker.kick();
            });
            assert_eq!(partition.run().unwrap(), Exit::Kicked, "signal {signal}");
        });
        partition.clear_kick();
    }
    partition.memory().copy_in(Gva(DATA), &[1]).unwrap();
    assert!(matches!(ring(&mut partition), Exit::Doorbell(_)));
}

#[test]
fn a_guest_whose_process_is_killed_is_an_error_and_no_wait() {
    let mut stopped = guest(&RING);
    stopped.child.pid().kill(libc::SIGKILL);
    let error = stopped.run().unwrap_err();
    assert!(error.to_string().contains("it was killed"), "{error}");
    assert!(stopped.run().is_err());
    let mut running = guest(&SPIN);
    let child = running.child.pid();
    let error = std::thread::scope(|scope| {
        scope.spawn(move || child.kill(libc::SIGKILL));
        running.run().unwrap_err()
    });
    assert!(error.to_string().contains("SIGKILL"), "{error}");
    drop(running);
    let mut elsewhere = guest(&RING);
    elsewhere.child.pid().kill(libc::SIGKILL);
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(elsewhere.run().is_err()));
    });
}

/// A descriptor of a process that can be waited for by whoever has it.
fn end_of(child: Pid) -> libc::pollfd {
    // SAFETY: no memory is touched.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.0, 0) };
    libc::pollfd { fd: i32::try_from(fd).unwrap(), events: libc::POLLIN, revents: 0 }
}

/// Not a test of its own: it is run by the next, and killed.
#[test]
#[ignore = "it is the host that another test kills"]
fn host_that_is_killed() {
    let stopped = guest(&RING);
    let mut running = guest(&SPIN);
    println!("child {}", stopped.child.pid().0);
    println!("child {}", running.child.pid().0);
    println!("child end");
    let _ = running.run();
}

#[test]
fn a_child_dies_with_its_host_however_that_ends() {
    const NAME: &str = "partition::tests::host_that_is_killed";
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(host.stdout.take().unwrap()).lines().map(Result::unwrap);
    // The first may follow the test's name on its line.
    let words =
        lines.filter_map(|line| line.rsplit_once("child ").map(|(_, word)| word.to_owned()));
    let children: Vec<_> = words.take_while(|word| word != "end").collect();
    assert_eq!(children.len(), 2);
    let mut ends: Vec<_> =
        children.iter().map(|child| end_of(Pid(child.parse().unwrap()))).collect();
    assert!(ends.iter().all(|end| end.fd >= 0), "they should be there");
    host.kill().unwrap();
    host.wait().unwrap();
    for end in &mut ends {
        // SAFETY: one structure, which is a live local's.
        let ended = unsafe { libc::poll(end, 1, 10_000) };
        assert_eq!(ended, 1, "it should have ended");
    }
}

#[test]
fn no_zombie_is_left_of_a_partition() {
    let child = guest(&RING).child.pid();
    assert!(fs::metadata(format!("/proc/{}", child.0)).is_err());
}

#[test]
fn late_memory_that_the_host_touches_is_refused_until_it_is_there() {
    let mut partition = guest(&RING);
    let memory = partition.memory();
    assert!(memory.copy_in(Gva(LATE), &[1]).is_err());
    assert!(memory.load_u32(Gva(LATE)).is_err());
    assert!(!memory.set_private_page(2, &[0; 4096]));
    partition.extend().unwrap();
    partition.memory().copy_in(Gva(LATE), &[1]).unwrap();
}

#[test]
fn a_large_heap_costs_nothing_until_it_is_touched() {
    const HEAP: u64 = 256 << 20;
    let mut mappings = space().mappings().to_vec();
    let (name, protection) = ("heap", Protection::ReadWrite);
    let backing = Backing::Private(3 * PAGE_BYTES);
    mappings.push(Mapping { name, gva: Gva(1 << 32), len: HEAP, protection, backing });
    let plan = Plan {
        space: Arc::new(AddressSpace::new(mappings, Gva(SUPERVISOR)).unwrap()),
        shared: Arc::new(Sealed::new(&RING).unwrap()),
        early_len: HEAP + 3 * PAGE_BYTES,
        start: Start { entry: Gva(TEXT), stack: Gva(STACK + PAGE_BYTES), argument: Gva(0) },
    };
    let template = ProcessTemplate::new(plan, crate::dirty::promised()).unwrap();
    let mut partition = ProcessPartition::new(&template).unwrap();
    assert_eq!(ring(&mut partition), Exit::Doorbell(0));
    let file = partition.private.file().unwrap().try_clone_to_owned().unwrap();
    assert_eq!(fs::File::from(file).metadata().unwrap().blocks(), 0);
    partition.memory().copy_in(Gva((1 << 32) + HEAP / 2), &[1]).unwrap();
    let mut pages = PageSet::default();
    partition.track().unwrap();
    partition.memory().copy_in(Gva((1 << 32) + HEAP / 2), &[2]).unwrap();
    partition.dirty(&mut pages).unwrap();
    assert_eq!(pages.count(), 1, "one page of it should be there");
}

#[test]
fn a_child_that_was_let_go_of_has_not_moved() {
    for _ in 0..50 {
        let (mut partition, before) = std::thread::spawn(|| {
            let mut partition = guest(&SPIN);
            let kicker = partition.kicker();
            std::thread::scope(|scope| {
                scope.spawn(move || kicker.nudge());
                assert_eq!(partition.run().unwrap(), Exit::Kicked);
            });
            let registers = partition.child.pid().registers().unwrap();
            (partition, registers)
        })
        .join()
        .unwrap();
        partition.child.hold().unwrap();
        let after = partition.child.pid().registers().unwrap();
        assert_eq!((after.rip, after.rax), (before.rip, before.rax));
    }
}

#[test]
fn a_child_that_computes_for_long_may_run_anywhere_and_one_that_rings_here() {
    let mut partition = guest(&RING);
    assert_eq!(ring(&mut partition), Exit::Doorbell(0));
    assert_eq!(partition.child.processors(), 1);
    let mut spinning = guest(&SPIN);
    let mut run_for = |time| {
        let _alarm = cellule_kick::Alarm::at(Instant::now() + time).unwrap();
        assert_eq!(spinning.run().unwrap(), Exit::Kicked);
        spinning.child.processors()
    };
    // On a busy machine it may take some time until it has had two ticks of its own.
    let own = crate::affinity::own_processors();
    assert!((0..50).any(|_| run_for(Duration::from_millis(50)) == own), "it should be let go");
}

/// Prints; what is asserted is only that the figures are of something.
#[test]
fn what_a_call_costs_beside_its_floor() {
    const ROUNDS: usize = 4000;
    // Both on one processor. Were this thread moved, the child would be on another until
    // the next call, and the floor would be no floor.
    let affinity = crate::affinity::stay_here();
    let mut partition = guest(&RING);
    assert_eq!(ring(&mut partition), Exit::Doorbell(0));
    let (mut floor, mut call) = (Vec::new(), Vec::new());
    let before = partition.counters();
    for _ in 0..ROUNDS {
        // It stands at the `out`, which faults again.
        let child = partition.child.pid();
        floor.push(timed(|| {
            child.resume_guest().unwrap();
            child.wait_through().unwrap();
        }));
        call.push(timed(|| {
            assert_eq!(partition.run().unwrap(), Exit::Doorbell(0));
        }));
    }
    let after = partition.counters();
    println!(
        "a call: {:.2} system calls, {:.2} exits",
        (after.hypercalls - before.hypercalls) as f64 / ROUNDS as f64,
        (after.exits - before.exits) as f64 / ROUNDS as f64,
    );
    let (floor, call) = (show("floor", floor), show("call", call));
    println!("ratio of the medians: {:.2}", call.as_secs_f64() / floor.as_secs_f64());
    crate::affinity::go_back(&affinity);
    let free = |_| timed(|| assert_eq!(ring(&mut partition), Exit::Doorbell(0)));
    show("call on a thread that the system may move", (0..ROUNDS).map(free).collect());
    let template = template(&RING);
    let create = |_| {
        timed(|| {
            let mut partition = ProcessPartition::new(&template).unwrap();
            assert_eq!(ring(&mut partition), Exit::Doorbell(0));
        })
    };
    show("create, ring, drop", (0..300).map(create).collect());
    show("open", (0..50).map(|_| timed(|| assert!(crate::Process::open().is_ok()))).collect());
    show("kick of a guest that runs", kicked(300));
    for (what, turn) in [("guests", turn as fn() -> u64), ("threads", native_turn)] {
        let (alone, both) = (at_once(1, turn), at_once(2, turn));
        let ratio = both as f64 / alone as f64;
        println!("two {what} that compute at once do {ratio:.2} times what one does");
    }
    let elsewhere = |_| {
        std::thread::scope(|scope| {
            let call = || timed(|| assert_eq!(ring(&mut partition), Exit::Doorbell(0)));
            scope.spawn(call).join().unwrap()
        })
    };
    show("first call on a thread that ends after it", (0..300).map(elsewhere).collect());
    let (first, second) = two_threads(300);
    show("call on a thread that takes it from another", first);
    show("next call there", second);
    assert!(floor > Duration::ZERO);
}

fn timed(act: impl FnOnce()) -> Duration {
    let before = Instant::now();
    act();
    before.elapsed()
}

fn show(what: &str, mut times: Vec<Duration>) -> Duration {
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{what}: median {median:?}, p99 {worst:?}");
    median
}

/// A guest that two threads call in turn, twice each: how long the first calls take, and
/// the second.
fn two_threads(rounds: usize) -> (Vec<Duration>, Vec<Duration>) {
    use std::sync::mpsc::channel;
    let (there, here) = (channel::<ProcessPartition>(), channel());
    let (to, at) = (there.0, there.1);
    let (back, from) = (here.0, here.1);
    let calls = |partition: &mut ProcessPartition| {
        [(); 2].map(|()| timed(|| assert_eq!(ring(partition), Exit::Doorbell(0))))
    };
    let thread = std::thread::spawn(move || {
        for mut partition in at {
            calls(&mut partition);
            back.send(partition).unwrap();
        }
    });
    let mut partition = guest(&RING);
    let mut times = Vec::new();
    for _ in 0..rounds {
        to.send(partition).unwrap();
        partition = from.recv().unwrap();
        times.push(calls(&mut partition));
    }
    drop(to);
    thread.join().unwrap();
    times.into_iter().map(|[first, second]| (first, second)).unzip()
}

/// How long it takes from a kick until the run has returned. The thread that kicks has had
/// time to find a processor of its own.
fn kicked(rounds: usize) -> Vec<Duration> {
    let mut partition = guest(&SPIN);
    let kicker = partition.kicker();
    let (enter, entered) = std::sync::mpsc::channel::<Instant>();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        for at in entered {
            while at.elapsed() < Duration::from_micros(400) {
                std::hint::spin_loop();
            }
            let now = Instant::now();
            kicker.kick();
            tell.send(now).unwrap();
        }
    });
    let mut times = Vec::new();
    for _ in 0..rounds {
        enter.send(Instant::now()).unwrap();
        assert_eq!(partition.run().unwrap(), Exit::Kicked);
        let returned = Instant::now();
        times.push(returned.saturating_duration_since(told.recv().unwrap()));
        partition.clear_kick();
    }
    drop(enter);
    thread.join().unwrap();
    times
}

/// How often some that compute at once go round their loops.
fn at_once(count: usize, turn: fn() -> u64) -> u64 {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(turn)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

const TURN: Duration = Duration::from_millis(200);

/// How often a guest goes round its loop.
fn turn() -> u64 {
    let mut partition = guest(&SPIN);
    let _alarm = cellule_kick::Alarm::at(Instant::now() + TURN).unwrap();
    assert_eq!(partition.run().unwrap(), Exit::Kicked);
    partition.child.registers().rax
}

/// The same without a guest: what the machine has left for two.
fn native_turn() -> u64 {
    let start = Instant::now();
    (0..).find(|_| start.elapsed() > TURN).unwrap()
}
