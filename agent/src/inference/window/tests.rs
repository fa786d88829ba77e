#![allow(clippy::unwrap_used)]

use super::*;

/// Adds (second, sum, count) one after the other over a window of 30 s, and gives each answer.
fn averages(scrapes: &[(u64, f64, f64)]) -> Vec<Option<f64>> {
    let mut average = Average::over(Duration::from_secs(30));
    scrapes
        .iter()
        .map(|(at, sum, count)| average.add(Duration::from_secs(*at), *sum, *count))
        .collect()
}

#[test]
fn the_average_is_that_of_the_window() {
    for (case, scrapes, expected) in [
        ("nothing ever", &[(0, 0.0, 0.0), (10, 0.0, 0.0)][..], vec![None, None]),
        ("the first scrape is over all", &[(0, 30.0, 10.0)], vec![Some(3.0)]),
        (
            "then over the window",
            &[(0, 30.0, 10.0), (10, 40.0, 20.0), (20, 60.0, 30.0)],
            vec![Some(3.0), Some(1.0), Some(1.5)],
        ),
        (
            "nothing new keeps the last",
            &[(0, 30.0, 10.0), (100, 30.0, 10.0), (200, 30.0, 10.0)],
            vec![Some(3.0), Some(3.0), Some(3.0)],
        ),
        (
            "what is older than the window is left behind",
            &[(0, 0.0, 0.0), (10, 100.0, 10.0), (40, 100.0, 10.0), (50, 101.0, 11.0)],
            vec![None, Some(10.0), Some(10.0), Some(1.0)],
        ),
        (
            "a server that restarted begins again",
            &[(0, 30.0, 10.0), (10, 2.0, 1.0), (20, 2.0, 1.0), (30, 0.0, 0.0)],
            vec![Some(3.0), Some(2.0), Some(2.0), None],
        ),
    ] {
        assert_eq!(averages(scrapes), expected, "{case}");
    }
}

#[test]
fn however_often_it_is_scraped_the_marks_are_few() {
    let mut average = Average::over(Duration::from_secs(30));
    for i in 0..100_000_u32 {
        let scrape = f64::from(i);
        average.add(Duration::from_millis(10) * i, scrape * 2.0, scrape);
        assert!(average.marks.len() <= MARKS + 2, "{} marks", average.marks.len());
    }
    assert_eq!(average.known, Some(2.0));
}
