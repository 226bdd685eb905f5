//! Where peers come from: trackers, and the DHT. A source of peers runs on threads of its own and hands addresses over by
//! a callback, so that no name lookup, dead server or slow reply is ever felt by the rings that move the data.
//!
//! `url` and `tracker` are pure (text and bytes in, values out), `rounds` decides whom to ask next, `http` does one
//! blocking request, and `announcer` keeps asking for as long as a download lasts. [`dht`] is a node of the DHT.

pub mod announcer;
pub mod dht;
pub mod http;
mod rounds;
pub mod tracker;
pub mod url;
