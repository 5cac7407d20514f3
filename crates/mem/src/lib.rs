//! Guest RAM as the host sees it: only ever as copies.
