//! The suite that every backend must pass: machine code, and what must come out.
//!
//! A case is data, if it can be, and else a function. It runs in a partition of
//! its own with one page of text, one of data and one of stack, and a guard page
//! below each.
//!
//! * `steer.rs`: a guest that is stopped goes on elsewhere.
//! * `revive.rs`: a guest that faulted starts anew.
//! * `again.rs`: what was written is known, and a checkpoint is the way back.
//! * `vector.rs`: what a guest saves of its vector registers is all of them.

mod again;
mod revive;
mod steer;
mod vector;

use std::fmt::{Debug, Display};
use std::sync::Arc;
use std::time::Duration;

use cellule_mem::Sealed;

use crate::space::PAGE_BYTES;
use crate::{
    AddressSpace, Backing, Exit, Fault, Gva, Hypervisor, Mapping, Partition, Plan, Protection,
    RunError, Start, Template,
};

/// Where the page of memory is that is there only once extended.
pub const LATE: u64 = 0x40_a000;
/// Where a case's code is.
pub const TEXT: u64 = 0x40_0000;
/// A page that it may write.
pub const DATA: u64 = 0x40_2000;
/// Its stack's only page.
pub const STACK: u64 = 0x40_4000;
/// The backend's own pages.
pub const SUPERVISOR: u64 = 0x40_6000;

/// One program and the exits that it must cause, in order.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The claim.
    pub name: &'static str,
    /// Machine code at [`TEXT`]; RAX is zero at first.
    pub code: &'static [u8],
    /// What must come out.
    pub expected: &'static [Expected],
}

/// An exit as far as a case determines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// This byte at the doorbell.
    Doorbell(u8),
    /// This exception.
    Fault(u8),
    /// A page fault at this address.
    PageFault(u64),
    /// Any exit that ends the guest.
    Stop,
}

const GP: Expected = Expected::Fault(13);
const UD: Expected = Expected::Fault(6);

