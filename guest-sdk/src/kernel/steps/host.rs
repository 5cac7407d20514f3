//! The host, played by a trap after every instruction.
//!
//! With the trap flag set the processor traps after each instruction, and the
//! handler may then do what a host does that has stopped the guest there: tell it
//! that time has passed, by an upcall or by the pending word (`tell`, `deliver`
//! in `host-api/src/run.rs`).
//!
//! A trap can cost 30 µs where virtual machines are nested, so not everything is
//! stepped:
//!
//! * Unmasked code is, every instruction, but not that of libraries (`malloc` is
//!   no guest's, and must not be preempted by itself).
//! * Masked code is too, but calls in it are run in one step: by returning to
//!   [`pad`], whose trap goes on where they should have returned to. Now and then
//!   calls are stepped as well ([`DEEP`], [`NEAR`]).
//! * What runs without the flag gets it back before it unmasks: [`watch`](super::watch).

use alloc::vec::Vec;
use core::arch::naked_asm;
use core::ops::Range;
use core::sync::atomic::Ordering;
use std::collections::HashMap;

use super::context::{Context, State};
use super::{FAMILIAR, NO_TASK, UNSEEN_NS, block};
use crate::kernel::upcall::upcall_entry;

/// At each instruction of each task, upcalls come so many times.
const TIMES: u32 = 1;
/// In the upcall's own last instructions. Each is one within another.
const TIMES_WITHIN: u32 = 4;
/// Of so many upcalls, one is stepped itself: its way in and out.
const STEPPED: u64 = 50;
/// Of so many masked stretches, one is stepped with what it calls, for so many
/// instructions.
const DEEP: u64 = 199;
const DEEP_STEPS: u64 = 1200;
/// Of so many masked instructions, word is left at one, the first time.
const TOLD: u64 = 11;
/// Somewhere among those stepped in depth: no divisor of their number.
const TOLD_IN_DEPTH: u64 = 77;
/// So many masked instructions are stepped with what they call after `watch`, and
/// word is left at another one of these each time: there the kernel looks at it,
/// or is about to unmask.
const NEAR: u32 = 64;
/// An urgent task that has shown nothing new for so many instructions, more than
/// it runs between two waits, is not stepped any more.
const FAMILIAR_AFTER: u32 = 1500;
/// No scenario takes so many steps.
const MOST_STEPS: u64 = 3_000_000;

/// Near the end of the upcall entry: `popfq` and `ret 128`. Then come
/// a `mov` to the mask and a `jmp`, of 10 and at least 2 bytes.
const ENTRY_END: [u8; 4] = [0x9d, 0xc2, 0x80, 0];
const BEHIND_END: u64 = 10 + 2;

/// What the host did, and what it found. Not counted as [untouched](Self::untouched)
/// is where it let the code look at pending word by itself.
#[derive(Debug, Default, Clone)]
pub(super) struct Figures {
    pub(super) steps: u64,
    pub(super) upcalls: u64,
    /// Upcalls within the last instructions of another.
    pub(super) nested: u64,
    /// How often word was left instead.
    pub(super) pending: u64,
    pub(super) returned: u64,
    /// The first bytes of the instructions of the entry at which upcalls came.
    pub(super) within: Vec<u8>,
    /// How many different instructions were unmasked; and at how many of these
    /// no upcall came.
    pub(super) unmasked: usize,
    pub(super) untouched: usize,
    /// Upcalls that have not returned.
    pub(super) open: usize,
    pub(super) wrong: Option<Wrong>,
}

