"""Seeds one torrent with libtorrent until it is killed: TORRENT DIRECTORY ADDRESS:PORT [--partial | --friends ADDRESS:PORT..]"""

import sys

import libtorrent as lt

torrent, directory, address = sys.argv[1:4]
partial = sys.argv[4:] == ["--partial"]
has_friends = sys.argv[4:5] == ["--friends"]

session = lt.session(
    {
        "listen_interfaces": address,
        "outgoing_interfaces": address.rsplit(":", 1)[0].strip("[]"),
        "enable_dht": False,
        "enable_lsd": False,
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

if partial:
    others = lt.ip_filter()
    others.add_rule("127.0.0.2", "127.0.0.5", 1)
    session.set_ip_filter(others)

parameters = lt.add_torrent_params()
parameters.ti = lt.torrent_info(torrent)
parameters.save_path = directory
parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
if has_friends:
    # It serves what it has, and stays connected to the others without a word.
    parameters.flags |= lt.torrent_flags.upload_mode
handle = session.add_torrent(parameters)
if has_friends:
    while handle.status().state in (lt.torrent_status.checking_files, lt.torrent_status.checking_resume_data):
        session.wait_for_alert(100)
    for friend in sys.argv[5:]:
        host, port = friend.rsplit(":", 1)
        handle.connect_peer((host, int(port)))

while True:
    session.wait_for_alert(1000)
    for alert in session.pop_alerts():
        print(alert.message(), flush=True)
