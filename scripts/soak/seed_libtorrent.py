#!/usr/bin/env python3
"""libtorrent as a seeder of several torrents: seed_libtorrent.py IP:PORT BYTES_PER_SECOND FOLDER FILE.torrent.."""

import sys
import time

import libtorrent as lt

address, rate, folder, *torrents = sys.argv[1:]
session = lt.session({
    "listen_interfaces": address, "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "enable_incoming_utp": False, "enable_outgoing_utp": False, "allow_multiple_connections_per_ip": True,
})
for torrent in torrents:
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(torrent)
    params.save_path = folder
    # The limit of a session does not count on loopback.
    params.upload_limit = int(rate)
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    params.flags |= lt.torrent_flags.seed_mode
    session.add_torrent(params)
while True:
    time.sleep(3600)
