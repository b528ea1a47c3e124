//! Durations, sizes and rates as people write them in files: `30s`, `4 MiB`, `15/s`.

use std::time::Duration;

/// A duration: a whole number and `ms`, `s`, `m`, `h` or `d`.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(milliseconds)?))
}

/// A duration in the form in which people write it.
pub fn in_words(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.iter().find(|(length, _)| milliseconds >= *length && milliseconds.is_multiple_of(*length)) {
        Some((length, unit)) => format!("{}{unit}", milliseconds / length),
        None => format!("{milliseconds}ms"),
    }
}

/// A share in hundredths of a per cent, at most the whole: `20%`, `0.5%`.
pub fn share(text: &str) -> Option<u32> {
    let number: rust_decimal::Decimal = text.trim().strip_suffix('%')?.trim().parse().ok()?;
    let hundredths = number.checked_mul(rust_decimal::Decimal::ONE_HUNDRED)?;
    let whole = hundredths.fract().is_zero().then(|| u32::try_from(hundredths).ok())?;
    whole.filter(|share| *share <= 10_000)
}

/// A size in bytes: a whole number and `B`, `KiB`, `MiB` or `GiB`.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes)
}

/// A rate: so many within a time: `15/s`, `100/m`, `1000/h`.
pub fn rate(text: &str) -> Option<(u32, Duration)> {
    let (count, unit) = text.split_once('/')?;
    let count = count.trim().parse().ok().filter(|count| *count > 0)?;
    Some((count, duration(&format!("1{}", unit.trim()))?))
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_sizes_and_rates_are_read_as_people_write_them() {
        assert_eq!(duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(duration("500 ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("3d").map(in_words).as_deref(), Some("3d"));
        assert_eq!(duration("90s").map(in_words).as_deref(), Some("90s"));
        assert_eq!(duration("5"), None);
        assert_eq!(duration("5 parsecs"), None);
        assert_eq!(size("4 MiB"), Some(4 << 20));
        assert_eq!(size("4MB"), None);
        assert_eq!(rate("15/s"), Some((15, Duration::from_secs(1))));
        assert_eq!(rate("0/s"), None);
    }
}
