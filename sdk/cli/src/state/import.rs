//! `mrgc state import`: a copy, written into the tables after all of it was found to be whole.

use std::{fs::File, io::BufReader, path::PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use mrgc_store::{DumpError, DumpReader, ImportProgress, OnConflict};

use crate::{
    Verdict,
    progress::{Progress, Unit},
    store::StoreArgs,
    table,
};

const EXAMPLES: &str = "\
Examples:
  mrgc state import --dry-run backup.jsonl
  mrgc state import --table-prefix restored backup.jsonl
  mrgc state import --on-conflict skip backup.jsonl

The whole file is checked before the first write. Stop the fleet's programs first, or import under
another prefix: an old registration that is written over a newer one is believed.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A file that `mrgc state export` wrote
    file: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
    /// What becomes of items whose key is taken
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Conflict::Fail)]
    on_conflict: Conflict,
    /// Check the file and write nothing; asks no store
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Conflict {
    /// Write nothing unless the tables are empty
    Fail,
    /// Leave what is stored
    Skip,
    /// Write over what is stored
    Overwrite,
}

impl From<Conflict> for OnConflict {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::Fail => Self::Fail,
            Conflict::Skip => Self::Skip,
            Conflict::Overwrite => Self::Overwrite,
        }
    }
}

pub(crate) async fn run(args: &Args) -> Result<Verdict> {
    let name = args.file.display().to_string();
    let file = File::open(&args.file).with_context(|| format!("cannot open {name}"))?;
    let bytes = file.metadata().map(|metadata| metadata.len()).ok();
    let input = BufReader::new(file);
    if args.dry_run {
        let checked: Result<_, DumpError> = DumpReader::open(input).and_then(DumpReader::validate);
        let summary = checked.with_context(|| name.clone())?;
        let tables: Vec<String> =
            summary.items.iter().map(|(table, items)| format!("{items} of {table}")).collect();
        let tables =
            if tables.is_empty() { String::new() } else { format!(" ({})", tables.join(", ")) };
        table::say(&format!("{name} is whole: {} items{tables}\n", summary.total()))?;
        return Ok(Verdict::Good);
    }
    let store = args.store.connect().await?;
    let mut progress = Progress::new("import", Unit::Bytes, bytes);
    let told = |at: ImportProgress| {
        progress.set(at.bytes, at.imported.written + at.imported.skipped);
    };
    let imported = store.import(input, args.on_conflict.into(), told).await;
    drop(progress);
    let imported = imported.with_context(|| name.clone())?;
    let skipped = match imported.skipped {
        0 => String::new(),
        n => format!(", left {n} as they were"),
    };
    table::say(&format!("imported {} items from {name}{skipped}\n", imported.written))?;
    Ok(Verdict::Good)
}
