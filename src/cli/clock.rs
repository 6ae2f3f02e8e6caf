//! Times as people write and read them, in the time zone of the reader: TZ, else the host's.

use anyhow::{Context, Result, bail, ensure};
use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, ZonedDateTime};
use std::sync::OnceLock;

/// The forms that [`when`] reads, for messages.
const FORMS: &str = "a date (2026-01-31), a time (14:30), both, RFC 3339, a day (today, yesterday, \
                     monday), or how long ago (2h, -2h, \"90 minutes ago\")";

/// The time zone of the reader. A TZ that names none is said once, and UTC taken.
pub(super) fn zone() -> TimeZone {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    let find = || match TimeZone::try_system() {
        Ok(zone) => zone,
        Err(_) => {
            if let Some(tz) = std::env::var_os("TZ") {
                log::warn!(
                    "TZ={tz:?}: there is no such time zone, times are read and shown in UTC"
                );
            }
            TimeZone::UTC
        }
    };
    ZONE.get_or_init(find).clone()
}

/// Now, in the time zone of the reader.
pub(super) fn now() -> ZonedDateTime {
    Timestamp::now().to_zoned_datetime(zone())
}

/// Parses the value of an option.
///
/// # Errors
/// As [`when`], in words for the command line.
pub(super) fn argument(text: &str) -> Result<Timestamp, String> {
    when(text, &now()).map_err(|e| format!("{e:#}"))
}

/// How coredumpctl prints a time.
pub(super) const LONG: &str = "%a %Y-%m-%d %H:%M:%S %Z";

/// The same where there is little room.
pub(super) const SHORT: &str = "%Y-%m-%d %H:%M:%S";

/// A record's time as coredumpctl prints it.
pub(super) fn shown(text: &str, zone: &TimeZone) -> String {
    shown_as(text, LONG, zone)
}

/// A record's time in a form of strftime(3).
pub(super) fn shown_as(text: &str, form: &str, zone: &TimeZone) -> String {
    match text.parse::<Timestamp>() {
        Ok(t) => t.to_zoned_datetime(zone.clone()).strftime(form).to_string(),
        Err(_) => text.to_owned(),
    }
}

/// Parses a point in time as systemd.time(7) and git do: RFC 3339, `@` and seconds since 1970, a
/// day with or without a time, how long ago, or a time as [`shown`] prints it.
///
/// # Errors
/// The text is none of these, or names another weekday than the date's.
pub(super) fn when(text: &str, now: &ZonedDateTime) -> Result<Timestamp> {
    let text = text.trim();
    if let Some(seconds) = text.strip_prefix('@') {
        let seconds = seconds.parse().context("expected seconds since 1970 after @")?;
        return Timestamp::from_second(seconds).context("out of range");
    }
    if let Ok(t) = text.parse::<Timestamp>() {
        return Ok(t);
    }
    if let Ok(span) = text.parse::<Span>() {
        let is_ahead = text.starts_with('+');
        let span = if span.is_negative() || is_ahead { span } else { span.negate() };
        return Ok(now.checked_add(span).context("out of range")?.timestamp());
    }
    let (local, zone) = in_zone(text, now);
    let local_now = now.with_time_zone(zone.clone());
    let words: Vec<String> = local.split_whitespace().map(str::to_lowercase).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if words == ["now"] {
        return Ok(now.timestamp());
    }
    let Some(civil) = civil(&words, &local_now)? else { bail!("expected {FORMS}") };
    Ok(civil.to_zoned_datetime(zone).context("out of range")?.timestamp())
}

/// Splits a time zone off the end: UTC, a name such as Europe/Berlin, or what the reader's is
/// called in summer or winter.
fn in_zone<'a>(text: &'a str, now: &ZonedDateTime) -> (&'a str, TimeZone) {
    let own = now.time_zone().clone();
    let Some((before, last)) = text.rsplit_once(' ') else { return (text, own) };
    let half_a_year = now.checked_sub(6.months()).unwrap_or_else(|_| now.clone());
    if [now, &half_a_year].iter().any(|t| t.strftime("%Z").to_string() == last) {
        return (before, own);
    }
    let is_name = last.contains('/') || last == "UTC";
    match TimeZone::get(last).ok().filter(|_| is_name) {
        Some(zone) => (before, zone),
        None if last == "UTC" => (before, TimeZone::UTC),
        None => (text, own),
    }
}

/// The words of a day and a time; `None` if they are something else.
fn civil(words: &[&str], now: &ZonedDateTime) -> Result<Option<DateTime>> {
    // A date, with or without a time, in one word or two.
    let whole = |words: &[&str]| words.join(" ").to_uppercase().parse::<DateTime>().ok();
    if let Some(civil) = whole(words) {
        return Ok(Some(civil));
    }
    let words = words.strip_prefix(&["last"]).unwrap_or(words);
    let Some((first, rest)) = words.split_first() else { return Ok(None) };
    if let (Some(weekday), Some(civil)) = (weekday(first), whole(rest)) {
        let is = civil.date().weekday();
        ensure!(is == weekday, "{} is not a {weekday:?}, but a {is:?}", civil.date());
        return Ok(Some(civil));
    }
    let (day, rest) = match day(first, now)? {
        Some(day) => (day, rest),
        None => (now.date(), words),
    };
    Ok(match rest {
        [] => Some(day.to_datetime(Time::midnight())),
        ["noon"] => Some(day.at(12, 0, 0, 0)),
        ["midnight"] => Some(day.to_datetime(Time::midnight())),
        [time] => time.parse::<Time>().ok().map(|time| day.to_datetime(time)),
        _ => None,
    })
}

