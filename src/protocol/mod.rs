//! Bytes in, values out.
