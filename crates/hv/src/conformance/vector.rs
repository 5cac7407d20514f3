//! Cases: XSAVE with the mask that the backend names saves a guest's vector
//! registers, all of them and nothing else.

use std::ops::Range;

use super::steer::{deliver_to, interrupt};
use super::{DATA, STACK, TEXT, Test, is_equal, partition, rings, text};
use crate::{Gva, Hypervisor, Partition};

/// The cases.
pub(super) const TESTS: &[(&str, Test)] = &[
    ("a_guest_can_save_and_restore_its_vector_state", saved_and_restored),
    ("a_diverted_guest_keeps_the_vector_state_that_it_saves", diverted),
];

/// AVX, as in XCR0: SDM volume 1, section 13.1.
const AVX: u64 = 1 << 2;
/// What YMM0 to YMM15 take.
const REGISTERS_BYTES: usize = 16 * 32;
/// Where they are loaded from, stored to, and spoilt from.
const FROM: u64 = DATA + 0x200;
const TO: u64 = DATA + 0x400;
const SPOILT: u64 = DATA + 0x600;
/// Where an upcall saves: below its stack, 2688 bytes with AVX-512.
const SAVED: u64 = STACK + 0x100;
/// How often the guest is diverted.
const TIMES: u8 = 32;

/// XSAVE of what the backend says that there is saves nothing else, and XRSTOR
/// takes it back.
fn saved_and_restored(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    let state = hypervisor.capabilities().vector_state;
    if state == 0 {
        return Ok(());
    }
    // mov al, 3; out 1, al
    let code = [save(state, DATA), restore(state, DATA), vec![0xb0, 3, 0xe6, 1]].concat();
    let mut partition = partition(hypervisor, &code)?;
    rings(&mut *partition, 3)?;
    // XSTATE_BV, SDM volume 1, section 13.4.2.
    let mut saved = [0; 8];
    partition.memory().copy_into(Gva(DATA + 512), &mut saved).map_err(text)?;
    is_equal("what was saved besides", 0, u64::from_le_bytes(saved) & !state)
}

/// A guest that fills YMM0 to YMM15 and spins is diverted to an upcall that
/// saves, spoils all of them, rings, and restores.
fn diverted(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    let state = hypervisor.capabilities().vector_state;
    if state & AVX == 0 {
        return Ok(());
    }
    let (code, spin, entry) = spinner(state);
    let mut partition = partition(hypervisor, &code)?;
    let values: Vec<u8> = (0..=u8::MAX).flat_map(|byte| [byte, !byte]).collect();
    partition.memory().copy_in(Gva(FROM), &values).map_err(text)?;
    partition.memory().copy_in(Gva(SPOILT), &[0xee; REGISTERS_BYTES]).map_err(text)?;
    rings(&mut *partition, 1)?;
    for _ in 0..TIMES {
        interrupt(&mut *partition, spin.clone())?;
        deliver_to(&mut *partition, entry)?;
        rings(&mut *partition, 7)?;
    }
    partition.memory().copy_in(Gva(DATA), &[1]).map_err(text)?;
    rings(&mut *partition, 2)?;
    for (n, stored) in stored(&*partition)?.chunks(32).enumerate() {
        is_equal(&format!("YMM{n}"), values.get(32 * n..32 * n + 32), Some(stored))?;
    }
    Ok(())
}

fn stored(partition: &dyn Partition) -> Result<Vec<u8>, String> {
    let mut stored = vec![0; REGISTERS_BYTES];
    partition.memory().copy_into(Gva(TO), &mut stored).map_err(text)?;
    Ok(stored)
}

/// The code of `diverted`, the addresses of its loop, and the upcall's.
fn spinner(state: u64) -> (Vec<u8>, Range<u64>, Gva) {
    // mov al, 1; out 1, al
    let mut code = [load(FROM), vec![0xb0, 1, 0xe6, 1]].concat();
    let spin = TEXT + code.len() as u64;
    // cmp byte ptr [DATA], 0; je back
    code.extend([0x80, 0x3c, 0x25, 0, 0x20, 0x40, 0, 0, 0x74, 0xf6]);
    let behind = TEXT + code.len() as u64;
    code.extend(store(TO));
    // mov al, 2; out 1, al
    code.extend([0xb0, 2, 0xe6, 1]);
    let entry = Gva(TEXT + code.len() as u64);
    // pushfq; push rax; push rdx
    code.extend([0x9c, 0x50, 0x52]);
    code.extend(save(state, SAVED));
    code.extend(load(SPOILT));
    // mov al, 7; out 1, al
    code.extend([0xb0, 7, 0xe6, 1]);
    code.extend(restore(state, SAVED));
    // pop rdx; pop rax; popfq; ret 128
    code.extend([0x5a, 0x58, 0x9d, 0xc2, 0x80, 0]);
    (code, spin..behind, entry)
}

/// `vmovups ymmN, [gva + 32 * N]`, for all 16.
fn load(gva: u64) -> Vec<u8> {
    move_all(0x10, gva)
}

/// `vmovups [gva + 32 * N], ymmN`, for all 16.
fn store(gva: u64) -> Vec<u8> {
    move_all(0x11, gva)
}

fn move_all(opcode: u8, gva: u64) -> Vec<u8> {
    let one = |n: u8| {
        // The two-byte VEX prefix, which has the inverted bit 3 of the number.
        let vex = [0xc5, if n < 8 { 0xfc } else { 0x7c }];
        [&vex[..], &[opcode, 0x04 | (n & 7) << 3, 0x25], &address(gva + 32 * u64::from(n))].concat()
    };
    (0..16).flat_map(one).collect()
}

/// `xsave64 [gva]`, of those states.
fn save(state: u64, gva: u64) -> Vec<u8> {
    [&mask(state)[..], &[0x48, 0x0f, 0xae, 0x24, 0x25], &address(gva)].concat()
}

/// `xrstor64 [gva]`, of those states.
fn restore(state: u64, gva: u64) -> Vec<u8> {
    [&mask(state)[..], &[0x48, 0x0f, 0xae, 0x2c, 0x25], &address(gva)].concat()
}

/// `mov eax`, the lower half; `mov edx`, the upper half.
fn mask(state: u64) -> Vec<u8> {
    let bytes = state.to_le_bytes();
    let (low, high) = bytes.split_at(4);
    [&[0xb8], low, &[0xba], high].concat()
}

/// The low half of an address: all of the suite's are below 2 GiB.
fn address(gva: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = gva.to_le_bytes();
    [a, b, c, d]
}