/// The day that a word names; a weekday is the last one before today.
fn day(word: &str, now: &ZonedDateTime) -> Result<Option<Date>> {
    let today = now.date();
    Ok(Some(match word {
        "today" => today,
        "yesterday" => today.yesterday()?,
        "tomorrow" => today.tomorrow()?,
        word => match weekday(word) {
            Some(weekday) => today.nth_weekday(-1, weekday)?,
            None => return Ok(None),
        },
    }))
}

/// A weekday by its English name, or the first three letters of it.
fn weekday(word: &str) -> Option<Weekday> {
    let of = |format| strtime::parse(format, word).ok()?.weekday();
    of("%A").or_else(|| of("%a"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> ZonedDateTime {
        "2026-03-10T12:00:00+00:00[UTC]".parse().unwrap()
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("now", "2026-03-10T12:00:00Z"),
            ("today", "2026-03-10T00:00:00Z"),
            ("Today", "2026-03-10T00:00:00Z"),
            ("yesterday", "2026-03-09T00:00:00Z"),
            ("yesterday 18:00", "2026-03-09T18:00:00Z"),
            ("tomorrow", "2026-03-11T00:00:00Z"),
            ("noon", "2026-03-10T12:00:00Z"),
            ("midnight", "2026-03-10T00:00:00Z"),
            // 10 March 2026 is a Tuesday.
            ("monday", "2026-03-09T00:00:00Z"),
            ("Mon", "2026-03-09T00:00:00Z"),
            ("last friday", "2026-03-06T00:00:00Z"),
            ("tuesday", "2026-03-03T00:00:00Z"),
            ("sat 08:15", "2026-03-07T08:15:00Z"),
            ("@0", "1970-01-01T00:00:00Z"),
            ("2026-01-31", "2026-01-31T00:00:00Z"),
            ("2026-01-31 14:30", "2026-01-31T14:30:00Z"),
            ("2026-01-31t14:30", "2026-01-31T14:30:00Z"),
            ("2026-01-31T14:30:05", "2026-01-31T14:30:05Z"),
            ("2026-01-31T14:30:05+02:00", "2026-01-31T12:30:05Z"),
            ("2026-07-31 14:30 Europe/Berlin", "2026-07-31T12:30:00Z"),
            // As `list` prints it.
            ("Tue 2026-03-10 10:30:00 UTC", "2026-03-10T10:30:00Z"),
            ("08:15", "2026-03-10T08:15:00Z"),
            ("2h", "2026-03-10T10:00:00Z"),
            ("-2h", "2026-03-10T10:00:00Z"),
            ("+2h", "2026-03-10T14:00:00Z"),
            ("2h ago", "2026-03-10T10:00:00Z"),
            ("2 hours ago", "2026-03-10T10:00:00Z"),
            ("1 day 2 hours ago", "2026-03-09T10:00:00Z"),
            ("1h 30m", "2026-03-10T10:30:00Z"),
            ("2 weeks", "2026-02-24T12:00:00Z"),
            ("30d", "2026-02-08T12:00:00Z"),
        ] {
            let t = when(text, &now()).unwrap_or_else(|e| panic!("{text}: {e:#}"));
            assert_eq!(t.to_string(), expected, "{text}");
        }
        for (text, says) in [
            ("", "expected a date"),
            ("soon", "expected a date"),
            ("2026-13-01", "expected a date"),
            ("25:00", "expected a date"),
            ("monday tuesday", "expected a date"),
            ("Mon 2026-03-10", "2026-03-10 is not a Monday, but a Tuesday"),
            ("@x", "seconds since 1970"),
            ("9999999 years", "expected a date"),
        ] {
            let e = format!("{:#}", when(text, &now()).unwrap_err());
            assert!(e.contains(says), "{text:?}: {e}");
        }
    }

    /// A time zone with summer time: what it is called in the other half of the year is known too.
    #[test]
    fn the_readers_zone() {
        let now = now().with_time_zone(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap());
        for (text, expected) in [
            ("2026-01-31 12:00", "2026-01-31T11:00:00Z"),
            ("2026-01-31 12:00 CET", "2026-01-31T11:00:00Z"),
            ("2026-07-31 12:00 CEST", "2026-07-31T10:00:00Z"),
            ("2026-07-31 12:00 UTC", "2026-07-31T12:00:00Z"),
            ("today", "2026-03-09T23:00:00Z"),
        ] {
            assert_eq!(when(text, &now).unwrap().to_string(), expected, "{text}");
        }
        assert_eq!(shown("2026-03-10T10:30:00Z", now.time_zone()), "Tue 2026-03-10 11:30:00 CET");
    }
}
