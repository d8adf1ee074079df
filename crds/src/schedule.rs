//! When backups run: five fields of cron in a time zone, and what is due of them.

use cronexpr::Crontab;
use jiff::{SignedDuration, Timestamp};

/// The pattern of five fields, for the API server; what the fields may be is [`Schedule::parse`]'s to say.
pub const PATTERN: &str = "^[0-9A-Za-z*,/#-]+( [0-9A-Za-z*,/#-]+){4}$";
/// The pattern of a time zone's name.
pub const ZONE_PATTERN: &str = "^[A-Za-z][A-Za-z0-9_+/-]*$";

/// Times, in order and without end. A local time that the clocks skip is left out that day, one that they
/// repeat comes twice.
#[derive(Clone, Debug)]
pub struct Schedule(Crontab);

/// Why it is none: whether it is the zone's fault, and the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub is_zone: bool,
    pub words: String,
}

impl Schedule {
    pub fn parse(fields: &str, zone: &str) -> Result<Self, Malformed> {
        let parse = |zone: &str| cronexpr::parse_crontab(&format!("{fields} {zone}"));
        let words = |error: cronexpr::Error| {
            let text = error.to_string();
            text.lines().last().unwrap_or_default().trim().to_owned()
        };
        parse("UTC").map_err(|error| Malformed {
            is_zone: false,
            words: words(error),
        })?;
        let parsed = parse(zone).map_err(|_| Malformed {
            is_zone: true,
            words: format!("{zone} is no time zone of the IANA database"),
        })?;
        Ok(Self(parsed))
    }

    /// The first time after this one; none when there is none within four years.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.0.find_next(after).ok().map(|next| next.timestamp())
    }

    /// The last time after `since` and not after `now`: however many there were, they are one.
    pub fn last_between(&self, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let mut window = SignedDuration::from_hours(1);
        // Back from now, twice as far each time: of a long outage only the end is walked through.
        loop {
            let from = now
                .checked_sub(window)
                .map_or(since, |from| from.max(since));
            let times = std::iter::successors(self.next_after(from), |time| self.next_after(*time));
            if let Some(last) = times.take_while(|time| *time <= now).last() {
                return Some(last);
            }
            if from == since {
                return None;
            }
            window = window.saturating_mul(2);
        }
    }
}

/// Whether the text has the shape of five fields.
pub fn is_shaped(fields: &str) -> bool {
    let is_field = |field: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "*,/#-".contains(c);
        !field.is_empty() && field.chars().all(fits)
    };
    fields.split(' ').count() == 5 && fields.split(' ').all(is_field)
}

/// Whether the text has the shape of a time zone's name.
pub fn is_zone_shaped(zone: &str) -> bool {
    zone.starts_with(|c: char| c.is_ascii_alphabetic())
        && zone
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_+/-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_schedule_is_five_fields_in_a_zone_that_is_there() {
        for (fields, zone, expected) in [
            ("0 3 * * *", "UTC", None),
            ("*/5 0-6 1,15 JAN-JUN mon", "Europe/Berlin", None),
            ("0 3 L * *", "America/New_York", None),
            ("60 3 * * *", "UTC", Some(false)),
            ("0 3 * *", "UTC", Some(false)),
            ("0 3 * * * *", "UTC", Some(false)),
            ("0 3 * * MOON", "UTC", Some(false)),
            ("H 3 * * *", "UTC", Some(false)),
            ("0 3 * * *", "Mars/Base", Some(true)),
        ] {
            let parsed = Schedule::parse(fields, zone).err();
            let refused = parsed.as_ref().map(|refused| refused.is_zone);
            assert_eq!(refused, expected, "{fields} {zone}: {parsed:?}");
        }
    }

    #[test]
    fn of_what_was_missed_only_the_last_counts() {
        let rows = [
            // fields, zone, since, now, last
            (
                "0 3 * * *",
                "UTC",
                "2026-03-01T03:00:00Z",
                "2026-03-02T02:59:59Z",
                None,
            ),
            (
                "0 3 * * *",
                "UTC",
                "2026-03-01T03:00:00Z",
                "2026-03-02T03:00:00Z",
                Some("2026-03-02T03:00:00Z"),
            ),
            (
                "0 3 * * *",
                "UTC",
                "2026-03-01T03:00:00Z",
                "2026-03-09T12:00:00Z",
                Some("2026-03-09T03:00:00Z"),
            ),
            (
                "* * * * *",
                "UTC",
                "2020-01-01T00:00:00Z",
                "2026-03-09T12:00:30Z",
                Some("2026-03-09T12:00:00Z"),
            ),
            (
                "0 0 1 1 *",
                "UTC",
                "2024-06-01T00:00:00Z",
                "2026-03-09T12:00:00Z",
                Some("2026-01-01T00:00:00Z"),
            ),
            (
                "0 0 30 2 *",
                "UTC",
                "2024-06-01T00:00:00Z",
                "2026-03-09T12:00:00Z",
                None,
            ),
            // Three in the morning is an hour earlier in UTC once summer time has begun.
            (
                "0 3 * * *",
                "Europe/Berlin",
                "2026-03-28T02:00:00Z",
                "2026-03-29T01:00:00Z",
                Some("2026-03-29T01:00:00Z"),
            ),
            // The clocks skip half past two that day.
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-03-28T01:30:00Z",
                "2026-03-29T23:59:00Z",
                None,
            ),
            // A clock that was set back.
            (
                "* * * * *",
                "UTC",
                "2026-03-09T12:00:00Z",
                "2026-03-09T11:00:00Z",
                None,
            ),
        ];
        for (fields, zone, since, now, expected) in rows {
            let schedule = Schedule::parse(fields, zone).unwrap();
            let last = schedule.last_between(at(since), at(now));
            assert_eq!(
                last,
                expected.map(at),
                "{fields} {zone} from {since} to {now}"
            );
        }
    }
}
