//! XIDs from the kernel's log, on a thread of its own: NVML does not tell of all of them.
//!
//! Opening `/dev/kmsg` gives everything since boot that the kernel still has, so that an agent that was
//! restarted knows what its predecessor saw. A record is `6,1234,56789,-;NVRM: Xid …`: priority, sequence,
//! microseconds since boot, flags, message. Lines that begin with a space belong to the record before.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    mem,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};
use tokio::sync::mpsc;

use super::{
    clock,
    ledger::{PAIR_WINDOW, Sighting, Source},
    tracker::Observation,
    xid,
};
use crate::signals::Check;

/// The longest record that the kernel makes.
const RECORD_BYTES: usize = 8 * 1024;

/// Between the log's end and the next look: a log that is written all the time is read in pieces.
const END_PAUSE: Duration = Duration::from_millis(250);

/// The longest wait for a record; after it, the log is looked at all the same, and whether anybody still listens.
const RECORD_WAIT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Observations that are told together: more XIDs than the kernel's log has room for.
const MAX_BATCH: usize = 16 * 1024;

/// Until a log that could not be read is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(30);

/// Every driver says this when it is loaded.
const DRIVER_LOADS: &str = "NVRM: loading NVIDIA UNIX";

/// Records of user space have a facility above the kernel's, which is 0.
const PRIORITIES: u64 = 8;

/// Reads the log until nobody listens.
pub(super) fn run(path: &Path, outbox: &mpsc::Sender<Vec<Observation>>) {
    loop {
        let Err(reason) = follow(path, outbox) else { return };
        let check = Check::error(reason);
        if outbox.blocking_send(vec![Observation::Source(Source::KernelLog, check)]).is_err() {
            return;
        }
        thread::sleep(RETRY_PAUSE);
    }
}

/// Ends well when nobody listens any more, and with a reason when the log cannot be read.
fn follow(path: &Path, outbox: &mpsc::Sender<Vec<Observation>>) -> Result<(), String> {
    let failed = |error: io::Error| {
        let hint =
            if error.kind() == ErrorKind::PermissionDenied { ": give CAP_SYSLOG" } else { "" };
        format!("{} cannot be read: {error}{hint}", path.display())
    };
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut file = File::options().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let mut log = Log::new(clock::since_boot());
    let mut buffer = vec![0; RECORD_BYTES];
    // What is there already is told as one: an XID in it may be resolved by what comes after.
    let mut batch = vec![Observation::Source(Source::KernelLog, Check::ok())];
    loop {
        match file.read(&mut buffer) {
            Ok(length) if length > 0 => {
                batch.extend(log.take(&buffer[..length], clock::since_boot()))
            }
            // Records were overwritten before they were read; the next one's sequence says how many.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(failed(error)),
            // The end, for now.
            end => {
                let is_heard =
                    batch.is_empty() || outbox.blocking_send(mem::take(&mut batch)).is_ok();
                if !is_heard || outbox.is_closed() {
                    return Ok(());
                }
                thread::sleep(END_PAUSE);
                // A plain file just ends, and cannot be waited for.
                if end.is_err() {
                    wait_for_record(&file).map_err(failed)?;
                }
            }
        }
        if batch.len() >= MAX_BATCH && outbox.blocking_send(mem::take(&mut batch)).is_err() {
            return Ok(());
        }
    }
}

fn wait_for_record(log: &File) -> io::Result<()> {
    match poll(&mut [PollFd::from_borrowed_fd(log.as_fd(), PollFlags::IN)], Some(&RECORD_WAIT)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What was read of the log so far.
#[derive(Debug)]
struct Log {
    /// Since boot: what is older than this was there before.
    opened: Duration,
    /// The begin of a line whose end is still to come.
    partial: Vec<u8>,
    next_sequence: Option<u64>,
    missed: u64,
}

impl Log {
    fn new(opened: Duration) -> Self {
        Self { opened, partial: Vec::new(), next_sequence: None, missed: 0 }
    }

    /// Takes some bytes of the log, read `now`.
    fn take(&mut self, bytes: &[u8], now: Duration) -> Vec<Observation> {
        let mut observations = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if self.partial.ends_with(b"\n") || self.partial.len() > RECORD_BYTES {
                let line = mem::take(&mut self.partial);
                self.take_line(String::from_utf8_lossy(&line).trim_end(), now, &mut observations);
            }
        }
        observations
    }

    fn take_line(&mut self, line: &str, now: Duration, observations: &mut Vec<Observation>) {
        let Some(record) = Record::parse(line) else { return };
        let missed = self.next_sequence.map_or(0, |next| record.sequence.saturating_sub(next));
        self.next_sequence = Some(record.sequence.saturating_add(1));
        if missed > 0 {
            self.missed = self.missed.saturating_add(missed);
            let reason = format!(
                "{} records were overwritten before they were read: XIDs among them are unknown",
                self.missed
            );
            observations.push(Observation::Source(Source::KernelLog, Check::degraded(reason)));
        }
        if record.priority >= PRIORITIES {
            return;
        }
        // The log's clock drifts from the monotonic one, which does not matter for what was there before.
        let was_there = record.since_boot + PAIR_WINDOW < self.opened;
        let at = if was_there { record.since_boot } else { now };
        if record.message.starts_with(DRIVER_LOADS) {
            observations.push(Observation::DriverLoaded(at));
        } else if let Some(xid::Line { pci, code, text }) = xid::parse(record.message) {
            observations.push(Observation::Xid(Sighting {
                source: Source::KernelLog,
                pci,
                code,
                action: xid::action(code, Some(text)),
                at: clock::moment(at),
            }));
        }
    }
}

#[derive(Debug, PartialEq)]
struct Record<'a> {
    priority: u64,
    sequence: u64,
    since_boot: Duration,
    message: &'a str,
}

impl<'a> Record<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (head, message) = line.split_once(';')?;
        let mut fields = head.split(',');
        let mut number = || fields.next()?.parse().ok();
        let (priority, sequence) = (number()?, number()?);
        let since_boot = Duration::from_micros(number()?);
        Some(Self { priority, sequence, since_boot, message })
    }
}

#[cfg(test)]
mod tests;
