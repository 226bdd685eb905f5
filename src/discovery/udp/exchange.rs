//! One request to one tracker: a connection id, then the answer under it. Pure: `now` and a seed come in.

use std::time::{Duration, Instant};

use super::packet::{Answer, Ask, Family, encode_ask, encode_connect, parse, parse_connect};
use crate::discovery::rounds::Random;
use crate::discovery::tracker::ReplyError;

/// How long a connection id may be used (BEP 15).
pub const CONNECTION_LIFETIME: Duration = Duration::from_secs(60);

/// The wait before a datagram is sent again; doubled each time.
///
/// BEP 15 begins with 15 s, which is nearly all the time that a request has here: one lost datagram would be a dead
/// tracker. A TCP connection tries again after 1 s at first; a tracker has less to do than one, and what it hears twice
/// does no harm. With the doubling a silent one gets six datagrams in 20 s.
pub const RESEND_FIRST: Duration = Duration::from_millis(500);

/// What a tracker gives to who can hear it at the address he claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection {
    id: u64,
    since: Instant,
}

impl Connection {
    /// A connection id that came at that time.
    pub const fn new(id: u64, since: Instant) -> Self {
        Self { id, since }
    }

    /// Whether it may still be used.
    pub fn is_alive(self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < CONNECTION_LIFETIME
    }
}

/// A request from its first datagram to its answer.
///
/// The caller sends what [`Exchange::send`] gives, hands in what comes before [`Exchange::wake_at`], and asks again at
/// that time; it decides when to give up. Late answers to a datagram that was sent twice count, as both are the same.
#[derive(Debug)]
pub struct Exchange<'a> {
    ask: Ask<'a>,
    family: Family,
    random: Random,
    connection: Option<Connection>,
    /// Whether the connection is from an earlier request; the tracker may have forgotten it since.
    is_remembered: bool,
    transaction: u32,
    send_at: Instant,
    /// What `send_at` moves by when it is reached.
    wait: Duration,
}

impl<'a> Exchange<'a> {
    /// A request that is due at once. A `known` connection is used for one datagram; when no answer comes to that, or a
    /// refusal, a new one is asked for.
    pub fn new(ask: Ask<'a>, family: Family, known: Option<Connection>, seed: u64, now: Instant) -> Self {
        let mut random = Random(seed);
        let connection = known.filter(|connection| connection.is_alive(now));
        let transaction = random.next() as u32;
        let is_remembered = connection.is_some();
        let wait = RESEND_FIRST;
        Self { ask, family, random, connection, is_remembered, transaction, send_at: now, wait }
    }

    /// The datagram that is due, if any; it counts as sent.
    pub fn send(&mut self, now: Instant) -> Option<Vec<u8>> {
        if now < self.send_at {
            return None;
        }
        let is_first = self.wait == RESEND_FIRST;
        if self.connection.is_some_and(|known| !known.is_alive(now) || (self.is_remembered && !is_first)) {
            self.begin(None, now);
        }
        self.send_at = now + self.wait;
        self.wait = self.wait.saturating_mul(2);
        Some(match self.connection {
            Some(connection) => encode_ask(self.ask, connection.id, self.transaction),
            None => encode_connect(self.transaction),
        })
    }

    /// When [`Exchange::send`] has something to say again.
    pub const fn wake_at(&self) -> Instant {
        self.send_at
    }

    /// Takes a datagram from the tracker's address. `None` as long as the answer is not there.
    pub fn on_datagram(&mut self, datagram: &[u8], now: Instant) -> Option<Result<Answer, ReplyError>> {
        if self.connection.is_none() {
            match parse_connect(datagram, self.transaction)? {
                Ok(id) => self.begin(Some(Connection::new(id, now)), now),
                Err(error) => return Some(Err(error)),
            }
            return None;
        }
        let answer = parse(datagram, self.ask, self.transaction, self.family)?;
        if answer.is_err() && self.is_remembered {
            self.begin(None, now);
            return None;
        }
        Some(answer)
    }

    /// The connection that the last answer came under.
    pub const fn connection(&self) -> Option<Connection> {
        self.connection
    }

    /// Goes on with another datagram, at once and under a transaction id of its own.
    const fn begin(&mut self, connection: Option<Connection>, now: Instant) {
        self.connection = connection;
        self.is_remembered = false;
        self.transaction = self.random.next() as u32;
        self.send_at = now;
        self.wait = RESEND_FIRST;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::discovery::tracker::Scrape;

    const ASK: Ask<'_> = Ask::Scrape { info_hash: [9; 20] };

    fn exchange(known: Option<Connection>, now: Instant) -> Exchange<'static> {
        Exchange::new(ASK, Family::V4, known, 42, now)
    }

    /// The answer that belongs to a request, with that action and body.
    fn answer(request: &[u8], action: u8, body: &[u8]) -> Vec<u8> {
        [&[0, 0, 0, action], &request[12..16], body].concat()
    }

