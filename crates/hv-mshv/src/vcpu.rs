//! The vCPU with what it is yet to be told: calls, and how many there were.
//!
//! Registers that change between two runs are collected, and travel once, before
//! the run: through the register page where it will do, which costs nothing, and
//! else by one call for all of them.

use std::io;

use cellule_hv::{Gva, Position, Registers};
use mshv_bindings::{hv_register_assoc, hv_register_name};
use mshv_ioctls::VcpuFd;

use crate::message::{self, Seen};
use crate::page::Page;
use crate::{error, registers};

/// A vCPU that is stopped, or run by whoever holds it.
#[derive(Debug)]
pub(crate) struct Vcpu {
    fd: VcpuFd,
    changes: Changes,
    /// Whether a call has set registers since the page was last filled. Nobody
    /// says that they are in the page then.
    is_page_stale: bool,
    /// Calls into the hypervisor.
    pub(crate) calls: u64,
}

/// What the vCPU must be told before it runs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Changes {
    all: Option<Registers>,
    rip: Option<u64>,
    rsp: Option<u64>,
    root: Option<u64>,
}

/// What a run came to.
pub(crate) enum Ran {
    /// The vCPU stopped and says why.
    Stopped(Seen),
    /// A signal stopped it, or kept it from running.
    Interrupted,
    /// It could not be run for now.
    Again,
    /// It cannot be run.
    Failed(i32),
}

impl Vcpu {
    /// Takes a vCPU over, and tells it its first registers.
    pub(crate) fn new(fd: VcpuFd, first: &[hv_register_assoc]) -> io::Result<Self> {
        let changes = Changes::default();
        let mut vcpu = Self { fd, changes, is_page_stale: true, calls: 0 };
        vcpu.set(first)?;
        Ok(Self { calls: 0, ..vcpu })
    }

    /// Lets the guest go on at an instruction, with all other registers as they are.
    pub(crate) fn go_on(&mut self, rip: u64) {
        self.changes.rip = Some(rip);
    }

    /// Lets the guest go on elsewhere, and with another stack.
    pub(crate) fn divert(&mut self, to: Position) {
        self.changes.divert(to);
    }

    /// Lets the guest go on with other registers.
    pub(crate) fn restart(&mut self, registers: &Registers) {
        let root = self.changes.root;
        self.changes = Changes { all: Some(*registers), root, ..Changes::default() };
    }

    /// Lets the guest go on with other page tables.
    pub(crate) fn set_root(&mut self, root: u64) {
        self.changes.root = Some(root);
    }

    /// Tells the vCPU what has changed: a call, or none.
    ///
    /// # Errors
    ///
    /// What the hypervisor said; then it is still to be told.
    pub(crate) fn tell(&mut self) -> io::Result<()> {
        let mut left = self.changes;
        // What is in the page comes last: once a pointer may be there that no run
        // has taken along, the next one must be there, too.
        if left.all.is_none()
            && let Some(mut page) = self.page()
        {
            page.go_on(left.rip.take(), left.rsp.take());
        }
        if left != Changes::default() {
            self.set(&left.list())?;
        }
        if left.all.is_some() {
            if let Some(mut page) = self.page() {
                page.forget();
            }
            self.is_page_stale = true;
        }
        self.changes = Changes::default();
        Ok(())
    }

    /// Runs the guest once.
    pub(crate) fn run(&mut self) -> Ran {
        self.calls += 1;
        match self.fd.run() {
            Ok(message) => {
                self.is_page_stale = false;
                Ran::Stopped(message::read(&message))
            }
            Err(error) => match error.errno() {
                libc::EINTR => Ran::Interrupted,
                libc::EAGAIN => Ran::Again,
                errno => Ran::Failed(errno),
            },
        }
    }

    /// Reads the stack pointer: a call, or none.
    pub(crate) fn rsp(&mut self) -> io::Result<u64> {
        if let Some(page) = self.page() {
            return Ok(page.position().rsp.0);
        }
        let [_, rsp, ..] = self.get(&registers::STAND)?;
        Ok(rsp)
    }

    /// Reads where the guest stands, and whether an exception is under way: a call.
    pub(crate) fn stand(&mut self) -> io::Result<(Position, bool)> {
        let [rip, rsp, interruption, event] = self.get(&registers::STAND)?;
        let told = Position { rip: Gva(rip), rsp: Gva(rsp) };
        // The page may have what a run that did not begin has not taken along.
        let position = self.page().map_or(told, |page| page.position());
        Ok((position, registers::is_delivering(interruption, event)))
    }

