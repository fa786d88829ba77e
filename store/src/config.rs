//! Where the state is, as it is configured.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, value::MapAccessDeserializer},
};

use crate::schema;

/// More regions than any global table has.
const MAX_REPLICAS: usize = 8;

/// Where the state is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// As in `http://127.0.0.1:8000`; `None` is AWS.
    pub endpoint: Option<String>,
    /// As in `us-east-1`; `None` asks the environment, then the instance.
    pub aws_region: Option<String>,
    /// Before each table's name, with a dash.
    pub table_prefix: String,
    /// Deadline of one call, its retries included.
    pub timeout_ms: u64,
    /// The same global tables in other regions, nearest first, to read from while this region's endpoint
    /// does not answer. Never written to.
    pub replicas: Vec<Replica>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            aws_region: None,
            table_prefix: "mrgc".to_owned(),
            timeout_ms: 2_000,
            replicas: Vec::new(),
        }
    }
}

/// A replica of the tables. Written as a table of these two, or as the region alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replica {
    /// As in `us-west-2`.
    pub aws_region: String,
    /// As in [`StoreConfig::endpoint`]; `None` is AWS.
    pub endpoint: Option<String>,
}

impl<'de> Deserialize<'de> for Replica {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReplicaVisitor)
    }
}

struct ReplicaVisitor;

impl<'de> de::Visitor<'de> for ReplicaVisitor {
    type Value = Replica;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an AWS region, or a table with `aws_region` and `endpoint`")
    }

    fn visit_str<E: de::Error>(self, region: &str) -> Result<Replica, E> {
        Ok(Replica { aws_region: region.to_owned(), endpoint: None })
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Replica, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            aws_region: String,
            #[serde(default)]
            endpoint: Option<String>,
        }

        let Table { aws_region, endpoint } = Table::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Replica { aws_region, endpoint })
    }
}

impl StoreConfig {
    /// What is wrong with it, if anything is.
    pub(crate) fn check(&self) -> Result<(), String> {
        schema::check_prefix(&self.table_prefix)?;
        if self.timeout_ms == 0 {
            return Err("`timeout_ms` is 0; it must be at least 1".to_owned());
        }
        if let Some(endpoint) = &self.endpoint {
            check_endpoint("endpoint", endpoint)?;
        }
        if self.replicas.len() > MAX_REPLICAS {
            let count = self.replicas.len();
            return Err(format!("`replicas` has {count} entries; it may have {MAX_REPLICAS}"));
        }
        for (i, replica) in self.replicas.iter().enumerate() {
            if replica.aws_region.is_empty() {
                return Err(format!("`replicas[{i}].aws_region` is empty; it must be a region"));
            }
            if let Some(endpoint) = &replica.endpoint {
                check_endpoint(&format!("replicas[{i}].endpoint"), endpoint)?;
            }
        }
        Ok(())
    }

    /// Whether every endpoint is on this machine and speaks plain HTTP.
    pub(crate) fn needs_no_tls(&self) -> bool {
        let replicas = self.replicas.iter().map(|replica| &replica.endpoint);
        std::iter::once(&self.endpoint).chain(replicas).all(|endpoint| {
            endpoint.as_deref().is_some_and(|e| e.starts_with("http://") && is_loopback(e))
        })
    }
}

fn check_endpoint(key: &str, endpoint: &str) -> Result<(), String> {
    if endpoint.starts_with("http://") || endpoint.starts_with("https://") {
        return Ok(());
    }
    Err(format!("`{key}` is `{endpoint}`; it must be an http:// or https:// URL"))
}

/// Whether an `http://` or `https://` endpoint is on this machine, by its text alone: a name other than
/// `localhost` is never taken for loopback, whatever it resolves to.
pub(crate) fn is_loopback(endpoint: &str) -> bool {
    let after_scheme = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = after_scheme.split('/').next().unwrap_or_default();
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => authority,
    };
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for (endpoint, expected) in [
            ("http://127.0.0.1:8000", true),
            ("http://127.0.0.1:8000/", true),
            ("http://127.9.9.9", true),
            ("http://localhost:8000", true),
            ("http://[::1]:8000", true),
            ("http://[::1]", true),
            ("https://dynamodb.us-east-1.amazonaws.com", false),
            ("http://10.0.0.1:8000", false),
            ("http://localhost.example.com", false),
            ("http://localhost@example.com", false),
            ("http://localhost:8000@example.com", false),
            ("http://127.0.0.1.example.com", false),
        ] {
            assert_eq!(is_loopback(endpoint), expected, "{endpoint}");
        }
    }

    #[test]
    fn a_replica_is_a_region_or_a_table() {
        let text =
            r#"{"replicas": ["us-east-2", {"aws_region": "r", "endpoint": "http://[::1]:1"}]}"#;
        let config: StoreConfig = serde_json::from_str(text).unwrap();
        let replica = |aws_region: &str, endpoint: Option<&str>| Replica {
            aws_region: aws_region.to_owned(),
            endpoint: endpoint.map(str::to_owned),
        };
        assert_eq!(
            config.replicas,
            [replica("us-east-2", None), replica("r", Some("http://[::1]:1"))]
        );
        for (wrong, expected) in [
            (r#"{"replicas": [7]}"#, "an AWS region, or a table"),
            (r#"{"replicas": [{"region": "r"}]}"#, "unknown field `region`"),
        ] {
            let error = serde_json::from_str::<StoreConfig>(wrong).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
