//! Sets of pages of private memory.

use std::fmt;

/// Pages of a partition's private memory, by number: page `n` is
/// [`Backing::Private`](crate::Backing::Private)`(n * 4096)`.
///
/// ```
/// use cellule_hv::PageSet;
///
/// let mut pages = PageSet::default();
/// pages.insert(70);
/// pages.insert_word(0, 0b101);
/// assert_eq!(pages.iter().collect::<Vec<_>>(), [0, 2, 70]);
/// assert_eq!(pages.count(), 3);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PageSet {
    words: Vec<u64>,
}

impl PageSet {
    /// Adds a page.
    pub fn insert(&mut self, page: usize) {
        self.insert_word(page / 64, 1 << (page % 64));
    }

    /// Adds the pages `64 * index + n` for every bit `n` of `bits`.
    pub fn insert_word(&mut self, index: usize, bits: u64) {
        if bits == 0 {
            return;
        }
        if self.words.len() <= index {
            self.words.resize(index + 1, 0);
        }
        if let Some(word) = self.words.get_mut(index) {
            *word |= bits;
        }
    }

    /// Whether a page is in the set.
    pub fn contains(&self, page: usize) -> bool {
        self.words.get(page / 64).is_some_and(|word| word >> (page % 64) & 1 == 1)
    }

    /// How many pages there are.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The pages, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| 64 * index + bit)
        })
    }

    /// The bits, 64 pages a word; what is missing at the end is zero.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Removes all pages; keeps the room.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }
}

impl fmt::Debug for PageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_inserted_and_nothing_else() {
        let mut pages = PageSet::default();
        assert!(pages.is_empty() && !pages.contains(1 << 40));
        for page in [0, 63, 64, 1000] {
            pages.insert(page);
        }
        assert!([0, 63, 64, 1000].into_iter().all(|page| pages.contains(page)));
        assert_eq!(pages.iter().collect::<Vec<_>>(), [0, 63, 64, 1000]);
        pages.clear();
        assert!(pages.is_empty() && pages.count() == 0);
    }
}
