//! The stores, from outside.

mod embedded;
