//! Addresses at which there is nobody.

use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::hostile::attack::{Attack, End};
use crate::support::tracker::{Tracker, dead_addr};

/// As many addresses as are taken from one reply, but for one.
const REPLY: usize = 1_999;

pub fn attacks() -> Vec<Attack> {
    vec![
        Attack::new("two thousand dead addresses before the honest one")
            .told_by(|honest| Tracker::of(&[dead(REPLY), honest.to_vec()].concat())),
        Attack::new("addresses that never answer before the honest one, more than are tried at a time")
            .told_by(|honest| Tracker::of(&[swallowing(70), honest.to_vec()].concat())),
        Attack::new("two thousand dead addresses behind the honest one")
            .told_by(|honest| Tracker::of(&[honest.to_vec(), dead(10_000)].concat())),
        Attack::new("ten thousand addresses that cannot be a peer's").told_by(|honest| {
            let impossible =
                ["0.0.0.0:1", "255.255.255.255:6881", "224.0.0.1:6881", "127.0.0.1:0", "240.0.0.1:0"];
            let impossible = impossible.map(|addr| addr.parse().expect("an address"));
            Tracker::of(&[honest.to_vec(), impossible.repeat(2_000)].concat())
        }),
        Attack::new("the honest address two thousand times")
            .told_by(|honest| Tracker::of(&honest.repeat(2_000))),
    ]
}

/// As many peers as there are connections, who keep their places and send nothing.
pub fn squatters() -> Vec<Attack> {
    let attack =
        Attack::new("peers that only keep their places, as many as there are places").told_by(Tracker::of);
    vec![(0..320).fold(attack, |attack, _| {
        attack.by(End::OneOf(&["others wait for its place", "the download is over"]), |line| {
            line.shake_hands(0)?;
            line.have_everything()?;
            line.hold()
        })
    })]
}

/// Addresses of this machine that neither take connections nor refuse them, until the test program ends.
fn swallowing(count: u8) -> Vec<SocketAddr> {
    let swallow = |number| {
        let any = SocketAddr::from(([127, 68, 0, number], 0));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&any.into()).expect("the loopback address can be bound");
        // With one connection that nobody takes the queue is full, and the kernel drops the others.
        socket.listen(0).expect("it listens");
        let addr =
            socket.local_addr().expect("a bound socket has an address").as_socket().expect("an IPv4 address");
        std::mem::forget((TcpStream::connect(addr).expect("the first is queued"), socket));
        addr
    };
    (0..count).map(swallow).collect()
}

/// Addresses of this machine that refuse connections.
fn dead(count: usize) -> Vec<SocketAddr> {
    let port = dead_addr().port();
    (0..count as u32).map(|number| ([127, 67, (number >> 8) as u8, number as u8], port).into()).collect()
}
