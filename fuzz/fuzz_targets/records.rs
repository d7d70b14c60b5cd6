//! Marks, runs and receipts: no panic; and what is accepted is written and read back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siphon::state::{Mark, Receipt, Run};

fuzz_target!(|data: &[u8]| {
    if let Ok(receipt) = Receipt::parse(data) {
        assert_eq!(Receipt::parse(receipt.to_line().as_bytes()).expect("its own line"), receipt);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(mark) = Mark::parse(text) {
        assert_eq!(Mark::parse(&mark.to_text()), Some(mark));
    }
    if let Some(run) = Run::parse(text) {
        assert_eq!(Run::parse(&run.to_text()), Some(run));
    }
});
