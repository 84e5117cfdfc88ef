//! Authenticated encryption with the key in place: where its owner is, and so where it can be
//! fetched ahead of its use.
//!
//! Why not aws-lc-rs, whose code this is underneath: it keeps each key behind a pointer of its own.
//! With the keys of thousands of connections in use, their way from memory costs more than the
//! cipher, and only who knows the address can have them come early (decision 0006).

use aws_lc_sys::{
    EVP_AEAD, EVP_AEAD_CTX, EVP_AEAD_CTX_cleanup, EVP_AEAD_CTX_init, EVP_AEAD_CTX_open_gather,
    EVP_AEAD_CTX_seal_scatter, EVP_AEAD_CTX_zero, EVP_aead_aes_128_gcm, EVP_aead_aes_256_gcm,
    EVP_aead_chacha20_poly1305,
};
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};

/// Bytes of a nonce of every algorithm here.
pub const NONCE_SIZE: usize = 12;

/// Bytes of a tag of every algorithm here.
pub const TAG_SIZE: usize = 16;

/// An algorithm of TLS 1.3 (RFC 8446 B.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// With keys of 16 bytes.
    Aes128Gcm,
    /// With keys of 32 bytes.
    Aes256Gcm,
    /// With keys of 32 bytes.
    ChaCha20Poly1305,
}

impl Algorithm {
    fn method(self) -> *const EVP_AEAD {
        // SAFETY: these return pointers to constants and take nothing.
        unsafe {
            match self {
                Algorithm::Aes128Gcm => EVP_aead_aes_128_gcm(),
                Algorithm::Aes256Gcm => EVP_aead_aes_256_gcm(),
                Algorithm::ChaCha20Poly1305 => EVP_aead_chacha20_poly1305(),
            }
        }
    }
}

/// A key of the wrong size, a message of an impossible one, or, opening, one that is not authentic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AeadError;

impl fmt::Display for AeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message cannot be sealed, or is not authentic")
    }
}

impl std::error::Error for AeadError {}

/// An expanded key of some 600 bytes, all of it in here.
pub struct Key(EVP_AEAD_CTX);

// SAFETY: the context belongs to this value alone and is bound to no thread.
unsafe impl Send for Key {}
// SAFETY: sealing and opening only read the context: the library takes it as a pointer to const.
unsafe impl Sync for Key {}

impl Key {
    /// Expands a key.
    ///
    /// # Errors
    /// Not as many bytes as the algorithm takes.
    pub fn new(algorithm: Algorithm, key: &[u8]) -> Result<Key, AeadError> {
        let mut context = MaybeUninit::uninit();
        // SAFETY: `zero` makes a context of any memory, which `init` then fills from as many bytes
        // as it is told; a failed `init` leaves it as `zero` made it. Neither points into itself,
        // so that it may be moved: the library's own copy of one is the copy of its bytes.
        let (context, done) = unsafe {
            EVP_AEAD_CTX_zero(context.as_mut_ptr());
            let done = EVP_AEAD_CTX_init(
                context.as_mut_ptr(),
                algorithm.method(),
                key.as_ptr(),
                key.len(),
                TAG_SIZE,
                null_mut(),
            );
            (context.assume_init(), done)
        };
        match done {
            1 => Ok(Key(context)),
            _ => Err(AeadError),
        }
    }

    /// Appends `plain`, `last` and the tag to `out`, encrypted: `plain.len() + 1 + TAG_SIZE` bytes.
    ///
    /// # Errors
    /// More bytes than the algorithm takes, which are gigabytes; `out` is as it was.
    pub fn seal(
        &self,
        nonce: &[u8; NONCE_SIZE],
        aad: &[u8],
        plain: &[u8],
        last: u8,
        out: &mut Vec<u8>,
    ) -> Result<(), AeadError> {
        out.reserve(plain.len() + 1 + TAG_SIZE);
        let space = out.spare_capacity_mut();
        let (body, tail) = space.split_at_mut(plain.len());
        let mut tail_size = 0;
        // SAFETY: all pointers are to as many readable or writable bytes as they are said to be:
        // the body takes `plain.len()`, the tail the last byte and the tag, and both are disjoint
        // from what is read. Nothing is read from the uninitialised space.
        let done = unsafe {
            EVP_AEAD_CTX_seal_scatter(
                &self.0,
                body.as_mut_ptr().cast(),
                tail.as_mut_ptr().cast(),
                &mut tail_size,
                1 + TAG_SIZE,
                nonce.as_ptr(),
                NONCE_SIZE,
                plain.as_ptr(),
                plain.len(),
                &last,
                1,
                aad.as_ptr(),
                aad.len(),
            )
        };
        if done != 1 || tail_size != 1 + TAG_SIZE {
            return Err(AeadError);
        }
        // SAFETY: the call filled the body and the tail, which lie one behind the other.
        unsafe { out.set_len(out.len() + plain.len() + 1 + TAG_SIZE) };
        Ok(())
    }

