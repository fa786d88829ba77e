//! What an NVLink XID asks for, by the registers in its text. The catalogue's sheet "XID 144-150 Decode" and
//! its procedure `WORKFLOW_NVLINK_ERR`; whatever they do not name is left to the caller's default.

use crate::gpu::status::Action;

/// The registers that XID 74 has in parentheses.
const REGISTERS_74: usize = 7;

/// Of the first register: may be ignored.
const HARMLESS_FIRST: u32 = 1 << 0 | 1 << 23 | 1 << 30;

/// Of the fifth: a threshold of corrected errors was passed, "continue operation".
const HARMLESS_FIFTH: u32 = 1 << 20 | 1 << 23 | 1 << 26 | 1 << 29;

/// Link-down reasons of XID 149 that need no reset.
const HARMLESS_LINK_DOWN: [u32; 2] = [0b10_0110, 0b10_1000];

/// Which error bits of a unit of the link ask for what. A bit that is in neither mask may be ignored.
struct Unit {
    code: u32,
    name: &'static str,
    reset: u32,
    /// Unless XID 154, which has its own line, says more.
    application: u32,
}

const fn unit(code: u32, name: &'static str, reset: u32, application: u32) -> Unit {
    Unit { code, name, reset, application }
}

const UNITS: &[Unit] = &[
    unit(144, "SAW_MVB", 0x12, 0),
    unit(145, "RLW_CTRL", 0, 0),
    unit(145, "RLW_REMAP", 0xc0, 0x3f),
    unit(145, "RLW_RSPCOL", 0x2, 0),
    unit(145, "RLW_RXPIPE", 0, 0),
    unit(145, "RLW_SRC_TRACK", 0x31, 0xc),
    unit(145, "RLW_TAGSTATE", 0x12_0002, 0),
    unit(146, "TLW_", 0x4, 0),
    unit(147, "TREX", 0, 0),
    unit(148, "NVLPW", 0, 0),
    unit(149, "NETIR_BER_EVENT", 0, 0),
];

/// `…, NVLink: fatal error detected on link 14(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)`.
pub(super) fn action_74(text: &str) -> Option<Action> {
    let registers = registers(text)?;
    let [first, _, third, fourth, fifth, ..] = registers[..] else { return None };
    if registers.len() != REGISTERS_74 || registers.iter().all(|register| *register == 0) {
        return None;
    }
    let is_harmless =
        first & !HARMLESS_FIRST == 0 && fifth & !HARMLESS_FIFTH == 0 && third == 0 && fourth == 0;
    Some(if is_harmless { Action::None } else { Action::ResetGpu })
}

/// `RLW_REMAP Nonfatal XC1 i0 Link 10 (0x00000082 0x00000040 …)`: the unit, whether it is fatal, and the
/// registers `intrInfo` and `errorStatus`, which come first.
pub(super) fn action_144_to_150(code: u32, text: &str) -> Option<Action> {
    let [info, status, ..] = registers(text)?[..] else { return None };
    let mut words = text.split_whitespace();
    let name = words.next()?;
    let is_fatal = words.next()?.eq_ignore_ascii_case("fatal");
    // Both layouts of `intrInfo`, before and since R575, have the reason here.
    let reason = info >> 20 & 0x3f;
    match name {
        "NETIR_LINK_EVT" | "NETIR_LINK_DOWN" if HARMLESS_LINK_DOWN.contains(&reason) => {
            return Some(Action::None);
        }
        // An enumeration, not bits.
        "NETIR_MFDE_EVENT" if status == 3 => return Some(Action::None),
        _ => {}
    }
    let unit = UNITS.iter().find(|unit| unit.code == code && name.starts_with(unit.name))?;
    Some(if is_fatal || status & unit.reset != 0 {
        Action::ResetGpu
    } else if status & unit.application != 0 {
        Action::RestartApplication
    } else {
        Action::None
    })
}

/// The numbers in the last parentheses; `None` where one of them is none.
fn registers(text: &str) -> Option<Vec<u32>> {
    let (_, inner) = text.rsplit_once('(')?;
    let (inner, _) = inner.split_once(')')?;
    inner
        .split([' ', ','])
        .filter(|word| !word.is_empty())
        .map(|word| u32::from_str_radix(word.strip_prefix("0x")?, 16).ok())
        .collect()
}
