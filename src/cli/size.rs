//! Sizes on command lines.

/// A number of bytes: digits, then nothing or one of K M G T (powers of 1024, either case).
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        unit => return Err(format!("unknown unit {unit}; K, M, G and T are known (powers of 1024)")),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("{text} is no size; 4096, 16K, 10G are"));
    }
    let number: u64 = digits.parse().map_err(|_| format!("{text} is no size; 4096, 16K, 10G are"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is too large"))
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, size) in [("0", 0), ("4096", 4096), ("16K", 16384), ("16k", 16384), ("3M", 3 << 20), ("2T", 2 << 40)] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for bad in ["", "K", "1.5G", "-1", "+1", "1KB", "1P", "99999999999T", "1 K"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
