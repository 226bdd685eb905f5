"""A DHT of libtorrent sessions until it is killed: COUNT TORRENT DIRECTORY. The sessions are at 127.0.0.2, 127.0.0.3 and so
on, each on a port of its own choice; the last one seeds the torrent and knows no other way to be found than the DHT.

Prints the address of each, then `ready` once all know each other and the torrent is announced."""

import sys
import time

import libtorrent as lt

count, torrent, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3]

SETTINGS = {
    "enable_dht": True,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "dht_bootstrap_nodes": "",
    "dht_restrict_routing_ips": False,
    "dht_restrict_search_ips": False,
    "dht_ignore_dark_internet": False,
    "alert_mask": lt.alert.category_t.error_notification | lt.alert.category_t.dht_notification,
}


def start(ip):
    session = lt.session(SETTINGS | {"listen_interfaces": f"{ip}:0", "outgoing_interfaces": ip})
    while session.listen_port() == 0:
        time.sleep(0.01)
    return session


ips = [f"127.0.0.{number + 2}" for number in range(count)]
sessions = [start(ip) for ip in ips]
addresses = [(ip, session.listen_port()) for ip, session in zip(ips, sessions)]
for ip, port in addresses:
    print(f"node {ip}:{port}", flush=True)

# Who announces before it knows the others tells nobody. A session that is still starting forgets whom it is told of.
# Some are not kept where a bucket is full.
while any(session.status().dht_nodes < min(count - 1, 7) for session in sessions):
    for session in sessions:
        for address in addresses:
            session.add_dht_node(address)
    time.sleep(0.2)

parameters = lt.add_torrent_params()
parameters.ti = lt.torrent_info(torrent)
parameters.save_path = directory
parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
handle = sessions[-1].add_torrent(parameters)
while not handle.status().is_seeding:
    time.sleep(0.05)
# One announce may come too early. The session's own count of torrents is not set in some versions.
told = set()
while len(told) < min(count - 1, 5):
    handle.force_dht_announce()
    time.sleep(0.5)
    for session in sessions:
        if any(isinstance(alert, lt.dht_announce_alert) for alert in session.pop_alerts()):
            told.add(session.listen_port())
print("ready", flush=True)

while True:
    for session in sessions:
        for alert in session.pop_alerts():
            print(alert.message(), flush=True)
    time.sleep(0.1)
