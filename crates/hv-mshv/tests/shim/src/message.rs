//! The messages of a run, as bytes.

use std::mem::{offset_of, size_of};

use kvm_bindings::{kvm_regs, kvm_sregs, kvm_vcpu_events};
use mshv_bindings::{
    HV_INTERCEPT_ACCESS_EXECUTE, HV_INTERCEPT_ACCESS_READ, HV_INTERCEPT_ACCESS_WRITE, hv_message,
    hv_message_header, hv_message_type_HVMSG_GPA_INTERCEPT, hv_message_type_HVMSG_UNMAPPED_GPA,
    hv_message_type_HVMSG_UNRECOVERABLE_EXCEPTION, hv_message_type_HVMSG_X64_HALT,
    hv_message_type_HVMSG_X64_IO_PORT_INTERCEPT, hv_x64_intercept_message_header as Header,
    hv_x64_io_port_intercept_message as Port, hv_x64_memory_intercept_message as MemoryMessage,
};

use crate::events;
use crate::run_page::PortAccess;
use crate::segment::segment;

/// One message: what MSHV_RUN_VP fills its buffer with.
pub(crate) type Message = [u8; size_of::<hv_message>()];

/// How a guest reached for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Access {
    Read = HV_INTERCEPT_ACCESS_READ,
    Write = HV_INTERCEPT_ACCESS_WRITE,
    Execute = HV_INTERCEPT_ACCESS_EXECUTE,
}

/// What a port instruction is beyond what KVM tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StringAccess {
    pub(crate) is_string: bool,
    pub(crate) is_repeated: bool,
}

/// Where a processor stands, which every intercept tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) index: u32,
    pub(crate) general: &'a kvm_regs,
    pub(crate) system: &'a kvm_sregs,
    pub(crate) events: &'a kvm_vcpu_events,
    /// Of the instruction, or 0 if it is not known.
    pub(crate) len: u8,
}

/// The payload of a message, field by field.
struct Payload {
    message: Message,
}

const PAYLOAD: usize = offset_of!(hv_message, u);

impl Payload {
    /// `len` is the payload's.
    fn new(kind: u32, len: usize) -> Self {
        let mut payload = Self { message: [0; size_of::<hv_message>()] };
        payload.put_at(offset_of!(hv_message_header, message_type), &kind.to_le_bytes());
        let len = u8::try_from(len).unwrap_or(u8::MAX);
        payload.put_at(offset_of!(hv_message_header, payload_size), &[len]);
        payload
    }

    fn put_at(&mut self, offset: usize, bytes: &[u8]) {
        self.message.iter_mut().skip(offset).zip(bytes).for_each(|(to, from)| *to = *from);
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.put_at(PAYLOAD + offset, bytes);
    }

    /// All intercepts begin with this.
    fn header(&mut self, place: &Place<'_>, access: Access) {
        let cr8 = u8::try_from(place.system.cr8 & 15).unwrap_or(0);
        let access = u8::try_from(access as u32).unwrap_or(0);
        self.put(offset_of!(Header, vp_index), &place.index.to_le_bytes());
        self.put(offset_of!(Header, _bitfield_1), &[place.len & 15 | cr8 << 4]);
        self.put(offset_of!(Header, intercept_access_type), &[access]);
        self.put(offset_of!(Header, execution_state), &execution_state(place).to_le_bytes());
        self.put(offset_of!(Header, cs_segment), &segment(&place.system.cs).to_le_bytes());
        self.put(offset_of!(Header, rip), &place.general.rip.to_le_bytes());
        self.put(offset_of!(Header, rflags), &place.general.rflags.to_le_bytes());
    }
}

/// `hv_x64_vp_execution_state`: bits 0 and 1 privilege level, 2 CR0.PE, 3 CR0.AM,
/// 4 EFER.LMA, 6 interruption pending, 12 interrupt shadow.
fn execution_state(place: &Place<'_>) -> u16 {
    let bit = |is_set: bool, bit: u16| u16::from(is_set) << bit;
    let system = place.system;
    // The privilege level is that of SS in virtual-8086 mode, too.
    u16::from(system.ss.dpl & 3)
        | bit(system.cr0 & 1 != 0, 2)
        | bit(system.cr0 >> 18 & 1 != 0, 3)
        | bit(system.efer >> 10 & 1 != 0, 4)
        | bit(events::pending_interruption(place.events) & 1 != 0, 6)
        | bit(place.events.interrupt.shadow != 0, 12)
}

/// A port was read or written.
pub(crate) fn port(place: &Place<'_>, access: PortAccess, string: StringAccess) -> Message {
    let mut payload = Payload::new(hv_message_type_HVMSG_X64_IO_PORT_INTERCEPT, size_of::<Port>());
    payload.header(place, if access.is_out { Access::Write } else { Access::Read });
    let info =
        access.size & 7 | u8::from(string.is_string) << 3 | u8::from(string.is_repeated) << 4;
    let (general, system) = (place.general, place.system);
    payload.put(offset_of!(Port, port_number), &access.port.to_le_bytes());
    payload.put(offset_of!(Port, access_info), &[info]);
    payload.put(offset_of!(Port, rax), &general.rax.to_le_bytes());
    payload.put(offset_of!(Port, ds_segment), &segment(&system.ds).to_le_bytes());
    payload.put(offset_of!(Port, es_segment), &segment(&system.es).to_le_bytes());
    payload.put(offset_of!(Port, rcx), &general.rcx.to_le_bytes());
    payload.put(offset_of!(Port, rsi), &general.rsi.to_le_bytes());
    payload.put(offset_of!(Port, rdi), &general.rdi.to_le_bytes());
    payload.message
}

/// Memory was reached for that is not there, or not for that. The guest virtual
/// address is not known.
pub(crate) fn memory(place: &Place<'_>, access: Access, gpa: u64, is_mapped: bool) -> Message {
    let kind = if is_mapped {
        hv_message_type_HVMSG_GPA_INTERCEPT
    } else {
        hv_message_type_HVMSG_UNMAPPED_GPA
    };
    let mut payload = Payload::new(kind, size_of::<MemoryMessage>());
    payload.header(place, access);
    payload.put(offset_of!(MemoryMessage, guest_physical_address), &gpa.to_le_bytes());
    payload.message
}

/// The processor halted.
pub(crate) fn halt(place: &Place<'_>) -> Message {
    bare(hv_message_type_HVMSG_X64_HALT, place)
}

/// A triple fault, or what KVM cannot go on from.
pub(crate) fn unrecoverable(place: &Place<'_>) -> Message {
    bare(hv_message_type_HVMSG_UNRECOVERABLE_EXCEPTION, place)
}

fn bare(kind: u32, place: &Place<'_>) -> Message {
    let mut payload = Payload::new(kind, size_of::<Header>());
    payload.header(place, Access::Execute);
    payload.message
}

const _: () = {
    assert!(size_of::<Message>() == 256, "MSHV_RUN_VP_BUF_SZ");
    assert!(PAYLOAD + size_of::<Port>() <= size_of::<Message>(), "a message holds it");
};
