//! What a valid file becomes.

use cellule_image::{BASE, Image, ImageError, Protection, SdkVersion, Segment};

use crate::file::*;

fn valid() -> Image {
    Image::parse(&File::valid().to_bytes()).unwrap()
}

/// Reads a pointer out of the segment that holds it.
fn pointer(image: &Image, gva: u64) -> u64 {
    let holds = |segment: &&Segment| (segment.gva()..segment.end()).contains(&gva);
    let segment = image.segments().iter().find(holds).unwrap();
    let start = (gva - segment.gva()) as usize;
    u64::from_le_bytes(segment.bytes()[start..start + 8].try_into().unwrap())
}

#[test]
fn segments_have_their_pages_and_protections() {
    let image = valid();
    let segments: Vec<_> =
        image.segments().iter().map(|s| (s.gva() - BASE, s.mem_bytes(), s.protection())).collect();
    assert_eq!(
        segments,
        [
            (0, 0x1000, Protection::Read),
            (0x1000, 0x1000, Protection::ReadExecute),
            (0x2000, 0x1000, Protection::Read),
            (0x3000, 0x1000, Protection::ReadWrite),
            (0x5000, 0x1000, Protection::ReadWrite),
        ]
    );
    assert_eq!(image.span(), (BASE, BASE + 0x6000));
    assert_eq!(image.entry(), BASE + CODE + CODE_PAGE);
}

#[test]
fn content_starts_with_the_page_and_shows_nothing_of_its_neighbours() {
    let image = valid();
    let [rodata, code, relro, zeroed, data] = image.segments() else { panic!("five segments") };
    assert_eq!(rodata.bytes().len() as u64, CODE);
    assert_eq!(code.bytes().len() as u64, DYNAMIC);
    assert!(code.bytes()[..CODE as usize].iter().all(|byte| *byte == 0));
    assert_eq!(code.bytes()[CODE as usize], 0xc3);
    assert_eq!(relro.bytes().len() as u64, DATA);
    assert!(zeroed.bytes().is_empty());
    assert_eq!(&data.bytes()[DATA as usize + 8..][..1], b"s");
}

#[test]
fn pointers_are_relocated_also_in_zeroed_memory_and_relro() {
    let image = valid();
    let data = BASE + DATA_PAGE + DATA;
    assert_eq!(pointer(&image, data), data);
    assert_eq!(pointer(&image, data + 0x50), BASE + 0x6000);
    assert_eq!(pointer(&image, BASE + RELRO_PAGE + EXPORTS), BASE + TEXT);
    let entry = pointer(&image, BASE + RELRO_PAGE + EXPORTS + 48);
    assert_eq!(entry, image.entry() + 0x10);
}

#[test]
fn exports_and_imports_are_in_the_order_of_their_tables() {
    let image = valid();
    let text = |symbols: &[cellule_image::Symbol]| -> Vec<String> {
        symbols.iter().map(|symbol| format!("{}: {}", symbol.name(), symbol.signature())).collect()
    };
    assert_eq!(text(image.exports()), ["add: fn(u32, u32) -> u32", "greet: fn(str) -> str?"]);
    assert_eq!(text(image.imports()), ["host::print: fn(str) -> ()"]);
    let [print] = image.imports() else { panic!("one import") };
    assert_eq!(print.id(), cellule_abi::fnv1a(b"host::print"));
    assert_eq!(print.schema(), cellule_abi::fnv1a(b"fn(str) -> ()"));
}

#[test]
fn the_sdk_version_is_unpacked() {
    let version = valid().sdk_version();
    assert_eq!(version, SdkVersion { major: 1, minor: 2, patch: 3 });
    assert_eq!(version.to_string(), "1.2.3");
}

#[test]
fn an_image_for_fixed_addresses_is_the_same_image() {
    let fixed = Image::parse(&File::valid_fixed().to_bytes()).unwrap();
    let relative = valid();
    assert_eq!((fixed.entry(), fixed.span()), (relative.entry(), relative.span()));
    assert_eq!(fixed.exports(), relative.exports());
    assert_eq!(fixed.imports(), relative.imports());
}