    /// Reads the registers of a guest that goes on at `at`: a call, or none.
    pub(crate) fn registers(&mut self, at: Position) -> io::Result<Registers> {
        let all = match self.changes.all {
            Some(all) => Registers { rflags: all.flags(), ..all },
            None => registers::read(&self.get(&registers::GENERAL)?),
        };
        Ok(Registers { rip: at.rip.0, rsp: at.rsp.0, ..all })
    }

    /// Reads one register: a call.
    pub(crate) fn register(&mut self, name: hv_register_name) -> io::Result<u64> {
        let [value] = self.get(&[name])?;
        Ok(value)
    }

    /// Reads the lower halves of registers: a call.
    fn get<const N: usize>(&mut self, names: &[hv_register_name; N]) -> io::Result<[u64; N]> {
        let mut list = names.map(|name| hv_register_assoc { name, ..Default::default() });
        let Self { fd, calls, .. } = self;
        error::persist(|| {
            *calls += 1;
            fd.get_reg(&mut list)
        })?;
        // SAFETY: the hypervisor has written all of each value, of which the
        // lower half is a number whatever it means.
        Ok(list.map(|assoc| unsafe { assoc.value.reg64 }))
    }

    /// Sets registers: a call.
    fn set(&mut self, list: &[hv_register_assoc]) -> io::Result<()> {
        error::persist(|| {
            self.calls += 1;
            self.fd.set_reg(list)
        })
    }

    /// The register page, if it is valid now.
    fn page(&mut self) -> Option<Page<'_>> {
        if self.is_page_stale {
            return None;
        }
        let page = self.fd.get_vp_reg_page()?;
        // SAFETY: the descriptor unmaps the page when it is dropped. While this
        // vCPU is borrowed for the `Page`, nobody can run it or get another one.
        unsafe { Page::of(page) }
    }
}

impl Changes {
    fn divert(&mut self, Position { rip, rsp }: Position) {
        match &mut self.all {
            Some(all) => (all.rip, all.rsp) = (rip.0, rsp.0),
            None => (self.rip, self.rsp) = (Some(rip.0), Some(rsp.0)),
        }
    }

    /// The registers to set.
    fn list(&self) -> Vec<hv_register_assoc> {
        let mut list = self.all.map_or_else(Vec::new, |all| registers::general(&all));
        list.extend(self.rip.map(registers::rip));
        list.extend(self.rsp.map(registers::rsp));
        list.extend(self.root.map(registers::root));
        list
    }
}

#[cfg(test)]
mod tests {
    use mshv_bindings::{
        hv_register_name_HV_X64_REGISTER_CR3 as CR3, hv_register_name_HV_X64_REGISTER_RIP as RIP,
        hv_register_name_HV_X64_REGISTER_RSP as RSP,
    };

    use super::*;

    fn told(changes: &Changes) -> Vec<(hv_register_name, u64)> {
        let list = changes.list();
        // SAFETY: any bits are a number.
        list.iter().map(|assoc| (assoc.name, unsafe { assoc.value.reg64 })).collect()
    }

    #[test]
    fn only_what_changed_travels() {
        let mut changes = Changes { rip: Some(0x12), ..Changes::default() };
        assert_eq!(told(&changes), [(RIP, 0x12)]);
        changes.divert(Position { rip: Gva(0x34), rsp: Gva(0x56) });
        changes.root = Some(0x9000);
        assert_eq!(told(&changes), [(RIP, 0x34), (RSP, 0x56), (CR3, 0x9000)]);
        assert_eq!(told(&Changes::default()), []);
    }

    #[test]
    fn a_restarted_guest_that_is_diverted_has_one_instruction_pointer() {
        let mut changes = Changes { all: Some(Registers::default()), ..Changes::default() };
        changes.divert(Position { rip: Gva(0x34), rsp: Gva(0x56) });
        let of = |name| told(&changes).into_iter().filter(move |told| told.0 == name);
        assert_eq!(of(RIP).collect::<Vec<_>>(), [(RIP, 0x34)]);
        assert_eq!(of(RSP).collect::<Vec<_>>(), [(RSP, 0x56)]);
    }
}
