#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn sum_of(text: &str) -> (Option<f64>, bool) {
    let sums = sum(text, &["m"]);
    (sums.values.get("m").copied(), sums.garbled.contains_key("m"))
}

#[test]
fn a_metric_is_summed_over_its_label_sets() {
    for (text, expected) in [
        ("m 3\n", Some(3.0)),
        ("m 3 1700000000000\n", Some(3.0)),
        ("m\t3\r\n", Some(3.0)),
        ("# HELP m a metric\n# TYPE m gauge\nm{a=\"b\"} 1.5\nm{a=\"c\"} 2\n", Some(3.5)),
        ("m{a=\"}\"} 1\n", Some(1.0)),
        ("m{a=\"\\\"}\",b=\"x\\\\\"} 2\n", Some(2.0)),
        ("m{} 1e3", Some(1000.0)),
        ("m -1", Some(-1.0)),
        ("m_total 3\nmm 4\nx{m=\"1\"} 5\n", None),
        ("", None),
    ] {
        assert_eq!(sum_of(text), (expected, false), "{text}");
    }
}

#[test]
fn one_unreadable_line_makes_the_metric_unknown() {
    for text in [
        "m",
        "m ",
        "m x",
        "m NaN",
        "m +Inf",
        "m{a=\"b\" 3",
        "m{a=\"b} 3",
        "m 1\nm two",
        "m two\nm 1",
    ] {
        let (value, garbled) = sum_of(text);
        // A name with nothing after it is no line of the metric at all.
        assert_eq!((value, garbled), (None, text.trim() != "m"), "{text}");
    }
}

#[test]
fn metrics_do_not_disturb_each_other() {
    let sums = sum("a x\nb 2\n", &["a", "b"]);
    assert_eq!(sums.values.into_iter().collect::<Vec<_>>(), [("b", 2.0)]);
    assert_eq!(sums.garbled.into_iter().collect::<Vec<_>>(), [("a", "a x".to_owned())]);
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in "(m|m\\{|[ -~é\\n\\t\"\\\\{}])*") {
        let sums = sum(&text, &["m", "m{"]);
        prop_assert!(sums.values.values().all(|value| !value.is_nan()));
    }

    #[test]
    fn what_is_written_is_read(values in prop::collection::vec(0u32..1_000_000, 1..20)) {
        let text: String =
            values.iter().enumerate().map(|(i, v)| format!("m{{rank=\"{i}\"}} {v}\n")).collect();
        let expected = values.iter().map(|v| f64::from(*v)).sum::<f64>();
        prop_assert_eq!(sum_of(&text), (Some(expected), false));
    }
}
