//! From what librbd reports to what is read: pure arithmetic.

/// A difference as librbd reports it. Offset and length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Raw {
    pub offset: u64,
    pub len: u64,
    /// Something is there; else it was removed.
    pub exists: bool,
}

/// A range to be read, or one that is known to read as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub offset: u64,
    pub end: u64,
    pub zero: bool,
}

impl Extent {
    /// What of it lies in a range.
    pub fn within(self, (start, end): (u64, u64)) -> Option<Extent> {
        let cut = Extent { offset: self.offset.max(start), end: self.end.min(end), ..self };
        (cut.offset < cut.end).then_some(cut)
    }
}

/// Changed parts of an image in multiples of the stripe period, merged and cut into pieces of bounded size.
pub(super) struct Ranges {
    /// A multiple of the stripe period that pieces are cut at.
    piece: u64,
    period: u64,
    size: u64,
    pending: Option<(u64, u64)>,
}

impl Ranges {
    /// For an image of `size` bytes; pieces have about `piece` bytes, one period at least.
    pub fn new(size: u64, period: u64, piece: u64) -> Ranges {
        Ranges { piece: (piece / period).max(1).saturating_mul(period), period, size, pending: None }
    }

    /// Something changed here: the piece that is complete now, if one is.
    ///
    /// Whatever lies in one stripe period is rounded to all of it: old versions of librbd report the changed objects of a
    /// striped image at wrong places in their period.
    pub fn add(&mut self, offset: u64, len: u64) -> Vec<(u64, u64)> {
        let mut start = offset - offset % self.period;
        let end = offset.saturating_add(len).div_ceil(self.period).saturating_mul(self.period).min(self.size);
        let mut done = Vec::new();
        match &mut self.pending {
            Some((_, last)) if start <= *last => *last = end.max(*last),
            pending => {
                done.extend(pending.take());
                if start < end {
                    *pending = Some((start, end));
                }
            }
        }
        while let Some((first, last)) = &mut self.pending
            && let cut = (*first - *first % self.piece).saturating_add(self.piece)
            && *last > cut
        {
            start = std::mem::replace(first, cut);
            done.push((start, cut));
        }
        done
    }

    /// The piece of the whole image that begins at `start`, wherever changes are; `None` at its end.
    pub fn piece_at(&self, start: u64) -> Option<(u64, u64)> {
        (start < self.size).then(|| (start, start.saturating_add(self.piece).min(self.size)))
    }

    /// The last piece.
    pub fn finish(self) -> Option<(u64, u64)> {
        self.pending
    }
}

/// Brings differences to the grain and joins them.
pub(super) struct Shape {
    /// Every extent begins at a multiple of it and ends at one or at the image's end.
    pub grain: u64,
    /// Of the to-state.
    pub size: u64,
    /// Below this a parent may show through where an object was removed, so it is read.
    pub overlap: u64,
}

impl Shape {
    /// The extents of one piece of the image, `from..to`, both multiples of the stripe period or the image's end.
    ///
    /// `None` when two differences overlap: librbd never says so, and what it would mean is unknown.
    pub fn extents(&self, mut raws: Vec<Raw>, from: u64, to: u64) -> Option<Vec<Extent>> {
        raws.sort_unstable();
        if raws.windows(2).any(|pair| matches!(pair, [a, b] if a.offset.saturating_add(a.len) > b.offset)) {
            return None;
        }
        let mut out = Vec::with_capacity(raws.len());
        // Rounding outwards never leaves the piece: its own bounds are multiples of the grain.
        let (from, to) = (self.floor(from), self.ceil(to));
        for raw in raws {
            let (start, end) = (raw.offset.max(from), raw.offset.saturating_add(raw.len).min(to).min(self.size));
            if start >= end {
                continue;
            }
            let zero_start = self.ceil(start.max(self.overlap));
            let zero_end = if end == self.size { end } else { self.floor(end) };
            if raw.exists || zero_start >= zero_end {
                push(&mut out, Extent { offset: self.floor(start), end: self.ceil(end), zero: false });
                continue;
            }
            // Whole grains are zero; the ragged edges stand in grains whose rest may hold anything.
            push(&mut out, Extent { offset: self.floor(start), end: zero_start, zero: false });
            push(&mut out, Extent { offset: zero_start, end: zero_end, zero: true });
            push(&mut out, Extent { offset: zero_end, end: self.ceil(end), zero: false });
        }
        Some(out)
    }