/// The cases. Encodings are from the Intel SDM, volume 2.
pub const CASES: &[Case] = &[
    Case {
        name: "guest_rings_and_goes_on_behind_the_out",
        // mov al, 7; out 1, al; inc al; out 1, al
        code: &[0xb0, 7, 0xe6, 1, 0xfe, 0xc0, 0xe6, 1],
        expected: &[Expected::Doorbell(7), Expected::Doorbell(8)],
    },
    Case {
        name: "guest_cannot_write_its_own_text",
        // mov rax, TEXT; mov [rax], al
        code: &[0x48, 0xc7, 0xc0, 0, 0, 0x40, 0, 0x88, 0],
        expected: &[Expected::PageFault(TEXT)],
    },
    Case {
        name: "guest_cannot_execute_data",
        // mov rax, DATA; jmp rax
        code: &[0x48, 0xc7, 0xc0, 0, 0x20, 0x40, 0, 0xff, 0xe0],
        expected: &[Expected::PageFault(DATA)],
    },
    Case {
        name: "guest_cannot_execute_its_stack",
        // jmp rsp, with rsp at the end of the page: first push rax
        code: &[0x50, 0xff, 0xe4],
        expected: &[Expected::PageFault(STACK + PAGE_BYTES - 8)],
    },
    Case {
        name: "guest_cannot_read_page_0",
        code: &[0x8a, 0], // mov al, [rax]
        expected: &[Expected::PageFault(0)],
    },
    Case {
        name: "guest_cannot_read_control_pages",
        // mov rax, SUPERVISOR; mov al, [rax]
        code: &[0x48, 0xc7, 0xc0, 0, 0x60, 0x40, 0, 0x8a, 0],
        expected: &[Expected::PageFault(SUPERVISOR)],
    },
    Case {
        name: "guest_cannot_write_the_exception_stack",
        // mov rax, SUPERVISOR + 2 pages; mov [rax], al
        code: &[0x48, 0xc7, 0xc0, 0, 0x80, 0x40, 0, 0x88, 0],
        expected: &[Expected::PageFault(SUPERVISOR + 2 * PAGE_BYTES)],
    },
    Case {
        name: "guest_cannot_run_an_exception_stub",
        // mov rax, SUPERVISOR + 1 page; jmp rax
        code: &[0x48, 0xc7, 0xc0, 0, 0x70, 0x40, 0, 0xff, 0xe0],
        expected: &[Expected::PageFault(SUPERVISOR + PAGE_BYTES)],
    },
    Case {
        name: "guest_cannot_touch_late_memory_before_it_is_extended",
        // mov rax, LATE; mov al, [rax]
        code: &[0x48, 0xc7, 0xc0, 0, 0xa0, 0x40, 0, 0x8a, 0],
        expected: &[Expected::PageFault(LATE)],
    },
    Case {
        name: "guest_cannot_reach_beyond_its_mappings",
        // mov rax, -8 (upper half); mov al, [rax]
        code: &[0x48, 0xc7, 0xc0, 0xf8, 0xff, 0xff, 0xff, 0x8a, 0],
        expected: &[Expected::PageFault(0xffff_ffff_ffff_fff8)],
    },
    Case {
        name: "stack_overflow_hits_the_guard_page",
        code: &[0x50, 0xeb, 0xfd], // push rax; jmp back
        expected: &[Expected::PageFault(STACK - 8)],
    },
    Case { name: "guest_cannot_use_another_port", code: &[0xe6, 5], expected: &[GP] },
    Case { name: "guest_cannot_ring_a_fault_port", code: &[0xe6, 0x2e], expected: &[GP] },
    Case {
        name: "guest_cannot_write_two_ports_at_once",
        code: &[0x66, 0xe7, 1], // out 1, ax
        expected: &[GP],
    },
    Case {
        name: "guest_cannot_read_the_doorbell",
        code: &[0xe4, 1], // in al, 1
        expected: &[Expected::Stop],
    },
    Case { name: "guest_cannot_cli", code: &[0xfa], expected: &[GP] },
    Case { name: "guest_cannot_hlt", code: &[0xf4], expected: &[GP] },
    Case { name: "guest_cannot_load_cr3", code: &[0x0f, 0x22, 0xd8], expected: &[GP] },
    Case { name: "guest_cannot_rdmsr", code: &[0x0f, 0x32], expected: &[GP] },
    Case { name: "guest_cannot_wrmsr", code: &[0x0f, 0x30], expected: &[GP] },
    Case {
        name: "guest_cannot_lgdt",
        // lea rax, [rsp - 16]; lgdt [rax]
        code: &[0x48, 0x8d, 0x44, 0x24, 0xf0, 0x0f, 0x01, 0x10],
        expected: &[GP],
    },
    Case { name: "guest_cannot_wbinvd", code: &[0x0f, 0x09], expected: &[GP] },
    Case { name: "ud2_is_reported", code: &[0x0f, 0x0b], expected: &[UD] },
    Case {
        name: "division_by_zero_is_reported",
        code: &[0x31, 0xc9, 0xf7, 0xf1], // xor ecx, ecx; div ecx
        expected: &[Expected::Fault(0)],
    },
    Case {
        name: "non_canonical_address_is_reported",
        // mov rax, 1 << 63; mov al, [rax]
        code: &[0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x8a, 0],
        expected: &[GP],
    },
    Case {
        name: "avx_runs",
        // vpxor ymm0, ymm0, ymm0; mov al, 1; out 1, al
        code: &[0xc5, 0xfd, 0xef, 0xc0, 0xb0, 1, 0xe6, 1],
        expected: &[Expected::Doorbell(1)],
    },
    Case {
        name: "guest_memory_is_zero_and_writable",
        // mov rax, DATA; mov ecx, [rax]; mov dword [rax], 2; or cl, 3; mov al, cl; out 1, al
        code: &[
            0x48, 0xc7, 0xc0, 0, 0x20, 0x40, 0, 0x8b, 0x08, 0xc7, 0x00, 2, 0, 0, 0, 0x80, 0xc9, 3,
            0x88, 0xc8, 0xe6, 1,
        ],
        expected: &[Expected::Doorbell(3)],
    },
];

/// How a case went: nothing, or what came instead.
#[derive(Debug)]
pub struct Outcome {
    /// The case's name.
    pub name: &'static str,
    /// `None` if the case passed.
    pub failure: Option<String>,
}

