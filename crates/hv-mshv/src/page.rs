//! The page in which the hypervisor shows a stopped vCPU's registers.
//!
//! It is optional. While its flag says that it is valid, the instruction and the
//! stack pointer can be read and changed in it without a call; what changed is
//! named by a bit for its class of registers, and taken along by the next run.

use std::marker::PhantomData;
use std::mem::offset_of;
use std::ptr::NonNull;

use cellule_hv::{Gva, Position};
use mshv_bindings::{
    HV_X64_REGISTER_CLASS_FLAGS, HV_X64_REGISTER_CLASS_GENERAL, HV_X64_REGISTER_CLASS_IP,
    HV_X64_REGISTER_CLASS_SEGMENT, RegisterPage, hv_vp_register_page,
};

/// A vCPU's register page, as long as it lives and does not run.
#[derive(Debug)]
pub(crate) struct Page<'a>(NonNull<hv_vp_register_page>, PhantomData<&'a mut RegisterPage>);

/// Where in the page a field is. Only constants below are: each is within it.
struct Field<T>(usize, PhantomData<T>);

const fn field<T>(offset: usize) -> Field<T> {
    assert!(offset + size_of::<T>() <= size_of::<hv_vp_register_page>(), "it is in the page");
    Field(offset, PhantomData)
}

const IS_VALID: Field<u8> = field(offset_of!(hv_vp_register_page, isvalid));
const DIRTY: Field<u32> = field(offset_of!(hv_vp_register_page, dirty));
const RIP: Field<u64> =
    field(offset_of!(hv_vp_register_page, __bindgen_anon_1.__bindgen_anon_1.rip));
const RSP: Field<u64> = field(offset_of!(
    hv_vp_register_page,
    __bindgen_anon_1.__bindgen_anon_1.__bindgen_anon_1.__bindgen_anon_1.rsp
));

const GENERAL: u32 = 1 << HV_X64_REGISTER_CLASS_GENERAL;
const POINTER: u32 = 1 << HV_X64_REGISTER_CLASS_IP;
/// The classes of all that a call sets for a guest that starts anew.
const ALL: u32 =
    GENERAL | POINTER | 1 << HV_X64_REGISTER_CLASS_FLAGS | 1 << HV_X64_REGISTER_CLASS_SEGMENT;

impl<'a> Page<'a> {
    /// The page, unless its registers are not there now.
    ///
    /// # Safety
    ///
    /// The page must stay mapped, and its vCPU stopped, while this lives, and
    /// there must be no other for it.
    pub(crate) unsafe fn of(page: &'a RegisterPage) -> Option<Self> {
        let page = Self(NonNull::new(page.0)?, PhantomData);
        (page.read(IS_VALID) != 0).then_some(page)
    }

    /// Where the guest stands.
    pub(crate) fn position(&self) -> Position {
        Position { rip: Gva(self.read(RIP)), rsp: Gva(self.read(RSP)) }
    }

    /// Lets the guest go on elsewhere: a value that is not given stays.
    pub(crate) fn go_on(&mut self, rip: Option<u64>, rsp: Option<u64>) {
        let mut dirty = self.read(DIRTY);
        if let Some(rip) = rip {
            self.write(RIP, rip);
            dirty |= POINTER;
        }
        if let Some(rsp) = rsp {
            self.write(RSP, rsp);
            dirty |= GENERAL;
        }
        self.write(DIRTY, dirty);
    }

    /// Takes back what was changed here: a call has set all of it since.
    pub(crate) fn forget(&mut self) {
        self.write(DIRTY, self.read(DIRTY) & !ALL);
    }

    fn read<T: Copy>(&self, Field(offset, _): Field<T>) -> T {
        // SAFETY: `field` made sure that this is within the page.
        let at = unsafe { self.0.as_ptr().byte_add(offset) };
        // SAFETY: `of`'s caller keeps the page mapped and the vCPU, which alone
        // would write it, stopped; the fields are numbers.
        unsafe { at.cast::<T>().read_unaligned() }
    }

    fn write<T: Copy>(&mut self, Field(offset, _): Field<T>, value: T) {
        // SAFETY: `field` made sure that this is within the page.
        let at = unsafe { self.0.as_ptr().byte_add(offset) };
        // SAFETY: as for `read`; the page is mapped writable, and nobody else has a
        // `Page` of it.
        unsafe { at.cast::<T>().write_unaligned(value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOOD: Position = Position { rip: Gva(0x40_0010), rsp: Gva(0x50_0000) };

    fn shown(valid: u8) -> Box<hv_vp_register_page> {
        let mut page = Box::new(hv_vp_register_page { isvalid: valid, ..Default::default() });
        // RAX, RCX, RDX, RBX, RSP and so on to R15, RIP, RFLAGS.
        let mut registers = [0; 18];
        (registers[4], registers[16]) = (STOOD.rsp.0, STOOD.rip.0);
        page.__bindgen_anon_1.registers = registers;
        page
    }

    #[test]
    fn registers_that_are_not_valid_are_not_used() {
        let mut memory = shown(0);
        let mapped = [RegisterPage(&raw mut *memory), RegisterPage(std::ptr::null_mut())];
        for page in &mapped {
            // SAFETY: the box lives on, and nobody else uses it; or there is no page.
            assert!(unsafe { Page::of(page) }.is_none());
        }
    }

    #[test]
    fn only_what_is_changed_is_marked() {
        let cases: [(Option<u64>, Option<u64>, u32); 4] = [
            (None, None, 0),
            (Some(1), None, 0b10),
            (None, Some(2), 0b1),
            (Some(1), Some(2), 0b11),
        ];
        for (rip, rsp, dirty) in cases {
            let mut memory = shown(1);
            let mapped = RegisterPage(&raw mut *memory);
            // SAFETY: the box lives on, and nobody else uses it meanwhile.
            let mut page = unsafe { Page::of(&mapped) }.unwrap();
            assert_eq!(page.position(), STOOD);
            page.go_on(rip, rsp);
            let due = Position {
                rip: Gva(rip.unwrap_or(STOOD.rip.0)),
                rsp: Gva(rsp.unwrap_or(STOOD.rsp.0)),
            };
            assert_eq!(page.position(), due);
            assert_eq!({ memory.dirty }, dirty, "bits 0 and 1 are general and IP");
        }
    }

    #[test]
    fn what_a_call_has_set_is_taken_back() {
        let mut memory = shown(1);
        memory.dirty = 1 << 2;
        let mapped = RegisterPage(&raw mut *memory);
        // SAFETY: the box lives on, and nobody else uses it meanwhile.
        let mut page = unsafe { Page::of(&mapped) }.unwrap();
        page.go_on(Some(1), Some(2));
        page.forget();
        assert_eq!({ memory.dirty }, 1 << 2, "the vector registers' bit is not ours");
    }
}
