//! XIDs as NVML tells them, on a thread of its own, with an NVML of its own: waiting for them blocks.

use std::{
    thread,
    time::{Duration, Instant},
};

use nvml_wrapper::{
    EventSet, Nvml, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError,
    struct_wrappers::event::EventData,
};
use tokio::sync::mpsc;

use super::{
    clock,
    ledger::{Sighting, Source},
    nvml,
    status::PciAddress,
    tracker::Observation,
    xid,
};
use crate::signals::Check;

/// Between two looks at whether anybody still listens.
const WAIT_MS: u32 = 60_000;

/// What a wait that brought nothing takes at least: NVML may end one early, and where it always did, only asking
/// again would keep a core busy.
const MIN_WAIT: Duration = Duration::from_secs(1);

/// Until NVML is tried again, and until GPUs that are lost are left out.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Why this session with NVML is over.
enum End {
    /// Nobody listens any more.
    Unheard,
    Failed(Check),
}

impl From<NvmlError> for End {
    fn from(error: NvmlError) -> Self {
        Self::Failed(Check::error(format!("NVML gives no events: {error}")))
    }
}

/// Waits for events until nobody listens.
pub(super) fn run(library: Option<&str>, outbox: &mpsc::Sender<Vec<Observation>>) {
    loop {
        let check = match session(library, outbox) {
            End::Unheard => return,
            End::Failed(check) => check,
        };
        if outbox.blocking_send(vec![Observation::Source(Source::NvmlEvents, check)]).is_err() {
            return;
        }
        thread::sleep(RETRY_PAUSE);
    }
}

fn session(library: Option<&str>, outbox: &mpsc::Sender<Vec<Observation>>) -> End {
    match nvml::load(library) {
        Err(error) => End::Failed(nvml::not_loaded(library, &error)),
        Ok(nvml) => match wait(&nvml, outbox) {
            Ok(never) => match never {},
            Err(end) => end,
        },
    }
}

fn wait(
    nvml: &Nvml,
    outbox: &mpsc::Sender<Vec<Observation>>,
) -> Result<std::convert::Infallible, End> {
    let send = |observation| outbox.blocking_send(vec![observation]).map_err(|_| End::Unheard);
    let (set, left_out) = listen(nvml)?;
    send(Observation::Source(Source::NvmlEvents, left_out))?;
    loop {
        let begun = Instant::now();
        match set.wait(WAIT_MS) {
            Ok(event) => {
                if let Some(sighting) = sighting(&event) {
                    send(Observation::Xid(sighting))?;
                }
            }
            Err(NvmlError::Timeout) if outbox.is_closed() => return Err(End::Unheard),
            Err(NvmlError::Timeout) => thread::sleep(MIN_WAIT.saturating_sub(begun.elapsed())),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A set with every GPU that has XID events, and which have none.
fn listen(nvml: &Nvml) -> Result<(EventSet<'_>, Check), End> {
    let count = nvml.device_count()?;
    let mut refused = Vec::new();
    // A set that a GPU refuses is gone, and is begun again without that GPU.
    'set: while (refused.len() as u64) < u64::from(count) {
        let mut set = nvml.create_event_set()?;
        for index in (0..count).filter(|index| !refused.contains(index)) {
            let registered = nvml.device_by_index(index).and_then(|device| {
                device
                    .register_events(EventTypes::CRITICAL_XID_ERROR, set)
                    .map_err(|error| error.error)
            });
            match registered {
                Ok(registered) => set = registered,
                Err(_) => {
                    refused.push(index);
                    continue 'set;
                }
            }
        }
        let check = if refused.is_empty() {
            Check::ok()
        } else {
            Check::degraded(format!("these GPUs give no events: {refused:?}"))
        };
        return Ok((set, check));
    }
    Err(End::Failed(Check::missing(format!("none of {count} GPUs gives events"))))
}

fn sighting(event: &EventData<'_>) -> Option<Sighting> {
    let code = match event.event_data.as_ref()? {
        XidError::Value(code) => u32::try_from(*code).ok()?,
        XidError::Unknown => return None,
    };
    // NVML answers this from memory, also for a GPU that is lost.
    let pci = event.device.pci_info().ok()?;
    Some(Sighting {
        source: Source::NvmlEvents,
        pci: PciAddress::parse(&pci.bus_id)?,
        code,
        action: xid::action(code, None),
        at: clock::moment(clock::since_boot()),
    })
}