#[test]
fn an_image_without_symbols_exports_and_imports_nothing() {
    let mut file = File::valid();
    let descriptor = &mut file.notes[0].descriptor;
    descriptor.exports_end = descriptor.exports_start - 8;
    descriptor.imports_end = descriptor.imports_start - 8;
    let image = Image::parse(&file.to_bytes()).unwrap();
    assert!(image.exports().is_empty() && image.imports().is_empty());
}

#[test]
fn an_export_and_an_import_may_have_the_same_name() {
    let mut file = File::valid();
    file.imports[0] = file.exports[0];
    file.relocations[6].addend = file.relocations[0].addend;
    file.relocations[7].addend = file.relocations[1].addend;
    let image = Image::parse(&file.to_bytes()).unwrap();
    assert_eq!(image.imports()[0], image.exports()[0]);
}

#[test]
fn empty_segments_and_unknown_program_headers_are_skipped() {
    let mut file = File::valid();
    file.replace_stack_header(0x7000_0001, 64);
    file.program.insert(1, Program { mem_bytes: 0, file_bytes: 0, ..file.program[0] });
    file.program.push(Program { kind: 7, mem_bytes: 0, file_bytes: 0, ..file.program[0] });
    let image = Image::parse(&file.to_bytes()).unwrap();
    // The first one holds the program headers, which differ.
    assert_eq!(image.segments()[1..], valid().segments()[1..]);
    assert_eq!(image.span(), valid().span());
}

#[test]
fn notes_of_others_and_notes_padded_to_8_are_read() {
    let mut file = File::valid();
    let mut other = file.notes[0].clone();
    other.name = b"GNU\0".to_vec();
    other.kind = 5;
    file.notes.push(other);
    file.program[NOTE_HEADER].file_bytes = 60 + 56;
    Image::parse(&file.to_bytes()).unwrap();

    // The same note with its descriptor at 24 instead of 20: name and padding are
    // one here. The tables are 4 bytes nearer then.
    let mut file = File::valid();
    let mut bytes = file.to_bytes();
    file.program[NOTE_HEADER].align = 8;
    file.program[NOTE_HEADER].file_bytes = 64;
    let descriptor = &mut file.notes[0].descriptor;
    for field in [
        &mut descriptor.exports_start,
        &mut descriptor.exports_end,
        &mut descriptor.imports_start,
        &mut descriptor.imports_end,
    ] {
        *field -= 4;
    }
    let moved = file.to_bytes();
    bytes[..NOTE as usize].copy_from_slice(&moved[..NOTE as usize]);
    let (from, to) = (NOTE as usize + 20, NOTE as usize + 24);
    bytes[to..to + 40].copy_from_slice(&moved[from..from + 40]);
    bytes[from..to].fill(0);
    assert_eq!(Image::parse(&bytes).unwrap().exports(), valid().exports());
}

#[test]
fn relro_in_the_middle_of_a_segment_makes_three() {
    let mut file = File::valid();
    file.program[RELRO_HEADER].mem_bytes = 0x5000 - RELRO_PAGE - DYNAMIC;
    // From inside the first page, which therefore stays writable, to 0x4fff.
    file.program[GNU_RELRO_HEADER].address += 8;
    file.program[GNU_RELRO_HEADER].mem_bytes = 0x27f0;
    let image = Image::parse(&file.to_bytes()).unwrap();
    let parts: Vec<_> = image.segments()[2..5]
        .iter()
        .map(|s| (s.gva() - BASE, s.mem_bytes(), s.protection()))
        .collect();
    assert_eq!(
        parts,
        [
            (0x2000, 0x1000, Protection::ReadWrite),
            (0x3000, 0x1000, Protection::Read),
            (0x4000, 0x1000, Protection::ReadWrite),
        ]
    );
}

#[test]
fn relro_of_less_than_a_page_changes_nothing() {
    // At the segment's start, and inside its first page.
    for offset in [0, 8] {
        let mut file = File::valid();
        file.program[GNU_RELRO_HEADER].address += offset;
        file.program[GNU_RELRO_HEADER].mem_bytes = 0x100;
        let image = Image::parse(&file.to_bytes()).unwrap();
        assert_eq!(image.segments().len(), 4);
        assert_eq!(image.segments()[2].protection(), Protection::ReadWrite);
    }
}

