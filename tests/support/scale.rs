//! The size of a test: small in the suite, larger where `tests/load/replicas.sh` sets it.

/// The number in this environment variable, or the default.
#[expect(clippy::disallowed_methods, reason = "an option of the test, not of the gateway")]
pub(crate) fn scale(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Prints the result of `tries` tries. No failure in N tries bounds the failure rate below 3/N with 95 % confidence.
#[expect(clippy::print_stderr, reason = "the output of the tool")]
pub(crate) fn report(what: &str, bad: usize, tries: usize) {
    let percent = 300.0 / f64::from(u32::try_from(tries.max(1)).unwrap());
    eprintln!("{what}: {bad} of {tries} (if none: below {percent:.3} % with 95 % confidence)");
}
