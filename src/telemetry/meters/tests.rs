use super::*;

#[derive(Debug)]
struct Nothing;

impl Read for Nothing {
    fn read(&self, _: &mut Readings) {}
}

#[test]
fn names_are_unique_end_as_they_should_and_labels_fit() {
    let mut names: Vec<&str> = Instrument::ALL.iter().map(|one| one.name()).collect();
    names.sort_unstable();
    assert!(names.is_sorted_by(|one, other| one < other), "{names:?}");
    for one in Instrument::ALL {
        let counts = matches!(one.kind(), Kind::Counter | Kind::ReadCounter);
        assert_eq!(one.name().ends_with("_total"), counts, "{one:?}");
        assert!(one.labels().len() <= Words::default().len(), "{one:?}");
        assert!(one.help().ends_with('.') && !one.help().contains('\n'), "{one:?}");
        if let Kind::Histogram(bounds) = one.kind() {
            assert!(bounds.is_sorted_by(|one, other| one < other), "{one:?}");
        }
    }
}

#[test]
fn the_older_text_names_counters_in_full_and_has_no_mark_at_its_end() {
    log_suppressed(2);
    let modern = write(Format::OpenMetrics, &Nothing).unwrap();
    let older = write(Format::Classic, &Nothing).unwrap();
    assert!(modern.contains("# TYPE jobgate_log_lines_suppressed counter\n") && modern.ends_with("# EOF\n"));
    assert!(older.contains("# TYPE jobgate_log_lines_suppressed_total counter\n"), "{older}");
    assert!(!older.contains("# EOF") && !older.contains("# UNIT"));
    let values = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(values(&modern), values(&older));
}

#[test]
fn what_has_not_happened_yet_is_shown_as_nothing() {
    let text = write(Format::Classic, &Nothing).unwrap();
    for line in [
        "jobgate_store_failures_total ",
        "jobgate_config_reloads_total{outcome=\"refused\"} ",
        "jobgate_telemetry_dropped_total{signal=\"spans\"} ",
        "process_resident_memory_bytes ",
    ] {
        assert!(text.lines().any(|said| said.starts_with(line)), "{line} is missing:\n{text}");
    }
}
