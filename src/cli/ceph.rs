//! How every tool that talks to a Ceph cluster is told of it.

use std::path::PathBuf;

/// What the `rbd` command calls the same.
#[derive(clap::Args, Clone, Debug)]
pub struct CephOptions {
    /// Name of the cluster, as for rbd(8) [default: ceph]
    #[arg(long)]
    pub cluster: Option<String>,
    /// Ceph's configuration file [default: $CEPH_CONF, else the usual places]
    #[arg(long, value_name = "FILE")]
    pub conf: Option<PathBuf>,
    /// Ceph user, without "client." [default: admin]
    #[arg(long, value_name = "USER")]
    pub id: Option<String>,
    /// File with the user's key [default: as configured]
    #[arg(long, value_name = "FILE")]
    pub keyring: Option<PathBuf>,
}
