//! What a peer relies on, shown on each backend that this machine has.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::SockRef;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{sleep, timeout};

use super::*;
use crate::net::backend::Runtime;

/// Far more than anything here takes: what hangs shall fail.
const LIMIT: Duration = Duration::from_secs(60);

/// By then an operation that was started is pending.
const SETTLED: Duration = Duration::from_millis(20);

fn on_each(test: impl AsyncFn(Backend)) {
    let mut backends = vec![Backend::Epoll];
    if uring::probe().is_ok() {
        backends.push(Backend::Uring);
    }
    for backend in backends {
        let runtime = Runtime::new(backend).unwrap();
        let in_time = runtime.block_on(async { timeout(LIMIT, test(backend)).await });
        assert!(in_time.is_ok(), "it hangs on {backend}");
    }
}

/// A connected socket and its other end.
async fn pair(backend: Backend) -> (Rc<Socket>, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let socket = Rc::new(Socket::new(backend, addr).unwrap());
    socket.connect(addr).await.unwrap();
    (socket, listener.accept().unwrap().0)
}

/// A receive of so many bytes at most that is pending.
async fn pending_receive(socket: &Rc<Socket>, room: usize) -> JoinHandle<io::Result<Vec<u8>>> {
    let socket = Rc::clone(socket);
    let receive = spawn_local(async move { receive(&socket, room).await });
    sleep(SETTLED).await;
    assert!(!receive.is_finished());
    receive
}

async fn receive(socket: &Socket, room: usize) -> io::Result<Vec<u8>> {
    let (result, mut buffer) = socket.recv(vec![0; room]).await;
    assert_eq!(buffer.len(), room, "the buffer comes back as it was");
    buffer.truncate(result?);
    Ok(buffer)
}

/// xorshift64, always the same.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn a_stream_arrives_whole_whatever_the_receives_ask_for() {
    on_each(async |backend| {
        let expected = noise(4 << 20);
        let (socket, mut end) = pair(backend).await;
        let sent = expected.clone();
        let sender = thread::spawn(move || {
            for (round, chunk) in sent.chunks(50_001).enumerate() {
                end.write_all(chunk).unwrap();
                if round % 8 == 0 {
                    thread::sleep(Duration::from_millis(2));
                }
            }
        });
        let mut received = Vec::new();
        for room in [1, 1000, 65_536, 400_000].into_iter().cycle() {
            match receive(&socket, room).await.unwrap() {
                bytes if bytes.is_empty() => break,
                bytes => received.extend(bytes),
            }
        }
        assert!(received == expected, "{} of {} bytes on {backend}", received.len(), expected.len());
        sender.join().unwrap();
    });
}

#[test]
fn what_does_not_fit_into_the_socket_is_sent_later() {
    on_each(async |backend| {
        let expected = noise(16 << 20);
        let (socket, mut end) = pair(backend).await;
        let receiver = thread::spawn(move || {
            thread::sleep(SETTLED);
            let mut received = Vec::new();
            end.read_to_end(&mut received).unwrap();
            received
        });
        let (mut bytes, mut from) = (expected.clone(), 0);
        while from < bytes.len() {
            let (result, back) = socket.send(bytes, from).await;
            from += result.unwrap();
            bytes = back;
        }
        assert!(bytes == expected, "the bytes come back as they were");
        socket.shutdown();
        assert!(receiver.join().unwrap() == expected, "other bytes came on {backend}");
    });
}

#[test]
fn the_last_bytes_come_before_the_end() {
    on_each(async |backend| {
        let (socket, mut end) = pair(backend).await;
        end.write_all(b"good-bye").unwrap();
        drop(end);
        sleep(SETTLED).await;
        // There is more room than bytes, and no news after them but the end.
        assert_eq!(receive(&socket, 100).await.unwrap(), b"good-bye");
        assert_eq!(receive(&socket, 100).await.unwrap(), b"");
    });
}

