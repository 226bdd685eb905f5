//! How a download is shown on stderr: a bar on a terminal, a line every ten seconds elsewhere, nothing with `--quiet`.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::download::{Observer, Searching, Snapshot, Summary};
use crate::meta::text::escape;

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Redraws of the bar a second.
const REDRAWS: u8 = 5;
/// The rate shown is that of about the last so many seconds.
const RATE_WINDOW: f64 = 3.0;

/// Shows one download.
pub(super) struct Reporter {
    bar: Option<ProgressBar>,
    quiet: bool,
    last_line: Instant,
    rate: Rate,
}

impl Reporter {
    pub(super) fn new(quiet: bool) -> Self {
        let terminal = !quiet && io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(REDRAWS);
            ProgressBar::with_draw_target(None, target).with_style(style())
        });
        Self { bar, quiet, last_line: Instant::now(), rate: Rate::new() }
    }

    /// Removes the bar; says in one line what was done.
    pub(super) fn finish(self, summary: Option<&Summary>) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let Some(summary) = summary.filter(|_| !self.quiet) else { return };
        let fetched = summary.total - summary.kept;
        let seconds = summary.elapsed.as_secs_f64();
        let rate = bytes(fetched as f64 / seconds.max(1e-6));
        let kept =
            if summary.kept > 0 { format!(", {} kept", bytes(summary.kept as f64)) } else { String::new() };
        say(format_args!("{} in {seconds:.2} s, {rate}/s{kept}, all verified", bytes(fetched as f64)));
    }

    fn show(&mut self, what: &str, done: u64, total: u64, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_prefix(format!("{what} {} / {}", bytes(done as f64), bytes(total as f64)));
            bar.set_message(detail.to_owned());
        } else if !self.quiet && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let percent = 100.0 * done as f64 / total.max(1) as f64;
            let (done, total) = (bytes(done as f64), bytes(total as f64));
            say(format_args!("{what} {percent:.1}% {done} of {total}{detail}"));
        }
    }
}

impl Observer for Reporter {
    fn searching(&mut self, searching: &Searching) {
        let peers = searching.peers;
        if let Some(bar) = &self.bar {
            bar.set_prefix(format!("asking {peers} peers for the torrent's metadata"));
        } else if !self.quiet && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            say(format_args!("asking {peers} peers for the torrent's metadata"));
        }
    }

    fn checking(&mut self, done: u64, total: u64) {
        self.show("checking", done, total, "");
    }

    fn downloading(&mut self, snapshot: &Snapshot) {
        let Snapshot { done, total, received, peers, .. } = *snapshot;
        let rate = self.rate.update(received);
        let left = total.saturating_sub(done);
        let eta = if rate > 0.0 { duration(left as f64 / rate) } else { "-".to_owned() };
        let detail = format!(", {}/s, ETA {eta}, {peers} peers", bytes(rate));
        self.show("downloading", done, total, &detail);
    }

    fn notice(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(format_args!("ringtide: {text}"))),
            None if self.quiet => {}
            None => say(format_args!("ringtide: {text}")),
        }
    }
}

/// Prints a line on stderr, fit for a terminal whoever supplied parts of it. Where that cannot be done, the download goes on unseen.
pub(super) fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{}", escape(&line.to_string()));
}

/// Bytes a second, smoothed.
struct Rate {
    at: Instant,
    received: u64,
    rate: f64,
}

impl Rate {
    fn new() -> Self {
        Self { at: Instant::now(), received: 0, rate: 0.0 }
    }

    fn update(&mut self, received: u64) -> f64 {
        let seconds = self.at.elapsed().as_secs_f64();
        if seconds >= 0.2 {
            let now = received.saturating_sub(self.received) as f64 / seconds;
            let weight = if self.rate == 0.0 { 1.0 } else { (seconds / RATE_WINDOW).min(1.0) };
            self.rate += (now - self.rate) * weight;
            (self.at, self.received) = (Instant::now(), received);
        }
        self.rate
    }
}

fn style() -> ProgressStyle {
    let template = "{percent:>3}% [{bar:25}] {prefix}{msg}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Bytes for people, in binary units.
fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 { 0 } else { 1 };
    format!("{value:.digits$} {}", UNITS[unit])
}

fn duration(seconds: f64) -> String {
    let seconds = seconds.min(360_000.0) as u64;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{:02}", seconds % 60)
    } else {
        format!("{minutes}:{:02}", seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_fit_for_people() {
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(1536.0), "1.5 KiB");
        assert_eq!(bytes(1024.0 * 1024.0 * 1024.0), "1.0 GiB");
        assert_eq!(duration(59.9), "0:59");
        assert_eq!(duration(3725.0), "1:02:05");
    }
}
