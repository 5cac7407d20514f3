//! For build scripts: compiles a guest crate with the right flags.
