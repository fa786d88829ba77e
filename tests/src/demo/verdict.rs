//! What should have come of it, and what did.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use super::{
    control::Totals,
    script::{Story, Swap},
    stage::{CAST, ENCLAVE, ROUTE_POLICY, SLOW, Stage, VICTIM, complete_directly},
    style::{Style, counted, duration_ms, percent, thousands},
    tally::{Counts, Demand},
};
use crate::cluster::IRELAND;

/// Of what would be fair, the share below which the slow instance has to stay.
const SLOW_SHARE_MAX: f64 = 0.5;

/// Something that has to hold.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub passed: bool,
    pub detail: String,
}

/// All that there is to say in the end.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub passed: bool,
    pub requests: u64,
    pub answered: u64,
    pub streamed: u64,
    pub failed: u64,
    /// Streams that the killed instance had begun.
    pub cut_by_kill: u64,
    /// Attempts after the first of a request, as the routers counted them.
    pub retries: u64,
    pub swaps: usize,
    /// From a swap to the first decision by the new version at the same router: the median swap's, and
    /// the slowest's.
    pub first_decision_ms_p50: Option<f64>,
    pub first_decision_ms_max: Option<f64>,
    /// The slowest in the other region.
    pub first_decision_elsewhere_ms_max: Option<f64>,
    pub instances: usize,
    pub latency_ms_p50: f64,
    pub latency_ms_p99: f64,
    pub versions: Vec<Swap>,
    pub checks: Vec<Check>,
    /// Where the logs are, if they were kept.
    pub logs: Option<PathBuf>,
}

/// What an agent says of its instance, and whether that is so.
#[derive(Debug)]
pub struct Testimony {
    pub id: &'static str,
    /// What is wrong with it.
    pub lie: Option<String>,
}

/// Asks every agent, and looks for itself.
pub async fn hear(stage: &Stage) -> Result<Vec<Testimony>> {
    let client = &stage.cluster.client;
    let mut all = Vec::new();
    for part in &CAST {
        let instance = stage.instance(part.id)?;
        let url = format!("http://{}/health?detail", instance.agent_address);
        let answer = client.get(url).send().await;
        if part.id == VICTIM {
            let lie = answer.is_ok().then(|| "its agent answers after it was killed".to_owned());
            all.push(Testimony { id: part.id, lie });
            continue;
        }
        let lie = match answer {
            Ok(answer) => {
                let is_serving = answer.status().is_success();
                let said: Value = answer.json().await?;
                let status = complete_directly(client, instance.server_address).await;
                contradiction(
                    &said,
                    is_serving,
                    status.map_err(|e| e.to_string()),
                    part.id == ENCLAVE,
                )
            }
            Err(error) => Some(format!("its agent does not answer: {error}")),
        };
        all.push(Testimony { id: part.id, lie });
    }
    Ok(all)
}

/// Where what an agent says is not so. `completion` is the status of one sent past the routers.
fn contradiction(
    said: &Value,
    is_serving: bool,
    completion: Result<http::StatusCode, String>,
    has_enclave: bool,
) -> Option<String> {
    let health = said["status"].as_str().unwrap_or("nothing");
    let served = completion.as_ref().is_ok_and(|status| status.is_success());
    if is_serving != served {
        let does = completion.map_or_else(|error| error, |status| format!("answers {status}"));
        return Some(format!("its agent says {health}, and it {does}"));
    }
    if has_enclave && said["enclave_running"] != true {
        return Some(format!("its enclave runs, and its agent says {}", said["enclave_running"]));
    }
    if said["model_loaded"] != true {
        return Some(format!("its model is loaded, and its agent says {}", said["model_loaded"]));
    }
    if said["gpu"].is_null() && !said["checks"]["gpu"]["reason"].is_string() {
        return Some("its agent knows no GPU and does not say why".to_owned());
    }
    None
}

