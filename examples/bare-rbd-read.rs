//! The floor under `rbd-diff-stream`: librbd's own cost of reading a snapshot whole, with the same reads in flight.
//!
//! Used by `scripts/bench`: what `rbd-diff-stream` takes above this is our own code. Reads what the object maps say is
//! there and throws it away; nothing is checked, hashed, searched for zeros or written.
//!
//! usage: bare-rbd-read POOL/IMAGE@SNAP [JOBS]

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;

use siphon::format::{self, wire};
use siphon::host::ceph::{Access, Cluster, DiffRange, Image, Pool, Reading, Spec};
use siphon::source::DEFAULT_JOBS;
use siphon::state::{Class, Fault};

/// As the source's window: bytes in flight for each read that may be.
const BYTES_PER_JOB: usize = 256 << 10;

fn read(spec: &Spec, jobs: usize) -> Result<u64, Fault> {
    let cluster = Cluster::connect(&Access::default())?;
    let pool = Pool::open(&cluster, &spec.pool, &spec.namespace)?;
    let image = Image::open(&pool, &spec.image)?;
    let name = spec.snapshot.clone().unwrap_or_default();
    let found = image.snapshots()?.into_iter().find(|snapshot| snapshot.name.as_bytes() == name.as_bytes());
    let snapshot = found.ok_or_else(|| Fault::new(Class::NotFound, "no such snapshot"))?;
    let image = Arc::new(image.at(snapshot.id)?);
    let mut extents = Vec::new();
    let range = DiffRange { from: None, offset: 0, len: snapshot.size, whole_objects: true };
    let _ = image.diff(range, |offset, len, _| {
        extents.push((offset, offset.saturating_add(len)));
        ControlFlow::Continue(())
    })?;

    let buffers = format::Pool::new(usize::try_from(wire::CUT).unwrap_or(usize::MAX));
    let budget = jobs.saturating_mul(BYTES_PER_JOB);
    let (mut under_way, mut bytes, mut total) = (VecDeque::new(), 0_usize, 0_u64);
    for (mut at, end) in extents {
        while at < end {
            let len = usize::try_from((end - at).min(wire::CUT)).unwrap_or(usize::MAX);
            while under_way.len() >= jobs || !under_way.is_empty() && bytes.saturating_add(len) > budget {
                let Some(oldest): Option<Reading> = under_way.pop_front() else { break };
                bytes = bytes.saturating_sub(oldest.size());
                total = total.saturating_add(oldest.wait()?.len() as u64);
            }
            under_way.push_back(Reading::start(&image, at, buffers.take(len))?);
            bytes = bytes.saturating_add(len);
            at = at.saturating_add(len as u64);
        }
    }
    for oldest in under_way {
        total = total.saturating_add(oldest.wait()?.len() as u64);
    }
    Ok(total)
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let spec = words.next().and_then(|word| word.parse::<Spec>().ok());
    let jobs = words.next().and_then(|word| word.parse().ok()).unwrap_or(DEFAULT_JOBS);
    let Some(spec) = spec else {
        eprintln!("usage: bare-rbd-read POOL/IMAGE@SNAP [JOBS]");
        return ExitCode::from(2);
    };
    match read(&spec, jobs) {
        Ok(total) => {
            eprintln!("{total} bytes");
            ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("bare-rbd-read: {spec}: {fault}");
            ExitCode::FAILURE
        }
    }
}
