//! What an instruction was about to do, from its bytes.

use cellule_abi::doorbell::DOORBELL_PORT;
use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderError, DecoderOptions, Instruction as Decoded,
    InstructionInfoFactory, OpAccess, Register, UsedMemory,
};

use crate::trace::Registers;

/// The longest instruction: Intel SDM volume 2, section 2.3.11.
pub(crate) const LONGEST: usize = 15;
/// `out imm8, al` and `out dx, al`: Intel SDM volume 2, OUT.
const OUT_IMMEDIATE: u8 = 0xe6;
const OUT_DX: u8 = 0xee;
/// How long what XSAVE and its like touch may be: three pages are more than there is.
const UNKNOWN_LEN: u64 = 3 << 12;

/// The bytes at an instruction pointer: as many as may be executed, 15 at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bytes {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Bytes {
    /// Adds a byte; `false` if there is no room.
    pub(crate) fn push(&mut self, byte: u8) -> bool {
        let Some(slot) = self.bytes.get_mut(self.len) else { return false };
        *slot = byte;
        self.len += 1;
        true
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

/// The length of a one-byte write to the doorbell, if that is what the first two
/// bytes are: the usual way to write it.
pub(crate) fn plain_doorbell(
    first: u8,
    second: impl FnOnce() -> Option<u8>,
    rdx: u64,
) -> Option<u64> {
    match first {
        OUT_IMMEDIATE => (u16::from(second()?) == DOORBELL_PORT).then_some(2),
        OUT_DX => is_doorbell(rdx).then_some(1),
        _ => None,
    }
}

/// The processor takes only DX.
fn is_doorbell(rdx: u64) -> bool {
    rdx & 0xffff == u64::from(DOORBELL_PORT)
}

/// An instruction, decoded.
#[derive(Debug)]
pub(crate) struct Instruction {
    decoded: Decoded,
    error: DecoderError,
}

impl Instruction {
    pub(crate) fn at(rip: u64, bytes: &Bytes) -> Self {
        let mut decoder = Decoder::with_ip(64, bytes.as_slice(), rip, DecoderOptions::NONE);
        let decoded = decoder.decode();
        Self { decoded, error: decoder.last_error() }
    }

    /// Whether there were too few bytes: the rest could not be fetched.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.error == DecoderError::NoMoreBytes
    }

    /// The length of a one-byte write to the doorbell, with whatever prefixes.
    pub(crate) fn doorbell(&self, rdx: u64) -> Option<u64> {
        let rings = match self.decoded.code() {
            Code::Out_imm8_AL => u16::from(self.decoded.immediate8()) == DOORBELL_PORT,
            Code::Out_DX_AL => is_doorbell(rdx),
            _ => false,
        };
        rings.then_some(self.decoded.len() as u64)
    }

    /// The number of a software interrupt.
    pub(crate) fn interrupt(&self) -> Option<u8> {
        (self.decoded.code() == Code::Int_imm8).then(|| self.decoded.immediate8())
    }

    /// Whether its exceptions are those of the x87, rather than of SSE and AVX.
    pub(crate) fn is_x87(&self) -> bool {
        const X87: [CpuidFeature; 4] =
            [CpuidFeature::FPU, CpuidFeature::FPU287, CpuidFeature::FPU387, CpuidFeature::MMX];
        self.decoded.cpuid_features().iter().any(|feature| X87.contains(feature))
            || self.decoded.code() == Code::Wait
    }

    /// Whether it was about to write at an address that it may not touch. If it cannot
    /// be told which of its accesses it was, then whether all of them write.
    pub(crate) fn writes(&self, address: u64, registers: &Registers) -> bool {
        let mut factory = InstructionInfoFactory::new();
        let accesses = factory.info(&self.decoded).used_memory();
        let of = |memory: &&UsedMemory| {
            let start = memory.virtual_address(0, |register, _, _| value(register, registers));
            let len = match memory.memory_size().size() as u64 {
                0 => UNKNOWN_LEN,
                len => len,
            };
            start.is_some_and(|start| address.wrapping_sub(start) < len)
        };
        // What only reads there comes before what only writes there.
        let mut found = accesses.iter().filter(of).peekable();
        if found.peek().is_some() {
            return found.all(is_write);
        }
        !accesses.is_empty() && accesses.iter().all(is_write)
    }
}

