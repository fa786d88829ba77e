//! Where a request may go at all.
//!
//! The guard is native and no policy is asked about what it forbids: nothing a policy says, no retry, no
//! hop and no failover sends a request where its needs or the placement rules forbid it.

use serde::{Deserialize, Serialize};

use crate::{
    model::{EnclaveState, Framework, Needs, RegionId},
    snapshot::{Candidate, Level, Snapshot, View, ViewKey},
};

/// Data of these frameworks stays in these regions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacementRule {
    pub name: String,
    /// A request that needs any of them falls under the rule.
    pub frameworks: Vec<Framework>,
    pub allowed_regions: Vec<RegionId>,
}

/// Why a request may not go somewhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    #[error("{place} does not satisfy {framework}")]
    Framework { place: String, framework: Framework },
    #[error("region {region} is not among the request's allowed regions")]
    Region { region: RegionId },
    #[error("placement rule `{rule}` keeps the request out of {region}")]
    Rule { rule: String, region: RegionId },
    #[error("{place} has no enclave that is {needed}")]
    Enclave { place: String, needed: &'static str },
    #[error("the allowed regions of the request, its tenant and its route have none in common")]
    Contradiction,
}

/// Whether a request with these needs may go to this candidate.
///
/// # Errors
///
/// The first reason that it may not.
pub fn check(
    needs: &Needs,
    rules: &[PlacementRule],
    candidate: &Candidate,
) -> Result<(), Forbidden> {
    if needs.is_empty() {
        return Ok(());
    }
    check_place(needs, rules, &candidate.region, &candidate.frameworks, &candidate.id)?;
    check_enclave(needs, candidate)
}

/// Whether any place known to the fleet could ever take a request with these needs. Enclaves come and
/// go, so their absence now is no answer.
pub fn could_comply(needs: &Needs, rules: &[PlacementRule], snapshot: &Snapshot) -> bool {
    let registered = snapshot.regions.iter().any(|region| {
        check_place(needs, rules, &region.id, &region.frameworks, region.id.as_str()).is_ok()
    });
    registered || snapshot.views().any(|view| some_instance_complies(needs, rules, snapshot, view))
}

/// Whether an instance in a view of regions could comply. A region has what any of its instances has,
/// so where it does not comply, none of them does; where it does, one of them must by itself.
fn some_instance_complies(
    needs: &Needs,
    rules: &[PlacementRule],
    snapshot: &Snapshot,
    view: &View,
) -> bool {
    let complies =
        |c: &&Candidate| check_place(needs, rules, &c.region, &c.frameworks, &c.id).is_ok();
    let regions = view.candidates.iter().filter(|c| c.level == Level::Region);
    regions.filter(complies).any(|whole| {
        let region = Some(whole.region.clone());
        let key = ViewKey { level: Level::Instance, region, pool: whole.pool.clone() };
        snapshot
            .view(&key)
            .is_some_and(|instances| instances.candidates.iter().any(|c| complies(&c)))
    })
}

fn check_place(
    needs: &Needs,
    rules: &[PlacementRule],
    region: &RegionId,
    has: &[Framework],
    place: &str,
) -> Result<(), Forbidden> {
    if needs.contradictory {
        return Err(Forbidden::Contradiction);
    }
    if !needs.allowed_regions.is_empty() && !needs.allowed_regions.contains(region) {
        return Err(Forbidden::Region { region: region.clone() });
    }
    if let Some(framework) = needs.frameworks.iter().find(|needed| !has.contains(needed)) {
        return Err(Forbidden::Framework { place: place.to_owned(), framework: framework.clone() });
    }
    let applies =
        |rule: &PlacementRule| rule.frameworks.iter().any(|f| needs.frameworks.contains(f));
    match rules.iter().find(|rule| applies(rule) && !rule.allowed_regions.contains(region)) {
        Some(rule) => Err(Forbidden::Rule { rule: rule.name.clone(), region: region.clone() }),
        None => Ok(()),
    }
}

fn check_enclave(needs: &Needs, candidate: &Candidate) -> Result<(), Forbidden> {
    let (least, needed) = match (needs.enclave, needs.attested) {
        (_, true) => (EnclaveState::Attested, "attested"),
        (true, false) => (EnclaveState::Running, "running"),
        (false, false) => return Ok(()),
    };
    if candidate.enclave >= least {
        Ok(())
    } else {
        Err(Forbidden::Enclave { place: candidate.id.to_string(), needed })
    }
}

#[cfg(test)]
mod tests;
