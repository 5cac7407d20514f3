//! Why the vCPU stopped, read from the message that the hypervisor leaves.
//!
//! A message says what the guest tried; nothing has been done about it. The
//! instruction pointer still names the `out`, and whoever lets the guest go on
//! adds the length that the message tells. A memory intercept carries no data,
//! and nobody here emulates instructions: it ends the guest.

use mshv_bindings::{
    HV_INTERCEPT_ACCESS_WRITE, hv_message, hv_message_type, hv_message_type_HVMSG_GPA_INTERCEPT,
    hv_message_type_HVMSG_INVALID_VP_REGISTER_VALUE, hv_message_type_HVMSG_NONE,
    hv_message_type_HVMSG_UNACCEPTED_GPA, hv_message_type_HVMSG_UNMAPPED_GPA,
    hv_message_type_HVMSG_UNRECOVERABLE_EXCEPTION, hv_message_type_HVMSG_UNSUPPORTED_FEATURE,
    hv_message_type_HVMSG_X64_EXCEPTION_INTERCEPT, hv_message_type_HVMSG_X64_HALT,
    hv_message_type_HVMSG_X64_IO_PORT_INTERCEPT, hv_message_type_HVMSG_X64_MSR_INTERCEPT,
    hv_x64_io_port_intercept_message,
};

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// One byte written to a port.
    Port {
        /// The port's number.
        port: u16,
        /// The byte.
        value: u8,
        /// The instruction behind the `out`.
        next: u64,
    },
    /// Anything else, in plain words, with a number that goes with it.
    Unexpected(&'static str, u64),
}

/// Reads a message. One that contradicts itself is unexpected, too.
pub(crate) fn read(message: &hv_message) -> Seen {
    let message_type = message.header.message_type;
    let info = message.to_ioport_info();
    let memory = message.to_memory_info();
    let exception = message.to_exception_info();
    match (info, memory, exception) {
        (Ok(info), _, _) => port(&info),
        (_, Ok(info), _) => {
            let access = u32::from(info.header.intercept_access_type);
            let what = if access == HV_INTERCEPT_ACCESS_WRITE {
                "a write to no memory"
            } else {
                "a read of no memory"
            };
            Seen::Unexpected(what, info.guest_physical_address)
        }
        (_, _, Ok(info)) => {
            let vector = u64::from(info.exception_vector);
            Seen::Unexpected("an exception that was not delivered", vector)
        }
        _ => other(message_type),
    }
}

fn port(info: &hv_x64_io_port_intercept_message) -> Seen {
    // SAFETY: the union's two readings are one byte and that byte's bits.
    let access = unsafe { info.access_info.as_uint8 };
    let header = info.header;
    let port = info.port_number;
    if u32::from(header.intercept_access_type) != HV_INTERCEPT_ACCESS_WRITE {
        return Seen::Unexpected("a read from a port", u64::from(port));
    }
    if access != ONE_BYTE {
        return Seen::Unexpected("a wide or repeated write to a port", u64::from(port));
    }
    let len = u64::from(header.instruction_length());
    if len == 0 {
        return Seen::Unexpected("a write to a port by no instruction", u64::from(port));
    }
    let [value, ..] = info.rax.to_le_bytes();
    Seen::Port { port, value, next: header.rip.wrapping_add(len) }
}

/// `hv_x64_io_port_access_info`: the access's size in the lowest three bits, then
/// the string bit and that of the repeat prefix.
const ONE_BYTE: u8 = 1;

/// Names a message that is neither of a port nor of memory nor of an exception.
fn other(message_type: hv_message_type) -> Seen {
    #[allow(non_upper_case_globals, reason = "the bindings name the enumerators of a C header")]
    match message_type {
        hv_message_type_HVMSG_UNRECOVERABLE_EXCEPTION => Seen::Unexpected("a triple fault", 0),
        hv_message_type_HVMSG_X64_HALT => Seen::Unexpected("a halt in an exception stub", 0),
        hv_message_type_HVMSG_INVALID_VP_REGISTER_VALUE => {
            Seen::Unexpected("a register value that the processor cannot have", 0)
        }
        hv_message_type_HVMSG_UNSUPPORTED_FEATURE => {
            Seen::Unexpected("a feature that the hypervisor does not have", 0)
        }
        hv_message_type_HVMSG_X64_MSR_INTERCEPT => Seen::Unexpected("a model-specific register", 0),
        hv_message_type_HVMSG_NONE => Seen::Unexpected("a stop for no reason", 0),
        _ => Seen::Unexpected("an exit that no guest of ours causes", u64::from(message_type)),
    }
}

// `to_memory_info` and `to_exception_info` accept these types and no others.
const _: () = {
    assert!(hv_message_type_HVMSG_UNMAPPED_GPA == 0x8000_0000, "the ABI has changed");
    assert!(hv_message_type_HVMSG_GPA_INTERCEPT == 0x8000_0001, "the ABI has changed");
    assert!(hv_message_type_HVMSG_UNACCEPTED_GPA == 0x8000_0003, "the ABI has changed");
    assert!(hv_message_type_HVMSG_X64_IO_PORT_INTERCEPT == 0x8001_0000, "the ABI has changed");
    assert!(hv_message_type_HVMSG_X64_EXCEPTION_INTERCEPT == 0x8001_0003, "the ABI has changed");
};

