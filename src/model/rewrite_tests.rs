//! Checkpoints written anew.
