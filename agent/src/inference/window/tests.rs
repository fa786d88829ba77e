#![allow(clippy::unwrap_used)]

use super::*;

const WINDOW: Duration = Duration::from_secs(30);

/// One series' sum and count.
fn counters(sum: f64, count: f64) -> Counters {
    Counters { sum, count }
}

/// A second, and each series' key, sum and count.
type Scrape<'a> = (u64, &'a [(u64, f64, f64)]);

/// Adds one after the other, and gives each answer.
fn averages(scrapes: &[Scrape<'_>]) -> Vec<Option<f64>> {
    let mut latency = Latency::over(WINDOW);
    scrapes
        .iter()
        .map(|(at, series)| {
            let series = series.iter().map(|(key, sum, count)| (*key, counters(*sum, *count)));
            latency.add(Duration::from_secs(*at), series.collect())
        })
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
        let series: Vec<_> =
            scrapes.iter().map(|(at, sum, count)| (*at, [(1, *sum, *count)])).collect();
        let scrapes: Vec<_> = series.iter().map(|(at, series)| (*at, &series[..])).collect();
        assert_eq!(averages(&scrapes), expected, "{case}");
    }
}

#[test]
fn replicas_restart_one_by_one() {
    // The first has served 1,000 requests of 1 s when it restarts; then each serves ten, of 3 s and of 5 s.
    // By the totals alone, the sum and the count would have fallen.
    let before = &[(1, 1_000.0, 1_000.0), (2, 10.0, 10.0)][..];
    let after = &[(1, 30.0, 10.0), (2, 60.0, 20.0)][..];
    assert_eq!(averages(&[(0, before), (10, after)]), [Some(1.0), Some(4.0)]);
    // One that comes has served nothing before; one that goes takes nothing along.
    let grown = &[(1, 30.0, 10.0), (2, 60.0, 20.0), (3, 7.0, 1.0)][..];
    let shrunk = &[(3, 9.0, 2.0)][..];
    assert_eq!(
        averages(&[(0, after), (10, grown), (20, shrunk)]),
        [Some(3.0), Some(7.0), Some(4.5)]
    );
    // All of them at once is another server.
    assert_eq!(averages(&[(0, before), (10, &[(1, 0.0, 0.0), (2, 0.0, 0.0)])]), [Some(1.0), None]);
}

#[test]
fn however_often_it_is_scraped_the_marks_are_few() {
    let mut average = Average::over(WINDOW);
    for i in 0..100_000_u32 {
        let scrape = f64::from(i);
        average.add(Duration::from_millis(10) * i, counters(scrape * 2.0, scrape));
        assert!(average.marks.len() <= MARKS + 2, "{} marks", average.marks.len());
    }
    assert_eq!(average.known, Some(2.0));
}
