//! The subcommands that take nothing but a magnet link.

use std::ffi::OsStr;

use serde_json::json;

use super::args::{MagnetHandshake, MagnetInfo, MagnetParse, Sources};
use super::{print, reach};
use crate::download::{self, Patience, Reach};
use crate::error::Error;
use crate::meta::about::About;
use crate::meta::hex;
use crate::meta::magnet::Magnet;
use crate::meta::text::escape;

/// The lines of `magnet_parse`.
pub(super) fn parse(args: &MagnetParse) -> Result<(), Error> {
    let magnet = read(&args.link)?;
    if args.json.is_some() {
        return print(&super::json::line(&super::json::link(&magnet)));
    }
    let tracker = magnet.trackers.first().map_or("none", String::as_str);
    print(&format!("Tracker URL: {}\nInfo Hash: {}\n", escape(tracker), magnet.info_hash))
}

/// The lines of `magnet_handshake`, of the first peer that takes part in the metadata exchange.
pub(super) fn shake_hands(args: &MagnetHandshake) -> Result<(), Error> {
    let mut observer = super::progress::Reporter::new(true);
    let (reach, magnet) = (of_the_link()?, read(&args.link)?);
    let interrupt = super::interrupts(observer.with_table(false))?;
    let shaken = download::shake_hands(&magnet, &reach, &interrupt, &mut observer);
    observer.finish(None);
    let (peer_id, id) = shaken?;
    let peer_id = hex(&peer_id);
    if args.json.is_some() {
        let told = json!({ "peer_id": peer_id.to_string(), "metadata_extension_id": id });
        return print(&super::json::line(&told));
    }
    print(&format!("Peer ID: {peer_id}\nPeer Metadata Extension ID: {id}\n"))
}

/// The lines of `info`, for what a link names.
pub(super) fn info(args: &MagnetInfo) -> Result<(), Error> {
    let reporter = super::events::Narrator::new(true, args.json);
    let resolved = super::resolve(&read(&args.link)?, &of_the_link()?, Patience::Default, reporter)?;
    let metainfo = &resolved.metainfo;
    if args.json.is_some() {
        return print(&super::json::line(&super::info::object(metainfo, &About::default())));
    }
    print(&super::info::lines(metainfo))
}

/// The peers that the link and its trackers name and no others: who asks like this wants to see how these answer.
fn of_the_link() -> Result<Reach, Error> {
    let sources = Sources { port: Some(0), ..Sources::default() };
    Ok(Reach { plain: true, ..reach(sources)? })
}

pub(super) fn read(link: &OsStr) -> Result<Magnet, Error> {
    Magnet::parse(&link.to_string_lossy()).map_err(Error::Magnet)
}
