//! Files that should be guest images, and what every accepted one promises.

use allocation_counter::measure;
use cellule_image::{
    BASE, HIGHEST, Image, LOWEST, MEMORY_BYTES, Protection, SEGMENTS, Segment, Symbol, TEXT_BYTES,
};

/// What parsing may allocate for each byte of the file: its segments, its
/// relocations and its string table are copied once (16 headers can name the
/// same bytes), and a symbol of 24 bytes in the file is sorted in two buffers.
const BYTES_PER_BYTE: u64 = 24;
/// What parsing may allocate for any file: the limits on memory and on text, and
/// twice the memory while its content grows to a relocation in zeroed memory.
const BYTES_PER_FILE: u64 = 3 * MEMORY_BYTES + 2 * TEXT_BYTES as u64 + (1 << 20);
/// How many addresses of each segment are looked up.
const LOOKUPS: u64 = 16;

/// Parses a file; panics if the parser or the image breaks a promise.
pub fn check(bytes: &[u8]) {
    let mut parsed = None;
    let cost = measure(|| parsed = Some(Image::parse(bytes)));
    let limit = BYTES_PER_BYTE * bytes.len() as u64 + BYTES_PER_FILE;
    assert!(cost.bytes_max <= limit, "{} bytes made {cost:?}, limit {limit}", bytes.len());
    match parsed.expect("the closure runs") {
        Ok(image) => check_image(&image),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn check_image(image: &Image) {
    check_segments(image);
    let entry = image.entry();
    let code = |segment: &&Segment| segment.protection() == Protection::ReadExecute;
    let in_code = image.segments().iter().filter(code).any(|s| (s.gva()..s.end()).contains(&entry));
    assert!(in_code, "the entry should be in code: {image:?}");
    image.exports().iter().chain(image.imports()).for_each(check_symbol);
    for segment in image.segments() {
        let step = segment.mem_bytes() / LOOKUPS;
        (0..LOOKUPS).for_each(|number| check_lookup(image, segment.gva() + number * step));
    }
    let (start, end) = image.span();
    [0, entry, start, end, u64::MAX].iter().for_each(|gva| check_lookup(image, *gva));
}

fn check_segments(image: &Image) {
    let (mut end, mut mem_bytes) = (LOWEST, 0);
    for segment in image.segments() {
        assert_eq!((segment.gva() % 4096, segment.mem_bytes() % 4096), (0, 0), "{segment:?}");
        assert!(segment.gva() >= end, "segments should NOT overlap: {image:?}");
        assert!(segment.mem_bytes() > 0, "{segment:?} should have pages");
        assert!(segment.bytes().len() as u64 <= segment.mem_bytes(), "{segment:?}");
        end = segment.end();
        mem_bytes += segment.mem_bytes();
    }
    assert!(end <= HIGHEST && mem_bytes <= MEMORY_BYTES, "{image:?} is out of limits");
    // Protecting what is constant after relocation cuts one segment in three.
    assert!(image.segments().len() <= SEGMENTS + 2, "{image:?} has too many segments");
    let ends = image.segments().first().zip(image.segments().last());
    assert_eq!(ends.map(|(first, last)| (first.gva(), last.end())), Some(image.span()));
}

fn check_symbol(symbol: &Symbol) {
    assert!((1..=cellule_abi::symbol::NAME_BYTES).contains(&symbol.name().len()), "{symbol:?}");
    assert!(symbol.signature().len() <= cellule_abi::symbol::SIGNATURE_BYTES, "{symbol:?}");
    assert_eq!(symbol.id(), cellule_abi::fnv1a(symbol.name().as_bytes()), "{symbol:?}");
    assert_eq!(symbol.schema(), cellule_abi::fnv1a(symbol.signature().as_bytes()), "{symbol:?}");
}

/// A name for people must be printable and short, whatever the file says.
fn check_lookup(image: &Image, gva: u64) {
    let Some(location) = image.symbol_at(gva) else { return };
    assert!(location.offset() <= gva);
    assert!(location.function().len() <= 1024 + 3, "{} is too long", location.function().len());
    assert!(!location.function().chars().any(char::is_control), "{location:?}");
}

/// Changes one aligned word of a file: headers, notes, symbols and relocations
/// are made of words, and whole bytes at random seldom hit one with sense.
///
/// Half of the seeds change nothing, so that a fuzzer's own changes get through.
pub fn change_a_word(bytes: &mut [u8], seed: u32) {
    let mut random = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut draw = |below: u64| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (random >> 33) % below
    };
    let len = bytes.len() as u64;
    let words = len / 8;
    if words == 0 || draw(2) == 0 {
        return;
    }
    let word = |bytes: &[u8], number: u64| {
        let at = usize::try_from(number * 8).unwrap_or(0);
        bytes[at..][..8].try_into().map(u64::from_le_bytes).unwrap_or(0)
    };
    let target = draw(words);
    let old = word(bytes, target);
    let known =
        [0, 1, 4095, 4096, len, LOWEST, BASE, HIGHEST, MEMORY_BYTES, u64::MAX, u64::MAX - BASE];
    let new = match draw(6) {
        0 => known[usize::try_from(draw(known.len() as u64)).unwrap_or(0)],
        1 => word(bytes, draw(words)),
        2 => old.wrapping_add(draw(65)).wrapping_sub(32),
        3 => old.wrapping_add(4096 * draw(64)).wrapping_sub(4096 * 32),
        4 => old ^ 1 << draw(64),
        _ => draw(len),
    };
    let at = usize::try_from(target * 8).unwrap_or(0);
    bytes[at..][..8].copy_from_slice(&new.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &[u8] = include_bytes!("../../crates/image/tests/corpus/valid.elf");

    #[test]
    fn a_valid_file_keeps_its_promises() {
        assert!(Image::parse(VALID).is_ok());
        check(VALID);
    }

    #[test]
    fn no_change_of_words_breaks_a_promise() {
        let mut accepted = 0;
        for seed in 0..20_000 {
            let mut bytes = VALID.to_vec();
            change_a_word(&mut bytes, seed);
            change_a_word(&mut bytes, seed.rotate_left(16) ^ 0x5bd1);
            check(&bytes);
            accepted += usize::from(bytes != VALID && Image::parse(&bytes).is_ok());
        }
        assert!(accepted > 100, "some changed files should load, or only errors are tested");
    }

    #[test]
    fn changing_a_word_of_a_short_file_does_nothing() {
        let mut bytes = [7; 7];
        (0..100).for_each(|seed| change_a_word(&mut bytes, seed));
        assert_eq!(bytes, [7; 7]);
    }
}
