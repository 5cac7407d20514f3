//! What a stop of the child's means to the guest in it: a doorbell, a fault, nothing.

use std::io;

use cellule_hv::{Fault, Gva, Memory, Protection};

use crate::child::{Child, Verdict};
use crate::fault::{Meaning, Scene};
use crate::instruction::{Bytes, Instruction, plain_doorbell};
use crate::trace::{self, Stop};

/// What a run came to.
#[derive(Debug)]
pub(crate) enum Seen {
    Doorbell(u8),
    Fault(Fault),
    /// The machine failed: a signal's number.
    Machine(i32),
}

/// Tells what a stop of the child's means.
pub(crate) fn judge(child: &mut Child, memory: &Memory, stop: Stop) -> io::Result<Verdict<Seen>> {
    const OF_INSTRUCTIONS: [i32; 6] =
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];
    match stop {
        Stop::Signal(libc::SIGSEGV) => {
            child.look()?;
            match rung(memory, child.registers()) {
                Some(len) => Ok(Verdict::Stop(ring(child, len))),
                None => fault(child, memory),
            }
        }
        Stop::Signal(signal) if OF_INSTRUCTIONS.contains(&signal) => {
            child.look()?;
            fault(child, memory)
        }
        Stop::SystemCall => {
            child.look()?;
            Ok(Verdict::Stop(system_call(memory, child.registers())))
        }
        Stop::Signal(_) | Stop::Event | Stop::Gone(_) => Ok(Verdict::GoOn),
    }
}

/// The length of the usual `out` to the doorbell, if the guest stands at one.
fn rung(memory: &Memory, registers: &trace::Registers) -> Option<u64> {
    let byte = |at| executable_byte(memory, at);
    let rip = registers.rip;
    plain_doorbell(byte(rip)?, || byte(rip.wrapping_add(1)), registers.rdx)
}

/// The guest goes on behind its `out`.
fn ring(child: &mut Child, len: u64) -> Seen {
    let trace::Registers { rip, rax, .. } = *child.registers();
    child.set_rip(rip.wrapping_add(len));
    let [al, ..] = rax.to_le_bytes();
    Seen::Doorbell(al)
}

/// Tells what a signal means that an instruction may have caused.
fn fault(child: &mut Child, memory: &Memory) -> io::Result<Verdict<Seen>> {
    const GENERAL_PROTECTION: u8 = 13;
    child.calls += 1;
    let signal = child.pid().signal()?;
    let registers = child.registers();
    let mut bytes = Bytes::default();
    let mut at = registers.rip;
    while executable_byte(memory, at).is_some_and(|byte| bytes.push(byte)) {
        at = at.wrapping_add(1);
    }
    let instruction = Instruction::at(registers.rip, &bytes);
    let scene = Scene { space: memory.space(), registers, instruction: &instruction };
    let fault = match scene.meaning(signal) {
        Meaning::Fault(fault) => fault,
        Meaning::Foreign => return Ok(Verdict::GoOn),
        Meaning::Machine => return Ok(Verdict::Stop(Seen::Machine(signal.number))),
    };
    let rung = instruction.doorbell(registers.rdx).filter(|_| fault.vector == GENERAL_PROTECTION);
    Ok(Verdict::Stop(rung.map_or(Seen::Fault(fault), |len| ring(child, len))))
}

fn system_call(memory: &Memory, registers: &trace::Registers) -> Seen {
    let before = [2, 1].map(|back| executable_byte(memory, registers.rip.wrapping_sub(back)));
    let before = before.map(Option::unwrap_or_default);
    let instruction = Instruction::at(registers.rip, &Bytes::default());
    let scene = Scene { space: memory.space(), registers, instruction: &instruction };
    Seen::Fault(scene.system_call(before))
}

/// A byte that the guest may execute. Text is sealed: what is read is what ran.
fn executable_byte(memory: &Memory, at: u64) -> Option<u8> {
    let mapping = memory.space().find(Gva(at))?;
    let mut byte = [0];
    let executable = mapping.protection == Protection::ReadExecute;
    (executable && memory.copy_into(Gva(at), &mut byte).is_ok()).then_some(byte[0])
}
