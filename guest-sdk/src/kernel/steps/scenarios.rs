//! What is stepped, and what must come of it.

use alloc::vec::Vec;
use core::arch::x86_64::_xgetbv;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::println;
use std::time::Instant;

use super::host::Figures;
use super::leaf::{Found, MXCSR, PATTERN, leaf, spoil};
use super::{Stepping, block, is_called_properly};
use crate::critical;
use crate::kernel::Section;
use crate::kernel::upcall::VECTOR_STATE;
use crate::random;
use crate::sync::tests_support::spawn_at;
use crate::sync::{Mutex, Queue, Semaphore, Timeout, WaitError};
use crate::task::{self, Priority};
use crate::time::Duration;
use crate::timer::Timer;

static TICKER: Timer = Timer::calling(tick);
static TICKS: Semaphore = Semaphore::new(0, u64::MAX);
static TICKED: AtomicU64 = AtomicU64::new(0);
static OVER: AtomicBool = AtomicBool::new(false);
/// Whether upcalls run code as it expects to be run.
static IMPROPER: AtomicBool = AtomicBool::new(false);

/// The first bytes of what an upcall does when it has cleared the mask: `jne`,
/// `cmp`, `popfq`, `ret 128`, and, if there is word, `mov` to the mask.
const UNMASKED_IN_ENTRY: [u8; 5] = [0x75, 0x83, 0x9d, 0xc2, 0xc7];

/// What the ticker does in upcalls.
fn tick() {
    if !is_called_properly() {
        IMPROPER.store(true, Ordering::Relaxed);
    }
    TICKED.fetch_add(1, Ordering::Relaxed);
    TICKS.give().unwrap();
}

/// What preempts: counts ticks, and does something with each.
fn urgently(work: fn()) -> u64 {
    let mut ticks = 0;
    loop {
        TICKS.take(Timeout::Forever).unwrap();
        if OVER.load(Ordering::Relaxed) {
            return ticks;
        }
        ticks += 1;
        assert!(ticks < 1_000_000, "every task waits for ever");
        work();
    }
}

/// Steps a scenario, and holds the kernel to what it promises in each.
///
/// Each upcall finds that a nanosecond has passed: after `period` upcalls, one preempts.
fn stepped(period: u64, scenario: impl FnOnce(), work: fn()) -> Figures {
    let period = Duration::from_nanos(period);
    TICKED.store(0, Ordering::Relaxed);
    OVER.store(false, Ordering::Relaxed);
    let urgent = spawn_at(20, move || urgently(work));
    TICKER.start_periodic(period, period).unwrap();

    let stepping = Stepping::begin(urgent.task().id().number().into());
    scenario();
    let figures = stepping.end();

    TICKER.stop();
    OVER.store(true, Ordering::Relaxed);
    TICKS.give().unwrap();
    let taken = urgent.join().unwrap();
    assert_eq!(taken, TICKED.load(Ordering::Relaxed), "every tick should come once");
    assert!(taken > 0, "somebody should have been preempted");
    assert_eq!(TICKS.count(), 0);
    assert!(!IMPROPER.load(Ordering::Relaxed), "an upcall's registers should be a program's");
    assert!(figures.wrong.is_none(), "{figures:?}");
    assert_eq!(figures.untouched, 0, "no unmasked instruction should go without: {figures:?}");
    assert_eq!((figures.returned, figures.open), (figures.upcalls, 0), "each should come back");
    assert_eq!(figures.within, UNMASKED_IN_ENTRY, "and so within an upcall's end");
    assert_eq!((block::mask(), block::pending()), (0, false));
    figures
}

/// Steps a scenario with each way to save registers.
fn step_all(name: &str, mut scenario: impl FnMut(), work: fn()) {
    // From here to its end the kernel is this thread's, and with it the statics.
    drop(Section::enter());
    for (period, state) in [(2, 0), (1, vector_state())] {
        VECTOR_STATE.store(state, Ordering::Relaxed);
        let start = Instant::now();
        let figures = stepped(period, &mut scenario, work);
        VECTOR_STATE.store(0, Ordering::Relaxed);
        let Figures { steps, upcalls, nested, pending, unmasked, .. } = figures;
        println!(
            "{name}, state {state:#x}: {steps} steps, {upcalls} upcalls at all of {unmasked} \
             instructions, {nested} nested, {pending} pending, {:?}",
            start.elapsed()
        );
    }
}

fn nothing() {}

/// What the host may switch on of what there is: x87 to AVX-512.
fn vector_state() -> u64 {
    #[target_feature(enable = "xsave")]
    fn read() -> u64 {
        // SAFETY: the register exists where the instruction does.
        unsafe { _xgetbv(0) }
    }
    if !std::is_x86_feature_detected!("xsave") {
        return 0;
    }
    // SAFETY: just checked.
    unsafe { read() & 0xe7 }
}

/// How wide the registers are that an upcall saves: see [`leaf`].
fn width(state: u64) -> u64 {
    match state {
        _ if state & 0xe4 == 0xe4 && std::is_x86_feature_detected!("avx512f") => 2,
        _ if state & 4 != 0 && std::is_x86_feature_detected!("avx") => 1,
        _ => 0,
    }
}

