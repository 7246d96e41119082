//! The id of a request, in both directions: the client's own if it is harmless, else a new one.

use axum::extract::Request;
use http::{HeaderName, HeaderValue};

/// The header with the id of a request.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that is accepted from the client.
const REQUEST_ID_BYTES: usize = 64;

/// The id of a request: the client's own, or a new one.
pub(super) fn of(request: &Request) -> HeaderValue {
    match request.headers().get(REQUEST_ID) {
        Some(given) if harmless(given) => given.clone(),
        _ => fresh_id(),
    }
}

/// A value that may be logged and returned to the client: short, and only letters, digits, `-`, `_` and `.`.
fn harmless(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=REQUEST_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(plain)
}

fn fresh_id() -> HeaderValue {
    let mut id = [0; 2 * size_of::<u128>()];
    for (half, number) in id.chunks_exact_mut(16).zip([fastrand::u64(..), fastrand::u64(..)]) {
        half.copy_from_slice(&hexadecimal(number));
    }
    HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

/// The hexadecimal digits of a number, eight at a time: each byte of a word is one digit.
fn hexadecimal(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (eight, half) in digits.chunks_exact_mut(8).zip([number >> 32, number & 0xffff_ffff]) {
        let pairs = (half | half << 16) & 0x0000_ffff_0000_ffff;
        let bytes = (pairs | pairs << 8) & 0x00ff_00ff_00ff_00ff;
        let values = (bytes | bytes << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        // 1 where a digit is a letter
        let letters = (values + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
        let text = values + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10);
        eight.copy_from_slice(&text.to_be_bytes());
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_are_those_of_the_number() {
        for number in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(hexadecimal(number), *format!("{number:016x}").as_bytes());
        }
    }
}
