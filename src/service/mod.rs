//! The use-cases: they fetch documents through the ports, let `domain` decide, and commit what it says. No HTTP and no
//! file formats here.

pub mod accounts;
