//! What a guest function needs: entry, allocator, panic handler, host calls.
