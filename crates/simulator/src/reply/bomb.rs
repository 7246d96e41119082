//! A gzip member of any decoded size, written in time that depends on its packed size alone.
//!
//! Not a compressor: it writes one run of blanks and then the given bytes, with deflate's fixed codes (RFC 1951,
//! 3.2.6). The checksum of the run is computed by squaring, in logarithmic time.

/// Packs `blanks` spaces followed by `tail`, which may be any bytes.
pub(super) fn gzip(blanks: u64, tail: &[u8]) -> Vec<u8> {
    // Magic, method "deflate", no flags, no time, no extra flags, unknown system.
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut bits = Bits { out: &mut out, held: 0, count: 0 };
    bits.least_first(1, 1); // the last block
    bits.least_first(1, 2); // fixed codes
    let mut left = blanks;
    if left > 0 {
        bits.literal(b' ');
        left -= 1;
    }
    // Length 258 is code 285, distance 1 is code 0: thirteen bits for 258 blanks.
    while left >= 258 {
        bits.code(0b1100_0101, 8);
        bits.code(0, 5);
        left -= 258;
    }
    for _ in 0..left {
        bits.literal(b' ');
    }
    for byte in tail {
        bits.literal(*byte);
    }
    bits.code(0, 7); // the end of the block
    bits.finish();
    let crc = !tail
        .iter()
        .fold(CrcStep::of(b' ').times(blanks).apply(!0), |state, byte| CrcStep::of(*byte).apply(state));
    out.extend_from_slice(&crc.to_le_bytes());
    let size = blanks.wrapping_add(tail.len() as u64);
    out.extend(size.to_le_bytes().iter().take(4)); // modulo 2^32, as the format requires
    out
}

/// Writes bit by bit into bytes, from the least significant bit up.
struct Bits<'a> {
    out: &'a mut Vec<u8>,
    held: u8,
    count: u8,
}

impl Bits<'_> {
    fn bit(&mut self, bit: bool) {
        self.held |= u8::from(bit) << self.count;
        self.count += 1;
        if self.count == 8 {
            self.finish();
        }
    }

    fn least_first(&mut self, value: u16, bits: u8) {
        (0..bits).for_each(|n| self.bit(value >> n & 1 == 1));
    }

    /// Huffman codes go most significant bit first.
    fn code(&mut self, code: u16, bits: u8) {
        (0..bits).rev().for_each(|n| self.bit(code >> n & 1 == 1));
    }

    fn literal(&mut self, byte: u8) {
        if byte < 144 {
            self.code(0x30 + u16::from(byte), 8);
        } else {
            self.code(0x190 + u16::from(byte - 144), 9);
        }
    }

    fn finish(&mut self) {
        if self.count > 0 {
            self.out.push(self.held);
            self.held = 0;
            self.count = 0;
        }
    }
}

/// The effect of some bytes on the CRC-32 register: an affine map over GF(2).
#[derive(Clone, Copy)]
struct CrcStep {
    /// The image of each single bit, without the constant.
    columns: [u32; 32],
    constant: u32,
}

impl CrcStep {
    /// The effect of one byte.
    fn of(byte: u8) -> Self {
        let run = |register: u32| {
            (0..8).fold(register ^ u32::from(byte), |register, _| {
                register >> 1 ^ if register & 1 == 1 { 0xedb8_8320 } else { 0 }
            })
        };
        let constant = run(0);
        Self { columns: std::array::from_fn(|bit| run(1 << bit) ^ constant), constant }
    }

    fn linear(&self, register: u32) -> u32 {
        self.columns
            .iter()
            .enumerate()
            .fold(0, |sum, (bit, column)| if register >> bit & 1 == 1 { sum ^ column } else { sum })
    }

    fn apply(&self, register: u32) -> u32 {
        self.linear(register) ^ self.constant
    }

    fn then(&self, next: &Self) -> Self {
        Self { columns: self.columns.map(|column| next.linear(column)), constant: next.apply(self.constant) }
    }

    /// The effect of the same bytes, `count` times over.
    fn times(self, mut count: u64) -> Self {
        let mut result = Self { columns: std::array::from_fn(|bit| 1 << bit), constant: 0 };
        let mut power = self;
        while count > 0 {
            if count & 1 == 1 {
                result = result.then(&power);
            }
            power = power.then(&power);
            count >>= 1;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_32() {
        let crc = |bytes: &[u8]| !bytes.iter().fold(!0, |state, byte| CrcStep::of(*byte).apply(state));
        assert_eq!(crc(b"123456789"), 0xcbf4_3926, "the check value of CRC-32");
        assert_eq!(!CrcStep::of(b' ').times(1000).apply(!0), crc(&[b' '; 1000]));
    }

    #[test]
    fn gzip_bomb_of_256_mib_is_smaller_than_2_mib() {
        let packed = gzip(256 << 20, b"{}");
        assert!(packed.len() < 2 << 20, "{} bytes", packed.len());
    }
}
