//! Lines for the operator, under the policy's name in the router's log. The router bounds them.

/// Something worth knowing.
pub fn info(message: impl AsRef<str>) {
    write(Level::Info, message.as_ref());
}

/// Something that is probably wrong.
pub fn warn(message: impl AsRef<str>) {
    write(Level::Warn, message.as_ref());
}

pub(crate) fn error(message: &str) {
    write(Level::Error, message);
}

pub(crate) use crate::bindings::mrgc::policy::log::Level;

#[cfg(target_arch = "wasm32")]
fn write(level: Level, message: &str) {
    crate::bindings::mrgc::policy::log::write(level, message);
}

#[cfg(not(target_arch = "wasm32"))]
fn write(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
}