/// Judges.
pub fn judge(
    counts: &Counts,
    story: &Story,
    totals: &[Totals],
    testimonies: &[Testimony],
) -> Summary {
    let retries = totals.iter().map(|t| t.retries).sum();
    let checks = vec![
        no_failures(counts),
        swaps_decided(story, totals),
        kill_was_seen(story, retries),
        slow_got_less(counts),
        stayed(counts, Demand::Gdpr, "GDPR requests stayed in eu-west-1", |_, region| {
            region == IRELAND.id
        }),
        stayed(counts, Demand::Enclave, "enclave requests went to the enclave", |id, _| {
            id == ENCLAVE
        }),
        agents_were_truthful(testimonies),
    ];
    let sorted = |of: fn(&Swap) -> Option<f64>| {
        let mut all: Vec<f64> = story.swaps.iter().filter_map(of).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let (first, elsewhere) = (sorted(Swap::first_decision_here_ms), sorted(Swap::elsewhere_ms));
    Summary {
        passed: checks.iter().all(|check| check.passed),
        requests: counts.sent,
        answered: counts.answered,
        streamed: counts.streamed,
        failed: counts.failed,
        cut_by_kill: counts.cut_by_kill,
        retries,
        swaps: story.swaps.len(),
        first_decision_ms_p50: first.get(first.len() / 2).copied(),
        first_decision_ms_max: first.last().copied(),
        first_decision_elsewhere_ms_max: elsewhere.last().copied(),
        instances: CAST.len(),
        latency_ms_p50: counts.latency_ms(0.50),
        latency_ms_p99: counts.latency_ms(0.99),
        versions: story.swaps.clone(),
        checks,
        logs: None,
    }
}

fn no_failures(counts: &Counts) -> Check {
    let passed = counts.failed == 0 && counts.answered > 0;
    let detail = match (passed, counts.cut_by_kill) {
        (false, _) if counts.failed == 0 => "none was answered".to_owned(),
        (false, _) => {
            let kinds = counts.failures.iter().map(|(why, count)| format!("{count} × {why}"));
            format!("{} did: {}", thousands(counts.failed), kinds.collect::<Vec<_>>().join("; "))
        }
        (true, 0) => format!("{} answered", thousands(counts.answered)),
        (true, cut) => format!(
            "{} answered; {} cut as {VICTIM} was killed",
            thousands(counts.answered),
            counted(cut, "answer")
        ),
    };
    Check { name: "no request failed", passed, detail }
}

fn swaps_decided(story: &Story, totals: &[Totals]) -> Check {
    let mut problems: Vec<String> = story.swaps.iter().filter_map(problem_of).collect();
    let native: u64 = totals.iter().map(|t| t.native_decisions).sum();
    if native > 0 {
        problems.push(format!("the native score stood in {} times", thousands(native)));
    }
    let decisions: u64 = story.swaps.iter().map(|s| s.decisions).sum();
    let detail = match problems.is_empty() {
        true => format!("{} in both regions", counted(decisions, "decision")),
        false => problems.join("; "),
    };
    Check { name: "every version swapped in decided", passed: problems.is_empty(), detail }
}

fn problem_of(swap: &Swap) -> Option<String> {
    let label = format!("{ROUTE_POLICY}@{} ({})", swap.generation, swap.policy);
    let unseen = swap.first_decision_ms.iter().find(|(_, ms)| ms.is_none());
    if let Some((region, _)) = unseen {
        return Some(format!("{label} decided nothing in {region}"));
    }
    if swap.decisions == 0 || swap.faults > 0 {
        let faults = counted(swap.faults, "fault");
        return Some(format!(
            "{label} came to {} and {faults}",
            counted(swap.decisions, "decision")
        ));
    }
    None
}

fn kill_was_seen(story: &Story, retries: u64) -> Check {
    let passed = story.kill.avoided_after_ms.is_some() && story.kill.out_after_ms.is_some();
    let detail = match (story.kill.avoided_after_ms, story.kill.out_after_ms) {
        (Some(avoided), Some(out)) => format!(
            "{VICTIM} avoided after {}, out of the state after {}; {} went on to another instance",
            duration_ms(avoided),
            duration_ms(out),
            counted(retries, "attempt")
        ),
        _ => format!("{VICTIM} is still ready in its router's eyes"),
    };
    Check { name: "the killed instance left rotation", passed, detail }
}

fn slow_got_less(counts: &Counts) -> Check {
    let region = CAST.iter().find(|part| part.id == SLOW).map_or("", |part| part.region);
    let here: Vec<&str> = CAST.iter().filter(|p| p.region == region).map(|p| p.id).collect();
    let share = |policy: &str| {
        let generations = counts.generations_of(policy);
        let all = counts.answers_by(&generations, &here);
        (all > 0).then(|| counts.answers_by(&generations, &[SLOW]) as f64 / all as f64)
    };
    let fair = 1.0 / here.len().max(1) as f64;
    let by_score = share(ROUTE_POLICY);
    let passed = by_score.is_some_and(|share| share < SLOW_SHARE_MAX * fair);
    let told = |share: Option<f64>| share.map_or("nothing".to_owned(), percent);
    let detail = format!(
        "{SLOW} got {} of {region} under {ROUTE_POLICY}, {} under round-robin",
        told(by_score),
        told(share("round-robin"))
    );
    Check { name: "the slow instance got a smaller share", passed, detail }
}

/// Whether all requests with a demand were served where they may be.
fn stayed(
    counts: &Counts,
    demand: Demand,
    name: &'static str,
    may_serve: fn(&str, &str) -> bool,
) -> Check {
    let placed = counts.placed.get(&demand).cloned().unwrap_or_default();
    let all: u64 = placed.served.values().sum();
    let strays = || placed.served.iter().filter(|((id, region), _)| !may_serve(id, region));
    let astray: u64 = strays().map(|(_, count)| count).sum();
    let detail = match (all, astray) {
        (0, _) => "none was answered".to_owned(),
        (_, 0) => format!("all {}, from both routers", thousands(all)),
        _ => {
            let places =
                strays().map(|((id, region), count)| format!("{count} on {id} in {region}"));
            let places: Vec<String> = places.collect();
            format!("{} of {} did not: {}", thousands(astray), thousands(all), places.join(", "))
        }
    };
    Check { name, passed: all > 0 && astray == 0, detail }
}

fn agents_were_truthful(testimonies: &[Testimony]) -> Check {
    let lies: Vec<String> =
        testimonies.iter().filter_map(|t| Some(format!("{}: {}", t.id, t.lie.as_ref()?))).collect();
    let detail = match lies.is_empty() {
        true => format!("all {} /health are as the instances are", testimonies.len()),
        false => lies.join("; "),
    };
    Check { name: "agents told the truth", passed: lies.is_empty(), detail }
}

impl Summary {
    /// The summary for people, line by line.
    pub fn lines(&self, style: Style) -> Vec<String> {
        let mut lines = vec![String::new(), style.bold("Summary")];
        let mut fact = |name: &str, value: String, detail: String| {
            let value = style.bold(&format!("{value:>8}"));
            lines
                .push(format!("  {name:<16}{value}  {}", style.dim(&detail)).trim_end().to_owned());
        };
        let answered = format!(
            "{} answered, {} of them streamed",
            thousands(self.answered),
            thousands(self.streamed)
        );
        let cut = match self.cut_by_kill {
            0 => String::new(),
            cut => format!("{} cut by the kill not among them", counted(cut, "answer")),
        };
        let first = |ms: Option<f64>| ms.map_or("never".to_owned(), duration_ms);
        fact("requests", thousands(self.requests), answered);
        fact("failed", thousands(self.failed), cut);
        fact("retries", thousands(self.retries), "attempts after a request's first".into());
        fact("instances", self.instances.to_string(), "one of them killed".into());
        fact(
            "latency",
            duration_ms(self.latency_ms_p50),
            format!("p50; p99 {}", duration_ms(self.latency_ms_p99)),
        );
        let most = format!(
            "p50, from a swap; at most {}, and {} in the other region",
            first(self.first_decision_ms_max),
            first(self.first_decision_elsewhere_ms_max)
        );
        fact("swaps", self.swaps.to_string(), "each to another policy, under traffic".into());
        fact("first decision", first(self.first_decision_ms_p50), most);
        lines.push(String::new());
        lines.extend(self.version_lines(style));
        lines.push(String::new());
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        lines.extend(self.checks.iter().map(|Check { name, passed, detail }| {
            let mark = if *passed { style.green("✔") } else { style.red("✘") };
            let name = format!("{name:width$}");
            let name = if *passed { name } else { style.red(&name) };
            format!("  {mark} {name}  {}", if *passed { style.dim(detail) } else { detail.clone() })
        }));
        lines.push(String::new());
        lines
    }

    /// The table of the versions.
    fn version_lines(&self, style: Style) -> Vec<String> {
        let header = version_row([
            "VERSION",
            "POLICY",
            "UPLOADED TO",
            "TRIED",
            "SWAPPED",
            "FIRST DECISION",
            "ELSEWHERE",
            "DECISIONS",
            "FAULTS",
        ]);
        let told = |ms: Option<f64>| ms.map_or("never".to_owned(), duration_ms);
        let version = |swap: &Swap| {
            let line = version_row([
                &format!("{ROUTE_POLICY}@{}", swap.generation),
                &swap.policy,
                &swap.uploaded_to,
                &duration_ms(swap.prepared_ms),
                &duration_ms(swap.swapped_ms),
                &told(swap.first_decision_here_ms()),
                &told(swap.elsewhere_ms()),
                &thousands(swap.decisions),
                &thousands(swap.faults),
            ]);
            if problem_of(swap).is_some() { style.red(&line) } else { line }
        };
        std::iter::once(style.dim(&header)).chain(self.versions.iter().map(version)).collect()
    }
}

fn version_row(cells: [&str; 9]) -> String {
    let [version, policy, to, tried, swapped, first, elsewhere, decisions, faults] = cells;
    format!(
        "  {version:<8}  {policy:<11}  {to:<11}  {tried:>7}  {swapped:>7}  {first:>14}  \
         {elsewhere:>9}  {decisions:>9}  {faults:>6}"
    )
}

#[cfg(test)]
mod tests;
