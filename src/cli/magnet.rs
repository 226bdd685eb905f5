//! The subcommands that take nothing but a magnet link.

use super::args::{MagnetHandshake, MagnetInfo, MagnetParse, Sources};
use super::{describe, print, reach};
use crate::download::{self, Patience, Reach};
use crate::error::Error;
use crate::meta::hex;
use crate::meta::magnet::Magnet;

/// The lines of `magnet_parse`.
pub(super) fn parse(args: &MagnetParse) -> Result<(), Error> {
    let magnet = read(&args.link)?;
    let tracker = magnet.trackers.first().map_or("none", String::as_str);
    print(&format!("Tracker URL: {tracker}\nInfo Hash: {}\n", magnet.info_hash))
}

/// The lines of `magnet_handshake`, of the first peer that takes part in the metadata exchange.
pub(super) fn shake_hands(args: &MagnetHandshake) -> Result<(), Error> {
    let mut observer = super::progress::Reporter::new(true);
    let (reach, magnet) = (of_the_link()?, read(&args.link)?);
    let interrupt = super::interrupts(observer.with_table(false))?;
    let shaken = download::shake_hands(&magnet, &reach, &interrupt, &mut observer);
    observer.finish(None);
    let (peer_id, id) = shaken?;
    print(&format!("Peer ID: {}\nPeer Metadata Extension ID: {id}\n", hex(&peer_id)))
}

/// The lines of `info`, for what a link names.
pub(super) fn info(args: &MagnetInfo) -> Result<(), Error> {
    let resolved = super::resolve(&args.link, &of_the_link()?, Patience::Default, true)?;
    print(&describe(&resolved.metainfo))
}

/// The peers that the link and its trackers name and no others: who asks like this wants to see how these answer.
fn of_the_link() -> Result<Reach, Error> {
    let sources = Sources { port: Some(0), ..Sources::default() };
    Ok(Reach { plain: true, ..reach(sources)? })
}

pub(super) fn read(link: &str) -> Result<Magnet, Error> {
    Magnet::parse(link).map_err(Error::Magnet)
}
