//! A front that makes an encrypted peer of any other: it speaks the encrypted handshake on its side and passes on what
//! is said.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::mse::{Answers, Responder};

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
