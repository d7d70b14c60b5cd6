//! How a tool is told what to keep, and what it says of each state.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};

use super::{env_name, print, print_bytes};
use crate::state::{Class, Fault, Grid, Outcome, Pattern, Period, Policy, Reason, Span, Utc, Verdict, at_most};

/// The rules, and how they are carried out.
#[derive(clap::Args, Clone, Debug)]
pub struct RetentionOptions {
    /// Keep the newest N
    #[arg(long, value_name = "N")]
    keep_last: Option<NonZeroU64>,
    /// Keep the newest of each of the newest N hours that have one (UTC, as all of these)
    #[arg(long, value_name = "N")]
    keep_hourly: Option<NonZeroU64>,
    /// Keep the newest of each of the newest N days that have one
    #[arg(long, value_name = "N")]
    keep_daily: Option<NonZeroU64>,
    /// Keep the newest of each of the newest N weeks that have one, Monday to Sunday
    #[arg(long, value_name = "N")]
    keep_weekly: Option<NonZeroU64>,
    /// Keep the newest of each of the newest N months that have one
    #[arg(long, value_name = "N")]
    keep_monthly: Option<NonZeroU64>,
    /// Keep the newest of each of the newest N years that have one
    #[arg(long, value_name = "N")]
    keep_yearly: Option<NonZeroU64>,
    /// Keep what is younger than that, seen from the newest: 36h, 30d, 8w
    #[arg(long, value_name = "SPAN")]
    keep_within: Option<Span>,
    /// Keep the oldest of each bucket going back from the newest: '1x1h(keep=all) | 24x1h | 14x1d'
    #[arg(long, value_name = "GRID")]
    keep_grid: Vec<Grid>,
    /// Keep names in which REGEX is found
    #[arg(long, value_name = "REGEX")]
    keep_regex: Vec<Pattern>,
    /// Keep this one, or all of a resume: token; it must be there
    // Names may begin with `-`; an option that is taken for a name is none that is there.
    #[arg(long, value_name = "NAME", allow_hyphen_values = true, value_parser = OsStringValueParser::new().try_map(named))]
    keep: Vec<OsString>,
    /// Only names that REGEX matches from end to end are judged; all others are kept, and not counted
    #[arg(long = "match", value_name = "REGEX")]
    ours: Option<Pattern>,
    /// Let at most N go, the oldest
    #[arg(long, value_name = "N")]
    at_most: Option<u64>,
    /// Wait this long from each one to the next: 30s, 5m
    #[arg(long, value_name = "SPAN")]
    pace: Option<Span>,
    /// Say on standard error what would stay and go, and why; nothing on standard output
    #[arg(long)]
    dry_run: bool,
    /// Each state as one JSON object on a line
    #[arg(long)]
    json: bool,
}

/// The same for the marks of a dataset.
#[derive(clap::Args, Clone, Debug)]
pub struct PruneOptions {
    /// The policy.
    #[command(flatten)]
    pub options: Box<RetentionOptions>,
    /// The dataset
    pub target: String,
}

impl RetentionOptions {
    /// The policy. `ours` are the names that it is about where nothing else was said.
    pub fn policy(&self, ours: Option<&str>) -> Result<Policy, Fault> {
        let usage = |what: String| Fault::new(Class::Usage, what);
        let ours = self.ours.clone().map(Ok).or_else(|| ours.map(str::parse)).transpose().map_err(usage)?;
        let periods = [
            (Period::Hour, self.keep_hourly),
            (Period::Day, self.keep_daily),
            (Period::Week, self.keep_weekly),
            (Period::Month, self.keep_monthly),
            (Period::Year, self.keep_yearly),
        ];
        let policy = Policy {
            ours,
            last: self.keep_last.map(NonZeroU64::get),
            periods: periods.into_iter().filter_map(|(period, most)| Some((period, most?.get()))).collect(),
            within: self.keep_within,
            grids: self.keep_grid.clone(),
            patterns: self.keep_regex.clone(),
            named: self.keep.iter().cloned().map(OsStringExt::into_vec).collect(),
        };
        if policy.has_rule() {
            return Ok(policy);
        }
        Err(usage("no rule says what is kept".to_owned())
            .hint("--keep-last, --keep-daily and their like are rules; --keep alone would let all others go"))
    }

