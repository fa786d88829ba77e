//! Amazon EC2: what it knows of the machines.

use std::{collections::BTreeMap, time::Duration};

use roxmltree::Node;

use crate::{
    answer::{child, parse, text},
    error::CallError,
    service::{Api, Service, Session},
};

const API: Api = Api { name: "ec2", version: "2016-11-15" };

/// What one question may name, by EC2's documentation.
pub const MAX_INSTANCES: usize = 100;

/// Pages of an answer, and times that the question is asked without the instances that EC2 does not know.
const MAX_CALLS: usize = 10;

#[derive(Debug)]
pub struct Ec2(Service);

/// An instance, as `DescribeInstanceStatus` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceStatus {
    /// As in `running`.
    pub state: String,
    pub system: Check,
    pub instance: Check,
}

/// What EC2's checks of the host, or of the instance's own system, came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// As in `ok`, `impaired`, `initializing`; empty where nothing is said.
    pub status: String,
    /// As in `reachability failed`.
    pub details: Vec<String>,
}

impl InstanceStatus {
    /// What is wrong with the machine, by EC2's word; that it has not been checked yet is nothing.
    pub fn trouble(&self) -> Option<String> {
        if matches!(self.state.as_str(), "shutting-down" | "stopping" | "stopped" | "terminated") {
            return Some(format!("EC2: the instance is {}", self.state));
        }
        let checks = [("system", &self.system), ("instance", &self.instance)];
        let impaired = checks.into_iter().filter(|(_, check)| check.status == "impaired");
        let told: Vec<_> = impaired
            .map(|(name, check)| match check.details.is_empty() {
                true => format!("{name} status impaired"),
                false => format!("{name} status impaired ({})", check.details.join(", ")),
            })
            .collect();
        (!told.is_empty()).then(|| format!("EC2: {}", told.join(", ")))
    }
}

impl Ec2 {
    /// `endpoint`: a URL in place of the service's own. `patience`: for all attempts at a call together.
    pub fn new(session: &Session, endpoint: Option<&str>, patience: Duration) -> Self {
        Self(Service::new(API, session, endpoint, patience))
    }

    /// The status of at most [`MAX_INSTANCES`] instances, by id. Those that EC2 does not know are left out:
    /// they may be another account's, or too new, or long gone.
    pub async fn instance_status(
        &self,
        ids: &[&str],
    ) -> Result<BTreeMap<String, InstanceStatus>, CallError> {
        let mut ids = ids.to_vec();
        let (mut statuses, mut token) = (BTreeMap::new(), None);
        for _ in 0..MAX_CALLS {
            if ids.is_empty() {
                return Ok(statuses);
            }
            match self.page(&ids, token.as_deref()).await {
                Ok(page) => {
                    statuses.extend(page.statuses);
                    match page.next {
                        Some(next) => token = Some(next),
                        None => return Ok(statuses),
                    }
                }
                // One unknown id is enough to refuse the question; the message names all such.
                Err(CallError::Refused { code, message, .. })
                    if code == "InvalidInstanceID.NotFound" && names_any(&message, &ids) =>
                {
                    ids.retain(|id| !names(&message, id));
                    token = None;
                }
                Err(error) => return Err(error),
            }
        }
        Err(CallError::Garbled(format!("an answer of more than {MAX_CALLS} pages")))
    }

    async fn page(&self, ids: &[&str], token: Option<&str>) -> Result<Page, CallError> {
        let names: Vec<_> = (1..=ids.len()).map(|n| format!("InstanceId.{n}")).collect();
        let mut fields = vec![("IncludeAllInstances", "true")];
        fields.extend(names.iter().map(String::as_str).zip(ids.iter().copied()));
        fields.extend(token.map(|token| ("NextToken", token)));
        read(&self.0.call("DescribeInstanceStatus", &fields).await?)
    }
}

/// Whether an id is of the form that EC2 gives: `i-`, and 8 or 17 hexadecimal digits. Another would refuse
/// the whole question that it is in.
pub fn is_instance_id(id: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    id.strip_prefix("i-")
        .is_some_and(|digits| matches!(digits.len(), 8 | 17) && digits.bytes().all(is_digit))
}

fn names_any(message: &str, ids: &[&str]) -> bool {
    ids.iter().any(|id| names(message, id))
}

fn names(message: &str, id: &str) -> bool {
    let is_of_id = |c: char| c.is_ascii_alphanumeric() || c == '-';
    message.split(|c| !is_of_id(c)).any(|word| word == id)
}

#[derive(Debug, PartialEq)]
struct Page {
    statuses: BTreeMap<String, InstanceStatus>,
    next: Option<String>,
}

fn read(body: &str) -> Result<Page, CallError> {
    let document = parse(body)?;
    let root = document.root_element();
    let none =
        || CallError::Garbled(format!("`{}` without instanceStatusSet", root.tag_name().name()));
    let set = child(root, "instanceStatusSet").ok_or_else(none)?;
    let items = set.children().filter(|node| node.has_tag_name("item"));
    let statuses =
        items.filter_map(|item| Some((text(item, "instanceId")?.to_owned(), status(item))));
    Ok(Page { statuses: statuses.collect(), next: text(root, "nextToken").map(str::to_owned) })
}

fn status(item: Node<'_, '_>) -> InstanceStatus {
    let state = child(item, "instanceState").and_then(|state| text(state, "name"));
    InstanceStatus {
        state: state.unwrap_or_default().to_owned(),
        system: check(child(item, "systemStatus")),
        instance: check(child(item, "instanceStatus")),
    }
}

fn check(node: Option<Node<'_, '_>>) -> Check {
    let Some(node) = node else { return Check::default() };
    let details = child(node, "details").into_iter().flat_map(|details| details.children());
    let detail = |item| Some(format!("{} {}", text(item, "name")?, text(item, "status")?));
    Check {
        status: text(node, "status").unwrap_or_default().to_owned(),
        details: details.filter_map(detail).collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
