//! What an XID means: NVIDIA's catalogue as a table, and the driver's line in the kernel log.
//!
//! The source is <https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html> (R580), its column
//! "Resolution Bucket (Immediate Action)". Where a bucket is a procedure:
//!
//! | bucket | here |
//! |---|---|
//! | `WORKFLOW_XID_45` | ignored: it follows another XID, or an application that was ended |
//! | `WORKFLOW_XID_48` | reset: alone it is `RESET_GPU`, with 63 or 64 it is `DRAIN_AND_RESET` |
//! | `WORKFLOW_NVLINK_ERR` (74), `WORKFLOW_NVLINK5_ERR` (144 to 150) | [`nvlink`] reads the registers in the text |
//! | `XID_154` | the action that the text names |
//! | `CHECK_UVM` (159) | reset: whether unified memory is used is not known here |
//! | `RESTART_BM`, `RESTART_VM` | reboot |
//! | `CHECK_MECHANICALS`, `UPDATE_SWFW`, `CONTACT_SUPPORT` | contact support |

mod nvlink;

use std::ops::RangeInclusive;

use super::status::{Action, PciAddress};

/// Drivers write it in front of the address.
const MARK: &str = "NVRM: Xid (PCI:";

/// Drivers before 2016 left out the bus.
const OLD_MARK: &str = "NVRM: Xid (";

pub(super) const RECOVERY_ACTION_CHANGED: u32 = 154;

struct Entry {
    codes: RangeInclusive<u32>,
    name: &'static str,
    asks: Asks,
}

enum Asks {
    For(Action),
    /// For what the text says; for this without it.
    ByText(Action),
}

const fn entry(first: u32, last: u32, name: &'static str, asks: Asks) -> Entry {
    Entry { codes: first..=last, name, asks }
}

const IGNORE: Asks = Asks::For(Action::None);
const APPLICATION: Asks = Asks::For(Action::RestartApplication);
const RESET: Asks = Asks::For(Action::ResetGpu);
const REBOOT: Asks = Asks::For(Action::Reboot);
const SUPPORT: Asks = Asks::For(Action::ContactSupport);

#[rustfmt::skip]
const CATALOGUE: &[Entry] = &[
    entry(8, 8, "channel idle timeout", APPLICATION),
    entry(11, 11, "corrupted push buffer", APPLICATION),
    entry(13, 13, "graphics engine exception", APPLICATION),
    entry(31, 31, "GPU memory page fault", APPLICATION),
    entry(32, 32, "corrupted push buffer", APPLICATION),
    entry(37, 38, "driver firmware error", IGNORE),
    entry(39, 41, "copy engine exception", APPLICATION),
    entry(43, 43, "GPU stopped processing for an application", IGNORE),
    entry(44, 44, "fault during context switch", IGNORE),
    entry(45, 45, "preemptive cleanup", IGNORE),
    entry(46, 46, "GPU stopped processing", RESET),
    entry(48, 48, "double-bit ECC error", RESET),
    entry(54, 54, "auxiliary power not connected", SUPPORT),
    entry(60, 60, "video processor exception", APPLICATION),
    entry(62, 62, "internal micro-controller halt", RESET),
    entry(63, 63, "memory remapping event", IGNORE),
    entry(64, 64, "memory remapping failure", RESET),
    entry(66, 67, "illegal access by driver", IGNORE),
    entry(68, 68, "video decoder exception", APPLICATION),
    entry(69, 69, "graphics engine class error", APPLICATION),
    entry(70, 72, "copy engine error", APPLICATION),
    entry(74, 74, "NVLink error", Asks::ByText(Action::ResetGpu)),
    entry(75, 77, "copy engine error", APPLICATION),
    entry(78, 78, "vGPU start error", SUPPORT),
    entry(79, 79, "GPU has fallen off the bus", REBOOT),
    entry(80, 80, "corrupted data sent to GPU", APPLICATION),
    entry(82, 82, "JPEG engine error", APPLICATION),
    entry(83, 84, "video decoder error", APPLICATION),
    entry(85, 85, "copy engine error", APPLICATION),
    entry(86, 86, "optical flow exception", APPLICATION),
    entry(88, 89, "video decoder error", APPLICATION),
    entry(92, 92, "high single-bit ECC error rate", IGNORE),
    entry(93, 93, "InfoROM wear limit", IGNORE),
    entry(94, 94, "contained memory error", APPLICATION),
    entry(95, 95, "uncontained memory error", RESET),
    entry(96, 98, "video decoder error", APPLICATION),
    entry(99, 105, "JPEG engine error", APPLICATION),
    entry(106, 107, "SMBPBI test message", IGNORE),
    entry(108, 108, "NVLink remote translation error", IGNORE),
    entry(109, 109, "context switch timeout", RESET),
    entry(110, 110, "security fault", RESET),
    entry(119, 119, "GSP RPC timeout", RESET),
    entry(120, 120, "GSP error", RESET),
    entry(121, 121, "corrected C2C link error", IGNORE),
    entry(126, 135, "copy engine error", APPLICATION),
    entry(136, 136, "link training failed", RESET),
    entry(137, 137, "NVLink privilege error", IGNORE),
    entry(139, 139, "optical flow error", APPLICATION),
    entry(140, 140, "unrecovered ECC error", RESET),
    entry(141, 141, "CUDA fast path error", IGNORE),
    entry(142, 142, "video encoder error", SUPPORT),
    entry(143, 143, "GPU initialization error", RESET),
    entry(144, 150, "NVLink 5 error", Asks::ByText(Action::ResetGpu)),
    entry(151, 151, "key rotation error", REBOOT),
    entry(152, 153, "DLA error", IGNORE),
    // Without its text: whatever it follows, and the driver's recovery action, say the same.
    entry(RECOVERY_ACTION_CHANGED, RECOVERY_ACTION_CHANGED, "GPU recovery action changed", Asks::ByText(Action::None)),
    entry(155, 155, "NVLink software-defined error", RESET),
    entry(156, 156, "resource retirement event", RESET),
    entry(157, 157, "resource retirement failure", IGNORE),
    entry(158, 158, "GPU fatal timeout", RESET),
    entry(159, 159, "CHI non-data error", RESET),
    entry(160, 161, "channel retirement", IGNORE),
    entry(162, 165, "power smoothing", IGNORE),
    entry(171, 171, "uncorrectable DRAM error", RESET),
    entry(172, 172, "uncorrectable SRAM error", RESET),
];

