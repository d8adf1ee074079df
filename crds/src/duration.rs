//! Durations as people write them: hours, minutes and seconds, like `90s`, `5m` or `1h30m`.

/// The pattern of what [`seconds`] reads, but for the empty text.
pub const PATTERN: &str = "^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$";
const DIGITS_MAX: usize = 5;

/// Whole seconds; none when the text is no such duration.
pub fn seconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = None;
    for (unit, worth) in [('h', 3600), ('m', 60), ('s', 1)] {
        let Some((digits, after)) = rest.split_once(unit) else {
            continue;
        };
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        if !is_number || digits.len() > DIGITS_MAX {
            return None;
        }
        sum = Some(sum.unwrap_or(0) + digits.parse::<u64>().ok()? * worth);
        rest = after;
    }
    sum.filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_minutes_and_seconds_are_read_in_this_order_and_nothing_else_is() {
        for (text, expected) in [
            ("10s", Some(10)),
            ("5m", Some(300)),
            ("1h30m", Some(5400)),
            ("1h0m1s", Some(3601)),
            ("24h", Some(86_400)),
            ("99999s", Some(99_999)),
            ("100000s", None),
            ("", None),
            ("5", None),
            ("m", None),
            ("-5m", None),
            ("5m1h", None),
            ("1s1s", None),
            ("1.5h", None),
            ("500ms", None),
            (" 5m", None),
        ] {
            assert_eq!(seconds(text), expected, "{text:?}");
        }
    }
}
