#!/usr/bin/env bash
# Installs the real tracker and the real clients that the tests download from, and what makes the file systems that they
# download to, where these are missing, and prints what is used. Meant for Debian 12; elsewhere, have the programs on the
# PATH and it finds nothing to do.
#
#   scripts/install_clients.sh                       everything
#   scripts/install_clients.sh opentracker aria2c    only these programs
set -euo pipefail

# The first Python that can import a module (the tests look in the same places, in the same order).
venv=$(cd "$(dirname "$0")/.." && pwd)/target/clients/venv
find_python() {
    local python module=$1
    for python in python3 /usr/bin/python3 "$venv/bin/python3"; do
        if "$python" -c "import $module" 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    return 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "install_clients.sh: '$*' needs root, and there is no sudo" >&2
        return 1
    fi
}

policy=/usr/sbin/policy-rc.d
apt_updated=no
apt_install() {
    if ! command -v apt-get >/dev/null; then
        echo "install_clients.sh: there is no apt-get; install by hand: $*" >&2
        return 1
    fi
    if [ $apt_updated = no ]; then
        as_root apt-get update -qq >&2
        apt_updated=yes
    fi
    # Debian starts the daemons it installs. The tests run their own, on their own ports: a policy of 101 says no.
    if [ ! -e $policy ]; then
        trap 'as_root rm -f $policy' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod 755 $policy
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

package_of() {
    case $1 in
    aria2c) echo aria2 ;;
    transmission-daemon | opentracker | rtorrent) echo "$1" ;;
    mkfs.ext4) echo e2fsprogs ;;
    mkfs.xfs) echo xfsprogs ;;
    mkfs.btrfs) echo btrfs-progs ;;
    *)
        echo "install_clients.sh: unknown program '$1'" >&2
        return 1
        ;;
    esac
}

install_libtorrent() {
    if find_python libtorrent >/dev/null; then return; fi
    # A virtual environment, because Debian's own Python takes no packages from PyPI (PEP 668).
    if ! python3 -m venv "$venv" >/dev/null 2>&1; then
        apt_install python3 python3-venv
        /usr/bin/python3 -m venv --clear "$venv"
    fi
    "$venv/bin/python3" -m pip install --quiet --disable-pip-version-check libtorrent >&2
}

# The binding for file systems in user space, with the library that it binds.
install_fuse() {
    if find_python fusepy >/dev/null; then return; fi
    apt_install python3 python3-fusepy
}

version_of() {
    case $1 in
    aria2c) aria2c --version | head -n 1 ;;
    transmission-daemon) transmission-daemon --version 2>&1 ;;
    rtorrent) rtorrent -h | head -n 1 ;;
    mkfs.*) "$1" -V 2>&1 | head -n 1 ;;
    # It cannot tell; the package can.
    opentracker) dpkg-query --show --showformat 'opentracker ${Version}' opentracker 2>/dev/null || echo opentracker ;;
    esac
}

main() {
    local wanted=("$@") packages=() program
    if [ $# = 0 ]; then
        wanted=(opentracker transmission-daemon aria2c rtorrent libtorrent mkfs.ext4 mkfs.xfs mkfs.btrfs fusepy)
    fi
    # Debian keeps what makes file systems away from the PATH of ordinary users.
    PATH=$PATH:/usr/sbin:/sbin
    for program in "${wanted[@]}"; do
        if [ "$program" != libtorrent ] && [ "$program" != fusepy ] && ! command -v "$program" >/dev/null; then
            packages+=("$(package_of "$program")")
        fi
    done
    if [ ${#packages[@]} -gt 0 ]; then apt_install "${packages[@]}"; fi
    for program in "${wanted[@]}"; do
        if [ "$program" = libtorrent ]; then
            install_libtorrent
            local python
            python=$(find_python libtorrent)
            echo "$python: libtorrent $("$python" -c 'import libtorrent; print(libtorrent.__version__)')"
        elif [ "$program" = fusepy ]; then
            install_fuse
            find_python fusepy
        else
            local path
            path=$(command -v "$program") || {
                echo "install_clients.sh: '$program' is installed but not on the PATH" >&2
                return 1
            }
            echo "$path: $(version_of "$program")"
        fi
    done
}

main "$@"
