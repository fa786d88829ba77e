//! `mrgc state export`: the whole state as a file.
//!
//! The file has its name only once all of it is on the disk: it is written beside it under another name.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use mrgc_store::{ExportOptions, Store};
use tempfile::NamedTempFile;

use crate::{
    Usage, Verdict,
    progress::{Progress, Unit},
    store::StoreArgs,
};

const EXAMPLES: &str = "\
Examples:
  mrgc state export backup.jsonl
  mrgc state export - | zstd > backup.jsonl.zst
  mrgc state export --segments 16 --aws-region us-east-1 backup.jsonl

JSON Lines: a header, an item for each line, and a last line that counts them. Tables are read
while they may be written, so the copy is not of one moment; point-in-time recovery gives one
that is.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The file to write; `-` for standard output
    file: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
    /// Parts of a table to read at the same time: faster, and more of its capacity at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    segments: u32,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(args: &Args) -> Result<Verdict> {
    let options = ExportOptions { segments: args.segments };
    let name = args.file.display().to_string();
    if args.file.as_os_str() == "-" {
        let store = args.store.connect().await?;
        let items = copy(&store, options, io::stdout(), "standard output").await?;
        return told(items, "standard output");
    }
    if !args.force && args.file.exists() {
        let reason = format!("{name} exists: choose another name, or `--force` to replace it");
        return Err(Usage(reason).into());
    }
    let folder = args.file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new()
        .prefix(".mrgc-export-")
        .tempfile_in(folder)
        .with_context(|| format!("cannot write into the folder {}", folder.display()))?;
    let store = args.store.connect().await?;
    let items = copy(&store, options, temporary.as_file(), &name).await?;
    keep(temporary, args).with_context(|| format!("cannot write {name}"))?;
    told(items, &name)
}

/// Writes all lines; the number of items.
async fn copy(store: &Store, options: ExportOptions, out: impl Write, name: &str) -> Result<u64> {
    store.check().await?;
    let total = store.inspect().await?.iter().filter_map(|table| table.items).sum();
    let mut progress = Progress::new("export", Unit::Items, Some(total));
    let mut out = BufWriter::new(out);
    let mut export = store.export(options);
    let mut items = 0;
    while let Some(chunk) = export.next().await {
        let chunk = chunk.with_context(|| format!("after {items} items"))?;
        out.write_all(&chunk.lines).with_context(|| broken(name, items))?;
        items += chunk.items;
        progress.set(items, items);
    }
    out.flush().with_context(|| broken(name, items))?;
    Ok(items)
}

fn broken(name: &str, items: u64) -> String {
    format!("cannot write to {name} any more, after {items} items: the copy is not whole")
}

fn keep(temporary: NamedTempFile, args: &Args) -> io::Result<()> {
    temporary.as_file().sync_all()?;
    let file: File = if args.force {
        temporary.persist(&args.file)?
    } else {
        temporary.persist_noclobber(&args.file)?
    };
    drop(file);
    Ok(())
}

fn told(items: u64, name: &str) -> Result<Verdict> {
    // Standard output may be the copy itself.
    let _ = writeln!(io::stderr(), "exported {items} items to {name}");
    Ok(Verdict::Good)
}
