//! How far it is: a bar on a terminal, JSON lines for programs.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::filter::Progress;
use crate::format::{Header, Image, Totals};

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
    last: Instant,
}

impl Meter {
    /// The meter of a source: on a terminal there is a bar without being asked for. Its sink, in the same terminal, has none.
    pub fn of_source(option: Option<ProgressOption>) -> Meter {
        Meter::new(option.or(Some(ProgressOption::Auto)))
    }

    /// A meter as the user asked for it; `None`: not at all.
    pub fn new(option: Option<ProgressOption>) -> Meter {
        Meter { option, bar: ProgressBar::hidden(), size: 0, last: Instant::now() }
    }
}

impl Progress for Meter {
    fn begin(&mut self, _header: &Header, image: &Image) {
        self.size = image.new_size;
        if self.option == Some(ProgressOption::Auto) {
            // indicatif draws nothing where standard error is no terminal.
            self.bar = ProgressBar::with_draw_target(Some(image.new_size), ProgressDrawTarget::stderr_with_hz(5));
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {msg}") {
                self.bar.set_style(style);
            }
        }
    }

    fn at(&mut self, offset: u64, totals: &Totals) {
        match self.option {
            None => {}
            Some(ProgressOption::Auto) => self.bar.set_position(offset),
            Some(ProgressOption::Json) if self.last.elapsed() >= Duration::from_secs(1) => {
                self.last = Instant::now();
                let Totals { data_bytes, zero_bytes, .. } = totals;
                let size = self.size;
                eprintln!(r#"{{"offset":{offset},"size":{size},"data_bytes":{data_bytes},"zero_bytes":{zero_bytes}}}"#);
            }
            Some(ProgressOption::Json) => {}
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
