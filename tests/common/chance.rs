//! Numbers that look random.

/// Its seed is printed; SIPHON_SEED=n is the same once more.
pub struct Chance(u64);

impl Chance {
    pub fn new() -> Chance {
        let seed = std::env::var("SIPHON_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 7919 + 1);
        println!("SIPHON_SEED={seed}");
        Chance::with(seed)
    }

    pub fn with(seed: u64) -> Chance {
        Chance(seed | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}
