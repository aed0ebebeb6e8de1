//! The end of the process at any moment.
