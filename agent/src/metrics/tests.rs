use super::*;

#[test]
fn labels_may_hold_anything() {
    let mut text = Exposition::default();
    text.family("a", "gauge", "Help.");
    text.labelled("a", &[("b", "one \"two\" \\ three\nfour"), ("c", "")], 1.5);
    assert_eq!(
        text.finish(),
        "# HELP a Help.\n# TYPE a gauge\na{b=\"one \\\"two\\\" \\\\ three\\nfour\",c=\"\"} 1.5\n"
    );
}

#[test]
fn this_process_is_measured() {
    let process = Process::look();
    assert!(process.is_some_and(|p| p.resident_bytes > 0 && p.start_seconds > 1_600_000_000));
    let text = of_process(process.as_ref(), 3);
    assert!(text.contains("\nmrgc_agent_connections_refused_total 3\n"), "{text}");
    assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    assert!(!of_process(None, 0).contains("process_"));
}
