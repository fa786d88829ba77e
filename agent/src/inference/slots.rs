//! llama.cpp's slots, for a server that was started without `--metrics`.

use serde::Deserialize;

use crate::signals::{Check, Load, Reading};

/// One of the requests that it serves at once.
#[derive(Debug, Deserialize)]
pub(super) struct Slot {
    #[serde(default)]
    is_processing: Option<bool>,
    /// Until the end of 2024: 0 where it is idle.
    #[serde(default)]
    state: Option<u32>,
}

impl Slot {
    fn is_busy(&self) -> Option<bool> {
        self.is_processing.or(self.state.map(|state| state != 0))
    }
}

/// What waits for a slot is not among the slots.
pub(super) fn read(slots: &[Slot]) -> Reading<Load> {
    let busy: Option<Vec<bool>> = slots.iter().map(Slot::is_busy).collect();
    let Some(busy) = busy else {
        return Reading::missing("/slots does not say which slots are busy");
    };
    let running = busy.iter().filter(|is_busy| **is_busy).count();
    let reason = "of /slots only: start llama-server with --metrics to know what waits";
    Reading::noted(
        Load { running: u32::try_from(running).ok(), ..Load::default() },
        Check { reason: Some(reason.to_owned()), ..Check::ok() },
    )
}