/// A code that the catalogue does not have, or has no action for. It does not make a GPU unfit, so that a new
/// driver's new message does not empty a fleet.
const UNKNOWN: Entry = entry(0, 0, "not in the catalogue", SUPPORT);

fn look_up(code: u32) -> &'static Entry {
    CATALOGUE.iter().find(|entry| entry.codes.contains(&code)).unwrap_or(&UNKNOWN)
}

pub(super) fn name(code: u32) -> &'static str {
    look_up(code).name
}

/// Whether the text can say less, or more, than the code alone.
pub(super) fn needs_text(code: u32) -> bool {
    matches!(look_up(code).asks, Asks::ByText(_))
}

/// What to do about it. `text` is what follows the code in the kernel log, where that is known.
pub(super) fn action(code: u32, text: Option<&str>) -> Action {
    match look_up(code).asks {
        Asks::For(action) => action,
        Asks::ByText(default) => {
            let read = text.and_then(|text| match code {
                RECOVERY_ACTION_CHANGED => recovery(text),
                74 => nvlink::action_74(text),
                _ => nvlink::action_144_to_150(code, text),
            });
            read.unwrap_or(default)
        }
    }
}

/// `GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)`.
fn recovery(text: &str) -> Option<Action> {
    let (_, to) = text.rsplit_once(" to 0x")?;
    match to.split_once('(')?.1.trim_end_matches([')', '.', ' ']) {
        "None" => Some(Action::None),
        "Drain P2P" => Some(Action::RestartApplication),
        "GPU Reset Required" | "Drain and Reset" => Some(Action::ResetGpu),
        "Node Reboot Required" => Some(Action::Reboot),
        _ => Some(Action::ContactSupport),
    }
}

/// A line of the kernel log that tells of an XID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) pci: PciAddress,
    pub(super) code: u32,
    /// What follows the code.
    pub(super) text: &'a str,
}

/// `NVRM: Xid (PCI:0000:5a:00): 79, GPU has fallen off the bus.`; `None`: it tells of none.
pub(super) fn parse(message: &str) -> Option<Line<'_>> {
    let rest = message.strip_prefix(MARK).or_else(|| message.strip_prefix(OLD_MARK))?;
    let (pci, rest) = rest.split_once("):")?;
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (code, text) = rest.split_at(end);
    Some(Line {
        pci: PciAddress::parse(pci)?,
        code: code.parse().ok()?,
        text: text.trim_start_matches([',', ' ']),
    })
}

#[cfg(test)]
mod tests;
