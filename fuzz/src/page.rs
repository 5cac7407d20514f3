//! The channel page in plain memory, and a guest that writes to it between any
//! two accesses of the host's.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use arbitrary::Arbitrary;
use cellule_abi::PAGE_BYTES;
use cellule_abi::page::{COMPLETIONS_OFFSET, HOST_INDICES_OFFSET, REQUESTS_OFFSET};
use cellule_channel::{Page, PageLost};

/// A word that a guest writes while the host looks at the page.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct Change {
    /// How many accesses of the host's it waits for.
    pub after: u8,
    /// Where.
    pub at: Place,
    /// What.
    pub word: Word,
}

/// What a guest writes into a word.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Word {
    /// This.
    Set(u32),
    /// What is there, and a little more or less.
    Add(i8),
}

/// Where in the page a guest writes.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Place {
    /// How many requests it has published.
    RequestTail,
    /// How many completions it has consumed.
    CompletionHead,
    /// Anywhere.
    Byte(u16),
}

impl Place {
    fn offset(self) -> usize {
        match self {
            Self::RequestTail => cellule_abi::page::REQUEST_TAIL_OFFSET,
            Self::CompletionHead => cellule_abi::page::COMPLETION_HEAD_OFFSET,
            Self::Byte(offset) => usize::from(offset) % PAGE_BYTES,
        }
    }
}

/// The page, of which the host gets no more than [`Page`] gives.
#[derive(Debug)]
pub struct HostilePage {
    bytes: RefCell<Vec<u8>>,
    script: RefCell<VecDeque<Change>>,
    accesses: Cell<u64>,
}

impl HostilePage {
    /// A zeroed page, and what the guest will write while the host looks at it.
    pub fn new(script: &[Change]) -> Self {
        let script = RefCell::new(script.iter().copied().collect());
        Self { bytes: RefCell::new(vec![0; PAGE_BYTES]), script, accesses: Cell::new(0) }
    }

    /// Writes as the guest does: anything, anywhere, as far as the page goes.
    pub fn scribble(&self, offset: usize, from: &[u8]) {
        let mut bytes = self.bytes.borrow_mut();
        let to = bytes.get_mut(offset..).unwrap_or_default();
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }

    /// Writes at a place of the guest's liking.
    pub fn scribble_at(&self, place: Place, from: &[u8]) {
        self.scribble(place.offset(), from);
    }

    /// Writes a word, as far as the page goes.
    pub fn scribble_word(&self, place: Place, word: Word) {
        let offset = place.offset();
        let value = match word {
            Word::Set(value) => value,
            Word::Add(more) => {
                let old = self.peek(offset.min(PAGE_BYTES - 4));
                old.wrapping_add_signed(more.into())
            }
        };
        self.scribble(offset, &value.to_le_bytes());
    }

    /// Reads a word as the guest does.
    pub fn peek(&self, offset: usize) -> u32 {
        let bytes = self.bytes.borrow();
        u32::from_le_bytes(bytes[offset..][..4].try_into().expect("four bytes"))
    }

    /// Reads bytes as the guest does.
    pub fn peek_bytes<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.bytes.borrow()[offset..][..N].try_into().expect("N bytes")
    }

    /// How often the host has accessed the page.
    pub fn accesses(&self) -> u64 {
        self.accesses.get()
    }

    /// Counts an access and lets the guest write before it.
    fn access(&self, offset: usize, len: usize) {
        assert!(offset + len <= PAGE_BYTES, "the host should stay in the page");
        self.accesses.set(self.accesses.get() + 1);
        let mut script = self.script.borrow_mut();
        while script.front().is_some_and(|change| change.after == 0) {
            let Some(change) = script.pop_front() else { break };
            self.scribble_word(change.at, change.word);
        }
        if let Some(next) = script.front_mut() {
            next.after = next.after.saturating_sub(1);
        }
    }
}

/// Whether the host may write there: its own indices, and completions.
fn is_the_hosts(offset: usize, len: usize) -> bool {
    [HOST_INDICES_OFFSET..HOST_INDICES_OFFSET + 8, COMPLETIONS_OFFSET..REQUESTS_OFFSET]
        .iter()
        .any(|area| area.start <= offset && offset + len <= area.end)
}

impl Page for HostilePage {
    fn load(&self, offset: usize) -> Result<u32, PageLost> {
        assert!(offset.is_multiple_of(4), "a word should be aligned");
        self.access(offset, 4);
        Ok(self.peek(offset))
    }

    fn store(&self, offset: usize, value: u32) -> Result<(), PageLost> {
        assert!(offset.is_multiple_of(4), "a word should be aligned");
        self.write(offset, &value.to_le_bytes())
    }

    fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), PageLost> {
        self.access(offset, to.len());
        to.copy_from_slice(&self.bytes.borrow()[offset..][..to.len()]);
        Ok(())
    }

    fn write(&self, offset: usize, from: &[u8]) -> Result<(), PageLost> {
        assert!(is_the_hosts(offset, from.len()), "the host should NOT write at {offset:#x}");
        self.access(offset, from.len());
        self.scribble(offset, from);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_comes_between_two_reads() {
        let change = Change { after: 1, at: Place::RequestTail, word: Word::Add(5) };
        let page = HostilePage::new(&[change]);
        let load = || page.load(cellule_abi::page::REQUEST_TAIL_OFFSET);
        assert_eq!([load(), load(), load()], [Ok(0), Ok(5), Ok(5)]);
        assert_eq!(page.accesses(), 3);
    }

    #[test]
    fn a_guest_cannot_write_past_the_page() {
        let page = HostilePage::new(&[]);
        page.scribble(PAGE_BYTES - 2, &[1, 2, 3, 4]);
        page.scribble(PAGE_BYTES + 7, &[1]);
        assert_eq!(page.peek_bytes(PAGE_BYTES - 2), [1, 2]);
    }
}
