//! The stores: everything that knows a storage engine.

pub mod cql;
pub mod embedded;
