//! Weights of bitsandbytes in and out, and every kind that must be refused.