/// The outcomes of the suite on some backends, for people: a line for each case.
///
/// ```text
/// case                                      kvm     process
/// guest_cannot_write_its_own_text           ok      ok
/// a_kick_stops_an_endless_loop              ok      FAILED
/// process: a_kick_stops_an_endless_loop: the exit should be Kicked and is ...
/// ```
#[derive(Debug, Default)]
pub struct Table {
    columns: Vec<(&'static str, Vec<Outcome>)>,
}

impl Table {
    /// Runs the suite on a backend and adds the outcomes as a column.
    pub fn run(&mut self, hypervisor: &dyn Hypervisor) {
        self.columns.push((hypervisor.name(), suite(hypervisor)));
    }

    /// The failures: backend, case, what came instead.
    pub fn failures(&self) -> Vec<(&'static str, &'static str, &str)> {
        let all = self.columns.iter().flat_map(|(backend, outcomes)| {
            let failed = |outcome: &Outcome| outcome.failure.is_some();
            outcomes.iter().filter(move |outcome| failed(outcome)).map(move |o| (*backend, o))
        });
        all.map(|(backend, o)| (backend, o.name, o.failure.as_deref().unwrap_or(""))).collect()
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:64}", "case")?;
        for (backend, _) in &self.columns {
            write!(f, "{backend:8}")?;
        }
        let cases = self.columns.first().map_or(&[][..], |(_, outcomes)| outcomes);
        for (row, case) in cases.iter().enumerate() {
            write!(f, "\n{:64}", case.name)?;
            for (_, outcomes) in &self.columns {
                let failed = outcomes.get(row).is_none_or(|outcome| outcome.failure.is_some());
                write!(f, "{:8}", if failed { "FAILED" } else { "ok" })?;
            }
        }
        for (backend, case, failure) in self.failures() {
            write!(f, "\n{backend}: {case}: {failure}")?;
        }
        Ok(())
    }
}

/// A case that is a function.
type Test = fn(&dyn Hypervisor) -> Result<(), String>;

const TESTS: &[(&str, Test)] = &[
    ("a_kick_stops_an_endless_loop", endless_loop),
    ("late_memory_is_there_once_extended", late_memory),
    ("the_clock_is_what_a_guest_reads", clock),
];

/// Runs every case.
pub fn suite(hypervisor: &dyn Hypervisor) -> Vec<Outcome> {
    let data = CASES.iter().map(|case| (case.name, run(hypervisor, case)));
    let tests =
        [TESTS, steer::TESTS, revive::TESTS, again::TESTS, vector::TESTS].into_iter().flatten();
    let tests = tests.map(|(name, test)| (*name, test(hypervisor)));
    let all = data.chain(revive::endings(hypervisor)).chain(tests);
    all.map(|(name, result)| Outcome { name, failure: result.err() }).collect()
}

fn run(hypervisor: &dyn Hypervisor, case: &Case) -> Result<(), String> {
    let mut partition = partition(hypervisor, case.code)?;
    for expected in case.expected {
        let exit = next(&mut *partition)?;
        if !matches(*expected, exit) {
            return Err(format!("{expected:x?} was expected, {exit:x?} came"));
        }
    }
    Ok(())
}

fn endless_loop(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    let mut partition = partition(hypervisor, &[0xeb, 0xfe])?;
    let kicker = partition.kicker();
    let exit = std::thread::scope(|scope| {
        scope.spawn(move || kicker.kick());
        partition.run()
    });
    is_equal("the exit", Exit::Kicked, exit.map_err(text)?)
}

/// The first ring comes before the late page is touched, the second after it
/// was found zero and written.
fn late_memory(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    // mov rax, LATE; out 1, al; xor al, [rax]; mov byte [rax], 5; out 1, al
    let code = [0x48, 0xc7, 0xc0, 0, 0xa0, 0x40, 0, 0xe6, 1, 0x32, 0x00, 0xc6, 0x00, 5, 0xe6, 1];
    let mut partition = partition(hypervisor, &code)?;
    rings(&mut *partition, 0)?;
    for _ in 0..2 {
        partition.extend().map_err(text)?;
    }
    rings(&mut *partition, 0)?;
    is_equal("late memory", 5, partition.memory().load_u32(Gva(LATE)).map_err(text)?)
}

