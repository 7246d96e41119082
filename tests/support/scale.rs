//! How much of something a test does: little in the suite, more where `tests/load/replicas.sh` asks for it.

/// The number in this environment variable, or the usual one.
#[expect(clippy::disallowed_methods, reason = "a test's own option, not the gateway's")]
pub(crate) fn scale(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Says what came of so many tries, with the bound that none in so many leaves open: below 3/N in 95 of 100 cases.
#[expect(clippy::print_stderr, reason = "it is what the tool is run for")]
pub(crate) fn report(what: &str, bad: usize, tries: usize) {
    let percent = 300.0 / f64::from(u32::try_from(tries.max(1)).unwrap());
    eprintln!("{what}: {bad} of {tries} (if none: below {percent:.3} % with 95 % confidence)");
}
