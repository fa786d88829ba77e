//! Where the demo is seen: lines that stay and, on a terminal, a table below them that is redrawn in place.

use std::{
    fmt::Write as _,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::style::{Style, moves_cursor};

/// Lines longer than the terminal is wide are cut rather than wrapped, or redrawing would lose count.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";
const CLEAR_TO_LINE_END: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
/// Width of the names of steps.
const STEP_WIDTH: usize = 24;

/// The screen, shared by all who have something to show.
#[derive(Debug)]
pub struct Screen {
    pub style: Style,
    /// Whether the table can be redrawn.
    pub in_place: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    out: Out,
    /// The table as it was drawn last.
    frame: Vec<String>,
}

#[derive(Debug)]
enum Out {
    Stdout(io::Stdout),
    Stderr(io::Stderr),
    #[cfg(test)]
    Memory(Vec<u8>),
}

impl Out {
    fn write(&mut self, text: &str) {
        let out: &mut dyn io::Write = match self {
            Self::Stdout(out) => out,
            Self::Stderr(out) => out,
            #[cfg(test)]
            Self::Memory(out) => out,
        };
        // With nobody left to read, the demo goes on and its exit code tells.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

impl Screen {
    /// Standard output, or standard error where standard output is for the summary's JSON.
    pub fn new(json: bool) -> Self {
        let (out, style, in_place) = if json {
            let out = io::stderr();
            (Out::Stderr(io::stderr()), Style::of(&out), moves_cursor(&out))
        } else {
            let out = io::stdout();
            (Out::Stdout(io::stdout()), Style::of(&out), moves_cursor(&out))
        };
        Self { style, in_place, inner: Mutex::new(Inner { out, frame: Vec::new() }) }
    }

    /// A frame half drawn is drawn again with the next.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line that stays, above the table.
    pub fn say(&self, line: &str) {
        let mut inner = self.lock();
        let mut text = above(&inner.frame);
        // Writing to a string does not fail, here and below.
        let _ = writeln!(text, "{line}");
        draw(&mut text, &inner.frame);
        inner.out.write(&text);
    }

    /// Something that was started, and where it is.
    pub fn step(&self, name: &str, detail: &str) {
        self.say(&format!("  {name:STEP_WIDTH$}  {}", self.style.dim(detail)));
    }

    /// Something that happened, so long after the traffic began.
    pub fn event(&self, at: Duration, what: &str) {
        let at = format!("{:>6.1} s", at.as_secs_f64());
        self.say(&format!("  {}  {what}", self.style.cyan(&at)));
    }

    /// Draws the table over the one before.
    pub fn show(&self, frame: Vec<String>) {
        let mut inner = self.lock();
        let mut text = above(&inner.frame);
        draw(&mut text, &frame);
        inner.out.write(&text);
        inner.frame = frame;
    }

    /// Leaves the table as it is: what follows comes below.
    pub fn settle(&self) {
        self.lock().frame.clear();
    }
}

/// What moves the cursor to the first line of a frame and removes it.
fn above(frame: &[String]) -> String {
    if frame.is_empty() {
        return String::new();
    }
    format!("\x1b[{}A\r{CLEAR_BELOW}", frame.len())
}

fn draw(text: &mut String, frame: &[String]) {
    if frame.is_empty() {
        return;
    }
    text.push_str(NO_WRAP);
    for line in frame {
        let _ = writeln!(text, "{line}{CLEAR_TO_LINE_END}");
    }
    text.push_str(WRAP);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_above_the_table() {
        let inner = Mutex::new(Inner { out: Out::Memory(Vec::new()), frame: Vec::new() });
        let screen = Screen { style: Style::PLAIN, in_place: true, inner };
        screen.say("one");
        screen.show(vec!["table".into(), "row".into()]);
        screen.say("two");
        let inner = screen.lock();
        let Out::Memory(bytes) = &inner.out else { unreachable!("made above") };
        let text = String::from_utf8_lossy(bytes);
        let table = "\x1b[?7ltable\x1b[K\nrow\x1b[K\n\x1b[?7h";
        assert_eq!(text, format!("one\n{table}\x1b[2A\r\x1b[Jtwo\n{table}"));
    }
}