    const COUNTS: [u8; 12] = [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
    const SCRAPED: Answer = Answer::Scrape(Scrape { seeders: 1, downloads: 2, leechers: 3 });

    #[test]
    fn a_request_takes_two_round_trips() {
        let now = Instant::now();
        let mut exchange = exchange(None, now);
        let connect = exchange.send(now).unwrap();
        assert_eq!(connect, encode_connect(u32::from_be_bytes(*connect.last_chunk().unwrap())));
        assert_eq!(exchange.send(now), None);
        assert_eq!(exchange.on_datagram(&answer(&connect, 0, &7_u64.to_be_bytes()), now), None);
        let ask = exchange.send(now).unwrap();
        assert_eq!(ask[..8], 7_u64.to_be_bytes());
        assert_ne!(ask[12..16], connect[12..16], "each has a transaction id of its own");
        assert_eq!(
            exchange.on_datagram(&answer(&connect, 0, &8_u64.to_be_bytes()), now),
            None,
            "a duplicate"
        );
        assert_eq!(exchange.on_datagram(&answer(&ask, 2, &COUNTS), now), Some(Ok(SCRAPED)));
        assert_eq!(exchange.connection(), Some(Connection::new(7, now)));
    }

    #[test]
    fn a_datagram_is_sent_again_after_growing_waits() {
        let start = Instant::now();
        let mut exchange = exchange(None, start);
        let first = exchange.send(start).unwrap();
        let mut times = vec![];
        while times.len() < 6 {
            let now = exchange.wake_at();
            times.push((now - start).as_millis());
            assert_eq!(exchange.send(now - Duration::from_millis(1)), None);
            assert_eq!(exchange.send(now).unwrap(), first, "a late answer to the first counts, too");
        }
        assert_eq!(times, [500, 1500, 3500, 7500, 15_500, 31_500]);
        let now = start + Duration::from_secs(40);
        exchange.on_datagram(&answer(&first, 0, &[0; 8]), now);
        assert!(exchange.send(now).is_some());
        assert_eq!(exchange.wake_at(), now + RESEND_FIRST, "the next question begins anew");
    }

    #[test]
    fn a_connection_ends_after_a_minute() {
        let start = Instant::now();
        let mut exchange = exchange(None, start);
        let connect = exchange.send(start).unwrap();
        exchange.on_datagram(&answer(&connect, 0, &[1; 8]), start);
        assert_eq!(exchange.send(start).unwrap()[..8], [1; 8]);
        let mut now = exchange.wake_at();
        while now < start + CONNECTION_LIFETIME {
            assert_eq!(exchange.send(now).unwrap()[..8], [1; 8]);
            now = exchange.wake_at();
        }
        assert_eq!(exchange.send(now).unwrap().len(), 16, "a new one is asked for");
    }

    #[test]
    fn a_remembered_connection_has_one_try() {
        let start = Instant::now();
        let known = Some(Connection::new(7, start));
        let mut silent = exchange(known, start);
        assert_eq!(silent.send(start).unwrap()[..8], 7_u64.to_be_bytes());
        assert_eq!(silent.send(start + RESEND_FIRST).unwrap().len(), 16);
        let mut refused = exchange(known, start);
        let ask = refused.send(start).unwrap();
        assert_eq!(refused.on_datagram(&answer(&ask, 3, b"who are you"), start), None);
        let connect = refused.send(start).unwrap();
        assert_eq!(connect.len(), 16);
        let error = refused.on_datagram(&answer(&connect, 3, b"no"), start);
        assert_eq!(error, Some(Err(ReplyError::Refused { reason: "no".to_owned() })));
        let old = exchange(known, start + CONNECTION_LIFETIME).send(start + CONNECTION_LIFETIME);
        assert_eq!(old.unwrap().len(), 16);
    }

    proptest! {
        /// Whatever comes between, the right answers bring it to its end, and what was sent is bounded.
        #[test]
        fn foreign_datagrams_change_nothing(
            noise in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..20),
            seed: u64,
            cut in 0_usize..16,
        ) {
            let now = Instant::now();
            let mut exchange = Exchange::new(ASK, Family::V4, None, seed, now);
            let connect = exchange.send(now).unwrap();
            let proper = answer(&connect, 0, &[7; 8]);
            let is_foreign = |datagram: &&Vec<u8>| datagram.get(4..8) != Some(&connect[12..16]);
            for datagram in noise.iter().filter(is_foreign) {
                prop_assert_eq!(exchange.on_datagram(datagram, now), None);
                prop_assert_eq!(exchange.send(now), None);
            }
            prop_assert_eq!(exchange.on_datagram(&proper[..cut], now), None);
            prop_assert_eq!(exchange.on_datagram(&proper, now), None);
            let ask = exchange.send(now).unwrap();
            let is_foreign = |datagram: &&Vec<u8>| datagram.get(4..8) != Some(&ask[12..16]);
            for datagram in noise.iter().filter(is_foreign) {
                prop_assert_eq!(exchange.on_datagram(datagram, now), None);
            }
            prop_assert_eq!(exchange.on_datagram(&answer(&ask, 2, &COUNTS), now), Some(Ok(SCRAPED)));
        }
    }
}
