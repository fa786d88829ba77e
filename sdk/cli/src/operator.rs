//! Who orders something, and why: said with every order, for whoever finds it so.

use crate::Usage;

/// An item has room for a ticket and a sentence.
const MAX_REASON_BYTES: usize = 256;
const MAX_OPERATOR_BYTES: usize = 64;

#[derive(Debug, clap::Args)]
pub(crate) struct OperatorArgs {
    /// Who wants it; without it, whoever is logged in [env: USER]
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Signature {
    /// Why, for whoever finds it so
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    operator: OperatorArgs,
}

impl OperatorArgs {
    pub(crate) fn name(&self) -> Result<String, Usage> {
        let logged_in = || std::env::var("USER").ok().filter(|name| !name.is_empty());
        let Some(name) = self.operator.clone().or_else(logged_in) else {
            return Err(Usage("USER names nobody: say who wants it with `--operator`".into()));
        };
        short("--operator", &name, MAX_OPERATOR_BYTES)
    }
}

impl Signature {
    pub(crate) fn operator(&self) -> Result<String, Usage> {
        self.operator.name()
    }

    pub(crate) fn reason(&self) -> Result<String, Usage> {
        reason(&self.reason)
    }
}

pub(crate) fn reason(text: &str) -> Result<String, Usage> {
    short("--reason", text, MAX_REASON_BYTES)
}

fn short(option: &str, text: &str, max_bytes: usize) -> Result<String, Usage> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Usage(format!("`{option}` says nothing: give it a text")));
    }
    if text.len() > max_bytes {
        let bytes = text.len();
        return Err(Usage(format!("`{option}` has {bytes} bytes; it may have {max_bytes}")));
    }
    Ok(text.to_owned())
}