/// What must not be, and how far into the program.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "read by a panic's message")]
pub(super) enum Wrong {
    /// An upcall came back with another state than it found.
    Changed { at: u64, what: &'static str },
    /// Nobody has looked, nor will, though there is something to look at.
    Unseen { at: u64 },
    /// Nobody looked between one masked stretch and the next.
    Late { at: u64 },
    /// It does not come to an end.
    Endless,
}

/// An instruction of a task's.
#[derive(Debug, Default, Clone, Copy)]
struct Visit {
    unmasked: bool,
    /// An upcall might have come, but the code was left to itself.
    alone: bool,
    delivered: u32,
    told: bool,
}

/// A task that an upcall has interrupted.
#[derive(Debug)]
struct Interrupted {
    task: u32,
    state: State,
}

/// All that the handler knows.
#[derive(Debug)]
pub(super) struct Host {
    /// The program's code, without libraries.
    text: Range<u64>,
    entry: Range<u64>,
    urgent: u32,
    visits: HashMap<(u32, u64), Visit>,
    interrupted: Vec<Interrupted>,
    /// Where the calls that are run in one step have their return address, and
    /// which it was.
    calls: Vec<(u64, u64)>,
    /// RIP and RSP before the instruction, if that was stepped.
    last: Option<(u64, u64)>,
    masked: bool,
    /// So many more masked instructions are stepped with what they call.
    deep: u64,
    near: u32,
    /// At which of those word is left next.
    near_at: u32,
    stepped: bool,
    stretches: u64,
    masked_steps: u64,
    /// How often the mask was cleared since there was something to look at.
    cleared: u32,
    quiet: u32,
    figures: Figures,
}

unsafe extern "C" {
    #[link_name = "__executable_start"]
    static TEXT_START: u8;
    #[link_name = "etext"]
    static TEXT_END: u8;
}

impl Host {
    /// A host of a program in which the task `urgent` is woken by upcalls.
    pub(super) fn new(urgent: u32) -> Self {
        let text = (&raw const TEXT_START).addr() as u64..(&raw const TEXT_END).addr() as u64;
        let entry = upcall_entry as unsafe extern "C" fn() -> ! as usize as u64;
        let is_end = |at: &u64| Context::code::<4>(*at) == ENTRY_END;
        let end = (entry..text.end).find(is_end).unwrap() + ENTRY_END.len() as u64 + BEHIND_END;
        Self {
            text,
            entry: entry..end,
            urgent,
            // Enough: a handler should not allocate.
            visits: HashMap::with_capacity(1 << 15),
            interrupted: Vec::with_capacity(1 << 10),
            calls: Vec::with_capacity(1 << 10),
            last: None,
            masked: false,
            deep: 0,
            near: 0,
            near_at: NEAR / 2,
            stepped: false,
            stretches: 0,
            masked_steps: 0,
            cleared: 0,
            quiet: 0,
            figures: Figures::default(),
        }
    }

    /// What came of it.
    pub(super) fn figures(&self) -> Figures {
        let mut figures = self.figures.clone();
        figures.open = self.interrupted.len();
        let mut places: HashMap<u64, Visit> = HashMap::new();
        for ((_, rip), visit) in &self.visits {
            let place = places.entry(*rip).or_default();
            place.unmasked |= visit.unmasked;
            place.alone |= visit.alone;
            place.delivered += visit.delivered;
            if visit.delivered > 0 && self.entry.contains(rip) {
                figures.within.extend(Context::code::<1>(*rip));
            }
        }
        figures.within.sort_unstable();
        figures.within.dedup();
        figures.unmasked = places.values().filter(|place| place.unmasked).count();
        let untouched = |place: &&Visit| place.unmasked && place.delivered == 0 && !place.alone;
        figures.untouched = places.values().filter(untouched).count();
        figures
    }

    /// Does at an instruction what a host might.
    pub(super) fn step(&mut self, at: &mut Context<'_>) {
        self.figures.steps += 1;
        let watched = self.last.is_none() && at.rip() != pad_end();
        if at.rip() == pad_end() {
            self.come_back(at);
        }
        if self.figures.steps > MOST_STEPS {
            self.blame(Wrong::Endless);
            at.set_trap(false);
            return;
        }
        at.set_trap(true);
        if !self.text.contains(&at.rip()) {
            if self.text.contains(&at.top()) {
                self.run_call(at);
            }
            return;
        }
        let task = block::task();
        if is_seen() {
            self.cleared = 0;
        }
        if block::mask() == 0 {
            self.unmasked(at, task);
        } else {
            if watched {
                self.near = NEAR;
                self.near_at = self.near_at % NEAR + 1;
            }
            self.masked(at, task);
        }
        self.last = at.is_trapping().then(|| (at.rip(), at.rsp()));
    }

    /// Between two instructions of a task that may be interrupted.
    fn unmasked(&mut self, at: &mut Context<'_>, task: u32) {
        let (rip, pending) = (at.rip(), block::pending());
        let returned = self.check_return(at, task);
        self.near = 0;
        if core::mem::take(&mut self.masked) && !is_seen() {
            self.cleared += 1;
        }
        if !pending && !is_seen() {
            self.blame(Wrong::Unseen { at: rip });
        }
        if self.cleared > 1 {
            self.blame(Wrong::Late { at: rip });
        }
        let within = self.entry.contains(&rip);
        // An upcall would look, too: every second time the code is left to itself.
        let alone = pending && !is_seen() && self.figures.pending.is_multiple_of(2);
        let visit = self.visits.entry((task, rip)).or_default();
        visit.unmasked = true;
        visit.alone |= alone;
        let times = if within { TIMES_WITHIN } else { TIMES };
        if !returned && !alone && visit.delivered < times {
            visit.delivered += 1;
            self.quiet = 0;
            self.figures.nested += u64::from(within);
            self.deliver(at, task, within);
        } else if task == self.urgent {
            self.quiet += 1;
            if self.quiet > FAMILIAR_AFTER {
                FAMILIAR.store(task, Ordering::Relaxed);
                at.set_trap(false);
            }
        }
    }

