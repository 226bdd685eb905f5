//! Announces to the trackers of one torrent for as long as a download lasts, from threads of its own.
//!
//! One thread decides; every request has a short-lived thread, of which [`REQUESTS_MAX`] may be busy. Requests always
//! end by themselves, so nobody waits for a thread: a program that exits leaves them where they are.
//!
//! One tracker of each tier is asked at the start. One that answers is enough, as long as what it says is of use. One
//! that names nobody makes room for the next of its tier, and where the peers of all come to nothing
//! ([`Announcer::request_more`]) those are asked that were not: no tracker hides the others, whether it means to or
//! not. Who has answered hears again when its interval is over.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};
use std::{error, fmt};

use super::ask::{Tracker, TrackerError};
use super::lookup;
use super::rounds::{Named, Round, Tiers, TrackerIndex};
use super::tracker::{Announce, Event, HostPeer, Reply, Scrape, Totals};
use super::url::Host;
use crate::os::limits;

/// Requests under way at a time. A torrent that names more trackers than that, all of them silent, has the rest wait
/// for the first to time out.
pub const REQUESTS_MAX: usize = 64;
/// Of how many descriptors that the process may have one is for a request. Attempts at further addresses of a host are
/// counted apart, see `http::race`.
const DESCRIPTORS_SHARE: usize = 8;

/// Bytes of the stack of a thread that asks one tracker, with TLS.
const STACK_LEN: usize = 512 * 1024;

/// Warnings of one tracker that the user is told.
const WARNINGS_PER_TRACKER_MAX: usize = 3;

/// Warnings of all trackers that the user is told.
const WARNINGS_MAX: usize = 100;

/// How long the names of peers are looked up for [`announce_once`].
const HOSTS_PATIENCE: Duration = Duration::from_secs(2);

/// How often [`announce_once`] looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The times that announcing goes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// How long one request may take. Who has nobody else to ask hears of a silent tracker after this.
    pub request: Duration,
    /// How long one tracker is waited for before the next of its tier is asked as well; shorter when several are
    /// silent.
    pub patience: Duration,
    /// The wait after every tracker has failed; doubled each time that happens again.
    pub retry_min: Duration,
    /// What the doubling ends at.
    pub retry_max: Duration,
    /// The soonest that [`Announcer::request_more`] asks again, where the tracker's `min interval` is not longer.
    pub more_min: Duration,
    /// The soonest that [`Announcer::request_more`] asks the other trackers, once one has named peers.
    pub others: Duration,
    /// How long [`Announcer::finish`] may take.
    pub finish: Duration,
    /// How long [`announce_once`] may take.
    pub once: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(20),
            patience: Duration::from_millis(500),
            retry_min: Duration::from_secs(10),
            retry_max: Duration::from_secs(10 * 60),
            more_min: Duration::from_secs(30),
            others: Duration::from_secs(5),
            finish: Duration::from_millis(700),
            once: Duration::from_secs(12),
        }
    }
}

/// What to announce, and to whom.
#[derive(Clone, Debug)]
pub struct AnnounceConfig {
    /// The `announce-list` (BEP 12), or the one `announce` URL in a tier of its own.
    pub tiers: Vec<Vec<String>>,
    /// Names the torrent.
    pub info_hash: [u8; 20],
    /// Names this run.
    pub peer_id: [u8; 20],
    /// Where this client listens, or would.
    pub port: u16,
    /// Lets a tracker know this client again from another address.
    pub key: u32,
    /// Decides the order of trackers inside a tier.
    pub seed: u64,
    /// When to do what.
    pub timing: Timing,
}

impl AnnounceConfig {
    fn announce(&self, totals: Totals, event: Option<Event>, tracker_id: Option<Vec<u8>>) -> Announce {
        let Self { info_hash, peer_id, port, key, .. } = *self;
        Announce { info_hash, peer_id, port, key, totals, event, tracker_id }
    }
}

