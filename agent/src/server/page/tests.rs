use super::*;

#[test]
fn a_snapshot_is_written_once() {
    let (page, first, second) =
        (Page::default(), Arc::new(Snapshot::blank()), Arc::new(Snapshot::blank()));
    let mut writes = 0;
    for snapshot in [&first, &first, &second, &second, &second] {
        page.of(snapshot, |_| {
            writes += 1;
            Bytes::from_static(b"x")
        });
    }
    assert_eq!(writes, 2);
}
