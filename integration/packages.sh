#!/bin/sh
# Installs those of the named Debian packages that are missing. Prints which, and asks for root only
# for that.
set -eu

# A package that was renamed may provide the name: libevent-2.1-7t64 of Debian 13.
provided=$(dpkg-query --show --showformat '${db:Status-Status} ${Provides}\n' |
    sed -n 's/^installed //p' | tr ',' '\n' | sed 's/^ *//; s/ *(.*//')
missing=
for package; do
    status=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || printf '%s\n' "$provided" | grep -qxF "$package" ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0

sudo=
if [ "$(id -u)" != 0 ]; then
    sudo=sudo
    echo "sudo is needed to install packages."
fi
echo "Installing with apt-get:$missing"
$sudo apt-get update -qq
# shellcheck disable=SC2086 # package names hold no spaces
$sudo env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends $missing >/dev/null
