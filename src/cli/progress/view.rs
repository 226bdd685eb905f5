//! What is to be told of a state.

use std::time::Duration;

use super::line::Line;
use super::units::{bytes, count, eta, percent, share, span};
use crate::download::{Searching, Snapshot, Sources, Wait};

/// A pause is told from so long on.
const PAUSE_MIN: Duration = Duration::from_secs(3);

/// The search for what a magnet link stands for.
pub(super) fn searching(searching: &Searching) -> Line {
    let Searching { peers, metadata, sources, wait } = *searching;
    let who = count(peers, "peer", "peers");
    let (status, brief) = match metadata {
        Some((done, total)) => {
            let percent = percent(done, total);
            (format!("fetching metadata from {who}, {percent}%"), format!("metadata {percent}%"))
        }
        None if peers > 0 => (format!("asking {who} for metadata"), format!("asking {who}")),
        None => (asking(sources), "looking for peers".to_owned()),
    };
    let end = (wait.lasted >= PAUSE_MIN).then(|| end_of(wait));
    Line { status, brief, eta: end, ..Line::default() }
}

/// The check of what was there before.
pub(super) fn checking(done: u64, total: u64, rate: f64) -> Line {
    Line {
        percent: Some(percent(done, total)),
        share: Some(share(done, total)),
        status: format!("checking, {}/s", bytes(rate)),
        brief: "checking".to_owned(),
        eta: eta(total.saturating_sub(done), rate).map(|eta| format!("ETA {eta}")),
        peers: None,
    }
}

/// The download, of which so many bytes a second come. One that `is_new` and has something already says so.
pub(super) fn downloading(snapshot: &Snapshot, rate: f64, is_new: bool) -> Line {
    let Snapshot { done, total, kept, peers, sending, .. } = *snapshot;
    let line = Line {
        percent: Some(percent(done, total)),
        share: Some(share(done, total)),
        peers: (peers > 0).then(|| format!("{sending} of {} sending", count(peers, "peer", "peers"))),
        ..Line::default()
    };
    let is_flowing = peers > 0 && (sending > 0 || snapshot.wait.lasted < PAUSE_MIN);
    if done >= total {
        Line { status: "complete".to_owned(), brief: "complete".to_owned(), ..line }
    } else if is_new && kept > 0 {
        let status = format!("resuming at {}%", percent(kept, total));
        Line { brief: "resuming".to_owned(), status, ..line }
    } else if is_flowing {
        let brief = format!("{}/s", bytes(rate));
        let status = if snapshot.is_endgame { format!("{brief}, last pieces") } else { brief.clone() };
        let eta = eta(total - done, rate).map(|eta| format!("ETA {eta}"));
        Line { status, brief, eta, ..line }
    } else {
        let (status, brief) = pause(snapshot);
        Line { status, brief, ..line }
    }
}

/// Why nothing comes, and what ends the wait.
fn pause(snapshot: &Snapshot) -> (String, String) {
    let Snapshot { received, peers, sources, wait, .. } = *snapshot;
    let end = end_of(wait);
    let lasted = span(wait.lasted);
    match (peers, received) {
        (0, 0) if wait.lasted < PAUSE_MIN => (asking(sources), "looking for peers".to_owned()),
        (0, 0) => (format!("{}, {end}", asking(sources)), format!("no peers, {end}")),
        (0, _) => (format!("no peers for {lasted}, {end}"), format!("no peers {lasted}")),
        _ => (format!("stalled {lasted}, {end}"), format!("stalled {lasted}")),
    }
}

/// All is verified, and the disk has yet to take it.
pub(super) fn waiting_for_the_disk() -> Line {
    let status = "waiting for the disk".to_owned();
    Line { percent: Some(100), brief: status.clone(), status, ..Line::default() }
}

/// What ends a wait.
fn end_of(wait: Wait) -> String {
    wait.left().map_or_else(|| "waiting for ever".to_owned(), |left| format!("giving up in {}", span(left)))
}

