//! What `cephfs-changed` remembers from one run to the next: names that rctime says nothing of, how long it has been believed,
//! what was said meanwhile, and whether that is known to be less than all. A memory that is lost, or does not fit, costs a walk over all of the tree; what was missed
//! before that is not found any more.

use super::anchor::{Anchor, Look, Said};
use super::list::{escape, unescape};
use crate::format::{Id, Name, TreePath};

/// The first line of the file, of whatever version.
const KIND: &[u8] = b"siphon-cephfs-memory\t";
/// And of this one.
const HEAD: &str = "siphon-cephfs-memory\t3\n";

/// A line of its own.
const LACKS: &str = "lacks\n";

/// What is remembered of a directory's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The state that the run led to.
    pub state: Id,
    /// What its snapshot was called.
    pub name: Vec<u8>,
    /// Runs since the last one that walked over all of the tree.
    pub runs: u32,
    /// It was found out that the lists up to here left something out: what they were applied to lacks it.
    pub lacks: bool,
    /// The state that this one led to, and what was said since.
    pub anchor: Option<Anchor>,
    /// Names of what had several, in order. Where such a thing is changed by a name elsewhere, rctime does not move here.
    pub linked: Vec<Linked>,
}

/// One of several names of a thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Linked {
    /// The name.
    pub path: TreePath,
    /// What stood there. All names of one thing have the same.
    pub look: Look,
}

impl Memory {
    /// The snapshots that the next run needs: the one that it begins from, and the anchor's.
    pub fn needs(&self) -> Vec<&[u8]> {
        let anchor = self.anchor.as_ref().filter(|anchor| anchor.state != self.state);
        [Some(self.name.as_slice()), anchor.map(|anchor| anchor.name.as_slice())].into_iter().flatten().collect()
    }

    /// As text, sealed by its last line.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEAD}state\t{}\t{}\nruns\t{}\n", self.state, escape(&self.name), self.runs);
        text.push_str(if self.lacks { LACKS } else { "" });
        if let Some(Anchor { state, name, sum, said }) = &self.anchor {
            text.push_str(&format!("anchor\t{state}\t{}\t{sum:x}\n", escape(name)));
            for (inode, Said { first, last }) in said {
                let first = first.map_or_else(String::new, |first| format!("\t{:x}\t{:x}", first.inode, first.digest));
                text.push_str(&format!("said\t{inode:x}\t{last:x}{first}\n"));
            }
        }
        for Linked { path, look } in &self.linked {
            let Look { inode, digest } = look;
            text.push_str(&format!("linked\t{inode:x}\t{digest:x}\t{}\n", escape(&path.joined())));
        }
        let seal = blake3::hash(text.as_bytes());
        text.push_str(&format!("#end\t{}\t{seal}\n", self.linked.len()));
        text
    }

    /// It was one, perhaps of another version, or damaged: another may take its place. So may it that of nothing.
    pub fn was_one(bytes: &[u8]) -> bool {
        bytes.is_empty() || bytes.starts_with(KIND)
    }

    /// Reads it. `None`: it is damaged, or of another version.
    pub fn parse(text: &str) -> Option<Memory> {
        let mut lines = text.strip_prefix(HEAD)?.lines().peekable();
        let (state, name) = parse_state(lines.next()?.strip_prefix("state\t")?)?;
        let runs = lines.next()?.strip_prefix("runs\t")?.parse().ok()?;
        let lacks = lines.next_if(|line| *line == LACKS.trim_end()).is_some();
        let anchor = match lines.next_if(|line| line.starts_with("anchor\t")).and_then(|line| line.strip_prefix("anchor\t")) {
            Some(line) => {
                let (line, sum) = line.rsplit_once('\t')?;
                let ((state, name), sum) = (parse_state(line)?, u128::from_str_radix(sum, 16).ok()?);
                let said = std::iter::from_fn(|| lines.next_if(|line| line.starts_with("said\t")));
                Some(Anchor { state, name, sum, said: said.map(parse_said).collect::<Option<_>>()? })
            }
            None => None,
        };
        let linked = lines.map_while(|line| line.strip_prefix("linked\t")).map(parse_linked).collect::<Option<_>>()?;
        let memory = Memory { state, name, runs, lacks, anchor, linked };
        // There is one spelling of each, and the seal is part of it.
        (memory.to_text() == text).then_some(memory)
    }
}

