//! siphon-serve(1): lets an ssh key do exactly what it may, and nothing else.

use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use clap::Parser;
use siphon::cli::{self, Tool};
use siphon::host::command;
use siphon::state::{Allow, Class, Fault, Place, Rights};

/// Let an ssh key give exactly the commands that it may
///
/// For authorized_keys: sshd runs this instead of what the client asks for, and tells it that in SSH_ORIGINAL_COMMAND.
/// A line that is allowed is run without a shell; every other is refused.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, after_help = "Examples, in authorized_keys:
  restrict,command=\"siphon-serve --dataset tank/backup/pve1 --allow common,apply\" ssh-ed25519 AAAA… pve1
  restrict,command=\"siphon-serve --pool rbd --allow states,stream,snap --id backup\" ssh-ed25519 AAAA… nas

Try a line:
  siphon-serve --dataset tank/backup/pve1 --allow common,apply --check 'zvol-apply --mark tank/backup/pve1/vm1'")]
#[command(group = clap::ArgGroup::new("place").required(true).args(["dataset", "pool"]))]
struct Args {
    /// The dataset whose volumes and file systems the key may name
    #[arg(long)]
    dataset: Option<String>,
    /// The Ceph pool, or POOL/NAMESPACE, whose images the key may name
    #[arg(long)]
    pool: Option<String>,
    /// What the key may do: common, apply, rollback, replace, all, manifest, list, states, stream, snap, prune
    #[arg(long, value_name = "WORDS", required = true, value_delimiter = ',')]
    allow: Vec<Allow>,
    /// Ceph user, without "client.", for all that the key does
    #[arg(long, conflicts_with = "dataset")]
    id: Option<String>,
    /// Ceph configuration file, for all that the key does
    #[arg(long, value_name = "FILE", conflicts_with = "dataset")]
    conf: Option<String>,
    /// Say whether this line would be run, and do not run it
    #[arg(long, value_name = "LINE")]
    check: Option<String>,
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        self.dataset.clone().or_else(|| self.pool.clone())
    }

    fn run(self) -> Result<(), Fault> {
        let place = self.dataset.map(Place::Dataset).or(self.pool.map(Place::Pool));
        let place = place.ok_or_else(|| Fault::new(Class::Usage, "a place is needed"))?;
        place.check()?;
        let rights = Rights { place, allow: self.allow };
        if let Some(line) = self.check {
            let words = rights.parse(line.as_bytes())?;
            return cli::print(&format!("{}\n", words.join(" ")));
        }
        let line = std::env::var_os("SSH_ORIGINAL_COMMAND").map(OsStringExt::into_vec).unwrap_or_default();
        let mut words = rights.parse(&line)?.into_iter();
        let tool = words.next().unwrap_or_default();
        let ours = [("--id", self.id), ("--conf", self.conf)];
        let ours = ours.into_iter().filter_map(|(option, value)| Some([option.to_owned(), value?])).flatten();
        Err(command::become_program(&tool, ours.chain(words)))
    }
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
