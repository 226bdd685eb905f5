//! How a download is shown on stderr: a bar on a terminal, a line every ten seconds elsewhere, nothing with `--quiet`.
//!
//! `view` makes of a state what is to be told, `line` makes of that a line no wider than the terminal, `screen` keeps
//! the line where it belongs, below all other output; `rate` and `units` are for both, `table` shows peers. All but
//! `screen` is pure. Two hundred lines do this rather than a crate for progress bars: they know nothing of what may be
//! left out where there is little room, wrap a line that is too wide, and redraw that in the wrong place after a
//! resize.

mod line;
mod rate;
mod screen;
mod table;
pub(super) mod units;
mod view;

use std::env;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use line::Line;
use rate::Rate;
pub(super) use screen::{briefly, clear, say};
use units::bytes;

use crate::download::{Observer, PeerTable, Searching, Snapshot, Summary};

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How often the bar is drawn.
const BAR_EVERY: Duration = Duration::from_millis(200);
/// For so long a download that goes on where the last one ended says so.
const RESUMING_FOR: Duration = Duration::from_secs(3);

/// A wish for a table of the peers, that a signal may express.
pub(super) type TableWish = Arc<AtomicBool>;

/// Where the state goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Style {
    Bar,
    Lines,
    Quiet,
}

/// Shows one download.
pub(super) struct Reporter {
    style: Style,
    /// When the state was shown last, or that began.
    shown_at: Instant,
    /// Bytes hashed a second.
    checking: Rate,
    /// Bytes received a second.
    receiving: Rate,
    /// When the download began.
    began: Option<Instant>,
    table: TableWish,
    table_at_end: bool,
}

impl Reporter {
    pub(super) fn new(quiet: bool) -> Self {
        let style = match (quiet, io::stderr().is_terminal() && !is_dumb()) {
            (true, _) => Style::Quiet,
            (false, true) => Style::Bar,
            (false, false) => Style::Lines,
        };
        Self {
            style,
            shown_at: Instant::now(),
            checking: Rate::default(),
            receiving: Rate::default(),
            began: None,
            table: TableWish::default(),
            table_at_end: false,
        }
    }

    /// Shows the peers at the end if `at_end`, and whenever the wish that is returned is expressed.
    pub(super) fn with_table(&mut self, at_end: bool) -> TableWish {
        self.table_at_end = at_end;
        Arc::clone(&self.table)
    }

    /// Removes the bar; says in one line what was done.
    pub(super) fn finish(self, summary: Option<&Summary>) {
        clear();
        if let Some(summary) = summary.filter(|_| self.style != Style::Quiet) {
            say(format_args!("{}", outcome(summary)));
        }
    }

    /// Shows a state if it is time to.
    fn show(&mut self, line: impl FnOnce(&mut Self, Instant) -> Line) {
        let now = Instant::now();
        let every = match self.style {
            Style::Bar => BAR_EVERY,
            Style::Lines => LINE_EVERY,
            Style::Quiet => return,
        };
        // Also where nothing is shown, so that rates are of the last seconds.
        let line = line(self, now);
        let is_first = self.style == Style::Bar && !screen::is_drawn();
        if !is_first && now.duration_since(self.shown_at) < every {
            return;
        }
        self.shown_at = now;
        self.put(&line);
    }

    fn put(&self, line: &Line) {
        match self.style {
            Style::Bar => screen::draw(|width| line.fit(width)),
            Style::Lines => {
                // Without a bar its numbers need a word.
                let verb = match line.percent {
                    None => "",
                    Some(_) if line.brief == "checking" => "checking ",
                    Some(_) => "downloading ",
                };
                say(format_args!("{verb}{}", line.plain()));
            }
            Style::Quiet => {}
        }
    }
}

impl Observer for Reporter {
    fn searching(&mut self, searching: &Searching) {
        self.show(|_, _| view::searching(searching));
    }

    fn checking(&mut self, done: u64, total: u64) {
        self.show(|this, now| view::checking(done, total, this.checking.update(now, done)));
    }

    fn downloading(&mut self, snapshot: &Snapshot) {
        self.show(|this, now| {
            let began = *this.began.get_or_insert(now);
            let rate = this.receiving.update(now, snapshot.received);
            let is_new = now.duration_since(began) < RESUMING_FOR;
            view::downloading(snapshot, rate, is_new)
        });
    }

    fn finishing(&mut self, sync: bool) {
        if sync && self.style == Style::Bar {
            self.put(&view::waiting_for_the_disk());
        }
    }

    fn notice(&mut self, text: &str) {
        if self.style != Style::Quiet {
            say(format_args!("ringtide: {text}"));
        }
    }

    fn wants_peers(&mut self, is_over: bool) -> bool {
        self.table.swap(false, Ordering::Relaxed) || (is_over && self.table_at_end)
    }

    fn peers(&mut self, table: &PeerTable) {
        table::lines(table).iter().for_each(|line| say(format_args!("{line}")));
    }
}

/// What a download has done, in one line.
fn outcome(summary: &Summary) -> String {
    let seconds = summary.elapsed.as_secs_f64();
    let fetched = summary.total.saturating_sub(summary.kept);
    if fetched == 0 && summary.total > 0 {
        let (total, checked) = (bytes(summary.total as f64), bytes(summary.checked as f64));
        return format!(
            "already complete, verified: {total}, of which {checked} were hashed in {seconds:.2} s"
        );
    }
    let rate = bytes(fetched as f64 / summary.fetching.as_secs_f64().max(1e-6));
    let kept = match summary.kept {
        0 => String::new(),
        kept => format!(", {} kept", bytes(kept as f64)),
    };
    format!("{} in {seconds:.2} s, {rate}/s{kept}, all verified", bytes(fetched as f64))
}

/// Whether the terminal can do no more than print lines.
fn is_dumb() -> bool {
    env::var_os("TERM").is_some_and(|term| term == "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_not_what_was_done() {
        let second = Duration::from_secs(1);
        let fresh =
            || Summary { total: 3 << 20, elapsed: 2 * second, fetching: second, ..Summary::default() };
        assert_eq!(outcome(&fresh()), "3.0 MiB in 2.00 s, 3.0 MiB/s, all verified");
        let resumed = Summary { kept: 1 << 20, ..fresh() };
        assert_eq!(outcome(&resumed), "2.0 MiB in 2.00 s, 2.0 MiB/s, 1.0 MiB kept, all verified");
        let complete = Summary { kept: 3 << 20, checked: 1 << 20, ..fresh() };
        let expected = "already complete, verified: 3.0 MiB, of which 1.0 MiB were hashed in 2.00 s";
        assert_eq!(outcome(&complete), expected);
    }
}
