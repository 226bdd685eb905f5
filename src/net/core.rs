//! The thread of one core: its runtime, the peers that live on it, and a clock for all of them.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;

use super::backend::{self, Backend};
use super::close::CloseReason;
use super::peer::{self, Peer};
use super::shared::{Event, Shared};
use super::uring;
use crate::os::clock;
use crate::swarm::session::Tally;
use crate::wire::mse;

/// How often timers, stalls and the endgame are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long a stopping core waits for its peers' operations to end.
const STOP_PATIENCE: Duration = Duration::from_millis(300);

/// What the control thread asks of a core. The control thread bounds how many peers it dials and lets in.
#[derive(Debug)]
enum Command {
    Dial(SocketAddr, Option<mse::Offer>, Duration),
    Adopt(TcpStream, SocketAddr),
    Close(SocketAddr, CloseReason),
    Census,
    Stop,
}

/// A running core.
#[derive(Debug)]
pub struct Core {
    commands: UnboundedSender<Command>,
    stopped: mpsc::Receiver<()>,
}

impl Core {
    /// Starts the thread of a core. Fails where the kernel gives not what the backend needs.
    pub fn start(index: usize, backend: Backend, shared: Arc<Shared>) -> io::Result<Self> {
        let (commands, inbox) = unbounded_channel();
        let name = match backend {
            Backend::Uring => format!("ring-{index}"),
            Backend::Epoll => format!("epoll-{index}"),
        };
        let stopped = backend::spawn(name, backend, move || serve(inbox, backend, shared))?;
        Ok(Self { commands, stopped })
    }

    /// Connects to a peer, which has so long to answer; how it went comes as an [`Event`]. With an offer the connection
    /// is an encrypted one, or begins as such.
    pub fn dial(&self, addr: SocketAddr, encryption: Option<mse::Offer>, timeout: Duration) {
        let _ = self.commands.send(Command::Dial(addr, encryption, timeout));
    }

    /// Takes over the connection of a peer that has dialed us; how it goes comes as an [`Event`].
    pub fn adopt(&self, stream: TcpStream, addr: SocketAddr) {
        let _ = self.commands.send(Command::Adopt(stream, addr));
    }

    /// Closes the connection to a peer for that reason, if this core has it.
    pub fn close(&self, addr: SocketAddr, reason: CloseReason) {
        let _ = self.commands.send(Command::Close(addr, reason));
    }

    /// Asks how all peers stand; the answer comes as [`Event::Census`].
    pub fn take_census(&self) {
        let _ = self.commands.send(Command::Census);
    }

    /// Asks the core to close all connections and end.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
    }

    /// Waits until the core has ended, but not longer than its peers are given to end.
    pub fn join(self) {
        let _ = self.stopped.recv_timeout(2 * STOP_PATIENCE);
    }
}

/// Tries whether the kernel gives a ring: the error tells why it does not.
pub fn probe_uring() -> io::Result<()> {
    uring::probe()
}

type Peers = Rc<RefCell<Vec<Rc<Peer>>>>;

/// Runs the core until it is told to stop and its connections have ended, or have had their time to.
async fn serve(mut inbox: UnboundedReceiver<Command>, backend: Backend, shared: Arc<Shared>) {
    let peers = Peers::default();
    spawn_local(tick(Rc::clone(&peers), Arc::clone(&shared)));
    loop {
        match inbox.recv().await {
            Some(Command::Dial(addr, encryption, timeout)) => {
                let peer = Peer::new(addr, backend, encryption, timeout);
                run(addr, peer.map_err(CloseReason::Dial), &peers, &shared);
            }
            Some(Command::Adopt(stream, addr)) => {
                let peer = Peer::adopt(stream, addr, backend).map_err(CloseReason::Io);
                run(addr, peer, &peers, &shared);
            }
            Some(Command::Close(addr, reason)) => {
                if let Some(peer) = peers.borrow().iter().find(|peer| peer.addr() == addr) {
                    peer.close(reason);
                }
            }
            Some(Command::Census) => {
                let now = clock::now();
                let reports = peers.borrow().iter().filter_map(|peer| peer.report(now)).collect();
                shared.tell(Event::Census(reports));
            }
            Some(Command::Stop) | None => break,
        }
    }
    for peer in peers.borrow().iter() {
        peer.close(CloseReason::Finished);
    }
    let deadline = Instant::now() + STOP_PATIENCE;
    while !peers.borrow().is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Runs a peer in a task of its own, if it has come about.
fn run(addr: SocketAddr, peer: Result<Rc<Peer>, CloseReason>, peers: &Peers, shared: &Arc<Shared>) {
    match peer {
        Ok(peer) => {
            peers.borrow_mut().push(Rc::clone(&peer));
            let (peers, shared) = (Rc::clone(peers), Arc::clone(shared));
            spawn_local(async move {
                let _guard = PanicGuard(&shared);
                peer::run(Rc::clone(&peer), &shared).await;
                peers.borrow_mut().retain(|other| !Rc::ptr_eq(other, &peer));
            });
        }
        Err(reason) => shared.tell(Event::Closed { addr, reason, tally: Tally::default() }),
    }
}

/// Tells the control thread of a task that panics, which the runtime would swallow: a peer or a clock that is gone
/// without a word would leave the download waiting for it.
struct PanicGuard<'a>(&'a Shared);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.tell(Event::Panicked);
        }
    }
}

async fn tick(peers: Peers, shared: Arc<Shared>) {
    let _guard = PanicGuard(&shared);
    let mut clock = tokio::time::interval(TICK);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut counted = 0;
    loop {
        clock.tick().await;
        let now = clock::now();
        for peer in peers.borrow().iter() {
            peer.tick(&shared, now);
        }
        let sending = peers.borrow().iter().filter(|peer| peer.is_sending(now)).count();
        // The sum over all cores changes by what this one's count does, be it up or down.
        shared.counters().sending.fetch_add(sending.wrapping_sub(counted), Ordering::Relaxed);
        counted = sending;
    }
}
