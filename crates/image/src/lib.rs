//! Guest ELF files to checked segments, exports and imports.
