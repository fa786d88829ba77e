use super::*;

const GIB: u64 = 1 << 30;

fn scope() -> Scope {
    let config = config::Cleanup {
        after_drain: true,
        compute_processes: true,
        gpu_memory_bytes: Some(GIB),
        enclave: true,
        paths: Vec::new(),
        command: Vec::new(),
        command_timeout: Duration::from_secs(60),
        patience: Duration::from_secs(60),
    };
    Scope { config, gpu_required: false, enclave_required: false }
}

fn gpu(used: Option<u64>, processes: Option<&[u32]>) -> Reading<Vec<GpuUse>> {
    let processes = processes.map(<[u32]>::to_vec);
    Reading::ok(vec![GpuUse { index: 0, memory_used_bytes: used, processes }])
}

fn enclaves(listed: u32) -> Reading<Enclaves> {
    Reading::ok(Enclaves { running: 0, listed, ..Enclaves::default() })
}

/// Looks at second 100, and gives what was found with these readings `later`.
fn look(
    scope: &Scope,
    outside: &[CleanupCheck],
    gpus: &Reading<Vec<GpuUse>>,
    enclaves: &Reading<Enclaves>,
    later: u64,
) -> Option<Result<usize, String>> {
    let mut wash = Wash::new(1, 0);
    wash.outside(1, outside.to_vec(), Duration::from_secs(100));
    for round in 1..=2 {
        wash.gpu_sampled(round);
        wash.enclave_sampled();
    }
    let found = wash.findings(scope, gpus, enclaves, Duration::from_secs(100 + later))?;
    assert_eq!(found.passed(), found.failure().is_none());
    Some(found.failure().map_or(Ok(found.checks.len()), Err))
}

#[test]
fn each_part_has_to_let_go() {
    let (clean, none) = (gpu(Some(GIB), Some(&[])), enclaves(0));
    let failed = |text: &str| Some(Err(text.to_owned()));
    for (case, gpus, enclaves, later, expected) in [
        ("clean", &clean, &none, 0, Some(Ok(3))),
        ("a process, yet", &gpu(Some(0), Some(&[7])), &none, 59, None),
        (
            "a process",
            &gpu(Some(0), Some(&[7])),
            &none,
            60,
            failed("compute_processes: process 7 computes on GPU 0"),
        ),
        (
            "memory",
            &gpu(Some(3 * GIB), Some(&[])),
            &none,
            60,
            failed("gpu_memory: GPU 0 holds 3072 MiB, more than 1024 MiB"),
        ),
        (
            "memory unknown",
            &gpu(None, Some(&[])),
            &none,
            60,
            failed("gpu_memory: GPU 0 does not say what memory it holds"),
        ),
        (
            "processes unknown",
            &gpu(Some(0), None),
            &none,
            60,
            failed("compute_processes: GPU 0 does not say what computes on it"),
        ),
        (
            "an enclave",
            &clean,
            &super::tests::enclaves(2),
            60,
            failed("enclave: 2 enclaves are left"),
        ),
        (
            "the driver hangs",
            &Reading::error("NVML hangs"),
            &none,
            60,
            failed("compute_processes: NVML hangs; gpu_memory: NVML hangs"),
        ),
        ("no GPU here", &Reading::missing("no driver"), &none, 0, Some(Ok(1))),
        (
            "nothing here at all",
            &Reading::missing("no driver"),
            &Reading::missing("no nitro-cli"),
            60,
            failed("nothing could be looked at"),
        ),
    ] {
        assert_eq!(look(&scope(), &[], gpus, enclaves, later), expected, "{case}");
    }
}

#[test]
fn gpus_that_are_required_are_looked_at() {
    let required = Scope { gpu_required: true, ..scope() };
    let found = look(&required, &[], &Reading::missing("no driver"), &enclaves(0), 60);
    let expected = "compute_processes: no driver; gpu_memory: no driver";
    assert_eq!(found, Some(Err(expected.to_owned())));
}

#[test]
fn a_command_that_failed_needs_no_patience() {
    let failed = [CleanupCheck::failed(CleanupCheckKind::Command, "exit status: 1")];
    let found = look(&scope(), &failed, &gpu(Some(0), Some(&[])), &enclaves(0), 0);
    assert_eq!(found, Some(Err("command: exit status: 1".to_owned())));
}

#[test]
fn a_reading_from_before_proves_nothing() {
    let mut wash = Wash::new(2, 4);
    wash.gpu_sampled(5);
    wash.outside(1, Vec::new(), Duration::ZERO);
    assert!(wash.outside.is_none(), "of another run");
    wash.outside(2, Vec::new(), Duration::ZERO);
    let (gpus, enclaves) = (gpu(Some(0), Some(&[])), enclaves(0));
    let found = |wash: &Wash, second| {
        wash.findings(&scope(), &gpus, &enclaves, Duration::from_secs(second)).map(|f| f.failure())
    };
    wash.gpu_sampled(6);
    wash.gpu_sampled(6);
    wash.enclave_sampled();
    wash.enclave_sampled();
    assert_eq!(
        found(&wash, 1),
        None,
        "this round may have been under way, and what came after was none"
    );
    let stale = "compute_processes: not sampled since the cleanup began; \
                 gpu_memory: not sampled since the cleanup began";
    assert_eq!(found(&wash, 60), Some(Some(stale.to_owned())));
    wash.gpu_sampled(7);
    assert_eq!(found(&wash, 1), Some(None));
}
