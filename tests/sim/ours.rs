//! Our end of a connection: what `net::peer` does with a session, a decoder and a forecast, on plain memory.

use std::net::SocketAddr;
use std::time::Instant;

use ringtide::meta::geometry::Geometry;
use ringtide::swarm::fault::Fault;
use ringtide::swarm::receive::{Forecast, Part, feed};
use ringtide::swarm::session::{Session, Terms};
use ringtide::wire::decoder::{Decoder, Event, Limits, Position};
use ringtide::wire::message::PieceHeader;

use super::board::Board;
use super::content::{MemoryLease, land};
use super::rng::Rng;

/// Bytes of a receive that is not aimed.
const BUFFER_LEN: usize = 16 * 1024;

pub struct Ours {
    pub session: Session<MemoryLease>,
    decoder: Decoder,
    /// Reads the same stream by itself, for what is to be expected.
    shadow: Decoder,
    /// Bytes in the socket.
    socket: Vec<u8>,
    forecast: Forecast<MemoryLease>,
    /// Whether the receive under way goes to the places of the forecast; the others go through the decoder.
    aimed: bool,
    /// Bytes of bodies of blocks so far.
    pub body_bytes: u64,
    /// How many of a thousand receives are aimed, where they can be.
    aim_per_mille: u64,
}

impl Ours {
    pub fn new(
        addr: SocketAddr,
        geometry: Geometry,
        fast: bool,
        now: Instant,
        board: &mut Board,
        rng: &mut Rng,
    ) -> Self {
        Self {
            session: Session::new(addr, geometry, Terms { fast, pex: false }, now, board),
            decoder: Decoder::new(Limits::of_pieces(geometry.piece_count())),
            shadow: Decoder::new(Limits::of_pieces(geometry.piece_count())),
            socket: Vec::new(),
            forecast: Forecast::default(),
            aimed: false,
            body_bytes: 0,
            aim_per_mille: [0, 500, 950, 1_000][rng.below(4)],
        }
    }

    /// Bytes came; receives go on until there are none left.
    pub fn deliver(
        &mut self,
        bytes: &[u8],
        now: Instant,
        board: &mut Board,
        rng: &mut Rng,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        self.socket.extend_from_slice(bytes);
        while !self.socket.is_empty() {
            let room = if self.aimed { self.room() } else { BUFFER_LEN };
            let most = room.min(self.socket.len());
            let len = if rng.chance(700) { most } else { rng.range(1, most as u64) as usize };
            let bytes: Vec<u8> = self.socket.drain(..len).collect();
            self.complete(&bytes, now, board, out)?;
            self.post(rng);
        }
        Ok(())
    }

    /// The receive under way is ended by us, with nothing.
    pub fn cancel(
        &mut self,
        now: Instant,
        board: &mut Board,
        rng: &mut Rng,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        self.complete(&[], now, board, out)?;
        self.post(rng);
        Ok(())
    }

    /// Ends the connection.
    pub fn close(&mut self, board: &mut Board) {
        if std::mem::take(&mut self.aimed) {
            self.forecast.cancel(&mut self.session);
        }
        self.session.close(board);
    }

    /// Starts a receive.
    fn post(&mut self, rng: &mut Rng) {
        assert!(!self.aimed);
        if !rng.chance(self.aim_per_mille) {
            return;
        }
        if let (Position::Body { header, .. }, Some((_, block))) =
            (self.decoder.position(), self.session.arriving())
        {
            assert_eq!(header, PieceHeader::of(block), "another block is arriving");
        }
        for (slot, block) in self.session.expected() {
            let lease = self.session.claims().lease(slot).expect("a request belongs to a claim");
            assert_eq!(lease.piece(), block.piece, "a request belongs to its claim");
        }
        let can_look = rng.chance(self.aim_per_mille);
        let socket = &self.socket;
        let look = |at: usize| socket.get(at..).filter(|_| can_look)?.first_chunk().copied();
        self.aimed = self.forecast.aim(&mut self.session, &self.decoder, look);
        if self.aimed {
            self.forecast.truncate([1, 3, 64][rng.below(3)]);
        }
    }

    fn count_bodies(&mut self, mut bytes: &[u8]) {
        while let Ok(Some(event)) = self.shadow.next(&mut bytes) {
            if let Event::BlockData { data, .. } = event {
                self.body_bytes += data.len() as u64;
            }
        }
    }

    /// Bytes that the receive under way has places for.
    fn room(&mut self) -> usize {
        let room = |part: Part<'_, MemoryLease>| part.header.len() + part.len as usize;
        let rooms = (0..).map_while(|at| self.forecast.part(at).map(room));
        rooms.sum::<usize>() + PieceHeader::LEN
    }

    /// The receive under way is over and brought these bytes.
    fn complete(
        &mut self,
        bytes: &[u8],
        now: Instant,
        board: &mut Board,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        self.count_bodies(bytes);
        let (session, decoder) = (&mut self.session, &mut self.decoder);
        let spilled = if std::mem::take(&mut self.aimed) {
            land(&mut self.forecast, bytes);
            self.forecast.settle(bytes.len(), session, decoder, now, board).spilled
        } else {
            bytes.to_vec()
        };
        session.heard(now);
        let fed = feed(session, decoder, &spilled, now, board);
        session.fill(now, board, out);
        fed.map(drop)
    }
}
