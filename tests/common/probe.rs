//! The smallest possible peer: it says hello and reads what the other side has.
//!
//! Written by hand, so that the harness does not lean on the code under test.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Where it calls from: transmission refuses an address that called before until it noticed that the caller left,
/// and that must not hit the program under test.
const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// How long a seeder on the loopback may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The id of the message that lists the pieces a peer has.
const BITFIELD: u8 = 5;

/// The longest message taken from a peer: a bitfield of four million pieces.
const MESSAGE_LEN_MAX: usize = 512 * 1024;

/// What a peer answered.
pub struct PeerView {
    /// Its peer id.
    pub peer_id: [u8; 20],
    /// How many pieces its bitfield has.
    pub piece_count: u32,
}

/// Connects, exchanges handshakes and reads the bitfield.
pub fn look_at(addr: SocketAddr, info_hash: [u8; 20]) -> io::Result<PeerView> {
    let mut stream = connect(addr)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(&handshake(info_hash))?;
    let mut answer = [0; 68];
    stream.read_exact(&mut answer)?;
    if answer[..20] != *b"\x13BitTorrent protocol" || answer[28..48] != info_hash {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer is no handshake for this torrent",
        ));
    }
    let mut peer_id = [0; 20];
    peer_id.copy_from_slice(&answer[48..]);
    let piece_count = read_bitfield(&mut stream)?.iter().map(|byte| byte.count_ones()).sum();
    Ok(PeerView { peer_id, piece_count })
}

fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    if addr.is_ipv4() {
        socket.bind(&SocketAddr::from((OWN_ADDRESS, 0)).into())?;
    }
    socket.connect_timeout(&addr.into(), ANSWER_TIMEOUT)?;
    Ok(socket.into())
}

fn handshake(info_hash: [u8; 20]) -> Vec<u8> {
    let mut hello = b"\x13BitTorrent protocol".to_vec();
    hello.extend([0; 8]);
    hello.extend(info_hash);
    hello.extend(b"-PB0000-probe0000000");
    hello
}

/// Reads messages up to the bitfield; the keep-alives and extension messages before it are passed over.
fn read_bitfield(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    loop {
        let mut len = [0; 4];
        stream.read_exact(&mut len)?;
        let len = u32::from_be_bytes(len) as usize;
        if len > MESSAGE_LEN_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {len} bytes")));
        }
        let mut message = vec![0; len];
        stream.read_exact(&mut message)?;
        if message.first() == Some(&BITFIELD) {
            return Ok(message.split_off(1));
        }
    }
}
