//! How far it is: a bar on a terminal, JSON lines for programs.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::say;
use crate::filter::Progress;
use crate::format::{Change, Header, Image, Totals, Tree, TreeChange};

/// How often a terminal is told of so many more entries.
const ENTRIES: u64 = 64;

/// `--progress[=json]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressOption {
    /// A bar when standard error is a terminal, else nothing.
    #[default]
    Auto,
    /// One JSON object a second.
    Json,
}

/// Shows progress on standard error.
pub struct Meter {
    option: Option<ProgressOption>,
    bar: ProgressBar,
    size: u64,
    entries: u64,
    last: Instant,
}

impl Meter {
    /// The meter of a source: on a terminal there is a bar without being asked for. Its sink, in the same terminal, has none.
    pub fn of_source(option: Option<ProgressOption>) -> Meter {
        Meter::new(option.or(Some(ProgressOption::Auto)))
    }

    /// A meter as the user asked for it; `None`: not at all.
    pub fn new(option: Option<ProgressOption>) -> Meter {
        Meter { option, bar: ProgressBar::hidden(), size: 0, entries: 0, last: Instant::now() }
    }
}

impl Meter {
    /// A second has gone by since this last said so, and the user wants lines.
    fn line_is_due(&mut self) -> bool {
        let due = self.option == Some(ProgressOption::Json) && self.last.elapsed() >= Duration::from_secs(1);
        if due {
            self.last = Instant::now();
        }
        due
    }

    /// indicatif draws nothing where standard error is no terminal.
    fn draw(&mut self, most: Option<u64>, template: &str) {
        if self.option == Some(ProgressOption::Auto) {
            self.bar = ProgressBar::with_draw_target(most, ProgressDrawTarget::stderr_with_hz(5));
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style);
            }
        }
    }
}

impl Progress for Meter {
    fn begin(&mut self, _header: &Header, image: &Image) {
        self.size = image.new_size;
        self.draw(Some(image.new_size), "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {msg}");
    }

    fn at(&mut self, change: &Change, totals: &Totals) {
        let (offset, size) = (change.end(), self.size);
        self.bar.set_position(offset);
        if self.line_is_due() {
            let Totals { data_bytes, zero_bytes, .. } = totals;
            say(&format!(r#"{{"offset":{offset},"size":{size},"data_bytes":{data_bytes},"zero_bytes":{zero_bytes}}}"#));
        }
    }
}

impl Progress<Tree> for Meter {
    fn begin(&mut self, _header: &Header, _tree: &Tree) {
        self.draw(None, "{msg} entries, {bytes} {binary_bytes_per_sec}");
    }

    fn at(&mut self, change: &TreeChange, totals: &Totals) {
        match change {
            TreeChange::Entry(_) | TreeChange::Link { .. } | TreeChange::Gone { .. } => self.entries += 1,
            TreeChange::Roots { .. } | TreeChange::Extent(_) => {}
        }
        let entries = self.entries;
        if self.option == Some(ProgressOption::Auto) && entries.is_multiple_of(ENTRIES) {
            self.bar.set_message(entries.to_string());
        }
        self.bar.set_position(totals.data_bytes);
        if self.line_is_due() {
            let Totals { data_bytes, zero_bytes, .. } = totals;
            say(&format!(r#"{{"entries":{entries},"data_bytes":{data_bytes},"zero_bytes":{zero_bytes}}}"#));
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
