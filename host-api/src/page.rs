//! The channel page of one guest, where it lies in guest memory.

use cellule_channel::{Page, PageLost};
use cellule_hv::{Gva, Memory};

/// The channel page of one guest.
#[derive(Clone, Copy)]
pub(crate) struct ChannelPage<'a> {
    pub(crate) memory: &'a Memory,
    pub(crate) gva: Gva,
}

impl ChannelPage<'_> {
    pub(crate) fn at(&self, offset: usize) -> Gva {
        Gva(self.gva.0 + offset as u64)
    }

    /// Reads eight bytes once. The guest, if they are its own, stands still.
    pub(crate) fn load_u64(&self, offset: usize) -> Result<u64, PageLost> {
        let mut bytes = [0; 8];
        self.read(offset, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(crate) fn store_u64(&self, offset: usize, value: u64) -> Result<(), PageLost> {
        self.write(offset, &value.to_le_bytes())
    }
}

impl Page for ChannelPage<'_> {
    fn load(&self, offset: usize) -> Result<u32, PageLost> {
        self.memory.load_u32(self.at(offset)).map_err(|_| PageLost)
    }

    fn store(&self, offset: usize, value: u32) -> Result<(), PageLost> {
        self.memory.store_u32(self.at(offset), value).map_err(|_| PageLost)
    }

    fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), PageLost> {
        self.memory.copy_into(self.at(offset), to).map_err(|_| PageLost)
    }

    fn write(&self, offset: usize, from: &[u8]) -> Result<(), PageLost> {
        self.memory.copy_in(self.at(offset), from).map_err(|_| PageLost)
    }
}
