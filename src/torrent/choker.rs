//! (choker)
