//! The stores: everything that knows a storage engine.

pub mod cql;
pub mod embedded;
pub mod private_dir;