/// Who is asked for peers.
fn asking(sources: Sources) -> String {
    let trackers = (sources.trackers > 0).then(|| count(sources.trackers, "tracker", "trackers"));
    let dht = sources.dht.then(|| "the DHT".to_owned());
    let lsd = sources.lsd.then(|| "the local network".to_owned());
    match &[trackers, dht, lsd].into_iter().flatten().collect::<Vec<_>>()[..] {
        [] => "waiting for peers".to_owned(),
        [one] => format!("asking {one} for peers"),
        [first @ .., last] => format!("asking {} and {last} for peers", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: Sources = Sources { trackers: 3, dht: true, lsd: false };

    fn wait(lasted: u64, limit: Option<u64>) -> Wait {
        Wait { lasted: Duration::from_secs(lasted), limit: limit.map(Duration::from_secs) }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            done: 37 << 20,
            total: 100 << 20,
            kept: 0,
            received: 37 << 20,
            peers: 4,
            sending: 1,
            is_endgame: false,
            sources: SOURCES,
            wait: wait(0, Some(60)),
        }
    }

    fn shown(snapshot: Snapshot, rate: f64, is_new: bool) -> String {
        downloading(&snapshot, rate, is_new).plain()
    }

    #[test]
    fn a_stall_is_told_from_progress() {
        let running = snapshot();
        let expected = "37%, 37.0/100.0 MiB, 1.0 MiB/s, ETA 1:03, 1 of 4 peers sending";
        assert_eq!(shown(running, 1048576.0, false), expected);
        let endgame = Snapshot { is_endgame: true, ..running };
        let expected = "37%, 37.0/100.0 MiB, 1.0 MiB/s, last pieces, ETA 1:03, 1 of 4 peers sending";
        assert_eq!(shown(endgame, 1048576.0, false), expected);
        let stalled = Snapshot { sending: 0, wait: wait(35, Some(60)), ..running };
        let expected = "37%, 37.0/100.0 MiB, stalled 35 s, giving up in 25 s, 0 of 4 peers sending";
        assert_eq!(shown(stalled, 0.0, false), expected);
        assert_eq!(downloading(&stalled, 0.0, false).fit(40), " 37% stalled 35 s, giving up in 25 s");
        let patient = Snapshot { peers: 1, wait: wait(3000, None), ..stalled };
        let expected = "37%, 37.0/100.0 MiB, stalled 50:00, waiting for ever, 0 of 1 peer sending";
        assert_eq!(shown(patient, 0.0, false), expected);
        let alone = Snapshot { peers: 0, sending: 0, wait: wait(12, Some(60)), ..running };
        assert_eq!(shown(alone, 0.0, false), "37%, 37.0/100.0 MiB, no peers for 12 s, giving up in 48 s");
    }

    #[test]
    fn a_beginning_says_what_it_waits_for() {
        let start = Snapshot { done: 0, received: 0, peers: 0, sending: 0, ..snapshot() };
        assert_eq!(shown(start, 0.0, true), "0%, 0 B/100.0 MiB, asking 3 trackers and the DHT for peers");
        let later = Snapshot { wait: wait(12, Some(20)), ..start };
        let expected = "0%, 0 B/100.0 MiB, asking 3 trackers and the DHT for peers, giving up in 8 s";
        assert_eq!(shown(later, 0.0, false), expected);
        assert_eq!(downloading(&later, 0.0, false).fit(40), "  0% no peers, giving up in 8 s");
        let resumed = Snapshot { kept: 37 << 20, done: 37 << 20, ..start };
        assert_eq!(shown(resumed, 0.0, true), "37%, 37.0/100.0 MiB, resuming at 37%");
        let slow = Snapshot { done: 1, peers: 1, sending: 1, ..start };
        assert_eq!(shown(slow, 1.0, false), "0%, 1 B/100.0 MiB, 1 B/s, 1 of 1 peer sending");
    }

    #[test]
    fn a_search_names_its_sources_and_its_end() {
        let show =
            |peers, metadata, wait| searching(&Searching { peers, metadata, sources: SOURCES, wait }).plain();
        assert_eq!(show(0, None, wait(0, Some(20))), "asking 3 trackers and the DHT for peers");
        let expected = "asking 3 trackers and the DHT for peers, giving up in 13 s";
        assert_eq!(show(0, None, wait(7, Some(20))), expected);
        assert_eq!(show(1, None, wait(0, Some(20))), "asking 1 peer for metadata");
        assert_eq!(show(4, Some((37, 100)), wait(0, None)), "fetching metadata from 4 peers, 37%");
        let all = Sources { trackers: 1, dht: true, lsd: true };
        assert_eq!(asking(all), "asking 1 tracker, the DHT and the local network for peers");
        assert_eq!(asking(Sources::default()), "waiting for peers");
    }

    #[test]
    fn a_check_tells_how_fast_it_is() {
        let line = checking(1 << 30, 3 << 30, 1e9);
        assert_eq!(line.plain(), "33%, 1.0/3.0 GiB, checking, 953.7 MiB/s, ETA 0:02");
        assert_eq!(waiting_for_the_disk().fit(40), "100% [===========] waiting for the disk");
    }
}
