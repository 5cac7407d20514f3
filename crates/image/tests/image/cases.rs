//! One defect per case: what is spoilt in the valid file, and the file's name.

use cellule_image::{BASE, HIGHEST};

use crate::file::*;

/// A file's name without extension, and what spoils it.
pub(crate) type Case = (&'static str, fn(&mut File));

pub(crate) const CASES: &[Case] = &[
    // The file header.
    ("header_empty", |f| f.end = 0),
    ("header_truncated", |f| f.end = 63),
    ("header_magic", |f| f.ident[0] = b'M'),
    ("header_class_32", |f| f.ident[4] = 1),
    ("header_big_endian", |f| f.ident[5] = 2),
    ("header_ident_version", |f| f.ident[6] = 0),
    ("header_os_abi", |f| f.ident[7] = 9),
    ("header_version", |f| f.version = 2),
    ("header_machine_arm", |f| f.machine = 183),
    ("header_relocatable", |f| f.kind = 1),
    ("header_core", |f| f.kind = 4),
    // The program headers.
    ("program_none", |f| f.program_count = Some(0)),
    ("program_header_size", |f| f.program_bytes = 32),
    ("program_count_65", |f| f.program_count = Some(65)),
    ("program_count_huge", |f| f.program_count = Some(0xffff)),
    ("program_truncated", |f| f.end = PROGRAM + 8 * 56 - 1),
    ("program_outside", |f| f.program_offset = END - 8),
    ("program_offset_huge", |f| f.program_offset = u64::MAX - 8),
    ("program_second_dynamic", |f| f.program[STACK_HEADER] = f.program[DYNAMIC_HEADER]),
    ("program_second_relro", |f| f.program[STACK_HEADER] = f.program[GNU_RELRO_HEADER]),
    ("program_dynamic_wraps", |f| f.program[DYNAMIC_HEADER].address = u64::MAX),
    ("program_interpreter", |f| f.replace_stack_header(3, 16)),
    ("program_thread_local", |f| f.replace_stack_header(7, 8)),
    ("program_executable_stack", |f| f.program[STACK_HEADER].flags = 7),
    // The segments.
    ("segment_none", |f| f.program.drain(..4).for_each(drop)),
    ("segment_17", |f| f.program = vec![f.program[RODATA_HEADER]; 17]),
    ("segment_unreadable", |f| f.program[RODATA_HEADER].flags = 0),
    ("segment_execute_only", |f| f.program[CODE_HEADER].flags = 1),
    ("segment_writable_code", |f| f.program[CODE_HEADER].flags = 7),
    ("segment_alignment_3", |f| f.program[CODE_HEADER].align = 0x3000),
    ("segment_alignment_huge", |f| f.program[CODE_HEADER].align = 2 * BASE),
    ("segment_congruence", |f| f.program[CODE_HEADER].address += 0x10),
    ("segment_truncated", |f| f.end = DATA + 1),
    ("segment_file_huge", |f| {
        f.program[DATA_HEADER].file_bytes = u64::MAX;
        f.program[DATA_HEADER].mem_bytes = u64::MAX;
    }),
    ("segment_offset_huge", |f| f.program[CODE_HEADER].offset += !0xfff),
    ("segment_file_exceeds_memory", |f| f.program[CODE_HEADER].mem_bytes -= 1),
    ("segment_file_without_memory", |f| f.program[CODE_HEADER].mem_bytes = 0),
    ("segment_descending", |f| f.program.swap(RODATA_HEADER, CODE_HEADER)),
    ("segment_same_address", |f| f.program[CODE_HEADER] = f.program[RODATA_HEADER]),
    ("segment_overlap", |f| f.program[CODE_HEADER].mem_bytes = 0x2000),
    ("segment_shared_page", |f| f.program[CODE_HEADER].address -= CODE_PAGE),
    ("segment_memory_huge", |f| f.program[DATA_HEADER].mem_bytes = 1 << 62),
    ("segment_too_much_memory", |f| f.program[DATA_HEADER].mem_bytes = 256 << 20),
    ("segment_lowest", |f| {
        *f = File::valid_fixed();
        f.program[RODATA_HEADER].address = 0xf000;
    }),
    ("segment_highest", |f| {
        f.program[DATA_HEADER].address += HIGHEST - BASE - DATA_PAGE - 0x1000 + 0x1000
    }),
    ("segment_wraps", |f| f.program[DATA_HEADER].address = 0_u64.wrapping_sub(0x1000 - DATA)),
    ("segment_wraps_base", |f| f.program[DATA_HEADER].address = 0_u64.wrapping_sub(BASE) + DATA),
    ("entry_in_data", |f| f.entry = DATA + DATA_PAGE),
    ("entry_nowhere", |f| f.entry = u64::MAX),
    ("entry_past_code", |f| f.entry = CODE_PAGE + 0x1000),
    ("relro_in_code", |f| {
        f.program[GNU_RELRO_HEADER].address = CODE + CODE_PAGE;
        f.program[GNU_RELRO_HEADER].mem_bytes = 16;
    }),
    ("relro_over_two_segments", |f| f.program[GNU_RELRO_HEADER].mem_bytes = 0x3800),
    ("relro_before_segment", |f| f.program[GNU_RELRO_HEADER].address -= 8),
    // The dynamic section and the relocations.
    ("dynamic_outside", |f| f.program[DYNAMIC_HEADER].address = 0x10_0000),
    ("dynamic_past_content", |f| f.program[DYNAMIC_HEADER].file_bytes = 0x1000),
    ("dynamic_shared_library", |f| f.dynamic[3] = (1, 1)),
    ("dynamic_plt_relocations", |f| f.dynamic[3] = (23, RELOCATIONS)),
    ("dynamic_rel", |f| f.dynamic[3] = (17, RELOCATIONS)),
    ("dynamic_relr", |f| f.dynamic[3] = (36, RELOCATIONS)),
    ("dynamic_text_relocations", |f| f.dynamic[3] = (22, 0)),
    ("dynamic_text_relocations_flag", |f| f.dynamic[3] = (30, 4)),
    ("dynamic_second_table", |f| f.dynamic[3] = (7, RELOCATIONS)),
    ("relocations_size_25", |f| f.dynamic[1].1 = 25),
    ("relocations_entry_16", |f| f.dynamic[2].1 = 16),
    ("relocations_without_entry_size", |f| f.dynamic[2].0 = 0x6fff_fffa),
    ("relocations_outside", |f| f.dynamic[0].1 = 0x10_0000),
    ("relocations_past_content", |f| f.dynamic[1].1 = 24 * 100),
    ("relocations_huge", |f| f.dynamic[1].1 = 24 << 58),
    ("relocation_absolute", |f| f.relocations[1].kind = 1),
    ("relocation_indirect", |f| f.relocations[1].kind = 37),
    ("relocation_into_code", |f| f.relocations[1].offset = CODE + CODE_PAGE),
    ("relocation_into_rodata", |f| f.relocations[1].offset = TEXT),
    ("relocation_outside", |f| f.relocations[1].offset = 0x10_0000),
    ("relocation_wraps", |f| f.relocations[1].offset = u64::MAX),
    ("relocation_over_end", |f| f.relocations[1].offset = DATA_PAGE + 0x1000 - 4),
    ("relocation_addend_below", |f| f.relocations[1].addend = -1),
    ("relocation_addend_above", |f| f.relocations[1].addend = DATA_PAGE as i64 + 0x1001),
    ("relocation_addend_wraps", |f| f.relocations[1].addend = i64::MIN),
    // The note.
    ("note_missing", |f| f.program[NOTE_HEADER].kind = 0),
    ("note_of_others", |f| f.notes[0].name = b"Celsius\0".to_vec()),
    ("note_other_type", |f| f.notes[0].kind = 2),
    ("note_twice", |f| {
        f.notes.push(f.notes[0].clone());
        f.program[NOTE_HEADER].file_bytes = 120;
    }),
    ("note_two_headers", |f| f.program[STACK_HEADER] = f.program[NOTE_HEADER]),
    ("note_outside", |f| f.program[NOTE_HEADER].address = 0x10_0000),
    ("note_truncated", |f| f.program[NOTE_HEADER].file_bytes = 59),
    ("note_header_truncated", |f| f.program[NOTE_HEADER].file_bytes = 11),
    ("note_descriptor_huge", |f| f.notes[0].descriptor_bytes = Some(u32::MAX)),
    ("note_descriptor_short", |f| {
        f.notes[0].descriptor_bytes = Some(32);
        f.program[NOTE_HEADER].file_bytes = 52;
    }),
    ("note_abi_version", |f| f.notes[0].descriptor.abi_version = cellule_abi::ABI_VERSION + 1),
    // The tables.
    ("table_misaligned", |f| f.notes[0].descriptor.exports_start += 4),
    ("table_half_record", |f| f.notes[0].descriptor.exports_end -= 32),
    ("table_reversed", |f| f.notes[0].descriptor.exports_end -= 192),
    ("table_outside", |f| {
        f.notes[0].descriptor.imports_start += 0x10_0000;
        f.notes[0].descriptor.imports_end += 0x10_0000;
    }),
    ("table_in_zeroed_memory", |f| {
        f.notes[0].descriptor.imports_start += 0x80;
        f.notes[0].descriptor.imports_end += 0x80;
    }),
    ("table_wraps", |f| f.notes[0].descriptor.imports_end = i64::MIN),
    ("table_4097", |f| f.notes[0].descriptor.exports_end += 64 * 4095),
    ("name_empty", |f| f.exports[0].name_len = 0),
    ("name_long", |f| f.exports[0].name_len = 257),
    ("name_length_huge", |f| f.exports[0].name_len = u64::MAX),
    ("name_outside", |f| f.relocations[0].addend = DATA_PAGE as i64 + 0x1000),
    ("name_null", |f| f.relocations[0].kind = 0),
    ("name_not_utf8", |f| f.rename_first_export(b"ad\xff")),
    ("name_with_space", |f| f.rename_first_export(b"a d")),
    ("name_with_escape", |f| f.rename_first_export(b"\x1b[m")),
    ("name_not_ascii", |f| f.rename_first_export("a\u{e9}".as_bytes())),
    ("name_id", |f| f.exports[0].id += 1),
    ("name_twice", |f| {
        f.exports[1] = f.exports[0];
        f.relocations[3].addend = f.relocations[0].addend;
        f.relocations[4].addend = f.relocations[1].addend;
    }),
    ("signature_empty", |f| f.imports[0].signature_len = 0),
    ("signature_long", |f| f.imports[0].signature_len = 16 * 1024 + 1),
    ("signature_outside", |f| f.relocations[7].addend = CODE as i64),
    ("signature_not_utf8", |f| f.resign_first_export(b"fn(\xc3(")),
    ("signature_with_newline", |f| f.resign_first_export(b"fn\n(")),
    ("signature_reversing", |f| f.resign_first_export("\u{202e}".as_bytes())),
    ("signature_schema", |f| f.exports[0].schema ^= 1),
    ("export_entry_in_data", |f| f.relocations[2].addend = DATA as i64 + DATA_PAGE as i64),
    ("export_without_entry", |f| f.relocations[2].kind = 0),
    ("export_priority", |f| f.exports[1].priority = 33),
    ("import_with_entry", |f| f.imports[0].entry_gva = 0x40_15a0),
    ("import_priority", |f| f.imports[0].priority = 1),
];
