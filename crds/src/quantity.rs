//! Kubernetes quantities as whole units, for rules and for arguments that take bytes.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Thousandths of the unit, which is the finest step a quantity has (finer ones are rounded up, as the
/// API server does); none when the text is no quantity or passes i128.
fn milli(text: &str) -> Option<i128> {
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (mut over, mut under) = multiplier(suffix)?;
    under = under.checked_mul(10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    over = over.checked_mul(1000)?;
    let scaled = mantissa.checked_mul(over)?;
    let rounded = scaled / under + i128::from(scaled % under != 0);
    Some(if negative { -rounded } else { rounded })
}

/// A suffix as numerator and denominator.
fn multiplier(suffix: &str) -> Option<(i128, i128)> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    if let Some(power) = BINARY.iter().position(|s| *s == suffix) {
        return Some((1i128 << (10 * (power + 1)), 1));
    }
    if let Some(power) = DECIMAL.iter().position(|s| *s == suffix) {
        return Some((1000i128.pow(u32::try_from(power).ok()? + 1), 1));
    }
    match suffix {
        "" => Some((1, 1)),
        "m" => Some((1, 1_000)),
        "u" => Some((1, 1_000_000)),
        "n" => Some((1, 1_000_000_000)),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

/// Whether the API server would take the text as a quantity.
pub fn is_valid(quantity: &Quantity) -> bool {
    milli(&quantity.0).is_some()
}

/// Whole units, rounded up; none when it is no quantity, negative or larger than u64.
pub fn units(quantity: &Quantity) -> Option<u64> {
    let milli = milli(&quantity.0)?;
    u64::try_from(milli.div_euclid(1000) + i128::from(milli.rem_euclid(1000) != 0)).ok()
}

/// The order of two quantities; none when one of them is none.
pub fn compare(a: &Quantity, b: &Quantity) -> Option<std::cmp::Ordering> {
    Some(milli(&a.0)?.cmp(&milli(&b.0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_quantity_is_read() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1", Some(1)),
            ("1Gi", Some(1 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("10G", Some(10_000_000_000)),
            ("100m", Some(1)),
            ("1e3", Some(1000)),
            ("1E3", Some(1000)),
            ("2E", Some(2_000_000_000_000_000_000)),
            ("1000e-3", Some(1)),
            (".5Ki", Some(512)),
            ("+1Ki", Some(1024)),
            ("-1Gi", None),
            ("", None),
            (".", None),
            ("1 Gi", None),
            ("1gi", None),
            ("1KB", None),
            ("--1", None),
            ("1e999", None),
        ] {
            assert_eq!(units(&Quantity(text.into())), expected, "{text:?}");
        }
    }

    #[test]
    fn quantities_compare_by_value_and_not_by_text() {
        let compare = |a: &str, b: &str| compare(&Quantity(a.into()), &Quantity(b.into()));
        assert_eq!(compare("1Gi", "1024Mi"), Some(std::cmp::Ordering::Equal));
        assert_eq!(compare("9Gi", "10Gi"), Some(std::cmp::Ordering::Less));
        assert_eq!(compare("1G", "1Gi"), Some(std::cmp::Ordering::Less));
        assert_eq!(compare("x", "1"), None);
    }
}