/// What happened. URLs are those of the torrent, without the secrets in them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AnnounceEvent {
    /// A tracker has answered, perhaps with nobody.
    Peers {
        /// The tracker.
        url: String,
        /// The peers in its order; this client and duplicates may be among them.
        peers: Vec<SocketAddr>,
    },
    /// A tracker has answered, and gives names for some peers. To look them up takes its time.
    Hosts {
        /// The tracker.
        url: String,
        /// The names.
        hosts: Vec<HostPeer>,
    },
    /// A tracker has answered and wants the user to know something that it has not said before.
    Warning {
        /// The tracker.
        url: String,
        /// Its words, fit for a terminal.
        text: String,
    },
    /// A tracker has failed; others may work. One that cannot be asked at all is reported once, when no other works.
    Failed {
        /// The tracker.
        url: String,
        /// Why.
        error: TrackerError,
    },
    /// All trackers have failed.
    Exhausted {
        /// When they are asked again; `None` where there is none that can be asked.
        retry_in: Option<Duration>,
    },
}

/// Says how much has been moved so far; called from other threads, before each request.
pub type TotalsFn = dyn Fn() -> Totals + Send + Sync;

/// Takes what happened; called from the announcer's thread, which waits for it.
pub type EventsFn = dyn Fn(AnnounceEvent) + Send;

/// A running announcer. Dropping it ends the announces without telling the trackers; see [`Announcer::finish`].
#[derive(Debug)]
pub struct Announcer {
    inputs: Sender<Input>,
    finish: Duration,
}

impl Announcer {
    /// Starts announcing at once.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        config: AnnounceConfig,
        totals: Arc<TotalsFn>,
        events: Box<EventsFn>,
    ) -> std::io::Result<Self> {
        let (inputs, queue) = mpsc::channel();
        let finish = config.timing.finish;
        let coordinator = Coordinator::new(config, totals, events, inputs.clone());
        thread::Builder::new().name("announcer".to_owned()).spawn(move || coordinator.run(&queue))?;
        Ok(Self { inputs, finish })
    }

    /// Asks for peers before the next regular announce: each tracker as soon as it allows.
    pub fn request_more(&self) {
        // The announcer's thread lives for as long as `self`.
        let _ = self.inputs.send(Input::More);
    }

    /// Tells the trackers that may have heard of this run that it is over, and before that, when `completed`, those
    /// that have answered that the last missing piece has come in during it. Does not wait: the farewell does.
    pub fn finish(self, completed: bool) -> Farewell {
        let (done, all_done) = mpsc::channel();
        let end = Instant::now() + self.finish;
        // The announcer's thread lives for as long as `self`.
        let _ = self.inputs.send(Input::Finish { completed, done });
        Farewell { all_done, end }
    }
}

/// Farewells on their way to the trackers.
#[derive(Debug)]
pub struct Farewell {
    all_done: Receiver<Infallible>,
    end: Instant,
}

impl Farewell {
    /// Waits for the trackers' answers, but not past [`Timing::finish`] from [`Announcer::finish`] on.
    pub fn wait(self) {
        // Nothing is ever sent: the wait ends when the last farewell drops its sender.
        let _ = self.all_done.recv_timeout(self.end.saturating_duration_since(Instant::now()));
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        let _ = self.inputs.send(Input::Quit);
    }
}

/// A sender that only lives to be dropped.
type Done = Sender<Infallible>;

enum Input {
    Answer { tracker: TrackerIndex, answer: Result<Reply, TrackerError> },
    More,
    Finish { completed: bool, done: Done },
    Quit,
}

/// What is known of a tracker beside its URL.
#[derive(Clone, Default)]
struct Contact {
    is_busy: bool,
    /// It has answered, so it knows of this client.
    has_answered: bool,
    tracker_id: Option<Vec<u8>>,
    /// The soonest that it is asked again.
    not_before: Option<Instant>,
    /// When it is to hear again in any case.
    regular_at: Option<Instant>,
}

