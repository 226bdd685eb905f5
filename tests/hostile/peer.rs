//! Listeners that run a script for each connection, and the gate between the hostile and the honest.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::line::{Line, id};
use crate::support::content::Content;

/// What a peer does with each of its connections. An error means that the other side has left, which it may.
pub type Script = Arc<dyn Fn(&mut Line) -> io::Result<()> + Send + Sync>;

/// The honest ones wait for the hostile at most so long: then the test fails, but not by hanging.
const GATE_LIMIT: Duration = Duration::from_secs(90);

/// The end of a turn is given so long to reach the program under test, before the honest peers complete the download.
const NOTICED_AFTER: Duration = Duration::from_millis(300);

/// Opens when every hostile peer has had its turn.
#[derive(Default)]
pub struct Gate {
    waiting_for: Mutex<usize>,
    opened: Condvar,
}

impl Gate {
    /// One turn more to wait for.
    pub fn turn(self: &Arc<Self>) -> Arc<Turn> {
        *self.waiting_for.lock().expect("no thread panics with it") += 1;
        Arc::new(Turn { gate: Arc::clone(self), is_over: AtomicBool::new(false) })
    }

    /// The turn of somebody whom nobody waits for.
    pub fn no_turn(self: &Arc<Self>) -> Arc<Turn> {
        Arc::new(Turn { gate: Arc::clone(self), is_over: AtomicBool::new(true) })
    }

    /// How many turns are not over.
    pub fn waiting_for(&self) -> usize {
        *self.waiting_for.lock().expect("no thread panics with it")
    }

    fn end_turn(&self) {
        let mut waiting_for = self.waiting_for.lock().expect("no thread panics with it");
        *waiting_for -= 1;
        self.opened.notify_all();
    }

    fn wait(&self) {
        let waiting_for = self.waiting_for.lock().expect("no thread panics with it");
        let waited = self.opened.wait_timeout_while(waiting_for, GATE_LIMIT, |left| *left > 0);
        drop(waited.expect("no thread panics with it"));
    }
}

/// The turn of one peer.
pub struct Turn {
    gate: Arc<Gate>,
    is_over: AtomicBool,
}

impl Turn {
    /// It has done its thing; the second time counts for nothing.
    pub fn end(&self) {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            self.gate.end_turn();
        }
    }

    /// Waits for the turns of all.
    pub fn await_gate(&self) {
        self.gate.wait();
        thread::sleep(NOTICED_AFTER);
    }
}

/// A running peer, until the test program ends.
pub struct Peer {
    /// Where it listens: each at an address of its own.
    pub addr: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Peer {
    /// Starts a peer. Its turn is over when its script says so or has ended once.
    pub fn start(content: &Content, turn: Arc<Turn>, script: Script) -> Self {
        let listener = TcpListener::bind((next_ip(), 0)).expect("a loopback address can be bound");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let connections = Arc::<AtomicUsize>::default();
        let (content, count) = (content.clone(), Arc::clone(&connections));
        spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::Relaxed);
                let (content, turn, script) = (content.clone(), Arc::clone(&turn), Arc::clone(&script));
                spawn(move || {
                    if let Ok(mut line) = Line::new(stream, content, Arc::clone(&turn)) {
                        let _ = script(&mut line);
                    }
                    turn.end();
                });
            }
        });
        Self { addr, connections }
    }

    /// How often somebody connected.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// An honest peer that answers nothing before the gate is open, and then each request after that pause.
pub fn honest(pause: Duration) -> Script {
    Arc::new(move |line: &mut Line| {
        line.shake_hands(0)?;
        line.have_everything()?;
        line.await_gate();
        line.send(id::UNCHOKE, &[])?;
        loop {
            let ask = line.ask()?;
            thread::sleep(pause);
            line.answer(ask)?;
        }
    })
}

/// The next address of 127.0.0.0/8, all of which are this machine: a peer is known by it in logs, and by nothing else
/// in bans.
fn next_ip() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 66, 0, 1).to_bits() + number)
}

/// Scripts need little stack, and there are hundreds of them.
fn spawn(run: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(256 * 1024).spawn(run).expect("a thread starts");
}
