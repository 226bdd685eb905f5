//! ringtide: a BitTorrent downloader whose cost per byte is close to what the kernel and the hash function cost.
//!
//! The crate is a command (`ringtide`, see [`cli`]) over a library; [`download::run`] is a whole download.
//!
//! # Layout
//! Imports point upward in this list only; `tests/layers.rs` fails when one does not.
//!
//! | part | what it is | |
//! |---|---|---|
//! | [`os`] | what the system gives a process: random numbers, time, limits, signals | |
//! | [`meta`] | what is downloaded: bencode, metainfo, magnet links, the arithmetic of pieces and files | pure |
//! | [`wire`] | bytes to messages and back: handshakes, encryption, the streaming decoder, the extensions | pure |
//! | [`swarm`] | decisions: who has what, which piece next, one peer's state machine, its window, whom to dial | pure |
//! | [`hash`] | SHA-1 of many pieces at once in SIMD lanes, and the threads that do it | |
//! | [`disk`] | where bytes land: preallocated files, mapped or written, through leases | |
//! | [`net`] | the shell: one thread a core, on a ring or on epoll; dials, listens, receives; metadata of links | |
//! | [`discovery`] | where peers come from: trackers over HTTP, HTTPS and UDP, the DHT, the local network | |
//! | [`download`] | puts them together; runs on the control thread | |
//! | [`error`] | what reaches the user, with its exit code | |
//! | [`cli`] | the command line | |
//!
//! *Pure* parts know no socket, file, clock, thread or random source: bytes, `now` and a seed come in, actions go out.
//! So they run under property tests and in a simulated swarm with a virtual clock (`tests/sim_swarm.rs`).
//!
//! # The path of a block
//! ```text
//! peer socket ──recvmsg scatter (one SQE, many blocks)──▶ mapped output pages ──▶ lanes hash the piece ──▶ verified
//!               [13 B header slot][block in the map] …         (zero copies)       (16 pieces a call)
//! ```
//! 1. Peers answer requests in order, so the next bytes on a socket are predictable. [`swarm::receive`] says where they
//!    belong, and `net::scatter` has one receive put them there. If the headers that come are the expected ones,
//!    nothing is copied; from the first that is not, the bytes are gathered and go through [`wire::decoder`], which
//!    copies each block to its place. Where surprises are frequent, the headers that are in the socket are looked at
//!    before. A peer whose answers cannot be predicted at all is read through the decoder.
//! 2. A piece is written by one peer at a time, the holder of its [`swarm::claim::Claim`] and with it of its
//!    [`disk::PieceLease`]. A receive owns the leases it writes to until the kernel is done, even when its future is
//!    dropped: that is the whole safety argument, and `disk::lease` tells it in full.
//! 3. A complete piece goes, lease and all, to [`hash::Verifier`], which hashes full lanes when pieces flow and does
//!    not wait when they trickle. Where it cannot keep up, peers are read less, not queued more.
//! 4. A right piece is sealed: its lease is never given out again, and its pages leave the process. A wrong one is
//!    wanted again, and the peers that sent it are suspects ([`swarm::poison`]): one that wants the piece again is
//!    tried with a few of its blocks before ([`swarm::trial`]), so that a crowd of liars that change most of what they
//!    send costs a few pieces.
//!
//! Per block: no lock, no allocation, no channel, no thread hop. Per piece: a few short locks (claim, complete,
//! verdict) and one hand-over.
//!
//! # Decisions
//! - **Never drop a pending receive.** tokio-uring does not cancel dropped operations and their bytes would be lost.
//!   A timer shuts the socket down, or cancels the receive by its descriptor, and it ends by itself.
//! - **Leases move with the receive as a whole.** All claims of a peer travel with its receive and come back with it,
//!   so one move is paid per receive and none per block. The price is that nothing can be taken from a peer that is
//!   silent; a receive that has had the claims for a quarter of a second is therefore cancelled and started anew.
//! - **Endgame in private memory.** A peer with nothing left to fetch asks for the missing blocks of another's piece,
//!   from the end, and leaves them in the claim's mailbox; only the holder of the claim writes the map.
//! - **Large pages.** What a mapped write costs beside the copy are page faults: 18,000 a GiB from one peer, and more
//!   than ten times that from many peers whose pieces lie anywhere. So the map asks for large pages of the page cache,
//!   the picker finishes extents of 4 MiB before it begins others, a thread makes pages ready ahead of the receives,
//!   and a page is dropped from the process when all of it is verified. `benches/README.md` has the numbers, and what
//!   was rejected.
//! - **The map or `pwrite`.** A file system that cannot map, or not well, gets whole pieces by `pwrite` from warm
//!   private memory, through the same leases. From one peer the two cost the same within the noise, from many the map
//!   costs less, so it is what is used where there is a choice.
//! - **Around the page cache where memory is cold.** A host that takes free memory back from its guests makes the first
//!   touch of a page five times as dear as all the rest of a download, and large pages are the coldest. So the price of
//!   pages is measured while it is paid (`disk::price`), and above 0.8 s/GiB further leases write whole pieces, 64 KiB a
//!   call: free blocks of that size were never given back. Where that costs more than 0.5 s/GiB, as there are no more of
//!   them, pages leave the cache once they are on the disk (`disk::uncached`), and the next ones take the same memory. Map
//!   and writes meet in the same pages of the page cache, and no two leases have a byte in common, so one file may have
//!   both.
//! - **io_uring, or readiness where it is refused.** Both backends have the same operations with the same ownership,
//!   below one enum, and everything above is the same code. On epoll a receive happens as a whole while its future is
//!   polled; it is attempted until the socket says it is empty, because a receive also ends early where the map cannot
//!   be written.
//! - **A page that cannot be had is zeroes and a note.** A SIGBUS handler puts a private page under a load or store
//!   that meets nothing and marks the map; nothing from a marked map is accepted. Any other SIGBUS stays a crash.
//! - **What the user has stays.** Nothing that is there is emptied, cut, replaced or removed before it was checked, and
//!   each file is judged by itself: one of which nothing is right and that is not zeroes is refused by name. Only
//!   `--overwrite` lets the bytes of others go, and only what is wrong of them, once verified ones are there to take
//!   their place. A record is heeded only where it is our own, and what merely has the name of one stays. So
//!   [`disk::Site`] finds, locks and reads the files before [`disk::Site::make`] opens any of them for writing.
//! - **A record is believed as far as it can be.** What was verified is written down beside the output after it was
//!   synced ([`disk::record`]). It is believed where nobody else can have written it. After an orderly end the times of
//!   the files must be the recorded ones, and what was on the disk is not hashed again, as long as nobody else wrote to
//!   the files during the run, which fanotify tells. Stores through maps of others it cannot tell; and where only
//!   inotify is to be had, files that are written by `pwrite` here are hashed. All else that is recorded, and everything
//!   after a kill or a crash, is not fetched again but hashed before the end, one recorded piece of each file at the
//!   start.
//! - **Writeback is the kernel's affair**, unless the user waits for it: started early it costs and gains nothing, but
//!   for `--sync`.
//! - **Control apart from data.** Dialing, trackers, progress and giving up happen on the calling thread, a few times a
//!   second; the rings never wait for it.
//! - **Trackers over blocking sockets on threads.** A connected UDP socket with a read timeout, and for HTTP a small
//!   client of our own on rustls: trackers' bodies, lengths and addresses are wrong in many ways, and a deadline must
//!   hold for all of it. minreq, the small blocking client that there is, stays with the first address of a host that
//!   takes the connection, reads as many bytes as the server says, takes no user in a URL, goes through a proxy by
//!   CONNECT alone, and believes built-in roots or the system's, not both. A thread that hangs in a resolver delays
//!   nothing and is left behind at exit.
//! - **All tiers at once.** BEP 12 asks a tier only when those before it have failed. Lists in the wild are tiers of
//!   one tracker, most of them dead, so one of each tier is asked at the start and each hears again at its own
//!   interval.
//! - **A search that outlives its uses.** Sources of peers, the book and the listening port belong to
//!   [`download::Search`]. A magnet link's metadata is fetched with it by a small client on epoll ([`net::metadata`]),
//!   and the download goes on with the same search; a private torrent begins a new one, which only trackers feed.
//! - **What a link is, is kept.** Beside the output of a magnet link lies a torrent file of it (`disk::metafile`),
//!   believed by its hash alone, so that a later run needs nobody to know what it is about.
//! - **A DHT node that only asks.** It answers no queries (BEP 43) and has sockets open during lookups alone, so nobody
//!   can use it against others, and it costs nothing in between.
//! - **Encryption behind the plain path.** RC4 needs the bytes in a buffer before they have a place, so encrypted peers
//!   are read through the decoder, and plain ones do not know that there is such a thing.
//! - **We serve nothing.** ringtide never unchokes. Peers that lack pieces still hear which we have, as they pick by
//!   rarity, and as a super-seeder shows no piece before it knows the last to have arrived. Who dials us is let in all
//!   the same, encrypted or not: a seeder that nobody can dial reaches us in no other way.

pub mod cli;
pub mod discovery;
pub mod disk;
pub mod download;
pub mod error;
pub mod hash;
pub mod meta;
pub mod net;
pub mod os;
pub mod swarm;
pub mod wire;