#[test]
fn functions_are_found_by_any_address_inside_them() {
    let image = valid();
    let at = |offset| image.symbol_at(image.entry() + offset).map(|location| location.to_string());
    assert_eq!(at(0).as_deref(), Some("guest::start+0x0"));
    assert_eq!(at(0xf).as_deref(), Some("guest::start+0xf"));
    // The next function has no size and ends its name with a control character.
    assert_eq!(at(0x18).as_deref(), Some("add\u{fffd}+0x8"));
    assert_eq!(image.symbol_at(image.entry() - 1), None, "before the first function");
    let location = image.symbol_at(image.entry() + 3).unwrap();
    assert_eq!((location.function(), location.offset()), ("guest::start", 3));
}

#[test]
fn addresses_past_a_function_have_no_name() {
    let mut file = File::valid();
    file.functions.truncate(2);
    let image = Image::parse(&file.to_bytes()).unwrap();
    assert!(image.symbol_at(image.entry() + 0xf).is_some());
    assert_eq!(image.symbol_at(image.entry() + 0x10), None);
    assert_eq!(image.symbol_at(u64::MAX), None);
}

#[test]
fn broken_symbol_tables_give_no_names_and_no_errors() {
    let spoilers: [fn(&mut File); 8] = [
        |f| f.section_offset = 0,
        |f| f.section_offset = u64::MAX - 4,
        |f| f.section_count = 0,
        |f| f.section_count = 0xffff,
        |f| f.sections[1].1 = u64::MAX,
        |f| f.sections[1].3 = 9,
        |f| f.sections[2].2 = u64::MAX,
        |f| f.functions[1].0 = 0xffff_fff0,
    ];
    for (number, spoil) in spoilers.iter().enumerate() {
        let mut file = File::valid();
        spoil(&mut file);
        let image = Image::parse(&file.to_bytes()).unwrap();
        assert_eq!(image.symbol_at(image.entry()), None, "spoiler {number}");
    }
}

#[test]
fn records_that_share_one_text_do_not_multiply_it() {
    // 300 records with 16 KiB of signature each, all at the same place: 4.7 MiB
    // out of a file of 40 KiB. The names differ by where they start.
    let mut bytes = File::valid().to_bytes();
    let program = |number: usize, field: usize| PROGRAM as usize + 56 * number + field;
    let place = bytes.len().next_multiple_of(0x1000);
    let signature = vec![b'x'; cellule_abi::symbol::SIGNATURE_BYTES];
    let names: Vec<u8> = (0..300).flat_map(|n| format!("n{n:03}").into_bytes()).collect();
    let table = place + signature.len() + names.len().next_multiple_of(64);
    bytes.resize(place, 0);
    bytes.extend(&signature);
    bytes.extend(&names);
    bytes.resize(table, 0);
    // The data segment becomes all of this, at an address equal to its place.
    let gva = BASE + 0x10_0000;
    for (number, name) in names.chunks(4).enumerate() {
        let words = [
            gva + signature.len() as u64 + 4 * number as u64,
            4,
            gva,
            signature.len() as u64,
            cellule_abi::fnv1a(name),
            cellule_abi::fnv1a(&signature),
            BASE + CODE + CODE_PAGE,
            0,
        ];
        bytes.extend(words.into_iter().flat_map(u64::to_le_bytes));
    }
    let len = (bytes.len() - place) as u64;
    for (field, value) in [(8, place as u64), (16, gva - BASE), (32, len), (40, len)] {
        bytes[program(DATA_HEADER, field)..][..8].copy_from_slice(&value.to_le_bytes());
    }
    // No dynamic section: the records' pointers are right as they are.
    bytes[program(DYNAMIC_HEADER, 0)..][..4].fill(0);
    let start = gva + (table - place) as u64;
    for (field, address) in [(8, start), (16, start + 300 * 64), (24, start), (32, start)] {
        let field = NOTE + 20 + field;
        let distance = address.wrapping_sub(BASE + field);
        bytes[field as usize..][..8].copy_from_slice(&distance.to_le_bytes());
    }
    let error = Image::parse(&bytes).unwrap_err();
    assert!(matches!(error, ImageError::TooMuchText { .. }), "{error}");
}