impl Contact {
    fn is_due(&self, now: Instant) -> bool {
        self.regular_at.is_some_and(|at| at <= now)
    }

    fn can_be_asked(&self, now: Instant) -> bool {
        !self.is_busy && (self.is_due(now) || self.not_before.is_none_or(|at| at <= now))
    }
}

struct Coordinator {
    config: AnnounceConfig,
    tiers: Tiers,
    contacts: Vec<Contact>,
    totals: Arc<TotalsFn>,
    events: Box<EventsFn>,
    inputs: Sender<Input>,
    /// The round under way.
    round: Option<Round>,
    /// Whether that one leaves out no tracker for having been asked before.
    is_whole: bool,
    /// Whether somebody has answered in it.
    is_answered: bool,
    /// When the next round starts; `None` means never.
    next_round_at: Option<Instant>,
    /// Whether it is to ask all that allow it, not only those that it is time for.
    is_more_wanted: bool,
    lost_rounds: u32,
    /// What trackers have warned of.
    warnings: HashSet<(TrackerIndex, String)>,
}

impl Coordinator {
    fn new(
        config: AnnounceConfig,
        totals: Arc<TotalsFn>,
        events: Box<EventsFn>,
        inputs: Sender<Input>,
    ) -> Self {
        let tiers = Tiers::new(&config.tiers, config.seed);
        let contacts = vec![Contact::default(); tiers.trackers().len()];
        let now = Instant::now();
        Self {
            config,
            tiers,
            contacts,
            totals,
            events,
            inputs,
            round: None,
            is_whole: true,
            is_answered: false,
            next_round_at: Some(now),
            is_more_wanted: false,
            lost_rounds: 0,
            warnings: HashSet::new(),
        }
    }

