//! Times of days and weeks in the configuration: `30d`, `2 weeks`.

/// Reads a time such as "30d" or "2 weeks", in seconds. A day has 24 hours.
pub(super) fn read<'d, D: serde::Deserializer<'d>>(from: D) -> Result<Option<u64>, D::Error> {
    let text = <String as serde::Deserialize>::deserialize(from)?;
    let span = text
        .parse::<jiff::Span>()
        .ok()
        .and_then(|s| s.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok());
    let seconds = span.and_then(|d| u64::try_from(d.as_secs()).ok());
    seconds.map(Some).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "{text:?}: expected a time in weeks, days or hours, such as \"30d\""
        ))
    })
}

/// The same time as such a text.
pub(super) fn text<S: serde::Serializer>(age: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
    match *age {
        None => to.serialize_none(),
        Some(seconds) if seconds.is_multiple_of(86400) => {
            to.collect_str(&format_args!("{}d", seconds / 86400))
        }
        Some(seconds) => to.collect_str(&format_args!("{seconds}s")),
    }
}
