//! Tasks: what they do to each other, and what that costs.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use cellule_guest::prelude::*;
use cellule_guest::sync::{LockError, Mutex, Semaphore, Timeout, WaitError};
use cellule_guest::task::{self, Builder, Priority, SpawnError};
use cellule_guest::time::{self, Duration};

fn priority(number: u8) -> Priority {
    Priority::new(number).unwrap_or(Priority::LOWEST)
}

/// Spawns `count` tasks that each add one to a sum that the mutex protects,
/// yielding in between; returns the sum.
#[guest_function]
fn sum_by_tasks(count: u32) -> u32 {
    static SUM: Mutex<u32> = Mutex::new(0);
    *SUM.lock(Timeout::Forever).unwrap() = 0;
    let add = || {
        let mut sum = SUM.lock(Timeout::Forever).unwrap();
        let before = *sum;
        task::yield_now();
        *sum = before + 1;
    };
    let tasks: Vec<_> = (0..count).map(|_| task::spawn(add).unwrap()).collect();
    tasks.into_iter().for_each(|task| task.join().unwrap());
    *SUM.lock(Timeout::Forever).unwrap()
}

/// Two tasks hand a unit to and fro `rounds` times.
#[guest_function]
fn ping_pong(rounds: u32) -> u32 {
    static PING: Semaphore = Semaphore::new(0, 1);
    static PONG: Semaphore = Semaphore::new(0, 1);
    let other = task::spawn(move || {
        (0..rounds)
            .filter(|_| {
                PING.take(Timeout::Forever)
                    .and(PONG.give().map_err(|_| WaitError::Cancelled))
                    .is_ok()
            })
            .count()
    });
    let other = other.unwrap();
    for _ in 0..rounds {
        PING.give().unwrap();
        PONG.take(Timeout::Forever).unwrap();
    }
    u32::try_from(other.join().unwrap()).unwrap()
}

/// A more urgent task sleeps while this one spins until it sees that it ran.
#[guest_function]
fn preempted_by_a_timer(sleep_ns: u64) -> u64 {
    static RAN: AtomicBool = AtomicBool::new(false);
    RAN.store(false, Ordering::Relaxed);
    let urgent = Builder::new().priority(priority(20)).spawn(move || {
        let due = time::now() + Duration::from_nanos(sleep_ns);
        time::sleep_until(due).unwrap();
        let late = time::now().saturating_since(due);
        RAN.store(true, Ordering::Relaxed);
        late
    });
    let urgent = urgent.unwrap();
    while !RAN.load(Ordering::Relaxed) {
        core::hint::spin_loop();
    }
    u64::try_from(urgent.join().unwrap().as_nanos()).unwrap()
}

/// Equal tasks count while they spin; returns how far each came when the first
/// had `target`, sharing the processor by slices.
#[guest_function]
fn spinners(tasks: u32, slice_ns: u64, target: u64) -> Vec<u64> {
    static COUNTS: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
    static DONE: AtomicBool = AtomicBool::new(false);
    task::set_time_slice(Some(Duration::from_nanos(slice_ns)));
    let tasks: Vec<_> = COUNTS
        .iter()
        .take(tasks as usize)
        .map(|count| {
            Builder::new()
                .priority(priority(3))
                .spawn(move || {
                    while !DONE.load(Ordering::Relaxed) {
                        if count.fetch_add(1, Ordering::Relaxed) == target {
                            DONE.store(true, Ordering::Relaxed);
                        }
                    }
                })
                .unwrap()
        })
        .collect();
    tasks.into_iter().for_each(|task| task.join().unwrap());
    task::set_time_slice(None);
    COUNTS.iter().map(|count| count.load(Ordering::Relaxed)).collect()
}

/// Sleeps, alone in the guest; returns how late it woke.
#[guest_function]
fn sleep_alone(sleep_ns: u64) -> u64 {
    let due = time::now() + Duration::from_nanos(sleep_ns);
    time::sleep_until(due).unwrap();
    u64::try_from(time::now().saturating_since(due).as_nanos()).unwrap()
}

/// Spawns tasks until none can be had; returns how many there were and why.
#[guest_function]
fn spawn_until_refused(stack_bytes: u64) -> (u32, String) {
    static GATE: Semaphore = Semaphore::new(0, u64::MAX);
    let mut tasks = Vec::new();
    let refused = loop {
        let builder = Builder::new().stack_bytes(stack_bytes as usize);
        match builder.spawn(|| GATE.take(Timeout::Forever)) {
            Ok(task) => tasks.push(task),
            Err(error) => break error,
        }
    };
    let count = u32::try_from(tasks.len()).unwrap();
    for task in &tasks {
        task.task().kill();
    }
    let all_killed = tasks.into_iter().all(|task| task.join() == Err(task::JoinError::Killed));
    assert!(all_killed);
    assert!(matches!(
        refused,
        SpawnError::NoStack { .. }
            | SpawnError::StackTooSmall { .. }
            | SpawnError::StackTooLarge { .. }
    ));
    (count, refused.to_string())
}

