//! Where peers come from: trackers, the DHT and the local network. A source of peers runs on threads of its own and
//! hands addresses over by a callback, so that no name lookup, dead server or slow reply is ever felt by the rings that
//! move the data.
//!
//! `url`, `mask`, `scope` and `tracker` are pure (text and bytes in, values out), and so is `rounds`, which decides
//! whom to ask next. `http` and `udp` do one blocking request, `lookup` finds the addresses for them, `ask` takes the
//! one that a URL calls for, and `announcer` keeps asking for as long as a download lasts. [`fetch`] gets a file by its
//! URL. [`dht`] is a node of the DHT, and [`lsd`] talks to the neighbours.

pub mod announcer;
pub mod ask;
pub mod dht;
pub mod fetch;
pub mod http;
mod lookup;
pub mod lsd;
mod mask;
mod rounds;
pub mod scope;
pub mod tracker;
pub mod udp;
pub mod url;

pub use mask::masked;
