//! `/health?detail` for people. An agent of another version may say less or more: what is not there is not
//! shown.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use super::{
    Source,
    table::{Cell, render},
};

const GOOD: Style = AnsiColor::Green.on_default();
const DOUBTFUL: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const FAINT: Style = Style::new().dimmed();

/// Of the changes, those that are shown; the agent knows some more.
const SHOWN_CHANGES: usize = 10;

/// Of a change's reason.
const MAX_REASON_BYTES: usize = 100;

/// The answer as it came, and who gave it.
pub(super) fn json(source: &Source, mut detail: Value) -> String {
    detail["source"] = match source {
        Source::Agent(address) => json!({ "agent": address }),
        Source::Look(_) => json!({ "agent": null }),
    };
    format!("{detail:#}\n")
}

pub(super) fn text(source: &Source, detail: &Value, now_ms: u64) -> String {
    let parts = [
        head(source, detail),
        checks(&detail["checks"]),
        gpus(&detail["gpu"]),
        xids(&detail["gpus"]["xids"], now_ms),
        facts(detail),
        changes(&detail["changes"], now_ms),
    ];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("\n")
}

fn head(source: &Source, detail: &Value) -> String {
    let instance = &detail["instance"];
    let place = instance["zone"].as_str().or(instance["region"].as_str()).unwrap_or_default();
    let (id, pool) = (text_of(&instance["id"]), text_of(&instance["pool"]));
    let (bold, off) = (Style::new().bold().render(), Style::new().bold().render_reset());
    let mut text = format!("{bold}{id}{off} in {place}, pool {pool}\n");
    let lifecycle = text_of(&detail["lifecycle"]);
    let health = text_of(&detail["status"]);
    let style = style_of(&health);
    let (on, off) = (style.render(), style.render_reset());
    let _ = match source {
        Source::Agent(address) => {
            let version = text_of(&instance["agent_version"]);
            writeln!(text, "{lifecycle}, {on}{health}{off}, says mrgc-agent {version} at {address}")
        }
        Source::Look(address) => writeln!(
            text,
            "{on}{health}{off}, by a look at this machine: no agent listens at {address}"
        ),
    };
    text
}

fn checks(checks: &Value) -> String {
    let rows = checks.as_object().into_iter().flatten().map(|(name, check)| {
        let status = text_of(&check["status"]);
        let style = style_of(&status);
        let reason = Cell::new(text_of(&check["reason"]));
        vec![Cell::new(name), Cell::styled(status, style), reason]
    });
    render(&["CHECK", "STATUS", "REASON"], &rows.collect::<Vec<_>>())
}

fn gpus(gpus: &Value) -> String {
    let Some(gpus) = gpus.as_array().filter(|gpus| !gpus.is_empty()) else { return String::new() };
    let rows = gpus.iter().map(|gpu| {
        let total = gib(&gpu["memory_total_bytes"], "GiB");
        let used = gib(&gpu["memory_used_bytes"], "of");
        let fitness = text_of(&gpu["fitness"]);
        let style = style_of(&fitness);
        vec![
            Cell::new(text_of(&gpu["index"])),
            Cell::new(text_of(&gpu["name"])),
            Cell::styled(fitness, style),
            Cell::new(action(&gpu["action"])),
            Cell::new(percent(&gpu["utilization"], "%").unwrap_or_default()),
            Cell::new(used.zip(total).map_or_else(String::new, |(u, t)| format!("{u} {t}"))),
            Cell::new(rounded(&gpu["temperature_celsius"], "°C").unwrap_or_default()),
            Cell::new(rounded(&gpu["power_watts"], "W").unwrap_or_default()),
        ]
    });
    let heads = ["GPU", "NAME", "FITNESS", "ACTION", "USE", "MEMORY", "TEMPERATURE", "POWER"];
    render(&heads, &rows.collect::<Vec<_>>())
}

/// What the driver reported since boot.
fn xids(xids: &Value, now_ms: u64) -> String {
    let rows = xids.as_array().into_iter().flatten().map(|xid| {
        vec![
            Cell::new(text_of(&xid["code"])),
            Cell::new(text_of(&xid["pci"])),
            Cell::new(text_of(&xid["name"])),
            Cell::new(action(&xid["action"])),
            Cell::new(text_of(&xid["count"])),
            Cell::new(xid["last_seen"].as_u64().map_or_else(String::new, |at| ago(at, now_ms))),
        ]
    });
    let heads = ["XID", "GPU AT", "NAME", "ACTION", "COUNT", "LAST"];
    render(&heads, &rows.collect::<Vec<_>>())
}

