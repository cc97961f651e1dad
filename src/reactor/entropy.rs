//! Where chance comes from in the programs: one seed from the kernel at the start, everything else is drawn from it.

use std::io;

use crate::base::rng::Rng;

/// A generator with a seed from the kernel. Waits only on a machine that has just booted and has not collected any yet.
///
/// # Errors
/// If the kernel gives none.
pub fn seeded_rng() -> io::Result<Rng> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    Ok(Rng::from_seed(seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_starts_differ() {
        assert_ne!(seeded_rng().unwrap().bytes::<32>(), seeded_rng().unwrap().bytes::<32>());
    }
}