fn parse_state(text: &str) -> Option<(Id, Vec<u8>)> {
    let (state, name) = text.split_once('\t')?;
    Some((state.parse().ok()?, unescape(name)?))
}

fn parse_said(line: &str) -> Option<(u64, Said)> {
    let numbers: Vec<u64> = line.split('\t').skip(1).map(|text| u64::from_str_radix(text, 16).ok()).collect::<Option<_>>()?;
    let (inode, last) = (*numbers.first()?, *numbers.get(1)?);
    let first = numbers.get(2).zip(numbers.get(3)).map(|(inode, digest)| Look { inode: *inode, digest: *digest });
    Some((inode, Said { first, last }))
}

fn parse_linked(text: &str) -> Option<Linked> {
    let (inode, rest) = text.split_once('\t')?;
    let (digest, path) = rest.split_once('\t')?;
    let [inode, digest] = [inode, digest].map(|number| u64::from_str_radix(number, 16).ok());
    let bytes = unescape(path)?;
    let path = TreePath::new(bytes.split(|byte| *byte == b'/').map(Name::new).collect::<Option<_>>()?)?;
    Some(Linked { path, look: Look { inode: inode?, digest: digest? } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Memory {
        let path = |names: &[&[u8]]| TreePath::new(names.iter().map(|name| Name::new(name).unwrap()).collect()).unwrap();
        let linked = [path(&[b"a", b"b\n\t%\xff"]), path(&[b"z"])];
        let linked = linked.map(|path| Linked { path, look: Look { inode: 9, digest: 0xab } }).to_vec();
        let mut anchor = Anchor::new(Id::derive("anchor", &[]), b"mon \xff".to_vec(), u128::MAX - 7);
        anchor.say(Some(Look { inode: 1, digest: u64::MAX }), Look { inode: 1 << 40, digest: 0 });
        anchor.say(None, Look { inode: 7, digest: 8 });
        Memory { state: Id::derive("t", &[]), name: b"tue".to_vec(), runs: 3, lacks: true, anchor: Some(anchor), linked }
    }

    #[test]
    fn a_memory_is_read_as_it_was_written() {
        for memory in [
            sample(),
            Memory { linked: Vec::new(), ..sample() },
            Memory { anchor: None, ..sample() },
            Memory { lacks: false, ..sample() },
        ] {
            assert_eq!(Memory::parse(&memory.to_text()), Some(memory));
        }
    }

    #[test]
    fn the_next_run_needs_the_last_state_and_the_anchor() {
        assert_eq!(sample().needs(), [&b"tue"[..], b"mon \xff"]);
        assert_eq!(Memory { anchor: None, ..sample() }.needs(), [b"tue"]);
        let all_walked_over = Anchor::new(sample().state, sample().name, 0);
        assert_eq!(Memory { anchor: Some(all_walked_over), ..sample() }.needs(), [b"tue"]);
    }

    #[test]
    fn a_memory_that_is_cut_or_bent_is_none() {
        let text = sample().to_text();
        for end in 0..text.len() {
            assert_eq!(Memory::parse(&text[..end]), None, "{end}");
        }
        for at in 0..text.len() {
            let mut bent = text.clone().into_bytes();
            bent[at] ^= 1;
            let same = String::from_utf8(bent).is_ok_and(|bent| Memory::parse(&bent).is_some());
            assert!(!same, "{at}");
        }
    }
}
