//! The end of a guest: one exit, without an allocation.

use core::fmt;
use core::panic::PanicInfo;

use cellule_abi::page::{ABORT_MESSAGE_BYTES, Abort, AbortCode};
use cellule_rtos::End;

use super::page::Page;
use super::port;
use crate::exclusive::Exclusive;
use crate::kernel::Section;
use crate::text::{Message, refused_allocation};

/// The last words. In use for ever once the guest gives up.
static MESSAGE: Exclusive<Message<ABORT_MESSAGE_BYTES>> = Exclusive::new(Message::new());

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    if port::tasks_fail_alone() && !port::is_masked() {
        let section = Section::enter();
        let name = section.name();
        drop(section);
        log::error!(target: "cellule", "task {name} panicked and has ended: {info}");
        Section::enter().end_current(End::Failed);
    }
    MESSAGE.try_with(|message| {
        if let Some(size) = refused_allocation(message.set(format_args!("{}", info.message()))) {
            // The location is the standard library's: it tells nothing.
            end(AbortCode::OutOfMemory, message.text(), size);
        }
        match info.location() {
            Some(at) => message.set(format_args!("{}, at {at}", info.message())),
            None => message.text(),
        };
        end(AbortCode::Panic, message.text(), 0)
    });
    end(AbortCode::Panic, "a panic while the message of another was written", 0)
}

/// Gives up for a reason other than a panic.
pub(super) fn abort(code: AbortCode, text: fmt::Arguments<'_>) -> ! {
    MESSAGE.try_with(|message| end(code, message.set(text), 0));
    end(code, "the guest gave up twice", 0)
}

fn end(code: AbortCode, message: &str, detail: u64) -> ! {
    Page.abort(Abort {
        code: code as u32,
        // At most `ABORT_MESSAGE_BYTES`, or a literal.
        message_len: u32::try_from(message.len()).unwrap_or(0),
        message_gva: message.as_ptr().expose_provenance() as u64,
        detail,
        reserved: [0; 5],
    })
}
