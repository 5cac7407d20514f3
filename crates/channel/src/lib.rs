//! The audited channel: bytes in, verdict, record, handler, bytes out.
