//! Files that no one wrote: cut off and damaged everywhere.

use cellule_image::{HIGHEST, Image, LOWEST, MEMORY_BYTES, Protection};

use crate::file::{END, File};

/// Checks what every image promises, whatever file it came from.
fn check(image: &Image) {
    let mut previous_end = LOWEST;
    let mut mem_bytes = 0;
    for segment in image.segments() {
        assert_eq!((segment.gva() % 4096, segment.mem_bytes() % 4096), (0, 0));
        assert!(segment.gva() >= previous_end, "segments should NOT overlap: {image:?}");
        assert!(segment.mem_bytes() > 0 && segment.bytes().len() as u64 <= segment.mem_bytes());
        previous_end = segment.end();
        mem_bytes += segment.mem_bytes();
    }
    assert!(previous_end <= HIGHEST && mem_bytes <= MEMORY_BYTES);
    let code = |gva: u64| {
        image.segments().iter().any(|segment| {
            segment.protection() == Protection::ReadExecute
                && (segment.gva()..segment.end()).contains(&gva)
        })
    };
    assert!(code(image.entry()), "the entry should be in code: {image:?}");
    for gva in [0, image.entry(), image.span().0, image.span().1, u64::MAX] {
        let _ = image.symbol_at(gva);
    }
}

#[test]
fn a_file_cut_off_anywhere_is_an_error_or_lacks_only_its_symbols() {
    let bytes = File::valid().to_bytes();
    assert_eq!(bytes.len() as u64, END);
    let results = (0..bytes.len()).map(|len| (len as u64, Image::parse(&bytes[..len])));
    let accepted: Vec<u64> =
        results.filter(|(_, image)| image.is_ok()).map(|(len, _)| len).collect();
    let end_of_data = crate::file::FUNCTIONS;
    assert_eq!(accepted, (end_of_data..END).collect::<Vec<_>>());
}

#[test]
fn a_file_with_any_byte_changed_is_an_error_or_keeps_every_promise() {
    let mut bytes = File::valid().to_bytes();
    let mut accepted = 0;
    for at in 0..bytes.len() {
        let was = bytes[at];
        let flips = (0..8).map(|bit| was ^ 1 << bit);
        for value in flips.chain([0, 0x7f, 0x80, 0xff, was.wrapping_add(1), was.wrapping_sub(1)]) {
            bytes[at] = value;
            accepted += Image::parse(&bytes).inspect(check).is_ok() as usize;
        }
        bytes[at] = was;
    }
    assert!(accepted > 0, "some changes, as in the code, should do no harm");
}

#[test]
fn a_file_with_any_word_made_extreme_is_an_error_or_keeps_every_promise() {
    let mut bytes = File::valid().to_bytes();
    let values =
        [0, 1, 0xfff, 0x1000, 0x7fff_ffff, 0xffff_ffff, 1 << 62, i64::MAX as u64, !0xfff, u64::MAX];
    for at in (0..bytes.len()).step_by(4).filter(|at| at + 8 <= END as usize) {
        let was: [u8; 8] = bytes[at..at + 8].try_into().unwrap();
        for value in values {
            bytes[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
            let _ = Image::parse(&bytes).inspect(check);
        }
        bytes[at..at + 8].copy_from_slice(&was);
    }
}

#[test]
fn random_bytes_after_a_sound_header_keep_every_promise() {
    let valid = File::valid().to_bytes();
    // xorshift64 (Marsaglia 2003) with a fixed seed: failures can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20_000 {
        let mut bytes = valid.clone();
        for _ in 0..=random() % 4 {
            let at = random() as usize % bytes.len();
            bytes[at] = random() as u8;
        }
        let _ = Image::parse(&bytes).inspect(check);
    }
}

/// A v0 name (<https://doc.rust-lang.org/rustc/symbol-mangling/v0.html>) of
/// `a::<u32, (u32, u32), ((u32, u32), (u32, u32)), …>`: each argument is twice
/// the one before, by two back references.
fn doubling_name(levels: usize) -> Vec<u8> {
    const DIGITS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut name = b"_RIC1a".to_vec();
    let mut previous = name.len() - 2;
    name.push(b'm');
    for _ in 0..levels {
        let place = name.len() - 2;
        let digits = match previous - 1 {
            number @ 0..62 => vec![DIGITS[number]],
            number => vec![DIGITS[number / 62], DIGITS[number % 62]],
        };
        name.push(b'T');
        for _ in 0..2 {
            name.push(b'B');
            name.extend(&digits);
            name.push(b'_');
        }
        name.push(b'E');
        previous = place;
    }
    name.push(b'E');
    name
}

#[test]
fn a_short_name_does_not_become_a_long_one() {
    let mut file = File::valid();
    file.strings = [b"\0".to_vec(), doubling_name(15), b"\0".to_vec()].concat();
    file.sections[2].2 = file.strings.len() as u64;
    let image = Image::parse(&file.to_bytes()).unwrap();
    let location = image.symbol_at(image.entry()).unwrap();
    assert!(location.function().starts_with("a::<u32, (u32, u32), ((u32, u32), (u32, u32)),"));
    // The name in full has 2^15 times `u32` in its last argument alone.
    assert_eq!(location.function().len(), 1024);
}
