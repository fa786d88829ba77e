//! Which models the server serves, in each server's own words.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{
    http::{Client, Failure},
    servers::ModelPage,
};

/// More models than this are not listed: adapters count as models, and there may be thousands.
const MAX_MODELS: usize = 256;

const MAX_MODEL_NAME_BYTES: usize = 256;

/// OpenAI's list of models, as far as it is needed.
#[derive(Deserialize)]
pub(super) struct OpenAiModels {
    data: Vec<OpenAiModel>,
}

#[derive(Deserialize)]
struct OpenAiModel {
    id: String,
    /// As servers sign their lists.
    #[serde(default)]
    owned_by: Option<String>,
}

impl OpenAiModels {
    pub(super) fn owner(&self) -> Option<&str> {
        self.data.first()?.owned_by.as_deref()
    }
}

#[derive(Deserialize)]
pub(super) struct TgiInfo {
    model_id: String,
}

/// An entry of Triton's repository. One that was asked for with `ready` has no other state.
#[derive(Deserialize)]
struct TritonModel {
    name: String,
}

/// Both lists of Ollama's.
#[derive(Deserialize)]
pub(super) struct OllamaModels {
    models: Vec<OllamaModel>,
}

#[derive(Deserialize)]
struct OllamaModel {
    name: String,
}

/// Ray's applications, by their route.
pub(super) type RayRoutes = BTreeMap<String, String>;

/// The models by the first of the pages that can be had, and why none can.
pub(super) async fn list(
    http: &Client,
    url: &str,
    pages: &[ModelPage],
) -> Result<Vec<String>, Failure> {
    let mut first_failure = None;
    for page in pages {
        match read(http, url, *page).await {
            Ok(names) => return Ok(keep(names)),
            Err(failure) => first_failure.get_or_insert(failure),
        };
    }
    // Each server has a page, so that there was a failure.
    first_failure.map_or(Ok(Vec::new()), Err)
}

async fn read(http: &Client, url: &str, page: ModelPage) -> Result<Vec<String>, Failure> {
    let at = |path: &str| format!("{url}{path}");
    Ok(match page {
        ModelPage::OpenAi => {
            let list: OpenAiModels = http.json(&at("/v1/models")).await?;
            list.data.into_iter().map(|model| model.id).collect()
        }
        ModelPage::TgiInfo => vec![http.json::<TgiInfo>(&at("/info")).await?.model_id],
        ModelPage::Triton => {
            let ready = r#"{"ready":true}"#;
            let index: Vec<TritonModel> = http.ask(&at("/v2/repository/index"), ready).await?;
            index.into_iter().map(|model| model.name).collect()
        }
        ModelPage::Ollama => {
            let loaded: OllamaModels = http.json(&at("/api/ps")).await?;
            let installed: OllamaModels = http.json(&at("/api/tags")).await?;
            // Those in memory come first: a report may have no room for all.
            loaded.models.into_iter().chain(installed.models).map(|model| model.name).collect()
        }
        ModelPage::RayRoutes => {
            http.json::<RayRoutes>(&at("/-/routes")).await?.into_values().collect()
        }
    })
}

/// Each name once, in order.
pub(super) fn keep(names: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let is_name = |name: &String| !name.is_empty() && name.len() <= MAX_MODEL_NAME_BYTES;
    let names = names.into_iter().filter(is_name).filter(|name| seen.insert(name.clone()));
    names.take(MAX_MODELS).collect()
}
