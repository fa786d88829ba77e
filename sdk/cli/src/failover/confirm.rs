//! Before live traffic moves: what stands now, and whether that is meant.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, Result, anyhow};
use tokio::sync::oneshot;

use crate::{Usage, table::harmless};

#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct ConfirmArgs {
    /// Do not ask; required where there is no terminal to ask on
    #[arg(long, short)]
    yes: bool,
}

impl ConfirmArgs {
    /// Whether somebody is to be asked. Without a terminal nobody can be, and that is an error.
    pub(super) fn asks(self) -> Result<bool, Usage> {
        if self.yes {
            return Ok(false);
        }
        if io::stdin().is_terminal() && io::stderr().is_terminal() {
            return Ok(true);
        }
        Err(Usage("it moves live traffic, and there is no terminal to ask on: say `--yes`".into()))
    }
}

/// Asks; an error where the answer is not yes.
pub(super) async fn confirm(question: &str) -> Result<()> {
    let (answer, answered) = oneshot::channel();
    let question = format!("{} Go on? [y/N] ", harmless(question));
    // A thread of its own, which Ctrl-C does not wait for.
    std::thread::spawn(move || {
        let mut line = String::new();
        let asked = io::stderr()
            .write_all(question.as_bytes())
            .and_then(|()| io::stdin().lock().read_line(&mut line));
        // Whoever waited may be gone.
        let _ = answer.send(asked.map(|_| line));
    });
    let line = answered.await.context("nobody answered")?.context("cannot ask")?;
    if !line.ends_with('\n') {
        // The end of the input leaves the cursor behind the question.
        let _ = writeln!(io::stderr());
    }
    match line.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(anyhow!("nothing was done")),
    }
}
