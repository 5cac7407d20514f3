//! What a signal's handler sees and changes of the code that it interrupted.

use core::ptr;

use cellule_abi::tasks::RED_ZONE_BYTES;
use libc::{REG_EFL, REG_RIP, REG_RSP, greg_t, ucontext_t};

/// The trap flag.
const TRAP: u64 = 1 << 8;
/// The flags of ring 3: carry, parity, adjust, zero, sign, trap, direction, overflow.
const FLAGS: u64 = 0xdd5;
/// The general registers, RAX to R15 in Linux's order, and among them RSP.
const GENERAL: usize = REG_RIP as usize;
const RED_ZONE_WORDS: usize = 16;
const _: () = assert!(8 * RED_ZONE_WORDS as u64 == RED_ZONE_BYTES);
/// Of the image of FXSAVE, up to the last XMM register.
const FXSAVE_BYTES: usize = 416;

/// The registers and the stack of the code that a signal interrupted.
pub(super) struct Context<'a>(&'a mut ucontext_t);

/// All that an upcall must not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    rip: u64,
    rsp: u64,
    flags: u64,
    general: [greg_t; GENERAL],
    red_zone: [u64; RED_ZONE_WORDS],
    vectors: [u8; FXSAVE_BYTES],
}

impl State {
    /// RIP and RSP.
    pub(super) const fn place(&self) -> (u64, u64) {
        (self.rip, self.rsp)
    }

    /// In what it differs from another one, if in anything.
    pub(super) fn differs(&self, other: &Self) -> Option<&'static str> {
        // The addresses of the last x87 instruction are nobody's business; the
        // registers of an unused x87 have no value.
        let (one, two) = (&self.vectors, &other.vectors);
        let same = |bytes: core::ops::Range<usize>| one[bytes.clone()] == two[bytes];
        let cases = [
            (self.place() == other.place(), "place"),
            (self.flags == other.flags, "flags"),
            (self.general == other.general, "general registers"),
            (self.red_zone == other.red_zone, "red zone"),
            (same(0..5), "x87 control, status, tags"),
            (same(24..28), "MXCSR"),
            (one[4] == 0 || same(32..160), "x87 registers"),
            (same(160..416), "XMM registers"),
        ];
        cases.iter().find(|(is_same, _)| !is_same).map(|(_, what)| *what)
    }
}

impl<'a> Context<'a> {
    pub(super) const fn new(context: &'a mut ucontext_t) -> Self {
        Self(context)
    }

    pub(super) fn rip(&self) -> u64 {
        self.register(REG_RIP)
    }

    pub(super) fn rsp(&self) -> u64 {
        self.register(REG_RSP)
    }

    pub(super) fn set_rip(&mut self, rip: u64) {
        self.set(REG_RIP, rip);
    }

    /// Whether there is a trap after the next instruction.
    pub(super) fn is_trapping(&self) -> bool {
        self.register(REG_EFL) & TRAP != 0
    }

    pub(super) fn set_trap(&mut self, on: bool) {
        let flags = self.register(REG_EFL);
        self.set(REG_EFL, if on { flags | TRAP } else { flags & !TRAP });
    }

    /// The word at RSP.
    pub(super) fn top(&self) -> u64 {
        peek(self.rsp())
    }

    pub(super) fn set_top(&mut self, word: u64) {
        poke(self.rsp(), word);
    }

    /// What `push_return` and `divert` of a host do.
    pub(super) fn divert(&mut self, entry: u64) {
        let to = self.rsp().wrapping_sub(RED_ZONE_BYTES + 8);
        poke(to, self.rip());
        self.set(REG_RSP, to);
        self.set(REG_RIP, entry);
    }

    pub(super) fn state(&self) -> State {
        let rsp = self.rsp();
        let mut general = [0; GENERAL];
        general.copy_from_slice(&self.0.uc_mcontext.gregs[..GENERAL]);
        let red_zone = core::array::from_fn(|word| peek(rsp.wrapping_sub(8 * (word as u64 + 1))));
        let image = self.0.uc_mcontext.fpregs.cast::<[u8; FXSAVE_BYTES]>();
        // SAFETY: Linux puts the image of FXSAVE there, 512 bytes, for each signal
        // of a 64-bit program.
        let vectors = unsafe { image.read() };
        let flags = self.register(REG_EFL) & FLAGS;
        State { rip: self.rip(), rsp, flags, general, red_zone, vectors }
    }

    /// The bytes at an address of the program's code.
    pub(super) fn code<const N: usize>(rip: u64) -> [u8; N] {
        let at = ptr::with_exposed_provenance::<[u8; N]>(usize::try_from(rip).unwrap());
        // SAFETY: the program's code is mapped, and can be read as it can be
        // executed; what follows it is longer than `N`.
        unsafe { at.read() }
    }

    fn register(&self, number: i32) -> u64 {
        self.0.uc_mcontext.gregs[number as usize].cast_unsigned()
    }

    fn set(&mut self, number: i32, value: u64) {
        self.0.uc_mcontext.gregs[number as usize] = value.cast_signed();
    }
}

fn peek(address: u64) -> u64 {
    let at = ptr::with_exposed_provenance::<u64>(usize::try_from(address).unwrap());
    // SAFETY: at most a red zone below the stack pointer of code that was about
    // to use it: mapped, as every stack here is in one piece; whatever lies there
    // is a number. Nothing but this handler runs.
    unsafe { at.read_unaligned() }
}

fn poke(address: u64, word: u64) {
    let at = ptr::with_exposed_provenance_mut::<u64>(usize::try_from(address).unwrap());
    // SAFETY: as above; what is changed is a return address, which is put back
    // before anybody returns by it, or lies below the red zone, where nobody has
    // anything.
    unsafe { at.write_unaligned(word) };
}
