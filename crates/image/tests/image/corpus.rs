//! The corpus: malformed files with the expected error beside each.
//!
//! The files are committed, so that a change of the generator or of a message is
//! seen in review. `CELLULE_BLESS=1 cargo test -p cellule-image` writes them anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use cellule_image::Image;

use crate::cases::CASES;
use crate::file::File;

/// No file may be larger: the corpus is for reading too.
const FILE_BYTES: usize = 4096;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn path(name: &str, extension: &str) -> PathBuf {
    directory().join(format!("{name}.{extension}"))
}

/// Names, bytes and error texts, as the generator and the loader make them now.
fn generated() -> Vec<(&'static str, Vec<u8>, Option<String>)> {
    let valid = ("valid", File::valid().to_bytes(), None);
    let spoilt = CASES.iter().map(|(name, spoil)| {
        let mut file = File::valid();
        spoil(&mut file);
        let bytes = file.to_bytes();
        let text = Image::parse(&bytes).err().map_or("accepted".into(), |error| error.to_string());
        (*name, bytes, Some(text))
    });
    std::iter::once(valid).chain(spoilt).collect()
}

fn bless() {
    for entry in fs::read_dir(directory()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, bytes, text) in generated() {
        fs::write(path(name, "elf"), bytes).unwrap();
        if let Some(text) = text {
            fs::write(path(name, "expected"), text + "\n").unwrap();
        }
    }
}

#[test]
fn each_file_is_refused_for_the_reason_beside_it() {
    if std::env::var_os("CELLULE_BLESS").is_some() {
        bless();
    }
    for (name, _) in CASES {
        let bytes = fs::read(path(name, "elf")).unwrap();
        let expected = fs::read_to_string(path(name, "expected")).unwrap();
        let error = Image::parse(&bytes).expect_err(name);
        assert_eq!(format!("{error}\n"), expected, "{name} should be refused for its reason");
    }
}

#[test]
fn the_generator_makes_the_committed_files() {
    if std::env::var_os("CELLULE_BLESS").is_some() {
        return;
    }
    let mut names = BTreeSet::new();
    for (name, bytes, text) in generated() {
        assert!(bytes.len() <= FILE_BYTES, "{name} has {} bytes", bytes.len());
        assert_eq!(fs::read(path(name, "elf")).unwrap(), bytes, "{name} should be as generated");
        names.insert(format!("{name}.elf"));
        names.extend(text.map(|_| format!("{name}.expected")));
    }
    let entries = fs::read_dir(directory()).unwrap();
    let found = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names, found, "the corpus should hold the cases' files and no others");
}

#[test]
fn no_two_cases_have_the_same_name_or_bytes() {
    let all = generated();
    let names: BTreeSet<_> = all.iter().map(|(name, ..)| name).collect();
    let files: BTreeSet<_> = all.iter().map(|(_, bytes, _)| bytes).collect();
    assert_eq!((names.len(), files.len()), (all.len(), all.len()));
}
