//! Work in durable steps across several entities. Each step is a commit, so a process that ends in between is followed
//! by another one.

pub mod claims;
pub mod erasure;
pub(crate) mod errands;
pub mod fork;
