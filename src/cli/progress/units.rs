//! Numbers for people.

use std::time::Duration;

use crate::meta::units::Bytes;

/// The longest time that is worth saying that it will take: it tells as much as none beyond.
const ETA_MAX: f64 = 99.0 * 3600.0;

/// A rate or a sum of bytes, in binary units.
pub(in crate::cli) fn bytes(bytes: f64) -> String {
    Bytes(bytes as u64).to_string()
}

/// Bytes of so many, the unit said once where it is the same.
pub(super) fn share(done: u64, total: u64) -> String {
    let ((done, of_done), (total, of_total)) = (Bytes(done).scaled(), Bytes(total).scaled());
    if of_done == of_total {
        format!("{done}/{total} {of_total}")
    } else {
        format!("{done} {of_done}/{total} {of_total}")
    }
}

/// A percentage that is 100 only when nothing is missing.
pub(super) fn percent(done: u64, total: u64) -> u64 {
    (u128::from(done.min(total)) * 100).checked_div(u128::from(total)).map_or(100, |percent| percent as u64)
}

/// The time that so many bytes take at that rate, as a clock shows it; `None` where it is not known or of no use.
pub(super) fn eta(bytes: u64, rate: f64) -> Option<String> {
    let seconds = bytes as f64 / rate;
    // Of no rate at all comes something that is no number, or none that is less.
    let is_known = rate > 0.0 && seconds <= ETA_MAX;
    is_known.then(|| clock(seconds as u64))
}

fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// A time to wait, or that was waited: seconds, or a clock's reading from two minutes on.
pub(super) fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => clock(seconds),
    }
}

/// A number of things.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_fit_for_people() {
        assert_eq!(share(1 << 20, 3 << 20), "1.0/3.0 MiB");
        assert_eq!(share(0, 3 << 20), "0 B/3.0 MiB");
        assert_eq!((percent(0, 3), percent(1, 3), percent(3, 3), percent(0, 0)), (0, 33, 100, 100));
        assert_eq!(percent(u64::MAX - 1, u64::MAX), 99);
        assert_eq!(
            (span(Duration::from_millis(3_900)), span(Duration::from_secs(150))),
            ("3 s".to_owned(), "2:30".to_owned())
        );
        assert_eq!(
            (count(1, "peer", "peers"), count(0, "peer", "peers")),
            ("1 peer".to_owned(), "0 peers".to_owned())
        );
    }

    #[test]
    fn a_time_is_told_where_it_is_known_and_of_use() {
        assert_eq!(eta(59, 1.0).as_deref(), Some("0:59"));
        assert_eq!(eta(3725, 1.0).as_deref(), Some("1:02:05"));
        assert_eq!(eta(0, 1.0).as_deref(), Some("0:00"));
        assert_eq!(eta(99 * 3600, 1.0).as_deref(), Some("99:00:00"));
        assert_eq!(eta(99 * 3600 + 1, 1.0), None);
        assert_eq!((eta(1, 0.0), eta(0, 0.0), eta(u64::MAX, f64::MIN_POSITIVE)), (None, None, None));
    }
}
