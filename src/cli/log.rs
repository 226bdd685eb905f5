//! The log on stderr: as much as `-v` says, or what `RUST_LOG` asks for, which goes first. One line an event, fit for a
//! terminal whoever supplied parts of it.

use std::env;
use std::fmt;
use std::io::{self, Write};
use std::time::Instant;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::prelude::*;

use super::progress;
use crate::meta::text::escape;

/// Levels, and targets with levels: `debug`, `ringtide=debug,ringtide::net=trace`.
const VARIABLE: &str = "RUST_LOG";
/// The one target that there is: the name of the library.
const TARGET: &str = "ringtide";

/// Logs what the environment asks for, if it does. What makes no sense of it is said, as nothing would be logged.
pub(super) fn from_environment() {
    let Some(value) = env::var_os(VARIABLE).filter(|value| !value.is_empty()) else { return };
    match filter(&value.to_string_lossy()) {
        Some(filter) => {
            let lines = tracing_subscriber::fmt::layer().with_writer(|| AboveTheBar);
            let _ = tracing_subscriber::registry().with(lines).with(filter).try_init();
        }
        None => progress::say(format_args!(
            "ringtide: {VARIABLE} is {value:?}, expected levels (off, error, warn, info, debug, trace), alone or as in \
             {TARGET}::net=debug, with commas between them"
        )),
    }
}

/// Logs what a user asks for who gave `-v` so often: events for once, everything from twice on. What the environment
/// asks for is logged instead, if it does.
pub(super) fn at(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| AboveTheBar)
        .with_timer(SinceStart(Instant::now()))
        .with_target(false)
        .with_level(level > LevelFilter::INFO);
    let filter = Targets::new().with_target(TARGET, level);
    let _ = tracing_subscriber::registry().with(lines).with(filter).try_init();
}

/// The filter that a text stands for; `None` where something is wrong with it. A word that is no level would be taken
/// for a target of which nothing is ever logged.
fn filter(text: &str) -> Option<Targets> {
    let filter = text.parse().ok()?;
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let is_ours = |word: &str| word == TARGET || word.starts_with("ringtide::");
    let mut says_something = false;
    for directive in text.split(',') {
        let (word, has_level) =
            directive.split_once('=').map_or((directive, false), |(word, _)| (word, true));
        let is_about_us = is_ours(word) || (!has_level && is_level(word));
        if !is_about_us && !has_level {
            return None;
        }
        says_something |= is_about_us;
    }
    says_something.then_some(filter)
}

/// Seconds since the start, which tell more of a download than the time of day.
struct SinceStart(Instant);

impl FormatTime for SinceStart {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{:8.3}", self.0.elapsed().as_secs_f64())
    }
}

/// Where lines are logged: on stderr, above the bar if one is shown.
struct AboveTheBar;

impl Write for AboveTheBar {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        progress::say(format_args!("{}", shown(line)));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A whole line, without what ends it and with what is hidden in it escaped.
fn shown(line: &[u8]) -> String {
    escape(&String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line_without_hidden_characters() {
        let line = "a\u{1b}[2J\nb\u{202e}\n";
        assert_eq!(shown(line.as_bytes()), "a\\u{1b}[2J\\nb\\u{202e}");
    }

    #[test]
    fn what_would_log_nothing_is_told_from_what_is_asked_for() {
        for right in [
            "debug",
            "DEBUG",
            "0",
            "off",
            "ringtide",
            "ringtide=debug",
            "warn,ringtide::net=trace",
            "hyper=trace,info",
        ] {
            assert!(filter(right).is_some(), "{right}");
        }
        for wrong in ["debgu", "ringtide=debgu", "rintide=debug", "ringtide:net", "info,debgu", "a=b=c"] {
            assert!(filter(wrong).is_none(), "{wrong}");
        }
    }
}
