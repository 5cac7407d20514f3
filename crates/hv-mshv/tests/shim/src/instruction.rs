//! Which instruction reached for a port: KVM's emulator has stepped over it when
//! it tells, and does not say how long it was.
//!
//! Encodings are from the SDM, volume 2: E4 to E7 with the port behind, EC to EF
//! with the port in DX, 6C to 6F for strings; 66 for the other operand size, F2
//! and F3 to repeat, 40 to 4F for REX in long mode, which does nothing here.

use crate::message::StringAccess;
use crate::run_page::PortAccess;

/// The longest that is recognised: F3 66 REX, opcode, port.
pub(crate) const LONGEST: usize = 5;

/// A port instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) len: u8,
    pub(crate) string: StringAccess,
}

/// The opcode of an access, without strings and with DX.
fn opcode(access: PortAccess) -> u8 {
    0xec | u8::from(access.is_out) << 1 | u8::from(access.size > 1)
}

/// The instruction that ends where `code` does. `is_16` is whether operands are
/// of 16 bits there without a prefix.
///
/// Only prefixes that mean something are taken to belong to it: others could be
/// the end of what is before, and it does the same without.
pub(crate) fn ends(code: &[u8], access: PortAccess, is_16: bool) -> Option<Instruction> {
    let opcode = opcode(access);
    let (before, len, is_string) = match code {
        [before @ .., first, port] if *first == opcode - 8 && u16::from(*port) == access.port => {
            (before, 2, false)
        }
        [before @ .., last] if *last == opcode => (before, 1, false),
        [before @ .., last] if *last == opcode - 0x80 => (before, 1, true),
        _ => return None,
    };
    let mut wants_size = access.size == if is_16 { 4 } else { 2 };
    let mut string = StringAccess { is_string, is_repeated: false };
    let mut prefixes = 0;
    for byte in before.iter().rev() {
        match byte {
            0x66 if wants_size => wants_size = false,
            0xf2 | 0xf3 if is_string && !string.is_repeated => string.is_repeated = true,
            _ => break,
        }
        prefixes += 1;
    }
    Some(Instruction { len: len + prefixes, string })
}

/// The instruction that begins where `code` does.
pub(crate) fn begins(code: &[u8], access: PortAccess) -> Option<Instruction> {
    let opcode = opcode(access);
    let mut is_repeated = false;
    let mut len = 0;
    for byte in code {
        len += 1;
        match *byte {
            0xf2 | 0xf3 => is_repeated = true,
            // Before an opcode that is none of these they would mean something else.
            0x66 | 0x40..=0x4f => {}
            found if found == opcode => {
                return Some(Instruction { len, string: StringAccess::default() });
            }
            found if found == opcode - 8 => {
                return Some(Instruction { len: len + 1, string: StringAccess::default() });
            }
            found if found == opcode - 0x80 => {
                let string = StringAccess { is_string: true, is_repeated };
                return Some(Instruction { len, string });
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(is_out: bool, size: u8, port: u16) -> PortAccess {
        PortAccess { is_out, size, port, count: 1 }
    }

    fn len(code: &[u8], access: PortAccess) -> Option<u8> {
        ends(code, access, false).map(|instruction| instruction.len)
    }

    #[test]
    fn an_out_is_found_by_its_end() {
        assert_eq!(len(&[0x90, 0xe6, 1], access(true, 1, 1)), Some(2));
        assert_eq!(len(&[0x90, 0x90, 0xee], access(true, 1, 0x3f8)), Some(1));
        assert_eq!(len(&[0x90, 0x66, 0xef], access(true, 2, 0x3f8)), Some(2));
        assert_eq!(len(&[0xb0, 0x66, 0xe6, 1], access(true, 1, 1)), Some(2), "66 is a value");
        assert_eq!(len(&[0x90, 0xe6, 0xee], access(true, 1, 0xee)), Some(2));
        assert_eq!(len(&[0x90, 0xe6, 0xee], access(true, 1, 2)), Some(1), "e6 belongs to another");
        assert_eq!(len(&[0x90, 0x90, 0x90], access(true, 1, 1)), None);
    }

    #[test]
    fn an_in_is_found_by_its_start() {
        let found = begins(&[0xe4, 1, 0x90], access(false, 1, 1));
        assert_eq!(found.map(|found| found.len), Some(2));
    }

    #[test]
    fn a_string_is_told_from_one_access() {
        let found = ends(&[0x90, 0xf3, 0x6e], access(true, 1, 1), false);
        let string = StringAccess { is_string: true, is_repeated: true };
        assert_eq!(found, Some(Instruction { len: 2, string }));
    }
}
