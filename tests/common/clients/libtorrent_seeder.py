"""Seeds one torrent with libtorrent until it is killed: TORRENT DIRECTORY ADDRESS:PORT [--partial] [--lsd]
[--connect IP:PORT] [--encrypted=both|rc4] [--super] [--rate=BYTES] [--friends ADDRESS:PORT..]"""

import sys

import libtorrent as lt

torrent, directory, address = sys.argv[1:4]
options = sys.argv[4:]
partial = "--partial" in options
callee = options[options.index("--connect") + 1].rsplit(":", 1) if "--connect" in options else None
encrypted = [option.partition("=")[2] for option in options if option.startswith("--encrypted=")]
rates = [int(option.partition("=")[2]) for option in options if option.startswith("--rate=")]
friends = options[options.index("--friends") + 1 :] if "--friends" in options else None

session = lt.session(
    {
        "listen_interfaces": address,
        "outgoing_interfaces": address.rsplit(":", 1)[0].strip("[]"),
        "enable_dht": False,
        "enable_lsd": "--lsd" in options,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        "allow_multiple_connections_per_ip": True,
        "close_redundant_connections": False,
        "connections_limit": 1000,
        "unchoke_slots_limit": -1,
        "alert_mask": lt.alert.category_t.error_notification
        | lt.alert.category_t.status_notification
        | lt.alert.category_t.tracker_notification,
    }
)

if encrypted:
    session.apply_settings(
        {
            "in_enc_policy": lt.enc_policy.forced,
            "out_enc_policy": lt.enc_policy.forced,
            "allowed_enc_level": getattr(lt.enc_level, encrypted[0]),
        }
    )

if partial:
    others = lt.ip_filter()
    others.add_rule("127.0.0.2", "127.0.0.5", 1)
    session.set_ip_filter(others)

parameters = lt.add_torrent_params()
parameters.ti = lt.torrent_info(torrent)
parameters.save_path = directory
parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
if "--super" in options:
    # It shows a piece at a time, and another once that has arrived.
    parameters.flags |= lt.torrent_flags.super_seeding
if friends is not None:
    # It serves what it has, and stays connected to the others without a word.
    parameters.flags |= lt.torrent_flags.upload_mode
handle = session.add_torrent(parameters)
if rates:
    # Of the torrent: that of the session does not hold for neighbours.
    handle.set_upload_limit(rates[0])
if friends is not None:
    while handle.status().state in (lt.torrent_status.checking_files, lt.torrent_status.checking_resume_data):
        session.wait_for_alert(100)
    for friend in friends:
        host, port = friend.rsplit(":", 1)
        handle.connect_peer((host, int(port)))

while True:
    session.wait_for_alert(1000)
    if callee and handle.status().is_seeding and not handle.status().num_peers:
        handle.connect_peer((callee[0], int(callee[1])))
    for alert in session.pop_alerts():
        print(alert.message(), flush=True)
