//! A policy as code: compiled once, inspected, and ready to be instantiated.

use std::{fmt, sync::Arc};

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, HasSelf, Linker};

use crate::{
    Engine, Fault, LoadError,
    bindings::{PolicyPre, mrgc},
    instance::{Guest, Instance},
};

const IMPORT: &str = "mrgc:policy/log@1.0.0";
const INTERFACE: &str = "mrgc:policy/routing@1.0.0";
/// Any version of the interface, to say which one was found.
const INTERFACE_STEM: &str = "mrgc:policy/";

/// What a policy says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    pub summary: String,
    /// JSON Schema.
    pub config_schema: String,
}

/// A compiled policy. Cheap to clone; instances of it are made with [`Instance::new`].
#[derive(Clone)]
pub struct Policy {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    pre: PolicyPre<Guest>,
    manifest: Manifest,
    digest: String,
    size_bytes: usize,
}

impl Policy {
    /// Compiles an artifact and asks it to describe itself. Takes tens of milliseconds: not for the
    /// data path.
    ///
    /// # Errors
    ///
    /// What is wrong with the artifact, in words for its author.
    pub fn load(engine: &Engine, artifact: &[u8]) -> Result<Self, LoadError> {
        let limit = engine.limits.artifact_bytes;
        if artifact.len() > limit {
            return Err(LoadError::TooLarge { bytes: artifact.len(), limit });
        }
        let component = compile(engine, artifact)?;
        inspect(engine, &component)?;
        let mut linker = Linker::new(&engine.wasmtime);
        mrgc::policy::log::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)
            .map_err(|e| LoadError::Invalid(format!("{e:#}")))?;
        let pre = linker
            .instantiate_pre(&component)
            .and_then(PolicyPre::new)
            .map_err(|e| LoadError::Invalid(format!("{e:#}")))?;
        let manifest = Instance::describe(engine, &pre)?;
        let digest = hex(&Sha256::digest(artifact));
        let size_bytes = artifact.len();
        Ok(Self {
            inner: Arc::new(Inner { engine: engine.clone(), pre, manifest, digest, size_bytes }),
        })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.inner.manifest
    }

    /// SHA-256 of the artifact, in lower-case hexadecimal.
    pub fn digest(&self) -> &str {
        &self.inner.digest
    }

    pub fn size_bytes(&self) -> usize {
        self.inner.size_bytes
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    pub(crate) fn pre(&self) -> &PolicyPre<Guest> {
        &self.inner.pre
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("manifest", self.manifest())
            .field("digest", &self.digest())
            .finish_non_exhaustive()
    }
}

fn compile(engine: &Engine, artifact: &[u8]) -> Result<Component, LoadError> {
    // The layer field of the header tells a component from a core module.
    match artifact {
        [b'\0', b'a', b's', b'm', _, _, 0, 0, ..] => return Err(LoadError::NotAComponent),
        [b'\0', b'a', b's', b'm', ..] => {}
        _ => return Err(LoadError::NotWasm),
    }
    Component::from_binary(&engine.wasmtime, artifact)
        .map_err(|e| LoadError::Invalid(format!("{e:#}")))
}

/// Refuses what imports anything but the log, or serves another interface.
fn inspect(engine: &Engine, component: &Component) -> Result<(), LoadError> {
    let ty = component.component_type();
    if let Some((name, _)) = ty.imports(&engine.wasmtime).find(|(name, _)| *name != IMPORT) {
        if let Some(found) = other_interface(name) {
            return Err(LoadError::OtherInterface { found });
        }
        return Err(LoadError::ForbiddenImport(name.to_owned()));
    }
    let mut exports = ty.exports(&engine.wasmtime).map(|(name, _)| name);
    match exports.find(|name| name.starts_with(INTERFACE_STEM)) {
        Some(INTERFACE) => Ok(()),
        Some(found) => Err(LoadError::OtherInterface { found: found.to_owned() }),
        None => Err(LoadError::NoInterface),
    }
}

fn other_interface(name: &str) -> Option<String> {
    name.starts_with(INTERFACE_STEM).then(|| name.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl From<Fault> for String {
    fn from(fault: Fault) -> Self {
        fault.to_string()
    }
}
