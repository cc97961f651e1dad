//! RC4, as MSE uses it: the first 1024 bytes of the key stream are thrown away. By hand because the crate of that name brings
//! seven others for these lines; the vectors are those of RFC 6229.

/// A key stream, and where it is.
#[derive(Clone)]
pub(super) struct Rc4 {
    state: [u8; 256],
    i: u8,
    j: u8,
}

/// Says nothing of the key.
impl std::fmt::Debug for Rc4 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rc4")
    }
}

impl Rc4 {
    pub(super) fn new(key: &[u8]) -> Self {
        let mut rc4 = Self::whole(key);
        rc4.apply(&mut [0; 1024]);
        rc4
    }

    fn whole(key: &[u8]) -> Self {
        let mut state: [u8; 256] = std::array::from_fn(|at| u8::try_from(at).expect("below 256"));
        let mut j = 0_u8;
        for i in 0..256 {
            j = j.wrapping_add(state[i]).wrapping_add(key[i % key.len()]);
            state.swap(i, usize::from(j));
        }
        Self { state, i: 0, j: 0 }
    }

    /// Ciphers or deciphers, in place.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        let (mut i, mut j) = (self.i, self.j);
        let state = &mut self.state;
        for byte in bytes {
            i = i.wrapping_add(1);
            let a = state[usize::from(i)];
            j = j.wrapping_add(a);
            let b = state[usize::from(j)];
            state[usize::from(i)] = b;
            state[usize::from(j)] = a;
            *byte ^= state[usize::from(a.wrapping_add(b))];
        }
        (self.i, self.j) = (i, j);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_that_of_rfc_6229() {
        let mut rc4 = Rc4::whole(&[1, 2, 3, 4, 5]);
        let mut stream = [0; 16];
        rc4.apply(&mut stream);
        assert_eq!(u128::from_be_bytes(stream), 0xb239_6305_f03d_c027_ccc3_524a_0a11_18a8);
        let mut later = Rc4::new(&[1, 2, 3, 4, 5]);
        let mut stream = [0; 16];
        later.apply(&mut stream);
        assert_eq!(u128::from_be_bytes(stream), 0x30ab_bcc7_c20b_0160_9f23_ee2d_5f6b_b7df);
    }
}
