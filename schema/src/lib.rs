//! The tables: everything that knows a storage engine.

pub mod embedded;
