//! What a torrent says of itself that nothing depends on: who made it, when, and what for.

use super::bencode::{self, Limits, Value};

/// The remarks in a `.torrent` file, as strangers wrote them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct About {
    /// Free text.
    pub comment: Option<String>,
    /// The program that made it.
    pub created_by: Option<String>,
    /// When it was made, in seconds since 1970.
    pub created: Option<i64>,
}

impl About {
    /// Reads the remarks of a torrent. There are none where something is wrong with it, or of another kind than it
    /// should be.
    pub fn parse(bytes: &[u8]) -> Self {
        let Ok((document, _)) = bencode::parse_prefix(bytes, Limits::METAINFO) else {
            return Self::default();
        };
        let root = document.root();
        let text = |key| {
            let bytes = root.get(key).and_then(Value::as_bytes)?;
            (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned())
        };
        Self {
            comment: text("comment.utf-8").or_else(|| text("comment")),
            created_by: text("created by"),
            created: root.get("creation date").and_then(Value::as_i64).filter(|&date| date > 0),
        }
    }
}

/// A point in time, in seconds since 1970, as `2026-11-29 12:34:56 UTC`.
pub fn date(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years begin with March here, so that the leap day is the last one of a year; an era has 400 of them.
    let day = days.saturating_add(719_468);
    let (era, day_of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year_of_era + next_year;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day_of_month:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_are_read_where_they_are_right() {
        let about = About::parse(b"d7:comment3:a\xffb10:created by1:x13:creation datei1700000000ee");
        assert_eq!(about.comment.as_deref(), Some("a\u{fffd}b"));
        assert_eq!(about.created_by.as_deref(), Some("x"));
        assert_eq!(about.created, Some(1_700_000_000));
        for none in [&b"de"[..], b"d7:commenti1e10:created by0:13:creation date1:xe", b"i1e", b"nonsense"] {
            assert_eq!(About::parse(none), About::default(), "{}", none.escape_ascii());
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_700_000_000, "2023-11-14 22:13:20 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(date(seconds), expected);
        }
        // The ends are no years, but must not panic.
        assert!(date(i64::MAX).ends_with("UTC") && date(i64::MIN).ends_with("UTC"));
    }
}
