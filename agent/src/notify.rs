//! systemd's notification protocol, sd_notify(3): lines of `KEY=VALUE` in a datagram to the socket that the
//! environment names. Where it names none, nobody is told anything.
//!
//! The router uses the crate `sd-notify` for this. Here it would not do: its sends block, and the control loop
//! never waits; it takes no abstract socket, as some containers have; and it writes how long a drain may take in
//! 32 bits of microseconds, an hour, where `drain.deadline_seconds` may be a week.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::Arc,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// Tells the service manager how the agent is.
#[derive(Clone, Debug, Default)]
pub struct Notifier {
    link: Option<Arc<Link>>,
    watchdog: Option<Duration>,
}

#[derive(Debug)]
struct Link {
    socket: UnixDatagram,
    manager: SocketAddr,
}

impl Notifier {
    /// Nobody listens.
    pub fn absent() -> Self {
        Self::default()
    }

    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_environment() -> io::Result<Self> {
        let named = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let Some(socket) = named else { return Ok(Self::absent()) };
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        // Without a process id it is meant for whoever reads it.
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| is_ours && *usec > 0);
        Self::connect(&socket, watchdog.map(Duration::from_micros))
    }

    /// A path, or after an `@` the name of an abstract socket. Unless it is fed within `watchdog`, the agent
    /// is taken for hung.
    pub fn connect(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let manager = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // The control loop never waits, not even for the service manager.
        socket.set_nonblocking(true)?;
        Ok(Self { link: Some(Arc::new(Link { socket, manager })), watchdog })
    }

    /// How often the watchdog is to be fed: twice as often as it bites.
    pub(crate) fn feeding_interval(&self) -> Option<Duration> {
        self.watchdog.map(|watchdog| watchdog / 2)
    }

    /// Says that a reload begins. systemd takes `READY=1` for its end.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// Whether the message was taken, or there is nobody to take it.
    pub(crate) fn send(&self, message: &str) -> bool {
        let Some(Link { socket, manager }) = self.link.as_deref() else { return true };
        let sent = socket.send_to_addr(message.as_bytes(), manager);
        if let Err(error) = &sent {
            tracing::debug!(%error, message, "the service manager was not told");
        }
        sent.is_ok()
    }
}

#[cfg(test)]
mod tests;