    fn floor(&self, offset: u64) -> u64 {
        offset - offset % self.grain
    }

    fn ceil(&self, offset: u64) -> u64 {
        offset.div_ceil(self.grain).saturating_mul(self.grain).min(self.size)
    }
}

/// Appends, joining what touches. Only data meets data in one grain: zeros were rounded inwards.
fn push(out: &mut Vec<Extent>, extent: Extent) {
    if extent.offset >= extent.end {
        return;
    }
    match out.last_mut() {
        Some(last) if last.zero == extent.zero && extent.offset <= last.end => last.end = last.end.max(extent.end),
        _ => out.push(extent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_whole_periods_in_bounded_pieces() {
        let mut ranges = Ranges::new(100, 10, 30);
        assert_eq!(ranges.add(12, 3), vec![]);
        assert_eq!(ranges.add(18, 4), vec![]);
        assert_eq!(ranges.add(30, 1), vec![(10, 30)]);
        assert_eq!(ranges.add(95, 5), vec![(30, 40)]);
        assert_eq!(ranges.finish(), Some((90, 100)));
        let mut all = Ranges::new(95, 10, 30);
        assert_eq!((all.piece_at(0), all.piece_at(90), all.piece_at(95)), (Some((0, 30)), Some((90, 95)), None));
        assert_eq!(all.add(0, 95), vec![(0, 30), (30, 60), (60, 90)]);
        assert_eq!(all.finish(), Some((90, 95)));
        assert_eq!(Ranges::new(0, 10, 30).add(0, 0), vec![]);
    }

    #[test]
    fn overlapping_differences_are_refused() {
        let shape = Shape { grain: 4, size: 64, overlap: 0 };
        let raw = |offset, len| Raw { offset, len, exists: true };
        assert_eq!(shape.extents(vec![raw(0, 5), raw(4, 1)], 0, 64), None);
        assert!(shape.extents(vec![raw(4, 1), raw(0, 4)], 0, 64).is_some());
    }

    proptest! {
        /// Against a map of bytes: each reported byte is in an extent, extents ascend at the grain, and a zero extent holds
        /// nothing but removed bytes above the overlap.
        #[test]
        fn extents_cover_what_was_reported(
            parts in prop::collection::vec((0_u64..40, 1_u64..40, any::<bool>()), 0..20),
            size in 1_u64..600,
            overlap in 0_u64..300,
            shuffle in any::<bool>(),
        ) {
            let shape = Shape { grain: 16, size, overlap };
            let mut raws = Vec::new();
            let mut at = 0;
            for (gap, len, exists) in parts {
                raws.push(Raw { offset: at + gap, len, exists });
                at += gap + len;
            }
            let reported = raws.clone();
            if shuffle { raws.reverse(); }
            let extents = shape.extents(raws, 0, size).unwrap();
            for pair in extents.windows(2) {
                prop_assert!(pair[0].end <= pair[1].offset);
                prop_assert!(pair[0].end < pair[1].offset || pair[0].zero != pair[1].zero);
            }
            for extent in &extents {
                prop_assert!(extent.offset < extent.end && extent.end <= size);
                prop_assert!(extent.offset % 16 == 0 && (extent.end % 16 == 0 || extent.end == size));
            }
            for byte in 0..size {
                let said = reported.iter().find(|raw| (raw.offset..raw.offset + raw.len).contains(&byte));
                let sent = extents.iter().find(|extent| (extent.offset..extent.end).contains(&byte));
                if said.is_some() { prop_assert!(sent.is_some()); }
                if sent.is_some_and(|extent| extent.zero) {
                    prop_assert!(said.is_some_and(|raw| !raw.exists) && byte >= overlap);
                }
            }
        }
    }
}