#[test]
fn upcalls_change_no_register_of_what_they_interrupt() {
    let mut widths = Vec::with_capacity(2);
    let scenario = || {
        let wide = width(VECTOR_STATE.load(Ordering::Relaxed));
        let mut found = Found::NOTHING;
        // SAFETY: `width` has asked the processor.
        unsafe { leaf(&PATTERN, &mut found, wide) };
        widths.push((wide, found.without_places()));
    };
    fn spoil_all() {
        // SAFETY: `width` has asked the processor.
        unsafe { spoil(width(VECTOR_STATE.load(Ordering::Relaxed))) };
    }
    step_all("leaf", scenario, spoil_all);
    for (wide, found) in widths {
        let mut expected = Found::NOTHING;
        // SAFETY: as above.
        unsafe { leaf(&PATTERN, &mut expected, wide) };
        assert_eq!(found, expected.without_places());
        assert_eq!((found.flags(), found.mxcsr()), (0x401, MXCSR.to_le_bytes()));
    }
}

#[test]
fn equals_take_turns_though_each_is_preempted_everywhere() {
    static TURNS: Queue<u32, 32> = Queue::new();
    let turns = |number: u32| {
        move || {
            for _ in 0..2 {
                TURNS.try_send(number).unwrap();
                task::yield_now();
            }
        }
    };
    let scenario = || {
        let tasks = [task::spawn(turns(1)).unwrap(), task::spawn(turns(2)).unwrap()];
        turns(0)();
        tasks.into_iter().for_each(|task| task.join().unwrap());
        let turns = [(); 6].map(|()| TURNS.try_receive().unwrap());
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
    };
    step_all("yield, spawn, join", scenario, nothing);
}

#[test]
fn units_are_neither_lost_nor_doubled() {
    static PING: Semaphore = Semaphore::binary();
    static PONG: Semaphore = Semaphore::binary();
    let scenario = || {
        let other = task::spawn(|| {
            for _ in 0..2 {
                PING.take(Timeout::Forever).unwrap();
                PONG.give().unwrap();
            }
        });
        for _ in 0..2 {
            PING.give().unwrap();
            PONG.take(Timeout::Forever).unwrap();
        }
        other.unwrap().join().unwrap();
        assert_eq!((PING.count(), PONG.count()), (0, 0));
        let late = PONG.take(Duration::from_nanos(5));
        assert_eq!(late, Err(WaitError::TimedOut));
    };
    step_all("semaphore", scenario, nothing);
}

#[test]
fn a_mutex_has_one_owner_wherever_that_is_preempted() {
    /// Two halves, which are the same whenever nobody holds it.
    static HALVES: Mutex<(u64, u64)> = Mutex::new((0, 0));
    static ADDED: AtomicU64 = AtomicU64::new(0);
    fn add() {
        let mut halves = HALVES.lock(Timeout::Forever).unwrap();
        assert_eq!(halves.0, halves.1);
        halves.0 += 1;
        halves.1 += 1;
        drop(halves);
        ADDED.fetch_add(1, Ordering::Relaxed);
    }
    let scenario = || {
        let lower = task::Builder::new().priority(Priority::LOWEST).spawn(add).unwrap();
        let equal = task::spawn(add).unwrap();
        let mut halves = HALVES.lock(Timeout::Forever).unwrap();
        halves.0 += 1;
        task::yield_now();
        halves.1 += 1;
        drop(halves);
        ADDED.fetch_add(1, Ordering::Relaxed);
        add();
        [lower, equal].into_iter().for_each(|task| task.join().unwrap());
        let own = task::current().priority().unwrap();
        assert_eq!(own.0, own.1, "what was inherited should be given back");
    };
    step_all("mutex", scenario, add);
    let halves = HALVES.lock(Timeout::Forever).unwrap();
    assert_eq!((halves.0, halves.1), (ADDED.load(Ordering::Relaxed), halves.0));
}

#[test]
fn a_queue_keeps_its_items_and_their_order() {
    static ITEMS: Queue<u32, 2> = Queue::new();
    const COUNT: u32 = 4;
    let scenario = || {
        let sender = task::spawn(|| {
            (0..COUNT).for_each(|item| ITEMS.send(item, Timeout::Forever).unwrap());
        });
        for item in 0..COUNT {
            assert_eq!(ITEMS.receive(Timeout::Forever), Ok(item));
        }
        sender.unwrap().join().unwrap();
        assert!(ITEMS.is_empty());
    };
    step_all("queue", scenario, nothing);
}

#[test]
fn a_critical_section_is_not_preempted() {
    static WITHIN: AtomicU32 = AtomicU32::new(0);
    fn look() {
        assert_eq!(WITHIN.load(Ordering::Relaxed), 0, "nobody else should run within");
    }
    let scenario = || {
        for _ in 0..4 {
            critical::with(|_| {
                WITHIN.store(1, Ordering::Relaxed);
                critical::with(|_| TICKS.count());
                WITHIN.store(0, Ordering::Relaxed);
            });
        }
    };
    step_all("critical section", scenario, look);
}

#[test]
fn random_numbers_are_different_wherever_who_draws_them_is_preempted() {
    static DRAWN: Mutex<Vec<u64>> = Mutex::new(Vec::new());
    static URGENTLY_DRAWN: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
    fn draw_urgently() {
        let number = random::u64();
        let [last, same] = &URGENTLY_DRAWN;
        if last.swap(number, Ordering::Relaxed) == number {
            same.fetch_add(1, Ordering::Relaxed);
        }
    }
    let scenario = || {
        let mut own = [0; 3];
        own.fill_with(random::u64);
        let urgent = URGENTLY_DRAWN[0].load(Ordering::Relaxed);
        DRAWN.lock(Timeout::Forever).unwrap().extend(own.into_iter().chain([urgent]));
    };
    step_all("random", scenario, draw_urgently);
    let mut drawn = DRAWN.lock(Timeout::Forever).unwrap();
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!((drawn.len(), URGENTLY_DRAWN[1].load(Ordering::Relaxed)), (8, 0));
}
