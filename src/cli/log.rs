//! The log on stderr: what `RUST_LOG` asks for, one line an event, fit for a terminal whoever supplied parts of it.

use std::env;
use std::io::{self, Write};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::meta::text::escape;

/// Logs what `RUST_LOG` asks for: levels, and targets with levels (`debug`, `ringtide=debug,ringtide::net=trace`).
pub(super) fn to_stderr() {
    let Some(filter) = env::var("RUST_LOG").ok().and_then(|filter| filter.parse::<Targets>().ok()) else {
        return;
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(|| Escaping(io::stderr()));
    tracing_subscriber::registry().with(lines).with(filter).init();
}

/// A writer of whole lines that escapes what is hidden in them.
struct Escaping<W>(W);

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line));
        self.0.write_all(format!("{}\n", escape(&text)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line_without_hidden_characters() {
        let mut out = Vec::new();
        Escaping(&mut out).write_all("a\u{1b}[2J\nb\u{202e}\n".as_bytes()).unwrap();
        assert_eq!(out, b"a\\u{1b}[2J\\nb\\u{202e}\n");
    }
}
