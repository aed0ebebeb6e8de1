//! The front door.

pub mod problem;
