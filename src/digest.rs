//! Hashes that tell whether files were made from the same things.

use sha2::{Digest as _, Sha256};

/// SHA-256 of a sequence of parts; where one part ends and the next begins makes a difference.
#[derive(Clone, Debug, Default)]
pub struct Digest(Sha256);

impl Digest {
    /// Of nothing yet.
    pub fn new() -> Digest {
        Digest::default()
    }

    /// Adds a part.
    pub fn part(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// The hash in hexadecimal digits.
    pub fn finish(self) -> String {
        self.0.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The hash as numbers.
    pub fn words(self) -> [u64; 4] {
        let bytes: [u8; 32] = self.0.finalize().into();
        std::array::from_fn(|i| u64::from_le_bytes(std::array::from_fn(|k| bytes[8 * i + k])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[&str]) -> String {
        let mut d = Digest::new();
        parts.iter().for_each(|p| d.part(p));
        d.finish()
    }

    #[test]
    fn the_ends_of_parts_count() {
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&[]), of(&[""]));
        assert_eq!(of(&[]), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