    fn run(mut self, queue: &Receiver<Input>) {
        loop {
            self.advance(Instant::now());
            let input = match self.wake_at() {
                Some(at) => queue.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => queue.recv().map_err(RecvTimeoutError::from),
            };
            match input {
                Ok(Input::Answer { tracker, answer }) => self.on_answer(tracker, answer),
                Ok(Input::More) => self.on_more(),
                Ok(Input::Finish { completed, done }) => return self.say_farewell(completed, &done),
                Ok(Input::Quit) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Does what is due.
    fn advance(&mut self, now: Instant) {
        if self.round.is_none() && self.next_round_at.is_some_and(|at| at <= now) {
            self.start_round(now);
        }
        while self.can_ask()
            && let Some(tracker) = self.round.as_mut().and_then(|round| round.next(now))
        {
            self.ask(tracker);
        }
        if self.round.as_ref().is_some_and(Round::is_lost) {
            if self.is_answered { self.end_round(now) } else { self.on_lost_round(now) }
        }
    }

    fn start_round(&mut self, now: Instant) {
        let is_more_wanted = std::mem::take(&mut self.is_more_wanted);
        let contacts = &self.contacts;
        let is_served = |tier: &[TrackerIndex]| {
            let later = |at: Instant| at > now;
            !is_more_wanted && tier.iter().any(|&tracker| contacts[tracker].regular_at.is_some_and(later))
        };
        let candidates = |tier: &[TrackerIndex]| {
            // A tier with a tracker that works needs no other until it is that one's turn again.
            let is_served = is_served(tier);
            let is_candidate = |&tracker: &TrackerIndex| {
                let contact = &contacts[tracker];
                contact.can_be_asked(now) && (!is_served || contact.is_due(now))
            };
            tier.iter().copied().filter(is_candidate).collect::<Vec<_>>()
        };
        let tiers: Vec<_> = self.tiers.tiers().map(candidates).collect();
        let asked =
            tiers.iter().flatten().count() + contacts.iter().filter(|contact| contact.is_busy).count();
        self.is_whole = asked == self.tiers.order().count();
        self.round = Some(Round::new(tiers.into_iter(), self.config.timing.patience, now));
        self.is_answered = false;
    }

    /// Somebody has answered, and nobody else is asked until the next regular announce, unless the peers are of no use.
    fn end_round(&mut self, now: Instant) {
        self.round = None;
        self.lost_rounds = 0;
        self.next_round_at = self.regular_at();
        self.put_off(now + self.config.timing.others, now);
    }

    /// When the next regular announce is due.
    fn regular_at(&self) -> Option<Instant> {
        self.contacts.iter().filter_map(|contact| contact.regular_at).min()
    }

    /// Who could be asked now is not asked before then.
    fn put_off(&mut self, at: Instant, now: Instant) {
        for contact in self.contacts.iter_mut().filter(|contact| contact.can_be_asked(now)) {
            contact.not_before = Some(at);
        }
    }

    fn can_ask(&self) -> bool {
        self.contacts.iter().filter(|contact| contact.is_busy).count() < requests_max()
    }

    fn wake_at(&self) -> Option<Instant> {
        match &self.round {
            // A full house is left by an answer, which wakes anyway.
            Some(round) => round.wake_at().filter(|_| self.can_ask()),
            None => self.next_round_at,
        }
    }

    fn ask(&mut self, tracker: TrackerIndex) {
        let Ok(named) = self.tiers.trackers()[tracker].tracker.clone() else { return };
        let contact = &mut self.contacts[tracker];
        contact.is_busy = true;
        contact.regular_at = None;
        let event = (!contact.has_answered).then_some(Event::Started);
        let request = self.config.announce((self.totals)(), event, contact.tracker_id.clone());
        let (timeout, inputs) = (self.config.timing.request, self.inputs.clone());
        let ask = move || {
            let answer = named.announce(&request, timeout);
            // Nobody hears it when the announcer has ended.
            let _ = inputs.send(Input::Answer { tracker, answer });
        };
        if !spawn(ask) {
            let _ = self.inputs.send(Input::Answer { tracker, answer: Err(TrackerError::NoThread) });
        }
    }

    fn on_answer(&mut self, tracker: TrackerIndex, answer: Result<Reply, TrackerError>) {
        let url = self.tiers.trackers()[tracker].shown.clone();
        let contact = &mut self.contacts[tracker];
        contact.is_busy = false;
        let reply = match answer {
            Ok(reply) => reply,
            Err(error) => {
                if let Some(round) = &mut self.round {
                    round.on_useless(tracker);
                }
                return (self.events)(AnnounceEvent::Failed { url, error });
            }
        };
        contact.has_answered = true;
        // A tracker that sends no new id goes by the old one.
        contact.tracker_id = reply.tracker_id.or(contact.tracker_id.take());
        let now = Instant::now();
        let interval_min = reply.interval_min.unwrap_or_default();
        let regular_at = now + reply.interval.max(interval_min);
        contact.regular_at = Some(regular_at);
        contact.not_before = Some(regular_at.min(now + self.config.timing.more_min.max(interval_min)));
        self.tiers.promote(tracker);
        if let Some(round) = &mut self.round {
            self.is_answered = true;
            if reply.peers.is_empty() && reply.hosts.is_empty() {
                round.on_useless(tracker);
            } else {
                self.end_round(now);
            }
        } else {
            self.next_round_at = Some(self.next_round_at.map_or(regular_at, |at| at.min(regular_at)));
        }
        if let Some(text) = reply.warning.filter(|text| self.is_new_warning(tracker, text)) {
            (self.events)(AnnounceEvent::Warning { url: url.clone(), text });
        }
        if !reply.hosts.is_empty() {
            (self.events)(AnnounceEvent::Hosts { url: url.clone(), hosts: reply.hosts });
        }
        (self.events)(AnnounceEvent::Peers { url, peers: reply.peers });
    }

    /// Whether the user has not heard this yet. A tracker with ever new words is not listened to for ever.
    fn is_new_warning(&mut self, tracker: TrackerIndex, text: &str) -> bool {
        let of_tracker = self.warnings.iter().filter(|(known, _)| *known == tracker).count();
        of_tracker < WARNINGS_PER_TRACKER_MAX
            && self.warnings.len() < WARNINGS_MAX
            && self.warnings.insert((tracker, text.to_owned()))
    }

    fn on_lost_round(&mut self, now: Instant) {
        let Timing { retry_min, retry_max, .. } = self.config.timing;
        if self.lost_rounds == 0 {
            for tracker in self.tiers.trackers() {
                if let Err(error) = &tracker.tracker {
                    let error = TrackerError::Url(error.clone());
                    (self.events)(AnnounceEvent::Failed { url: tracker.shown.clone(), error });
                }
            }
        }
        let is_hopeless = self.tiers.order().next().is_none();
        let wait = retry_min.saturating_mul(1 << self.lost_rounds.min(16)).min(retry_max);
        let retry_at = self.regular_at().map_or(now + wait, |at| at.min(now + wait));
        self.lost_rounds = self.lost_rounds.saturating_add(1);
        self.round = None;
        self.next_round_at = (!is_hopeless).then_some(retry_at);
        self.put_off(now + wait, now);
        if self.is_whole {
            let retry_in = self.next_round_at.map(|at| at - now);
            (self.events)(AnnounceEvent::Exhausted { retry_in });
        }
    }

    fn on_more(&mut self) {
        let idle =
            self.tiers.order().map(|tracker| &self.contacts[tracker]).filter(|contact| !contact.is_busy);
        // Who was never put off is part of a round under way.
        if let Some(soonest) = idle.filter_map(|contact| contact.not_before).min() {
            self.next_round_at = self.next_round_at.map(|at| at.min(soonest));
            self.is_more_wanted |= self.round.is_none();
        }
    }

    /// Sends the last announces and returns without waiting for them.
    fn say_farewell(&self, completed: bool, done: &Done) {
        let totals = (self.totals)();
        let timeout = self.config.timing.finish;
        for tracker in self.tiers.order().filter(|&tracker| self.may_know_us(tracker)).take(requests_max()) {
            let Ok(named) = self.tiers.trackers()[tracker].tracker.clone() else { continue };
            let Contact { has_answered, tracker_id, .. } = &self.contacts[tracker];
            let completed = (completed && *has_answered).then_some(Event::Completed);
            let requests: Vec<Announce> = (completed.into_iter().chain([Event::Stopped]))
                .map(|event| self.config.announce(totals, Some(event), tracker_id.clone()))
                .collect();
            say(named, requests, timeout, done.clone());
        }
    }

    fn may_know_us(&self, tracker: TrackerIndex) -> bool {
        self.contacts[tracker].has_answered || is_told(&self.tiers.trackers()[tracker])
    }
}

/// Whether an announce may have reached a tracker and was not taken back.
fn is_told(named: &Named) -> bool {
    named.tracker.as_ref().is_ok_and(|tracker| tracker.may_know_us())
}

/// Says last words to a tracker, from a thread of its own.
fn say(tracker: Arc<Tracker>, requests: Vec<Announce>, timeout: Duration, done: Done) {
    spawn(move || {
        for request in &requests {
            // The run is over: there is nobody left to tell of a failure.
            let _ = tracker.announce(request, timeout);
        }
        drop(done);
    });
}

/// Requests under way at a time, where descriptors may be few.
fn requests_max() -> usize {
    descriptors_max().min(REQUESTS_MAX)
}

/// Descriptors that requests may take.
fn descriptors_max() -> usize {
    (limits::descriptors() / DESCRIPTORS_SHARE).max(1)
}

/// Runs `job` on a thread of its own; `false` when the system gives none.
fn spawn(job: impl FnOnce() + Send + 'static) -> bool {
    thread::Builder::new().name("tracker".to_owned()).stack_size(STACK_LEN).spawn(job).is_ok()
}

/// The answer to [`announce_once`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OnceReply {
    /// The tracker that answered.
    pub url: String,
    /// What it said.
    pub reply: Reply,
}

/// Why no tracker has answered: one reason each, in the order in which they failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllFailed {
    /// The trackers' URLs with what was wrong. Empty where the torrent has no tracker.
    pub failures: Vec<(String, TrackerError)>,
}

impl fmt::Display for AllFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.failures.is_empty() {
            return f.write_str("the torrent names no tracker");
        }
        f.write_str("no tracker has answered")?;
        for (place, (url, error)) in self.failures.iter().enumerate() {
            write!(f, "{} {url}: {error}", if place == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl error::Error for AllFailed {}

/// What came of [`announce_once`].
#[derive(Debug)]
pub struct Once {
    /// The answer.
    pub answer: Result<OnceReply, AllFailed>,
    /// To be waited for at the end: the trackers that may have heard of this client are told that it is gone.
    pub farewell: Farewell,
}

/// Asks the trackers for peers once and waits for the first answer that names any, at most [`Timing::once`] and not
/// longer than `is_over` says. Where none does, it is the first answer.
///
/// No event is sent at first, so a tracker does not expect to hear again. What lists this client itself is left out of
/// the answer: who announces under a port that is rare is told by it from all others.
pub fn announce_once(config: &AnnounceConfig, totals: Totals, is_over: &dyn Fn() -> bool) -> Once {
    let tiers = Tiers::new(&config.tiers, config.seed);
    let mut answer = ask_once(config, totals, &tiers, is_over);
    let (done, all_done) = mpsc::channel();
    for named in tiers.trackers().iter().filter(|named| is_told(named)).take(requests_max()) {
        let Ok(tracker) = named.tracker.clone() else { continue };
        let request = config.announce(totals, Some(Event::Stopped), None);
        say(tracker, vec![request], config.timing.finish, done.clone());
    }
    let farewell = Farewell { all_done, end: Instant::now() + config.timing.finish };
    if let Ok(OnceReply { reply, .. }) = &mut answer {
        look_up_hosts(reply);
        reply.peers.retain(|peer| peer.port() != config.port);
    }
    Once { answer, farewell }
}

/// Puts the addresses of peers that come with a name to their places in the list.
fn look_up_hosts(reply: &mut Reply) {
    let end = Instant::now() + HOSTS_PATIENCE;
    let hosts = std::mem::take(&mut reply.hosts);
    let (found, queue) = mpsc::channel();
    for (number, HostPeer { name, port, .. }) in hosts.iter().cloned().enumerate() {
        let found = found.clone();
        spawn(move || {
            // Nobody hears it after the deadline.
            let _ = found.send((number, lookup::addresses(&Host::Name(name), port, end)));
        });
    }
    drop(found);
    let mut addrs: Vec<(usize, SocketAddr)> = Vec::new();
    while let Ok((number, answer)) = queue.recv_timeout(end.saturating_duration_since(Instant::now())) {
        match answer {
            Ok(answer) => addrs.extend(answer.first().map(|&addr| (number, addr))),
            Err(error) => tracing::debug!("{}: {error}", hosts[number].name),
        }
    }
    addrs.sort_unstable_by_key(|&(number, _)| number);
    // From the end, so that the places before stay what they are.
    for (number, addr) in addrs.into_iter().rev() {
        reply.peers.insert(hosts[number].place.min(reply.peers.len()), addr);
    }
}

fn ask_once(
    config: &AnnounceConfig,
    totals: Totals,
    tiers: &Tiers,
    is_over: &dyn Fn() -> bool,
) -> Result<OnceReply, AllFailed> {
    let request = Arc::new(config.announce(totals, None, None));
    let (answers, queue) = mpsc::channel();
    let timeout = config.timing.once;
    let end = Instant::now() + timeout;
    let lanes = tiers.tiers().map(<[_]>::to_vec);
    let mut round = Round::new(lanes, config.timing.patience, Instant::now());
    let mut failures = Vec::new();
    let mut nobody = None;
    let text = |tracker: TrackerIndex| tiers.trackers()[tracker].shown.clone();
    while !round.is_lost() && Instant::now() < end && !is_over() {
        let now = Instant::now();
        while round.silent().count() < requests_max()
            && let Some(tracker) = round.next(now)
        {
            let Ok(named) = tiers.trackers()[tracker].tracker.clone() else { continue };
            let (request, own_answers) = (Arc::clone(&request), answers.clone());
            let left = end.saturating_duration_since(now);
            let ask = move || drop(own_answers.send((tracker, named.announce(&request, left))));
            if !spawn(ask) {
                let _ = answers.send((tracker, Err(TrackerError::NoThread)));
            }
        }
        let wake_at = round.wake_at().filter(|_| round.silent().count() < requests_max()).unwrap_or(end);
        let wait = wake_at.min(end).saturating_duration_since(Instant::now()).min(LOOK_EVERY);
        match queue.recv_timeout(wait) {
            Ok((tracker, Ok(reply))) => {
                round.on_useless(tracker);
                let names_somebody = !reply.peers.is_empty() || !reply.hosts.is_empty();
                let reply = OnceReply { url: text(tracker), reply };
                if names_somebody {
                    return Ok(reply);
                }
                nobody.get_or_insert(reply);
            }
            Ok((tracker, Err(error))) => {
                round.on_useless(tracker);
                failures.push((text(tracker), error));
            }
            Err(_) => {}
        }
    }
    if let Some(reply) = nobody {
        return Ok(reply);
    }
    failures
        .extend(round.silent().map(|tracker| (text(tracker), silence(&tiers.trackers()[tracker], timeout))));
    let unusable =
        |named: &Named| Some((named.shown.clone(), TrackerError::Url(named.tracker.as_ref().err()?.clone())));
    failures.extend(tiers.trackers().iter().filter_map(unusable));
    Err(AllFailed { failures })
}

fn silence(named: &Named, timeout: Duration) -> TrackerError {
    match &named.tracker {
        Ok(tracker) => tracker.silence(timeout),
        Err(error) => TrackerError::Url(error.clone()),
    }
}

/// Asks every tracker for the counts of the torrent, all at once as far as there are descriptors, and tells each answer
/// as soon as it is there; those that are silent for [`Timing::once`] last. Says nothing of this client to anybody.
pub fn scrape_all(config: &AnnounceConfig, mut on_answer: impl FnMut(&str, Result<Scrape, TrackerError>)) {
    let tiers = Tiers::new(&config.tiers, config.seed);
    let (answers, queue) = mpsc::channel();
    let (timeout, info_hash) = (config.timing.once, config.info_hash);
    let end = Instant::now() + timeout;
    let mut to_ask = VecDeque::new();
    for (index, named) in tiers.trackers().iter().enumerate() {
        match &named.tracker {
            Ok(tracker) => to_ask.push_back((index, Arc::<Tracker>::clone(tracker))),
            Err(error) => on_answer(&named.shown, Err(TrackerError::Url(error.clone()))),
        }
    }
    let mut waiting = Vec::new();
    loop {
        while waiting.len() < descriptors_max()
            && let Some((index, tracker)) = to_ask.pop_front()
        {
            waiting.push(index);
            let (own_answers, left) = (answers.clone(), end.saturating_duration_since(Instant::now()));
            let ask = move || drop(own_answers.send((index, tracker.scrape(info_hash, left))));
            if !spawn(ask) {
                let _ = answers.send((index, Err(TrackerError::NoThread)));
            }
        }
        if waiting.is_empty() {
            return;
        }
        let Ok((index, answer)) = queue.recv_timeout(end.saturating_duration_since(Instant::now())) else {
            break;
        };
        waiting.retain(|&waits| waits != index);
        on_answer(&tiers.trackers()[index].shown, answer);
    }
    for index in waiting.into_iter().chain(to_ask.into_iter().map(|(index, _)| index)) {
        let named = &tiers.trackers()[index];
        on_answer(&named.shown, Err(silence(named, timeout)));
    }
}