#[cfg(test)]
mod tests {
    use std::ptr;

    use mshv_bindings::{
        HV_INTERCEPT_ACCESS_EXECUTE, HV_INTERCEPT_ACCESS_READ, hv_message__bindgen_ty_1,
        hv_message_type_HVMSG_X64_APIC_EOI, hv_x64_exception_intercept_message,
        hv_x64_memory_intercept_message,
    };

    use super::*;

    fn message<T>(message_type: hv_message_type, payload: T) -> hv_message {
        let mut message = hv_message::default();
        message.header.message_type = message_type;
        const { assert!(size_of::<T>() <= size_of::<hv_message__bindgen_ty_1>()) };
        // SAFETY: the payload has that room, whatever its alignment.
        unsafe { ptr::write_unaligned((&raw mut message.u).cast(), payload) };
        message
    }

    fn access(kind: u32) -> u8 {
        u8::try_from(kind).unwrap()
    }

    /// `out 1, al` at 0x40_0010, before it is spoilt.
    fn out(spoil: impl FnOnce(&mut hv_x64_io_port_intercept_message)) -> hv_message {
        let mut info = hv_x64_io_port_intercept_message::default();
        info.header.intercept_access_type = access(HV_INTERCEPT_ACCESS_WRITE);
        info.header.set_instruction_length(2);
        info.header.rip = 0x40_0010;
        info.port_number = 1;
        info.rax = 0x1122_3344_5566_7788;
        // SAFETY: this bit-field view is of the union's one byte.
        unsafe { info.access_info.__bindgen_anon_1.set_access_size(1) };
        spoil(&mut info);
        message(hv_message_type_HVMSG_X64_IO_PORT_INTERCEPT, info)
    }

    #[test]
    fn a_byte_written_to_a_port_comes_with_the_instruction_behind_it() {
        let due = Seen::Port { port: 1, value: 0x88, next: 0x40_0012 };
        assert_eq!(read(&out(|_| ())), due);
        let wraps = out(|info| info.header.rip = u64::MAX);
        assert_eq!(read(&wraps), Seen::Port { port: 1, value: 0x88, next: 1 });
    }

    #[test]
    fn no_other_access_to_a_port_is_a_ring() {
        type Spoil = fn(&mut hv_x64_io_port_intercept_message);
        // SAFETY (of each block): the bit-field view is of the union's one byte.
        let cases: [(&str, Spoil); 5] = [
            ("a read from a port", |info| {
                info.header.intercept_access_type = access(HV_INTERCEPT_ACCESS_READ);
            }),
            ("a wide or repeated write to a port", |info| {
                // SAFETY: see above.
                unsafe { info.access_info.__bindgen_anon_1.set_access_size(2) }
            }),
            ("a wide or repeated write to a port", |info| {
                // SAFETY: see above.
                unsafe { info.access_info.__bindgen_anon_1.set_string_op(1) }
            }),
            ("a wide or repeated write to a port", |info| {
                // SAFETY: see above.
                unsafe { info.access_info.__bindgen_anon_1.set_rep_prefix(1) }
            }),
            ("a write to a port by no instruction", |info| info.header.set_instruction_length(0)),
        ];
        for (what, spoil) in cases {
            assert_eq!(read(&out(spoil)), Seen::Unexpected(what, 1));
        }
    }

    #[test]
    fn an_access_to_no_memory_says_where() {
        let types = [
            hv_message_type_HVMSG_UNMAPPED_GPA,
            hv_message_type_HVMSG_GPA_INTERCEPT,
            hv_message_type_HVMSG_UNACCEPTED_GPA,
        ];
        let kinds = [
            (HV_INTERCEPT_ACCESS_WRITE, "a write to no memory"),
            (HV_INTERCEPT_ACCESS_READ, "a read of no memory"),
            (HV_INTERCEPT_ACCESS_EXECUTE, "a read of no memory"),
        ];
        for message_type in types {
            for (kind, what) in kinds {
                let mut info = hv_x64_memory_intercept_message::default();
                info.header.intercept_access_type = access(kind);
                info.guest_physical_address = 0xfee0_0000;
                let seen = read(&message(message_type, info));
                assert_eq!(seen, Seen::Unexpected(what, 0xfee0_0000));
            }
        }
    }

    #[test]
    fn every_other_message_has_a_name() {
        let exception =
            hv_x64_exception_intercept_message { exception_vector: 14, ..Default::default() };
        let exception = message(hv_message_type_HVMSG_X64_EXCEPTION_INTERCEPT, exception);
        let undelivered = "an exception that was not delivered";
        assert_eq!(read(&exception), Seen::Unexpected(undelivered, 14));
        let names = [
            (hv_message_type_HVMSG_UNRECOVERABLE_EXCEPTION, "a triple fault", 0),
            (hv_message_type_HVMSG_X64_HALT, "a halt in an exception stub", 0),
            (hv_message_type_HVMSG_NONE, "a stop for no reason", 0),
            (
                hv_message_type_HVMSG_X64_APIC_EOI,
                "an exit that no guest of ours causes",
                u64::from(hv_message_type_HVMSG_X64_APIC_EOI),
            ),
        ];
        for (message_type, what, detail) in names {
            assert_eq!(read(&message(message_type, 0_u64)), Seen::Unexpected(what, detail));
        }
    }
}
