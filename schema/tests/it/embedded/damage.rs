//! Flipped bits and cut files.
