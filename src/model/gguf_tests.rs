//! The GGUF file, read back by hand.
