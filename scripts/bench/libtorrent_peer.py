#!/usr/bin/env python3
"""libtorrent as a seeder or as a downloader for the benchmark.

    libtorrent_peer.py seed FILE.torrent FOLDER IP:PORT    seeds what is in FOLDER, unchecked, until it is ended
    libtorrent_peer.py get FILE.torrent FOLDER IP:PORT     downloads into FOLDER and exits when it is verified
"""

import os
import sys
import time

import libtorrent as lt


def main():
    command, torrent, folder, address = sys.argv[1:]
    session = lt.session({
        "listen_interfaces": address,
        "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
        "enable_incoming_utp": False, "enable_outgoing_utp": False,
        "allow_multiple_connections_per_ip": True, "connections_limit": 1000, "unchoke_slots_limit": 1000,
        "in_enc_policy": int(lt.enc_policy.pe_disabled), "out_enc_policy": int(lt.enc_policy.pe_disabled),
        "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification
        | lt.alert.category_t.storage_notification,
    })
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(torrent)
    params.save_path = folder
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    if command == "seed":
        params.flags |= lt.torrent_flags.seed_mode
    session.add_torrent(params)
    if command == "seed":
        while True:
            time.sleep(3600)
    while True:
        session.wait_for_alert(1000)
        for alert in session.pop_alerts():
            if isinstance(alert, lt.torrent_finished_alert):
                # Everything is verified by now, but not all of it is in the file yet.
                alert.handle.flush_cache()
            if isinstance(alert, lt.cache_flushed_alert):
                # A graceful end would only wait for the tracker.
                os._exit(0)
            if isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert)):
                sys.exit(str(alert))


main()