#[test]
fn a_reset_is_an_error() {
    on_each(async |backend| {
        let (socket, end) = pair(backend).await;
        let receive = pending_receive(&socket, 100).await;
        SockRef::from(&end).set_linger(Some(Duration::ZERO)).unwrap();
        drop(end);
        assert_eq!(receive.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_cancelled_receive_ends_and_the_next_gets_all_bytes() {
    on_each(async |backend| {
        let (socket, mut end) = pair(backend).await;
        for round in 0..3 {
            let receive_pending = pending_receive(&socket, 100).await;
            socket.cancel();
            let error = receive_pending.await.unwrap().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECANCELED), "round {round} on {backend}");
            end.write_all(b"still there").unwrap();
            let mut received = Vec::new();
            while received.len() < 11 {
                received.extend(receive(&socket, 7).await.unwrap());
            }
            assert_eq!(received, b"still there");
        }
    });
}

#[test]
fn a_cancel_that_finds_no_receive_does_nothing_to_the_next() {
    on_each(async |backend| {
        let (socket, mut end) = pair(backend).await;
        socket.cancel();
        sleep(SETTLED).await;
        let receive = pending_receive(&socket, 100).await;
        end.write_all(b"hello").unwrap();
        assert_eq!(receive.await.unwrap().unwrap(), b"hello");
    });
}

#[test]
fn a_cancel_leaves_what_is_being_sent_alone_or_says_so() {
    on_each(async |backend| {
        let (socket, _end) = pair(backend).await;
        let sender = Rc::clone(&socket);
        // More than any socket takes while nobody reads.
        let send = spawn_local(async move {
            let mut bytes = vec![0; 64 << 20];
            let mut from = 0;
            loop {
                let (result, back) = sender.send(bytes, from).await;
                bytes = back;
                match result {
                    Ok(sent) => from += sent,
                    Err(error) => return error,
                }
            }
        });
        sleep(SETTLED).await;
        let receive = pending_receive(&socket, 100).await;
        socket.cancel();
        assert_eq!(receive.await.unwrap().unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        socket.shutdown();
        let error = send.await.unwrap();
        assert!(matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECANCELED)), "{error} on {backend}");
    });
}

#[test]
fn a_shutdown_ends_what_is_pending() {
    on_each(async |backend| {
        let (socket, _end) = pair(backend).await;
        let pending = pending_receive(&socket, 100).await;
        socket.shutdown();
        assert_eq!(pending.await.unwrap().unwrap(), b"");
        assert_eq!(receive(&socket, 100).await.unwrap(), b"");
        let (result, _) = socket.send(b"too late".to_vec(), 0).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn nobody_there_is_an_error() {
    on_each(async |backend| {
        let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let connected = match Socket::new(backend, gone) {
            Ok(socket) => socket.connect(gone).await,
            Err(error) => Err(error),
        };
        assert_eq!(connected.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_shutdown_ends_a_connection_that_is_being_made() {
    on_each(async |backend| {
        // Whoever comes when its queue is full is not answered.
        let listener = tcp((Ipv4Addr::LOCALHOST, 0).into(), Type::STREAM).unwrap();
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap().as_socket().unwrap();
        let _first = TcpStream::connect(addr).unwrap();
        let socket = Rc::new(Socket::new(backend, addr).unwrap());
        let connecting = Rc::clone(&socket);
        let connect = spawn_local(async move { connecting.connect(addr).await });
        sleep(SETTLED).await;
        assert!(!connect.is_finished());
        socket.shutdown();
        assert!(connect.await.unwrap().is_err());
    });
}

#[test]
fn a_socket_that_never_runs_dry_leaves_others_their_turn() {
    const RECEIVES: usize = 2_000;
    // On a ring every receive waits for its completion.
    let runtime = Runtime::new(Backend::Epoll).unwrap();
    runtime.block_on(async {
        let (socket, mut end) = pair(Backend::Epoll).await;
        // All of it is in the socket before the first receive, and each receive is filled.
        end.write_all(&[7; 16 * RECEIVES]).unwrap();
        sleep(SETTLED).await;
        let turns = Rc::new(Cell::new(0));
        let counted = Rc::clone(&turns);
        spawn_local(async move {
            loop {
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        });
        for _ in 0..RECEIVES {
            assert_eq!(receive(&socket, 16).await.unwrap(), [7; 16]);
        }
        assert!(turns.get() >= RECEIVES / 2, "{} turns", turns.get());
    });
}
