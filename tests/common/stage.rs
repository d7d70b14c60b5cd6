//! A place for one of our scripts to run in, with programs in place of those that it calls.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A directory, which the programs in it find as $STAGE. What they are to do and what they did are files there.
pub struct Stage {
    dir: TempDir,
}

impl Stage {
    /// With these programs, by their names and texts.
    pub fn of(programs: &[(&str, &str)]) -> Stage {
        let stage = Stage { dir: TempDir::new().unwrap() };
        for dir in ["bin", "home"] {
            fs::create_dir(stage.path(dir)).unwrap();
        }
        for (name, text) in programs {
            fs::write(stage.path("bin").join(name), text).unwrap();
            fs::set_permissions(stage.path("bin").join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        stage
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn put(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// What the NAS is called. Another one for each stage: root's locks are the system's.
    pub fn host(&self) -> String {
        self.dir.path().file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// A script of scripts/.
    pub fn command(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(script));
        command.args(arguments).env("STAGE", self.dir.path()).env("HOME", self.path("home")).env_remove("SIPHON_SSH");
        command.env("XDG_CACHE_HOME", self.path("home")).env("XDG_STATE_HOME", self.path("home"));
        let path = format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", self.path("bin").display());
        command.env("PATH", path).stdin(Stdio::null());
        command
    }

    /// What the programs were called with.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The record: every line is JSON.
    pub fn record(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("record")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

pub fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
