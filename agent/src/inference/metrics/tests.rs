#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::config::InferenceKind;

fn selector(text: &str) -> Selector {
    Selector::parse(text).unwrap()
}

fn read(text: &str, selectors: &[&str], replicas: &'static [&'static str]) -> Page {
    let selectors: Vec<_> = selectors.iter().map(|text| selector(text)).collect();
    let mut reader = Reader::new(&selectors, replicas);
    reader.push(text.as_bytes());
    reader.finish()
}

/// `None`: not there; else the sum over all series, or what is wrong.
fn sum_of(page: &Page, selector: &str) -> Option<Result<f64, String>> {
    let series = page.series(selector)?;
    Some(series.values().map(|values| values.values().sum()).map_err(str::to_owned))
}

#[test]
fn a_metric_is_summed_over_its_series() {
    for (text, expected) in [
        ("m 3\n", Some(3.0)),
        ("m 3 1700000000000\n", Some(3.0)),
        ("m\t3\r\n", Some(3.0)),
        ("# HELP m a metric\n# TYPE m gauge\nm{a=\"b\"} 1.5\nm{a=\"c\"} 2\n", Some(3.5)),
        ("m{a=\"}\"} 1\n", Some(1.0)),
        ("m{a=\"\\\"}\",b=\"x\\\\\"} 2\n", Some(2.0)),
        ("m{ a = \"b\" , } 2\n", Some(2.0)),
        ("m{} 1e3\n", Some(1000.0)),
        ("m_total 3\nmm 4\nx{m=\"1\"} 5\n", None),
        ("m\n", None),
        ("", None),
    ] {
        assert_eq!(sum_of(&read(text, &["m"], &[]), "m"), expected.map(Ok), "{text}");
    }
}

#[test]
fn one_line_that_cannot_be_makes_the_metric_unknown() {
    for (text, told) in [
        ("m x\n", "is not a number in `m x`"),
        ("m{a=\"b\" 3\n", "is not a number in `m{a=\"b\" 3`"),
        ("m{a=\"b} 3\n", "is not a number"),
        ("m{a} 3\n", "is not a number"),
        ("m NaN\n", "is NaN"),
        ("m +Inf\n", "is inf"),
        ("m -1\n", "is -1"),
        ("m{a=\"1\"} 1\nm{a=\"2\"} two\n", "is not a number"),
        ("m two\nm 1\n", "is not a number"),
        // The page may have been longer: this may be the half of 12.
        ("m 1", "is not a number in `m 1`"),
    ] {
        let reason = sum_of(&read(text, &["m"], &[]), "m").unwrap().unwrap_err();
        assert!(reason.contains(told), "{text}: {reason}");
    }
}

#[test]
fn a_series_counts_once() {
    let twice = "m{a=\"1\",b=\"2\"} 3\nm{b=\"2\",a=\"1\"} 3\nm{a=\"1\",b=\"3\"} 1\n";
    assert_eq!(sum_of(&read(twice, &["m"], &[]), "m"), Some(Ok(4.0)));
    // Ranks of one engine say the same, and the one that has said it last is ahead.
    let ranks = "m{dp=\"0\",tp=\"0\"} 5\nm{dp=\"0\",tp=\"1\"} 6\nm{dp=\"1\",tp=\"0\"} 1\n";
    assert_eq!(sum_of(&read(ranks, &["m"], &["tp"]), "m"), Some(Ok(7.0)));
}

#[test]
fn labels_select_series() {
    let text = "m{kind=\"a\"} 1\nm{kind=\"b\"} 2\nm 4\nm{kind=\"\",x=\"y\"} 8\n";
    for (selector, expected) in [
        ("m", Some(15.0)),
        ("m{kind=\"a\"}", Some(1.0)),
        ("m{kind=\"\"}", Some(12.0)),
        ("m{kind=\"b\",x=\"\"}", Some(2.0)),
        ("m{kind=\"c\"}", None),
        ("m{kind!=\"\"}", Some(3.0)),
        ("m{kind!=\"a\",x=\"\"}", Some(6.0)),
    ] {
        assert_eq!(sum_of(&read(text, &[selector], &[]), selector), expected.map(Ok), "{selector}");
    }
}

#[test]
fn selectors_have_two_forms() {
    for text in ["m", "a:b_1", "m{a=\"b\"}", "m{a=\"b\", c=\"\"}", "m{}"] {
        assert!(Selector::parse(text).is_some(), "{text}");
    }
    for text in ["", "1m", "m n", "m-n", "m{a}", "m{a=b}", "m{a=\"b\"", "m{a=\"b\"}x", "{a=\"b\"}"]
    {
        assert_eq!(Selector::parse(text), None, "{text}");
    }
}

#[test]
fn metrics_do_not_disturb_each_other() {
    let page = read("a x\nb 2\n", &["a", "b", "c"], &[]);
    assert_eq!(sum_of(&page, "b"), Some(Ok(2.0)));
    assert!(sum_of(&page, "a").unwrap().is_err());
    assert_eq!(sum_of(&page, "c"), None);
    assert_eq!((page.lines, page.has_more_than("b"), page.has_more_than("")), (2, true, true));
}

#[test]
fn the_first_sample_that_tells_names_the_server() {
    let page = read("# TYPE sglang:x gauge\nup 1\ntgi_queue_size 1\nvllm:x 1\n", &[], &[]);
    assert_eq!(page.server.unwrap().kind, InferenceKind::Tgi);
}

#[test]
fn what_has_no_end_is_bounded() {
    let selectors = [selector("m"), selector("n")];
    let mut reader = Reader::new(&selectors, &[]);
    reader.push(b"m ");
    for _ in 0..1_000 {
        reader.push(&[b'1'; 1_024]);
        assert!(reader.line.len() <= MAX_LINE_BYTES);
    }
    reader.push(b"\n");
    for series in 0..=MAX_SERIES {
        reader.push(format!("n{{s=\"{series}\"}} 1\n").as_bytes());
    }
    let page = reader.finish();
    assert!(sum_of(&page, "m").unwrap().unwrap_err().contains("is not a number in `m 111"));
    assert_eq!(sum_of(&page, "n").unwrap().unwrap_err(), "has more than 4096 series");
}

proptest! {
    #[test]
    fn no_page_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "(m|m\\{|[ -~é\\n\\t\"\\\\{}])*") {
        for page in [&bytes[..], text.as_bytes()] {
            let mut reader = Reader::new(&[selector("m"), selector("m{a=\"b\"}")], &["a"]);
            reader.push(page);
            let page = reader.finish();
            if let Some(Ok(sum)) = sum_of(&page, "m") {
                prop_assert!(sum >= 0.0);
            }
        }
    }

    #[test]
    fn however_the_page_is_cut_it_says_the_same(
        values in prop::collection::vec(0u32..1_000_000, 1..20),
        cuts in prop::collection::vec(1usize..40, 1..40),
    ) {
        let text: String =
            values.iter().enumerate().map(|(i, v)| format!("m{{rank=\"{i}\"}} {v}\n")).collect();
        let mut reader = Reader::new(&[selector("m")], &[]);
        let mut rest = text.as_bytes();
        for cut in cuts.iter().cycle() {
            let (chunk, left) = rest.split_at((*cut).min(rest.len()));
            reader.push(chunk);
            rest = left;
            if rest.is_empty() {
                break;
            }
        }
        let expected = values.iter().map(|v| f64::from(*v)).sum::<f64>();
        prop_assert_eq!(sum_of(&reader.finish(), "m"), Some(Ok(expected)));
    }
}
