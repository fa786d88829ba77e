//! What the double is told, read anew at each call.

use std::{env, fs, os::fd::OwnedFd, thread, time::Duration};

use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    io,
};

use crate::{GPU_IS_LOST, RESET_REQUIRED, Return, SUCCESS};

/// How long a hanging call sleeps between two looks at the script.
const HANG_PAUSE: Duration = Duration::from_millis(5);

/// Where a `hang` without a call hangs.
const DEFAULT_HANG: &str = "nvmlDeviceGetUtilizationRates";

/// Who names the file.
const VARIABLE: &str = "NVML_DOUBLE_SCRIPT";

pub(crate) struct Script(String);

impl Script {
    pub(crate) fn read() -> Self {
        let file = env::var_os(VARIABLE);
        Self(file.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default())
    }

    fn lines(&self) -> impl Iterator<Item = Vec<&str>> {
        self.0.lines().map(|line| line.split_whitespace().collect())
    }

    pub(crate) fn says(&self, words: &[&str]) -> bool {
        self.lines().any(|line| line == words)
    }

    /// What follows `words` in the last line that begins with them.
    pub(crate) fn value(&self, words: &[&str]) -> Option<u64> {
        self.lines().filter_map(|line| number(line.strip_prefix(words)?)).last()
    }

    /// What follows `words` in each line that begins with them.
    pub(crate) fn values(&self, words: &[&str]) -> Vec<Vec<u64>> {
        self.lines()
            .filter_map(|line| line.strip_prefix(words)?.iter().map(|word| parse(word)).collect())
            .collect()
    }

    /// A number of one GPU: what is written, or the default.
    pub(crate) fn of(&self, gpu: usize, key: &str, default: u64) -> u64 {
        self.value(&["gpu", &gpu.to_string(), key]).unwrap_or(default)
    }

    pub(crate) fn is(&self, gpu: usize, key: &str) -> bool {
        self.says(&["gpu", &gpu.to_string(), key])
    }
}

fn number(words: &[&str]) -> Option<u64> {
    match words {
        [word] => parse(word),
        _ => None,
    }
}

fn parse(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

/// Has something to read once the script was written or replaced; an error where there is no file.
pub(crate) fn watch() -> io::Result<OwnedFd> {
    let watch = inotify::init(CreateFlags::CLOEXEC)?;
    let file = env::var_os(VARIABLE).unwrap_or_default();
    // A file that another one is renamed to loses its name, which changes its attributes.
    inotify::add_watch(&watch, file, WatchFlags::MODIFY | WatchFlags::ATTRIB)?;
    Ok(watch)
}

/// The script, once this call may go on.
pub(crate) fn enter(call: &str) -> Result<Script, Return> {
    loop {
        let script = Script::read();
        let is_hung =
            script.says(&["hang", call]) || call == DEFAULT_HANG && script.says(&["hang"]);
        if !is_hung {
            return match script.value(&["fail", call]) {
                Some(code) => Err(Return::try_from(code).unwrap_or(SUCCESS)),
                None => Ok(script),
            };
        }
        thread::sleep(HANG_PAUSE);
    }
}

/// The same for a call to one GPU.
pub(crate) fn enter_gpu(call: &str, gpu: usize) -> Result<Script, Return> {
    let script = enter(call)?;
    if script.is(gpu, "lost") {
        return Err(GPU_IS_LOST);
    }
    if script.is(gpu, "reset-required") {
        return Err(RESET_REQUIRED);
    }
    Ok(script)
}
