//! The events of `--json=events`: how a download goes, as a line of JSON each on stdout, before the object of its
//! result. `docs/json.md` has the keys.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::args::Json;
use super::json::line;
use super::progress::{Reporter, TableWish};
use crate::download::{Observer, PeerTable, Searching, Snapshot, Summary, Wait};

/// Events of one kind are at least so far apart, but for notices, which are all told.
const EVERY: Duration = Duration::from_secs(1);

/// Shows a download to people, and tells scripts of it where they asked.
pub(super) struct Narrator {
    reporter: Reporter,
    /// Whether events are told.
    is_telling: bool,
    started: Instant,
    /// The kind of the last event, and when it was told.
    last: Option<(&'static str, Instant)>,
}

impl Narrator {
    pub(super) fn new(quiet: bool, json: Option<Json>) -> Self {
        let is_telling = json == Some(Json::Events);
        Self { reporter: Reporter::new(quiet), is_telling, started: Instant::now(), last: None }
    }

    /// See [`Reporter::with_table`].
    pub(super) fn with_table(&mut self, at_end: bool) -> TableWish {
        self.reporter.with_table(at_end)
    }

    /// Ends what is shown.
    pub(super) fn finish(self, summary: Option<&Summary>) {
        self.reporter.finish(summary);
    }

    /// Tells of progress, unless the same was told a moment ago.
    fn progress(&mut self, kind: &'static str, values: impl FnOnce() -> Value) {
        let is_recent = |&(last, at): &(&str, Instant)| last == kind && at.elapsed() < EVERY;
        if self.is_telling && !self.last.as_ref().is_some_and(is_recent) {
            self.last = Some((kind, Instant::now()));
            self.tell(kind, values());
        }
    }

    fn tell(&mut self, kind: &str, mut values: Value) {
        values["event"] = kind.into();
        values["seconds"] = self.started.elapsed().as_secs_f64().into();
        let mut stdout = io::stdout().lock();
        let told = stdout.write_all(line(&values).as_bytes()).and_then(|()| stdout.flush());
        // Who does not listen any more hears nothing more; the download goes on.
        self.is_telling &= told.is_ok();
    }
}

impl Observer for Narrator {
    fn searching(&mut self, searching: &Searching) {
        self.progress("metadata", || {
            let (done, total) = searching.metadata.unzip();
            with_wait(json!({ "peers": searching.peers, "bytes_done": done, "bytes": total }), searching.wait)
        });
        self.reporter.searching(searching);
    }

    fn checking(&mut self, done: u64, total: u64) {
        self.progress("checking", || json!({ "bytes_done": done, "bytes": total }));
        self.reporter.checking(done, total);
    }

    fn downloading(&mut self, snapshot: &Snapshot) {
        self.progress("downloading", || {
            let told = json!({
                "bytes_verified": snapshot.done,
                "bytes": snapshot.total,
                "bytes_kept": snapshot.kept,
                "bytes_received": snapshot.received,
                "peers": snapshot.peers,
                "peers_sending": snapshot.sending,
                "endgame": snapshot.is_endgame,
            });
            with_wait(told, snapshot.wait)
        });
        self.reporter.downloading(snapshot);
    }

    fn notice(&mut self, text: &str) {
        if self.is_telling {
            self.tell("notice", json!({ "message": text }));
        }
        self.reporter.notice(text);
    }

    fn finishing(&mut self, sync: bool) {
        self.progress("finishing", || json!({ "sync": sync }));
        self.reporter.finishing(sync);
    }

    fn wants_peers(&mut self, is_over: bool) -> bool {
        self.reporter.wants_peers(is_over)
    }

    fn peers(&mut self, table: &PeerTable) {
        self.reporter.peers(table);
    }
}

/// The same, and how long nothing has come, and when it is given up.
fn with_wait(mut values: Value, wait: Wait) -> Value {
    values["waited_seconds"] = wait.lasted.as_secs_f64().into();
    values["gives_up_after_seconds"] = wait.limit.map(|limit| limit.as_secs_f64()).into();
    values
}
