//! Legacy encryption: AES-128-CBC, each sector of 512 bytes by itself.
//!
//! The key is the password, cut or padded with zeros to 16 bytes; the vector is the number of the
//! guest's sector. It is known to be weak and kept for images that have it. Pure functions.

use aes::Aes128;
use aes::cipher::block_padding::NoPadding;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};

/// Bytes that are encrypted by themselves.
pub(super) const SECTOR: usize = 512;

/// A key.
pub(super) type Key = [u8; 16];

/// The key of a password.
pub(super) fn key(password: &str) -> Key {
    let mut key = [0; 16];
    for (place, byte) in key.iter_mut().zip(password.as_bytes()) {
        *place = *byte;
    }
    key
}

fn vector(guest: u64, index: usize) -> [u8; 16] {
    let number = guest / SECTOR as u64 + index as u64;
    u128::from(number).to_le_bytes()
}

/// Encrypts whole sectors that the guest has at `guest`.
pub(super) fn encrypt(key: &Key, guest: u64, data: &mut [u8]) {
    for (index, sector) in data.chunks_exact_mut(SECTOR).enumerate() {
        let cipher = cbc::Encryptor::<Aes128>::new(key.into(), &vector(guest, index).into());
        // Whole blocks need no padding: this cannot fail.
        let _ = cipher.encrypt_padded_mut::<NoPadding>(sector, SECTOR);
    }
}

/// Decrypts whole sectors that the guest has at `guest`.
pub(super) fn decrypt(key: &Key, guest: u64, data: &mut [u8]) {
    for (index, sector) in data.chunks_exact_mut(SECTOR).enumerate() {
        let cipher = cbc::Decryptor::<Aes128>::new(key.into(), &vector(guest, index).into());
        let _ = cipher.decrypt_padded_mut::<NoPadding>(sector);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_are_encrypted_by_their_numbers() {
        let key = key("a password that is too long");
        let plain = vec![7; 2 * SECTOR];
        let mut data = plain.clone();
        encrypt(&key, 4096, &mut data);
        assert_ne!(data[..512], data[512..]);
        let mut second = plain[512..].to_vec();
        encrypt(&key, 4096 + 512, &mut second);
        assert_eq!(second, data[512..]);
        decrypt(&key, 4096, &mut data);
        assert_eq!(data, plain);
    }
}
