//! `mrgc state export` and `import`, and what can go wrong on the way.

use std::{fs, process::Stdio};

use tokio::{io::AsyncReadExt, net::TcpListener, process::Command};

use crate::support::{Engine, command, eventually, said};

const ITEMS: usize = 300;

/// An engine whose table `metrics` has 300 items.
async fn filled() -> Engine {
    let engine = Engine::start().await;
    let made = engine.copy_of(ITEMS);
    let said = said(engine.state(&["import"]).arg(&made)).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(said.out, format!("imported 300 items from {}\n", made.display()));
    fs::remove_file(made).unwrap();
    engine
}

/// The lines in an order that does not depend on the scan's.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    let items = lines.len() - 1;
    lines[1..items].sort_unstable();
    lines
}

#[tokio::test]
async fn a_copy_comes_back_the_same() {
    let engine = filled().await;
    let (one, two) = (engine.path("one.jsonl"), engine.path("two.jsonl"));
    let said_one = said(engine.state(&["export"]).arg(&one)).await;
    assert_eq!((said_one.code, said_one.out.as_str()), (Some(0), ""), "{said_one:?}");
    assert_eq!(said_one.err, format!("exported 300 items to {}\n", one.display()));

    let dry = said(command().args(["state", "import", "--dry-run"]).arg(&one)).await;
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert_eq!(dry.out, format!("{} is whole: 300 items (300 of metrics)\n", one.display()));

    let other = ["--table-prefix", "mrgc-other"];
    let missing = said(engine.state(&["import"]).arg(&one).args(other)).await;
    assert_eq!(missing.code, Some(1));
    assert!(missing.err.contains("`mrgc state init`"), "{}", missing.err);
    assert_eq!(said(engine.state(&["init"]).args(other)).await.code, Some(0));
    assert_eq!(said(engine.state(&["import"]).arg(&one).args(other)).await.code, Some(0));
    let exported = said(engine.state(&["export", "--segments", "1"]).arg(&two).args(other)).await;
    assert_eq!(exported.code, Some(0), "{exported:?}");
    let (one, two) = (fs::read_to_string(one).unwrap(), fs::read_to_string(two).unwrap());
    let two = two.replacen("\"mrgc-other\"", "\"mrgc\"", 1);
    assert_eq!(sorted(&one), sorted(&two));
    assert_eq!(engine.files(), ["one.jsonl", "two.jsonl"]);
    engine.stop().await;
}

#[tokio::test]
async fn nothing_is_written_over_unless_asked() {
    let engine = filled().await;
    let file = engine.path("copy.jsonl");
    fs::write(&file, "mine").unwrap();
    let refused = said(engine.state(&["export"]).arg(&file)).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("`--force` to replace it"), "{}", refused.err);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    assert_eq!(said(engine.state(&["export", "--force"]).arg(&file)).await.code, Some(0));
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), ITEMS + 2);

    let refused = said(engine.state(&["import"]).arg(&file)).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("there are items already in `mrgc-metrics`"), "{}", refused.err);
    let skipped = said(engine.state(&["import", "--on-conflict", "skip"]).arg(&file)).await;
    let expected = format!("imported 0 items from {}, left 300 as they were\n", file.display());
    assert_eq!(skipped.out, expected, "{skipped:?}");
    engine.stop().await;
}

#[tokio::test]
async fn a_copy_that_is_not_whole_is_refused_with_its_line() {
    let engine = filled().await;
    let file = engine.path("copy.jsonl");
    let whole = said(&mut engine.state(&["export", "-"])).await;
    assert_eq!(whole.code, Some(0), "{}", whole.err);
    let lines: Vec<&str> = whole.out.split_inclusive('\n').collect();
    let newer = whole.out.replacen("\"version\":1", "\"version\":2", 1);
    for (text, expected) in [
        (lines[..200].concat(), "the file ends after line 200, with 199 items"),
        (whole.out.replacen("\"pk\":", "pk:", 1), "line 2: it is no item"),
        (newer, "format version 2, and this program knows versions up to 1"),
        (String::new(), "line 1: the file is empty"),
        ("SQLite format 3\0".to_owned(), "line 1: "),
    ] {
        fs::write(&file, text).unwrap();
        for arguments in [&["--dry-run"][..], &["--on-conflict", "overwrite"]] {
            let said = said(engine.state(&["import"]).args(arguments).arg(&file)).await;
            assert_eq!(said.code, Some(1), "{said:?}");
            assert!(said.err.contains(expected), "{expected} is not in {}", said.err);
        }
    }
    engine.stop().await;
}

/// A limit on a file's size, or a full disk, ends the copy and leaves nothing.
#[tokio::test]
async fn a_full_disk_is_told_and_leaves_no_file() {
    let engine = filled().await;
    let file = engine.path("copy.jsonl");
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_mrgc")])
        .args(["state", "export", "--endpoint", &engine.endpoint])
        .arg(&file);
    let cut = said(&mut limited).await;
    assert_eq!(cut.code, Some(1), "{cut:?}");
    for expected in ["cannot write to", "copy.jsonl", "File too large"] {
        assert!(cut.err.contains(expected), "{expected} is not in {}", cut.err);
    }
    assert_eq!(engine.files(), Vec::<String>::new());

    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let child = engine.state(&["export", "-"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().await.unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("No space left on device"), "{err}");
    engine.stop().await;
}

#[tokio::test]
async fn a_reader_that_goes_away_is_told() {
    let engine = filled().await;
    let mut export = engine.state(&["export", "-"]);
    let mut child = export.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = child.stdout.take().unwrap();
    assert!(reader.read(&mut [0; 100]).await.unwrap() > 0);
    drop(reader);
    let output = child.wait_with_output().await.unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("Broken pipe") && err.contains("the copy is not whole"), "{err}");
    engine.stop().await;
}

#[tokio::test]
async fn an_interrupted_export_leaves_no_file() {
    // Accepts connections, by way of the system, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut export = command();
    export.args(["state", "export", "--endpoint", &endpoint]).arg(folder.path().join("copy.jsonl"));
    let mut child = export.stderr(Stdio::piped()).spawn().unwrap();
    let is_empty = || fs::read_dir(folder.path()).unwrap().next().is_none();
    eventually("the temporary file", || !is_empty()).await;
    // It asks only after it listens for signals.
    let (_connection, _) = silent.accept().await.unwrap();
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
    let status = child.wait().await.unwrap();
    assert_eq!(status.code(), Some(130));
    assert!(is_empty());
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_told() {
    let engine = Engine::start().await;
    let file = engine.path("nowhere/copy.jsonl");
    let export = said(engine.state(&["export"]).arg(&file)).await;
    assert_eq!(export.code, Some(1), "{export:?}");
    assert!(export.err.contains("cannot write into the folder"), "{}", export.err);
    let import = said(engine.state(&["import"]).arg(&file)).await;
    assert_eq!(import.code, Some(1), "{import:?}");
    assert!(import.err.contains(&format!("cannot open {}", file.display())), "{}", import.err);
    engine.stop().await;
}