    /// Decrypts `sealed` in place and answers what stands before its tag.
    ///
    /// # Errors
    /// Not authentic; what is in `sealed` then is of no use.
    pub fn open<'s>(
        &self,
        nonce: &[u8; NONCE_SIZE],
        aad: &[u8],
        sealed: &'s mut [u8],
    ) -> Result<&'s mut [u8], AeadError> {
        let size = sealed.len().checked_sub(TAG_SIZE).ok_or(AeadError)?;
        let (body, tag) = sealed.split_at_mut(size);
        let bytes = body.as_mut_ptr();
        // SAFETY: as above; input and output are the same bytes, which the library allows.
        let done = unsafe {
            EVP_AEAD_CTX_open_gather(
                &self.0,
                bytes,
                nonce.as_ptr(),
                NONCE_SIZE,
                bytes,
                size,
                tag.as_ptr(),
                TAG_SIZE,
                match aad {
                    [] => null(),
                    aad => aad.as_ptr(),
                },
                aad.len(),
            )
        };
        match done {
            1 => Ok(body),
            _ => Err(AeadError),
        }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: made by `init` in `new`, and not used again.
        unsafe {
            EVP_AEAD_CTX_cleanup(&mut self.0);
        }
        wipe(&mut self.0);
    }
}

/// Leaves nothing of a key behind.
fn wipe(context: &mut EVP_AEAD_CTX) {
    // SAFETY: `context` is memory of that size which is ours alone, and zeros are a context without
    // a key. Volatile, so that the write is not left out because nobody reads it.
    unsafe { std::ptr::write_volatile(context, std::mem::zeroed()) };
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test case 4 of the GCM specification, which has associated data and no whole last block.
    #[test]
    fn aes_128_gcm_is_what_its_specification_shows() {
        let key = [
            0xfe, 0xff, 0xe9, 0x92, 0x86, 0x65, 0x73, 0x1c, 0x6d, 0x6a, 0x8f, 0x94, 0x67, 0x30,
            0x83, 0x08,
        ];
        let nonce = [
            0xca, 0xfe, 0xba, 0xbe, 0xfa, 0xce, 0xdb, 0xad, 0xde, 0xca, 0xf8, 0x88,
        ];
        let aad = [
            0xfe, 0xed, 0xfa, 0xce, 0xde, 0xad, 0xbe, 0xef, 0xfe, 0xed, 0xfa, 0xce, 0xde, 0xad,
            0xbe, 0xef, 0xab, 0xad, 0xda, 0xd2,
        ];
        let plain = [
            0xd9, 0x31, 0x32, 0x25, 0xf8, 0x84, 0x06, 0xe5, 0xa5, 0x59, 0x09, 0xc5, 0xaf, 0xf5,
            0x26, 0x9a, 0x86, 0xa7, 0xa9, 0x53, 0x15, 0x34, 0xf7, 0xda, 0x2e, 0x4c, 0x30, 0x3d,
            0x8a, 0x31, 0x8a, 0x72, 0x1c, 0x3c, 0x0c, 0x95, 0x95, 0x68, 0x09, 0x53, 0x2f, 0xcf,
            0x0e, 0x24, 0x49, 0xa6, 0xb5, 0x25, 0xb1, 0x6a, 0xed, 0xf5, 0xaa, 0x0d, 0xe6, 0x57,
            0xba, 0x63, 0x7b, 0x39,
        ];
        let tag = [
            0x5b, 0xc9, 0x4f, 0xbc, 0x32, 0x21, 0xa5, 0xdb, 0x94, 0xfa, 0xe9, 0x5a, 0xe7, 0x12,
            0x1a, 0x47,
        ];
        let key = Key::new(Algorithm::Aes128Gcm, &key).expect("sixteen bytes");
        let mut sealed = Vec::new();
        let (last, body) = plain.split_last().expect("sixty bytes");
        key.seal(&nonce, &aad, body, *last, &mut sealed)
            .expect("a short message");
        assert_eq!(sealed[60..], tag);
        assert_eq!(key.open(&nonce, &aad, &mut sealed), Ok(&mut { plain }[..]));
    }

    #[test]
    fn a_key_goes_on_working_where_it_was_moved_to() {
        for (algorithm, size) in [
            (Algorithm::Aes128Gcm, 16),
            (Algorithm::Aes256Gcm, 32),
            (Algorithm::ChaCha20Poly1305, 32),
        ] {
            let key = Key::new(algorithm, &[7; 32][..size]).expect("the right size");
            let mut sealed = b"before".to_vec();
            key.seal(&[1; 12], b"aad", b"hell", b'o', &mut sealed)
                .expect("a short message");
            assert_eq!(sealed.len(), 6 + 5 + TAG_SIZE);
            let moved = Box::new(key);
            let opened = moved.open(&[1; 12], b"aad", &mut sealed[6..]);
            assert_eq!(opened, Ok(&mut b"hello".to_owned()[..]), "{algorithm:?}");
        }
    }

    #[test]
    fn what_is_not_authentic_is_refused() {
        let key = Key::new(Algorithm::Aes128Gcm, &[7; 16]).expect("sixteen bytes");
        let mut sealed = Vec::new();
        key.seal(&[1; 12], b"aad", b"hell", b'o', &mut sealed)
            .expect("a short message");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key.open(&[1; 12], b"aad", &mut changed), Err(AeadError));
        }
        assert_eq!(key.open(&[1; 12], b"", &mut sealed.clone()), Err(AeadError));
        assert_eq!(
            key.open(&[2; 12], b"aad", &mut sealed.clone()),
            Err(AeadError)
        );
        assert_eq!(key.open(&[1; 12], b"aad", &mut [0; 15]), Err(AeadError));
        assert!(key.open(&[1; 12], b"aad", &mut sealed).is_ok());
    }

    #[test]
    fn keys_of_a_wrong_size_are_refused() {
        for algorithm in [
            Algorithm::Aes128Gcm,
            Algorithm::Aes256Gcm,
            Algorithm::ChaCha20Poly1305,
        ] {
            assert!(Key::new(algorithm, &[7; 24]).is_err());
            assert!(Key::new(algorithm, &[]).is_err());
        }
    }
}
