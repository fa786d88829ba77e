//! What a package holds that is not in the workspace as it is: the program, its completions, and the
//! packages' scripts with the package's name filled in.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{OLDEST_GLIBC, Package};
use crate::steps::Steps;
use crate::workspace;

const STRIP_LIMIT: Duration = Duration::from_secs(60);
/// What each shell calls a program's completions.
const COMPLETIONS: [(&str, &str, &str); 3] =
    [("bash", "", ".bash"), ("fish", "", ".fish"), ("zsh", "_", "")];

/// Fills the folder anew. A program that is not `stripped` yet loses its symbols here.
pub(super) fn fill(
    steps: &Steps,
    package: Package,
    program: &Path,
    staged: &Path,
    stripped: bool,
) -> Result<()> {
    let name = package.name;
    let missing = || format!("{} is missing: leave out --no-build", program.display());
    let bytes = fs::read(program).with_context(missing)?;
    if staged.exists() {
        fs::remove_dir_all(staged).with_context(|| format!("cannot empty {}", staged.display()))?;
    }
    for folder in ["deb", "rpm"] {
        let (from, to) =
            (workspace::root().join("deploy/packages").join(folder), staged.join(folder));
        fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
        for entry in fs::read_dir(&from).with_context(|| format!("{}", from.display()))? {
            let entry = entry?;
            fs::write(to.join(entry.file_name()), script(&entry.path(), package)?)?;
        }
    }
    let copy = staged.join(name);
    fs::copy(program, &copy).with_context(|| format!("cannot copy {}", program.display()))?;
    if !stripped {
        let mut strip = Command::new("strip");
        strip.arg(&copy);
        steps.run(&format!("stripping {name}"), &mut strip, STRIP_LIMIT)?;
    }
    for (shell, before, after) in COMPLETIONS {
        let file = File::create(staged.join(format!("{before}{name}{after}")))?;
        let mut completions = Command::new(&copy);
        completions.args(["completions", shell]).stdin(Stdio::null()).stdout(file);
        let status = completions.status().with_context(|| format!("cannot start {name}"))?;
        ensure!(status.success(), "`{name} completions {shell}` failed ({status})");
    }
    if let Some((major, minor)) = newest_glibc(&bytes).filter(|needed| *needed > OLDEST_GLIBC) {
        steps.say(&format!(
            "note: {name} needs glibc {major}.{minor}, and Amazon Linux 2023 has {}.{}: build where glibc is older",
            OLDEST_GLIBC.0, OLDEST_GLIBC.1
        ));
    }
    Ok(())
}

/// A script of a package with its names filled in.
pub(crate) fn script(path: &Path, package: Package) -> Result<String> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.replace("@package@", package.name).replace("@config@", package.folder))
}

/// The newest version of glibc's symbols that a program names, as in `GLIBC_2.34`.
fn newest_glibc(program: &[u8]) -> Option<(u32, u32)> {
    const NAME: &[u8] = b"GLIBC_";
    let named = program.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME);
    named
        .filter_map(|(at, _)| {
            let rest = &program[at + NAME.len()..];
            let is_version = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
            let length = rest.iter().take(16).take_while(|byte| is_version(byte)).count();
            let (major, minor) = std::str::from_utf8(&rest[..length]).ok()?.split_once('.')?;
            let minor = minor.split('.').next()?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_glibc_is_told_by_number() {
        let program = b"\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_2.2.5\0GLIBC_PRIVATE\0GLIBC_";
        assert_eq!(newest_glibc(program), Some((2, 34)));
        assert_eq!(newest_glibc(b"static"), None);
    }
}
