//! Where instances are looked for: one region of the fleet, or all that are registered.

use anyhow::{Context, Result, anyhow};
use clap::builder::{NonEmptyStringValueParser, TypedValueParser as _};
use mrgc_fleet::model::{Desired, DesiredState, InstanceId, RegionId, Standing};
use mrgc_store::{Store, StoreError};

use crate::{Usage, store::StoreArgs};

#[derive(Debug, clap::Args)]
pub(super) struct Place {
    #[command(flatten)]
    store: StoreArgs,
    /// The fleet's region to look in; without it, all that are registered
    #[arg(long, value_name = "REGION", value_parser = NonEmptyStringValueParser::new().map(RegionId::from))]
    region: Option<RegionId>,
}

impl Place {
    /// The one that was asked for.
    pub(super) fn region(&self) -> Option<&RegionId> {
        self.region.as_ref()
    }

    pub(super) async fn open(&self) -> Result<Fleet> {
        let store = self.store.connect().await?;
        let regions = match &self.region {
            Some(region) => vec![region.clone()],
            None => {
                let regions = store.regions().await.context("cannot list the regions")?;
                regions.into_iter().map(|region| region.id).collect()
            }
        };
        if regions.is_empty() {
            let reason = "no region is registered in the state: say which one with `--region`";
            return Err(Usage(reason.to_owned()).into());
        }
        Ok(Fleet { store, regions })
    }
}

/// The store, and the regions of it that are looked in: at least one.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) store: Store,
    pub(super) regions: Vec<RegionId>,
}

/// An instance that is registered, or that is to be kept out of service when it is.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: InstanceId,
    pub(super) region: RegionId,
    /// `None` where it is not registered.
    pub(super) standing: Option<Standing>,
    pub(super) desired: Option<Desired>,
}

impl Fleet {
    pub(super) async fn find(&self, id: &InstanceId) -> Result<Known> {
        self.look_for(id).await?.ok_or_else(|| self.unknown(&[id]))
    }

    /// All of these, or an error that names each that is not known.
    pub(super) async fn find_all(&self, ids: &[InstanceId]) -> Result<Vec<Known>> {
        let (mut found, mut unknown) = (Vec::new(), Vec::new());
        for id in ids {
            match self.look_for(id).await? {
                Some(known) => found.push(known),
                None => unknown.push(id),
            }
        }
        if unknown.is_empty() { Ok(found) } else { Err(self.unknown(&unknown)) }
    }

    pub(super) fn names(&self) -> String {
        let names: Vec<&str> = self.regions.iter().map(RegionId::as_str).collect();
        names.join(", ")
    }

    fn unknown(&self, ids: &[&InstanceId]) -> anyhow::Error {
        let ids: Vec<String> = ids.iter().map(|id| format!("`{id}`")).collect();
        let (ids, regions) = (ids.join(", "), self.names());
        anyhow!("no instance {ids} in {regions}: `mrgc instances list` has those there are")
    }

    async fn look_for(&self, id: &InstanceId) -> Result<Option<Known>> {
        let mut found: Option<Known> = None;
        for region in &self.regions {
            let known = self.known_in(region, id).await;
            let known = known.with_context(|| format!("cannot look for `{id}` in {region}"))?;
            let Some(known) = known else { continue };
            if let Some(other) = found.replace(known) {
                let reason = format!(
                    "`{id}` is in {} and in {region}: say which one with `--region`",
                    other.region
                );
                return Err(Usage(reason).into());
            }
        }
        Ok(found)
    }

    async fn known_in(
        &self,
        region: &RegionId,
        id: &InstanceId,
    ) -> Result<Option<Known>, StoreError> {
        let standing = self.store.instance(region, id).await?;
        let desired = match &standing {
            Some(standing) => standing.desired.clone(),
            None => self.store.desired(region, id).await?,
        };
        let is_held = desired.as_ref().is_some_and(|d| d.state != DesiredState::Serving);
        let is_known = standing.is_some() || is_held;
        Ok(is_known.then(|| Known { id: id.clone(), region: region.clone(), standing, desired }))
    }
}