    /// Whether states are only shown.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Whether JSON is wanted.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Lets go what may go, oldest first, by `release`, and prints the name of each; without it, and in a dry run, only says
    /// what would go. `of` is the dataset.
    pub fn carry_out(
        &self,
        of: Option<&str>,
        mut verdicts: Vec<Verdict>,
        release: Option<impl FnMut(&Verdict) -> Outcome>,
    ) -> Result<(), Fault> {
        let subject = of.map(|of| format!("{of}: ")).unwrap_or_default();
        let say = |what: &str| super::say(&format!("{}: {subject}{what}", env_name()));
        at_most(&mut verdicts, self.at_most.unwrap_or(u64::MAX));
        if verdicts.iter().all(|verdict| verdict.reasons.contains(&Reason::NotOurs)) {
            say("note: none of the states is ours; --match says which names are");
        }
        let mut release = release.filter(|_| !self.dry_run);
        let (mut waits, mut failed, mut first) = (false, 0_u64, None);
        for mut verdict in verdicts {
            let (mut error, mut stays) = (None, verdict.reasons.contains(&Reason::Unspeakable));
            if let (false, Some(release)) = (verdict.keep(), &mut release) {
                if let (true, Some(pace)) = (waits, self.pace) {
                    std::thread::sleep(Duration::from_secs(pace.seconds));
                }
                waits = true;
                match release(&verdict) {
                    Outcome::Gone if self.json => {}
                    Outcome::Gone => print_name(of, &verdict)?,
                    Outcome::Kept(reason) => {
                        verdict.reasons.push(reason);
                        stays = true;
                    }
                    Outcome::Failed(fault) => {
                        say(&format!("error: {}: {fault}", verdict.state));
                        fault.hints.iter().for_each(|hint| say(&format!("hint: {hint}")));
                        failed += 1;
                        error = Some(fault.to_string());
                        first.get_or_insert(fault);
                    }
                }
            }
            if stays && !self.dry_run {
                say(&format!("note: {} is kept: {}", verdict.state, verdict.words().join(", ")));
            }
            if self.json {
                print(&json(&verdict, error))?;
            } else if self.dry_run {
                super::say(&row(&verdict));
            }
        }
        match first {
            Some(Fault { class, .. }) => {
                Err(Fault::new(class, format!("{failed} could not be removed; the messages above say why")))
            }
            None => Ok(()),
        }
    }
}

/// As it is, not escaped: somebody is to remove it. In one act, so that who reads has it at once.
fn print_name(of: Option<&str>, verdict: &Verdict) -> Result<(), Fault> {
    let of = of.map(|of| format!("{of}@")).unwrap_or_default();
    print_bytes(&[of.as_bytes(), verdict.state.name.as_slice(), b"\n"].concat())
}

fn named(name: OsString) -> Result<OsString, &'static str> {
    if name.is_empty() { Err("a name is not empty") } else { Ok(name) }
}

fn row(verdict: &Verdict) -> String {
    let says = if verdict.keep() { "keep" } else { "go" };
    let date = Utc::of(verdict.state.seconds);
    format!("{says:4}  {date}  {}  {}", verdict.state, verdict.words().join(", "))
}

fn json(verdict: &Verdict, error: Option<String>) -> String {
    let mut line = serde_json::json!({
        "name": verdict.state.to_string(), "seconds": verdict.state.seconds, "keep": verdict.keep() || error.is_some(),
        "reasons": verdict.words(),
    });
    if let (Some(error), Some(line)) = (error, line.as_object_mut()) {
        line.insert("error".to_owned(), error.into());
    }
    format!("{line}\n")
}