/// As in `reset gpu`; nothing for `none`.
fn action(value: &Value) -> String {
    match value.as_str() {
        Some("none") | None => String::new(),
        Some(action) => action.replace('_', " "),
    }
}

/// What fits on a line each.
fn facts(detail: &Value) -> String {
    let (host, beats, config) = (&detail["host"], &detail["heartbeats"], &detail["config"]);
    let enclave = &detail["enclave"];
    let facts: [(&str, Vec<Option<String>>); 7] = [
        (
            "requests",
            vec![
                rounded(&detail["running"], "running"),
                rounded(&detail["queue_depth"], "waiting"),
                rounded(&detail["avg_latency_ms"], "ms on average"),
                rounded(&detail["time_to_first_token_ms"], "ms to the first token"),
            ],
        ),
        ("models", list(&detail["models"])),
        (
            "enclaves",
            vec![rounded(&enclave["running"], "running"), rounded(&enclave["listed"], "listed")],
        ),
        (
            "host",
            vec![
                rounded(&host["cpus"], "CPUs"),
                percent(&host["cpu_utilization"], "% used"),
                gib(&host["memory_available_bytes"], "GiB of memory free"),
            ],
        ),
        (
            "heartbeats",
            vec![
                rounded(&beats["written"], "written"),
                rounded(&beats["skipped"], "not needed"),
                rounded(&beats["failed"], "failed"),
            ],
        ),
        ("reload refused", vec![config["error"].as_str().map(str::to_owned)]),
        ("needs a restart", list(&config["restart_needed"])),
    ];
    let rows: Vec<Vec<Cell>> = facts
        .into_iter()
        .map(|(name, said)| (name, said.into_iter().flatten().collect::<Vec<_>>()))
        .filter(|(_, said)| !said.is_empty())
        .map(|(name, said)| vec![Cell::new(name), Cell::new(said.join(", "))])
        .collect();
    render(&["ALSO", ""], &rows)
}

fn changes(changes: &Value, now_ms: u64) -> String {
    let changes = changes.as_array().map(Vec::as_slice).unwrap_or_default();
    let latest = &changes[changes.len().saturating_sub(SHOWN_CHANGES)..];
    let rows = latest.iter().map(|change| {
        let to = text_of(&change["to"]);
        let style = style_of(&to);
        vec![
            Cell::new(change["at"].as_u64().map_or_else(String::new, |at| ago(at, now_ms))),
            Cell::new(text_of(&change["what"])),
            Cell::new(text_of(&change["from"])),
            Cell::styled(to, style),
            Cell::new(shorten(text_of(&change["reason"]))),
        ]
    });
    render(&["LATELY", "WHAT", "FROM", "TO", "REASON"], &rows.collect::<Vec<_>>())
}

/// What is whole among the checks, or was in the log.
fn shorten(mut reason: String) -> String {
    if reason.len() > MAX_REASON_BYTES {
        reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
        reason.push('…');
    }
    reason
}

/// As in `3 min ago`.
fn ago(at_ms: u64, now_ms: u64) -> String {
    match now_ms.saturating_sub(at_ms) / 1_000 {
        seconds @ 0..100 => format!("{seconds} s ago"),
        seconds @ 100..6_000 => format!("{} min ago", seconds / 60),
        seconds @ 6_000..172_800 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

fn style_of(word: &str) -> Style {
    match word {
        "ok" | "healthy" | "fit" | "available" | "valid" => GOOD,
        "degraded" | "draining" | "cleaning" => DOUBTFUL,
        "error" | "unhealthy" | "unfit" | "quarantined" | "refused" => BAD,
        "missing" => FAINT,
        _ => Style::new(),
    }
}

/// Nothing for `null`.
fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> Vec<Option<String>> {
    value.as_array().into_iter().flatten().map(|item| Some(text_of(item))).collect()
}

fn rounded(value: &Value, unit: &str) -> Option<String> {
    value.as_f64().map(|number| format!("{number:.0} {unit}"))
}

fn percent(value: &Value, unit: &str) -> Option<String> {
    value.as_f64().map(|share| format!("{:.0} {unit}", 100.0 * share))
}

fn gib(value: &Value, unit: &str) -> Option<String> {
    value.as_f64().map(|bytes| format!("{:.1} {unit}", bytes / f64::from(1 << 30)))
}

#[cfg(test)]
mod tests;