fn is_write(memory: &UsedMemory) -> bool {
    matches!(
        memory.access(),
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}

/// The value of a register, or the base of a segment.
fn value(register: Register, registers: &Registers) -> Option<u64> {
    let full = match register.full_register() {
        Register::RAX => registers.rax,
        Register::RBX => registers.rbx,
        Register::RCX => registers.rcx,
        Register::RDX => registers.rdx,
        Register::RSI => registers.rsi,
        Register::RDI => registers.rdi,
        Register::RBP => registers.rbp,
        Register::RSP => registers.rsp,
        Register::R8 => registers.r8,
        Register::R9 => registers.r9,
        Register::R10 => registers.r10,
        Register::R11 => registers.r11,
        Register::R12 => registers.r12,
        Register::R13 => registers.r13,
        Register::R14 => registers.r14,
        Register::R15 => registers.r15,
        Register::FS => return Some(registers.fs_base),
        Register::GS => return Some(registers.gs_base),
        Register::CS | Register::DS | Register::ES | Register::SS => return Some(0),
        _ => return None,
    };
    Some(match register.size() {
        8 => full,
        4 => full & 0xffff_ffff,
        2 => full & 0xffff,
        _ => full & 0xff,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers() -> Registers {
        // SAFETY: integers, of which any value is valid.
        unsafe { std::mem::zeroed() }
    }

    fn bytes(code: &[u8]) -> Bytes {
        let mut bytes = Bytes::default();
        code.iter().for_each(|byte| assert!(bytes.push(*byte)));
        bytes
    }

    fn decoded(code: &[u8]) -> Instruction {
        Instruction::at(0x40_0000, &bytes(code))
    }

    #[test]
    fn only_a_byte_to_port_1_rings() {
        assert_eq!(plain_doorbell(0xe6, || Some(1), 0), Some(2));
        assert_eq!(plain_doorbell(0xe6, || Some(2), 1), None);
        assert_eq!(plain_doorbell(0xee, || None, 0xffff_0001), Some(1));
        assert_eq!(plain_doorbell(0xee, || None, 0x1_0002), None);
        assert_eq!(plain_doorbell(0xe7, || Some(1), 1), None);
        assert_eq!(decoded(&[0x66, 0xe6, 1]).doorbell(0), Some(3));
        assert_eq!(decoded(&[0x48, 0xee]).doorbell(1), Some(2));
        assert_eq!(decoded(&[0x66, 0xe7, 1]).doorbell(0), None);
        assert_eq!(decoded(&[0xf3, 0x6e]).doorbell(1), None);
    }

    #[test]
    fn an_instruction_that_goes_on_behind_its_page_is_cut_short() {
        assert!(decoded(&[]).is_cut_short());
        assert!(decoded(&[0x48, 0xb8, 0]).is_cut_short());
        assert!(!decoded(&[0x0f, 0x0b]).is_cut_short());
    }

    #[test]
    fn what_an_instruction_does_at_an_address_is_told() {
        let registers =
            Registers { rax: 0x1000, rdi: 0x2000, rsi: 0x3000, rsp: 0x5000, ..registers() };
        let writes = |code: &[u8], address| decoded(code).writes(address, &registers);
        assert!(!writes(&[0x8a, 0x00], 0x1000), "mov al, [rax]");
        assert!(writes(&[0x88, 0x00], 0x1000), "mov [rax], al");
        assert!(writes(&[0xfe, 0x00], 0x1000), "inc byte [rax]");
        assert!(writes(&[0xa4], 0x2000), "movsb, to");
        assert!(!writes(&[0xa4], 0x3000), "movsb, from");
        let same = Registers { rsi: 0x2000, ..registers };
        assert!(!decoded(&[0xa4]).writes(0x2000, &same), "movsb, from and to");
        assert!(writes(&[0x50], 0x4ff8), "push rax");
        assert!(!writes(&[0x58], 0x5000), "pop rax");
        assert!(writes(&[0x48, 0x89, 0x40, 0xfc], 0x1000), "mov [rax - 4], rax, from its middle");
        assert!(writes(&[0x0f, 0xae, 0x20], 0x1400), "xsave [rax], far in");
        assert!(!writes(&[0x90], 0x1000), "nop");
    }

    #[test]
    fn x87_instructions_are_told_from_sse() {
        assert!(decoded(&[0xd8, 0xc0]).is_x87(), "fadd");
        assert!(decoded(&[0x9b]).is_x87(), "fwait");
        assert!(decoded(&[0x0f, 0xfc, 0xc0]).is_x87(), "paddb mm0, mm0");
        assert!(!decoded(&[0x0f, 0x58, 0xc0]).is_x87(), "addps");
    }
}
