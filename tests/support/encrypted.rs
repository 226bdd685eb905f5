//! Fronts that make an encrypted peer of any other, one that is dialed or one that dials: they speak the encrypted
//! handshake on their side and pass on what is said.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::mse::{Answers, Rc4, Responder, power, sha1};

/// A front, until the test program ends.
pub struct Front {
    /// Where it listens.
    pub addr: SocketAddr,
    /// How many encrypted handshakes have led to a connection.
    pub opened: Arc<AtomicUsize>,
    /// How many connections began otherwise, and were closed for it.
    pub refused: Arc<AtomicUsize>,
}

impl Front {
    /// A front before this peer, for that torrent.
    pub fn of(peer: SocketAddr, info_hash: [u8; 20], answers: &Answers) -> Self {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback address can be bound");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let (opened, refused) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let front = Self { addr, opened: Arc::clone(&opened), refused: Arc::clone(&refused) };
        let answers = answers.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answers, opened, refused) = (answers.clone(), Arc::clone(&opened), Arc::clone(&refused));
                thread::spawn(move || match shake_hands(&stream, info_hash, answers) {
                    // An error means that one of the two has left, which it may.
                    Ok(Some(responder)) => {
                        opened.fetch_add(1, Ordering::Relaxed);
                        let _ = pass_on(stream, peer, responder);
                    }
                    Ok(None) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                    Err(_) => {}
                });
            }
        });
        front
    }
}

/// A front for a peer that dials, until the test program ends.
pub struct CallingFront {
    /// Whom the peer is to dial.
    pub addr: SocketAddr,
    /// What was selected on each connection that was made.
    pub selected: Arc<Mutex<Vec<u32>>>,
}

impl CallingFront {
    /// A front that dials whom `to` names, and provides those ways (`crypto_provide`).
    pub fn start(
        info_hash: [u8; 20],
        provide: u32,
        to: impl Fn() -> Option<SocketAddr> + Send + 'static,
    ) -> Self {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback address can be bound");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let selected = Arc::<Mutex<Vec<u32>>>::default();
        let log = Arc::clone(&selected);
        thread::spawn(move || {
            for inside in listener.incoming().map_while(Result::ok) {
                let Some(outside) = to().and_then(|addr| TcpStream::connect(addr).ok()) else { continue };
                let log = Arc::clone(&log);
                // An error means that one of the two has left, which it may.
                thread::spawn(move || {
                    call(&outside, info_hash, provide).and_then(|(select, open, seal)| {
                        log.lock().expect("no thread panics with it").push(select);
                        join(inside, outside, open, seal)
                    })
                });
            }
        });
        Self { addr, selected }
    }
}

/// Dials: what was selected, and the ciphers of what comes and what is said.
fn call(
    mut outside: &TcpStream,
    info_hash: [u8; 20],
    provide: u32,
) -> io::Result<(u32, Option<Rc4>, Option<Rc4>)> {
    const KEY: [u8; 20] = [0x5c; 20];
    outside.set_nodelay(true)?;
    outside.write_all(&power(None, &KEY))?;
    outside.write_all(&[0xaa; 33])?;
    let mut theirs = [0; 96];
    outside.read_exact(&mut theirs)?;
    let secret = power(Some(&theirs), &KEY);
    let mut seal = Rc4::of_handshake(b"keyA", &secret, &info_hash);
    let mut open = Rc4::of_handshake(b"keyB", &secret, &info_hash);
    let (torrent, mask) = (sha1(&[b"req2", &info_hash]), sha1(&[b"req3", &secret]));
    let named: [u8; 20] = std::array::from_fn(|at| torrent[at] ^ mask[at]);
    let mut sealed = [&[0; 8][..], &provide.to_be_bytes(), &[0; 2], &[0; 2]].concat();
    seal.apply(&mut sealed);
    outside.write_all(&[&sha1(&[b"req1", &secret])[..], &named, &sealed].concat())?;
    let mut mark = [0; 8];
    open.apply(&mut mark);
    let mut padding = Vec::new();
    while !padding.ends_with(&mark) {
        let mut byte = [0];
        outside.read_exact(&mut byte)?;
        padding.extend(byte);
    }
    let mut head = [0; 6];
    outside.read_exact(&mut head)?;
    open.apply(&mut head);
    let [s0, s1, s2, s3, l0, l1] = head;
    let mut padding = vec![0; u16::from_be_bytes([l0, l1]).into()];
    outside.read_exact(&mut padding)?;
    open.apply(&mut padding);
    let select = u32::from_be_bytes([s0, s1, s2, s3]);
    let is_sealed = select == 2;
    Ok((select, is_sealed.then_some(open), is_sealed.then_some(seal)))
}

/// Passes on what both say until one of them leaves.
fn join(inside: TcpStream, outside: TcpStream, open: Option<Rc4>, seal: Option<Rc4>) -> io::Result<()> {
    let (from_inside, to_outside) = (inside.try_clone()?, outside.try_clone()?);
    thread::spawn(move || pump(from_inside, to_outside, seal));
    pump(outside, inside, open);
    Ok(())
}

fn pump(mut from: TcpStream, mut to: TcpStream, mut cipher: Option<Rc4>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(received @ 1..) = from.read(&mut buffer) {
        let bytes = &mut buffer[..received];
        if let Some(cipher) = &mut cipher {
            cipher.apply(bytes);
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// Gives nothing where the other side does not speak the encrypted handshake.
fn shake_hands(
    mut stream: &TcpStream,
    info_hash: [u8; 20],
    answers: Answers,
) -> io::Result<Option<Responder>> {
    stream.set_nodelay(true)?;
    let mut responder = Responder::new(info_hash, answers);
    let mut buffer = [0; 4096];
    let mut is_first = true;
    while !responder.is_done() {
        let received = stream.read(&mut buffer)?;
        let bytes = &buffer[..received];
        let mut answer = Vec::new();
        let is_plain = std::mem::take(&mut is_first) && bytes.starts_with(b"\x13BitTorrent protocol");
        if received == 0 || is_plain || responder.receive(bytes, &mut answer).is_err() {
            return Ok(None);
        }
        stream.write_all(&answer)?;
    }
    Ok(Some(responder))
}

fn pass_on(mut stream: TcpStream, peer: SocketAddr, mut responder: Responder) -> io::Result<()> {
    let mut inside = TcpStream::connect(peer)?;
    inside.set_nodelay(true)?;
    inside.write_all(&std::mem::take(&mut responder.payload))?;
    let responder = Arc::new(Mutex::new(responder));
    let (mut from_inside, mut to_outside) = (inside.try_clone()?, stream.try_clone()?);
    let sealing = Arc::clone(&responder);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(received @ 1..) = from_inside.read(&mut buffer) {
            let bytes = &mut buffer[..received];
            sealing.lock().expect("no thread panics with it").seal(bytes);
            if to_outside.write_all(bytes).is_err() {
                break;
            }
        }
        let _ = to_outside.shutdown(Shutdown::Both);
    });
    let mut buffer = vec![0; 4096];
    while let Ok(received @ 1..) = stream.read(&mut buffer) {
        let payload = {
            let mut responder = responder.lock().expect("no thread panics with it");
            let _ = responder.receive(&buffer[..received], &mut Vec::new());
            std::mem::take(&mut responder.payload)
        };
        inside.write_all(&payload)?;
    }
    inside.shutdown(Shutdown::Both)
}