/// A task panics, or overruns its stack, in the named way.
#[guest_function]
fn task_fails(how: &str) -> String {
    static HELD: Mutex<u32> = Mutex::new(0);
    fn overrun(depth: u64) -> u64 {
        let room = core::hint::black_box([depth; 64]);
        if depth == u64::MAX { 0 } else { overrun(depth + 1) + room[3] }
    }
    let how = how.to_string();
    let task = Builder::new().name("victim").spawn(move || {
        let guard = HELD.lock(Timeout::Forever);
        match how.as_str() {
            "panic" => panic!("on purpose"),
            "overrun" => drop(overrun(0)),
            // SAFETY: none: that is the point.
            "null" => unsafe { core::ptr::null_mut::<u32>().write_volatile(1) },
            _ => {}
        }
        drop(guard);
    });
    let error = task.unwrap().join().map_or_else(|error| error.to_string(), |()| "returned".into());
    let held = match HELD.try_lock() {
        Ok(_) => "free",
        Err(LockError::OwnerDied(_)) => "owner died",
        Err(_) => "held",
    };
    format!("{error}, {held}")
}

/// The stack of every task and how much of it was used.
#[guest_function]
fn stack_use(bytes: u32) -> Vec<(String, u64, u64)> {
    static GATE: Semaphore = Semaphore::new(0, 1);
    fn touch(bytes: u32) {
        if bytes > 0 {
            core::hint::black_box([1_u8; 1024]);
            touch(bytes.saturating_sub(1024));
            core::hint::black_box(bytes);
        }
    }
    let task = Builder::new().name("deep").spawn(move || {
        touch(bytes);
        GATE.take(Timeout::Forever)
    });
    task::yield_now();
    let list = task::list();
    GATE.give().unwrap();
    task.unwrap().join().unwrap().unwrap();
    list.into_iter().map(|t| (t.name, t.stack_bytes as u64, t.stack_used_bytes as u64)).collect()
}

/// The registers of a task that spins survive upcalls, vector state included:
/// returns how often they were found changed.
#[guest_function]
fn registers_under_upcalls(rounds: u64) -> u64 {
    static WAKES: AtomicU32 = AtomicU32::new(0);
    WAKES.store(0, Ordering::Relaxed);
    let ticker = Builder::new().priority(priority(30)).spawn(|| {
        while WAKES.load(Ordering::Relaxed) != u32::MAX {
            time::sleep(Duration::from_micros(200)).unwrap();
            clobber();
            if WAKES.load(Ordering::Relaxed) != u32::MAX {
                WAKES.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let mut changed = 0;
    while u64::from(WAKES.load(Ordering::Relaxed)) < rounds {
        changed += spin_with_known_registers(100_000);
    }
    WAKES.store(u32::MAX, Ordering::Relaxed);
    ticker.unwrap().join().unwrap();
    changed
}

/// Overwrites all that a call may: vector registers included.
fn clobber() {
    // SAFETY: what is overwritten is declared.
    unsafe {
        core::arch::asm!(
            "pcmpeqd xmm0, xmm0", "pcmpeqd xmm1, xmm1", "pcmpeqd xmm7, xmm7", "pcmpeqd xmm15, xmm15",
            "fninit", "fldpi",
            "fstp st(0)",
            out("xmm0") _, out("xmm1") _, out("xmm7") _, out("xmm15") _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
}

/// Counts down with a value in every register and in the red zone, and returns 1
/// if one was another afterwards.
fn spin_with_known_registers(count: u64) -> u64 {
    let changed: u64;
    // SAFETY: everything that is changed is declared, or saved and restored; the
    // red zone is this function's, as `nostack` is not given and RSP is moved.
    unsafe {
        core::arch::asm!(
            "push rbx", "push rbp",
            "sub rsp, 256",
            "mov rax, 0x1111", "mov rbx, 0x2222", "mov rdx, 0x3333", "mov rbp, 0x4444",
            "mov rsi, 0x5555", "mov rdi, 0x6666", "mov r8, 0x7777", "mov r9, 0x8888",
            "mov r10, 0x9999", "mov r11, 0xaaaa", "mov r12, 0xbbbb", "mov r13, 0xcccc",
            "mov r14, 0xdddd", "mov r15, 0xeeee",
            "mov [rsp - 8], rax", "mov [rsp - 64], rbx", "mov [rsp - 128], rdx",
            "movq xmm0, rax", "movq xmm7, rbx", "movq xmm15, rdx",
            "fld1",
            "2:", "dec rcx", "jnz 2b",
            "xor ecx, ecx",
            "cmp [rsp - 8], rax", "jne 3f", "cmp [rsp - 64], rbx", "jne 3f",
            "cmp [rsp - 128], rdx", "jne 3f",
            "cmp rax, 0x1111", "jne 3f", "cmp rbx, 0x2222", "jne 3f", "cmp rdx, 0x3333", "jne 3f",
            "cmp rbp, 0x4444", "jne 3f", "cmp rsi, 0x5555", "jne 3f", "cmp rdi, 0x6666", "jne 3f",
            "cmp r8, 0x7777", "jne 3f", "cmp r9, 0x8888", "jne 3f", "cmp r10, 0x9999", "jne 3f",
            "cmp r11, 0xaaaa", "jne 3f", "cmp r12, 0xbbbb", "jne 3f", "cmp r13, 0xcccc", "jne 3f",
            "cmp r14, 0xdddd", "jne 3f", "cmp r15, 0xeeee", "jne 3f",
            "movq rax, xmm0", "cmp rax, 0x1111", "jne 3f",
            "movq rax, xmm7", "cmp rax, 0x2222", "jne 3f",
            "movq rax, xmm15", "cmp rax, 0x3333", "jne 3f",
            "fld1", "fcomip st(0), st(1)", "jne 3f",
            "jmp 4f",
            "3:", "mov ecx, 1",
            "4:", "fstp st(0)",
            "add rsp, 256",
            "pop rbp", "pop rbx",
            inout("rcx") count => changed,
            out("rax") _, out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _,
            out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            out("xmm0") _, out("xmm7") _, out("xmm15") _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
    changed
}