/// The guest's reading lies between two of the host's, which may err by a little.
fn clock(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    const ERROR: Duration = Duration::from_micros(50);
    // rdtsc; mov [DATA], eax; mov [DATA + 4], edx; mov al, 3; out 1, al
    let code = [
        0x0f, 0x31, 0x89, 0x04, 0x25, 0, 0x20, 0x40, 0, 0x89, 0x14, 0x25, 4, 0x20, 0x40, 0, 0xb0,
        3, 0xe6, 1,
    ];
    let mut partition = partition(hypervisor, &code)?;
    let before = partition.clock().map_err(text)?;
    rings(&mut *partition, 3)?;
    let after = partition.clock().map_err(text)?;
    let mut guest = [0; 8];
    partition.memory().copy_into(Gva(DATA), &mut guest).map_err(text)?;
    let guest = u64::from_le_bytes(guest);
    is_equal("the offset, asked again,", before.tsc_offset, after.tsc_offset)?;
    let [at, again] = [before, after].map(|clock| clock.instant(guest));
    let due = before.at.checked_sub(ERROR)..=after.at.checked_add(ERROR);
    if due.contains(&at) && due.contains(&again) {
        return Ok(());
    }
    Err(format!("the guest read {guest} between {before:?} and {after:?}"))
}

/// Runs until something comes that no late signal of an earlier case can cause.
fn next(partition: &mut dyn Partition) -> Result<Exit, String> {
    loop {
        let exit = partition.run().map_err(text)?;
        if exit != Exit::Kicked {
            return Ok(exit);
        }
    }
}

fn rings(partition: &mut dyn Partition, value: u8) -> Result<(), String> {
    is_equal("the exit", Exit::Doorbell(value), next(partition)?)
}

fn faults(partition: &mut dyn Partition) -> Result<Fault, String> {
    match next(partition)? {
        Exit::Fault(fault) => Ok(fault),
        exit => Err(format!("a fault was expected, {exit:x?} came")),
    }
}

fn is_equal<T: Debug + PartialEq>(what: &str, expected: T, came: T) -> Result<(), String> {
    if expected == came {
        return Ok(());
    }
    Err(format!("{what} should be {expected:x?} and is {came:x?}"))
}

fn is_refused<T: Debug>(what: &str, result: Result<T, RunError>) -> Result<(), String> {
    match result {
        Err(error) if error.source.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
        other => Err(format!("{what} should be refused, {other:x?} came")),
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

fn matches(expected: Expected, exit: Exit) -> bool {
    match (expected, exit) {
        (Expected::Doorbell(value), Exit::Doorbell(rung)) => value == rung,
        (Expected::Fault(vector), Exit::Fault(fault)) => vector == fault.vector,
        (Expected::PageFault(gva), Exit::Fault(fault)) => fault.address == Some(Gva(gva)),
        (Expected::Stop, Exit::Fault(_) | Exit::Unexpected(_)) => true,
        _ => false,
    }
}

/// Makes a partition that runs `code` in the suite's address space.
///
/// # Errors
///
/// What the backend said, as text.
pub fn partition(hypervisor: &dyn Hypervisor, code: &[u8]) -> Result<Box<dyn Partition>, String> {
    template(hypervisor, code)?.partition().map_err(text)
}

/// Makes a template of the suite's address space, with `code` for its text.
///
/// # Errors
///
/// What the backend said, as text.
pub fn template(hypervisor: &dyn Hypervisor, code: &[u8]) -> Result<Arc<dyn Template>, String> {
    let page = |name, gva, protection, backing| Mapping {
        name,
        gva: Gva(gva),
        len: PAGE_BYTES,
        protection,
        backing,
    };
    let mappings = vec![
        page("text", TEXT, Protection::ReadExecute, Backing::Shared(0)),
        page("data", DATA, Protection::ReadWrite, Backing::Private(0)),
        page("stack", STACK, Protection::ReadWrite, Backing::Private(PAGE_BYTES)),
        page("late", LATE, Protection::ReadWrite, Backing::Private(2 * PAGE_BYTES)),
    ];
    let space = AddressSpace::new(mappings, Gva(SUPERVISOR)).map_err(text)?;
    let plan = Plan {
        space: Arc::new(space),
        shared: Arc::new(Sealed::new(code).map_err(text)?),
        early_len: 2 * PAGE_BYTES,
        start: Start { entry: Gva(TEXT), stack: Gva(STACK + PAGE_BYTES), argument: Gva(0) },
    };
    hypervisor.template(plan).map_err(text)
}