    /// Diverts the task to the upcall entry.
    fn deliver(&mut self, at: &mut Context<'_>, task: u32, within: bool) {
        self.stepped = within || self.figures.upcalls.is_multiple_of(STEPPED);
        self.figures.upcalls += 1;
        self.interrupted.push(Interrupted { task, state: at.state() });
        UNSEEN_NS.fetch_add(1, Ordering::Relaxed);
        block::set_mask();
        at.divert(self.entry.start);
    }

    /// Whether an upcall has just come back; and if it has, as it should.
    fn check_return(&mut self, at: &Context<'_>, task: u32) -> bool {
        let Some(index) = self.interrupted.iter().rposition(|other| other.task == task) else {
            return false;
        };
        let before = &self.interrupted[index].state;
        if before.place() != (at.rip(), at.rsp()) {
            return false;
        }
        let changed = before.differs(&at.state());
        self.interrupted.remove(index);
        self.figures.returned += 1;
        if let Some(what) = changed {
            self.blame(Wrong::Changed { at: at.rip(), what });
        }
        true
    }

    /// Between two instructions of the kernel's.
    fn masked(&mut self, at: &mut Context<'_>, task: u32) {
        if !self.masked {
            self.masked = true;
            self.stretches += 1;
            self.deep = if self.stretches.is_multiple_of(DEEP) { DEEP_STEPS } else { 0 };
        }
        self.masked_steps += 1;
        let rip = at.rip();
        let within = self.entry.contains(&rip);
        let near = self.near > 0;
        // Behind `pushfq`, which has saved the trap flag: `popfq` sets it again.
        if rip == self.entry.start + 1 && !self.stepped {
            at.set_trap(false);
            return;
        }
        let chosen = match (self.near, self.deep) {
            _ if within => true,
            (0, 0) => self.masked_steps.is_multiple_of(TOLD),
            (0, deep) => deep == self.stretches * TOLD_IN_DEPTH % DEEP_STEPS,
            (near, _) => near == self.near_at,
        };
        // For all tasks these are the same. Behind `watch` it is the distance that
        // counts: functions that are called there are called elsewhere, too.
        let whose = if within || near { NO_TASK - self.near } else { task };
        let visit = self.visits.entry((whose, rip)).or_default();
        if !visit.told && !block::pending() && chosen {
            visit.told = true;
            self.figures.pending += 1;
            UNSEEN_NS.fetch_add(1, Ordering::Relaxed);
            block::set_pending();
        }
        if self.deep > 0 || self.near > 0 {
            self.deep = self.deep.saturating_sub(1);
            self.near = self.near.saturating_sub(1);
        } else if self.has_called(at) {
            self.run_call(at);
        }
    }

    /// Whether the instruction was a call.
    fn has_called(&self, at: &Context<'_>) -> bool {
        /// Of the longest call without prefixes.
        const BYTES: u64 = 7;
        self.last.is_some_and(|(rip, rsp)| {
            let behind = rip + 1..=rip + BYTES;
            at.rsp() == rsp.wrapping_sub(8) && behind.contains(&at.top()) && at.rip() != at.top()
        })
    }

    /// Lets the function that was called run until it returns.
    fn run_call(&mut self, at: &mut Context<'_>) {
        let slot = at.rsp();
        // Of a task that ended there.
        self.calls.retain(|(other, _)| *other != slot);
        self.calls.push((slot, at.top()));
        at.set_top(pad_end() - 1);
        at.set_trap(false);
        self.last = None;
    }

    /// Goes on where a call returns to.
    fn come_back(&mut self, at: &mut Context<'_>) {
        let slot = at.rsp().wrapping_sub(8);
        if let Some(index) = self.calls.iter().position(|(other, _)| *other == slot) {
            at.set_rip(self.calls.swap_remove(index).1);
        }
        self.last = None;
    }

    fn blame(&mut self, mut wrong: Wrong) {
        match &mut wrong {
            Wrong::Changed { at, .. } | Wrong::Unseen { at } | Wrong::Late { at } => {
                *at -= self.text.start;
            }
            Wrong::Endless => {}
        }
        self.figures.wrong.get_or_insert(wrong);
    }
}

/// Whether the kernel has looked at all that has happened.
fn is_seen() -> bool {
    UNSEEN_NS.load(Ordering::Relaxed) == 0
}

/// Where calls return to that are run in one step.
///
/// # Safety
///
/// To be returned to only with a return address of [`Host::calls`].
#[unsafe(naked)]
unsafe extern "C" fn pad() -> ! {
    naked_asm!("int3", "ud2")
}

/// Where RIP is after the trap at [`pad`].
fn pad_end() -> u64 {
    pad as unsafe extern "C" fn() -> ! as usize as u64 + 1
}
