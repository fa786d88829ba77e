//! Rules out what does not comply; all that does is worth the same.
//!
//! ```text
//! score = 100        has every required framework, is in an allowed region, has an enclave where needed
//!         ruled out  else
//! ```
//!
//! What is required is the request's needs and the configuration's together: each may add, none takes
//! away. The router's guard holds the request's needs in any case; this policy keeps the others from
//! choosing in vain, holds the operator's own, and explains.

use mrgc_policy_sdk::{Candidate, Enclave, Level, Policy, Request, Score};

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    /// Required for every request, as in `gdpr`. Upper and lower case are the same.
    pub frameworks: Vec<String>,
    /// Allowed for every request. Empty: any.
    pub allowed_regions: Vec<String>,
    /// Every request needs an enclave.
    pub require_enclave: bool,
    /// Where an enclave is needed, only an attested one counts; the agent's word does not.
    pub require_attestation: bool,
}

/// The policy.
#[derive(Debug)]
pub struct Compliance {
    config: Config,
}

mrgc_policy_sdk::export!(Compliance);

impl Policy for Compliance {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        let names =
            [("frameworks", &config.frameworks), ("allowed_regions", &config.allowed_regions)];
        let errors: Vec<String> = names
            .iter()
            .flat_map(|(key, names)| names.iter().map(move |name| (key, name)))
            .filter(|(_, name)| !is_name(name))
            .map(|(key, name)| format!("{key} has {name:?}: must be a name, with no spaces"))
            .collect();
        if errors.is_empty() { Ok(Self { config }) } else { Err(errors.join("; ")) }
    }

    fn score(&self, request: &Request, candidate: &Candidate) -> Score {
        let complies = self.missing_frameworks(request, candidate).next().is_none()
            && self.region_lists(request).all(|allowed| is_in(allowed, candidate))
            && (!self.needs_enclave(request) || self.has_enclave(candidate));
        if complies { Score::from(100.0) } else { Score::RuledOut }
    }

    fn explain(&self, request: &Request, candidate: &Candidate) -> String {
        match self.score(request, candidate) {
            Score::RuledOut => {
                let faults = self.faults(request, candidate).join("; ");
                format!("Ruled out {}: {faults}", candidate.id)
            }
            _ => format!("Selected {}: {}", candidate.id, self.merits(request)),
        }
    }
}

impl Compliance {
    fn required_frameworks<'a>(&'a self, request: &'a Request) -> impl Iterator<Item = &'a str> {
        self.config.frameworks.iter().chain(request.frameworks()).map(String::as_str)
    }

    fn missing_frameworks<'a>(
        &'a self,
        request: &'a Request,
        candidate: &'a Candidate,
    ) -> impl Iterator<Item = &'a str> {
        self.required_frameworks(request)
            .filter(|need| !candidate.frameworks.iter().any(|has| has.eq_ignore_ascii_case(need)))
    }

    /// The lists that a candidate must be in, each of them.
    fn region_lists<'a>(&'a self, request: &'a Request) -> impl Iterator<Item = &'a [String]> {
        let lists = [self.config.allowed_regions.as_slice(), request.allowed_regions()];
        lists.into_iter().filter(|list| !list.is_empty())
    }

    fn needs_enclave(&self, request: &Request) -> bool {
        request.needs_enclave() || self.config.require_enclave
    }

    fn has_enclave(&self, candidate: &Candidate) -> bool {
        match candidate.enclave {
            Enclave::Attested => true,
            Enclave::Running => !self.config.require_attestation,
            Enclave::Absent => false,
        }
    }

    fn faults(&self, request: &Request, candidate: &Candidate) -> Vec<String> {
        let missing = names(self.missing_frameworks(request, candidate));
        let mut faults = Vec::new();
        if !missing.is_empty() {
            faults.push(format!("lacks {missing}"));
        }
        for allowed in self.region_lists(request).filter(|allowed| !is_in(allowed, candidate)) {
            faults.push(format!("not in the allowed regions {}", allowed.join(", ")));
        }
        if self.needs_enclave(request) && !self.has_enclave(candidate) {
            let running = candidate.enclave == Enclave::Running;
            faults.push(
                if running { "its enclave is not attested" } else { "no enclave" }.to_owned(),
            );
        }
        faults
    }

    /// What a candidate that complies satisfies.
    fn merits(&self, request: &Request) -> String {
        let frameworks = names(self.required_frameworks(request));
        let mut merits = Vec::new();
        if !frameworks.is_empty() {
            merits.push(format!("satisfies {frameworks}"));
        }
        if self.region_lists(request).next().is_some() {
            merits.push("in an allowed region".to_owned());
        }
        if self.needs_enclave(request) {
            merits.push("has an enclave".to_owned());
        }
        if merits.is_empty() { "nothing is required".to_owned() } else { merits.join(", ") }
    }
}

fn is_in(allowed: &[String], candidate: &Candidate) -> bool {
    let region = match candidate.level {
        Level::Region => &candidate.id,
        Level::Instance => &candidate.region,
    };
    allowed.contains(region)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(char::is_whitespace)
}

/// Each name once, in lower case.
fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<String> = names.map(str::to_ascii_lowercase).collect();
    names.sort();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        mrgc_policy_sdk::testing::run::<Compliance>(include_str!("../cases.json"));
    }

    #[test]
    fn every_error_of_a_config_is_told() {
        let config = Config {
            frameworks: vec!["gdpr".into(), String::new()],
            allowed_regions: vec!["eu west".into()],
            ..Config::default()
        };
        assert_eq!(
            Compliance::new(config).err().as_deref(),
            Some(
                "frameworks has \"\": must be a name, with no spaces; \
             allowed_regions has \"eu west\": must be a name, with no spaces"
            )
        );
    }
}
