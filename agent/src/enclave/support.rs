//! What enclaves need of the machine: the driver's device, and memory that the allocator has set aside.

use std::{
    fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use crate::{config, signals::Check};

/// The allocator's configuration is some lines.
const MAX_FILE_BYTES: u64 = 64 << 10;

pub(super) struct Support {
    pub(super) device: Check,
    pub(super) allocator: Check,
}

pub(super) fn look(config: &config::Enclave) -> Support {
    let meminfo = read(&PathBuf::from("/proc/meminfo")).unwrap_or_default();
    Support { device: device(&config.device), allocator: allocator(&config.allocator, &meminfo) }
}

impl Support {
    /// Adds what is lacking to why `nitro-cli` failed.
    pub(super) fn explain(&self, check: Check) -> Check {
        let lacks = [&self.device, &self.allocator].into_iter().filter_map(|c| c.reason.as_deref());
        let reasons: Vec<_> = check.reason.as_deref().into_iter().chain(lacks).collect();
        Check { status: check.status, reason: Some(reasons.join("; ")) }
    }
}

pub(super) fn device(path: &Path) -> Check {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(found) if found.file_type().is_char_device() => match fs::File::open(path) {
            Ok(_) => Check::ok(),
            Err(error) => Check::error(format!(
                "{shown}: {error}: give the agent's user the group that owns it (ne)"
            )),
        },
        Ok(_) => Check::error(format!("{shown} is no device")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::missing(format!(
            "{shown} does not exist: start the instance with enclaves enabled, and load nitro_enclaves"
        )),
        Err(error) => Check::error(format!("{shown}: {error}")),
    }
}

/// Compares what is asked for with what the kernel has set aside as huge pages.
pub(super) fn allocator(path: &Path, meminfo: &str) -> Check {
    let shown = path.display();
    let config = match read(path) {
        Ok(config) => config,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Check::missing(format!(
                "{shown} does not exist: install the enclaves' allocator"
            ));
        }
        Err(error) => return Check::error(format!("{shown}: {error}")),
    };
    let Some(wanted_mib) = memory_mib(&config) else {
        return Check::degraded(format!("{shown} names no memory_mib"));
    };
    let Some(reserved_mib) = reserved_mib(meminfo) else {
        return Check::degraded("/proc/meminfo does not say what is reserved as huge pages");
    };
    if reserved_mib < wanted_mib {
        return Check::error(format!(
            "{shown} asks for {wanted_mib} MiB, and {reserved_mib} MiB are reserved: \
             restart nitro-enclaves-allocator, best right after a boot"
        ));
    }
    Check::ok()
}

/// What all its entries ask for together: newer allocators take a list.
fn memory_mib(config: &str) -> Option<u64> {
    let values = config.lines().filter_map(|line| {
        let line = line.split('#').next().unwrap_or_default().trim();
        line.trim_start_matches("- ").strip_prefix("memory_mib:")?.trim().parse::<u64>().ok()
    });
    values.reduce(u64::saturating_add)
}

/// Huge pages of all sizes.
fn reserved_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("Hugetlb:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1_024)
}

fn read(path: &Path) -> io::Result<String> {
    let bytes = fs::metadata(path)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too long for a configuration"));
    }
    fs::read_to_string(path)
}

#[cfg(test)]
mod tests;
