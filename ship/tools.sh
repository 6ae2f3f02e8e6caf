#!/bin/sh
# Servers for the tests of this program, which apt does not have or should not install: `tools.sh
# DIRECTORY` puts them in DIRECTORY/bin.
set -eu
directory=$1
mkdir -p "$directory/bin"
PATH=$PATH:$directory/bin
# shellcheck source=integration/fetch.sh
. "$(dirname "$0")/../integration/fetch.sh"
cd /

if [ ! -x "$directory/bin/s3s-fs" ]; then
    echo "Building s3s-fs with cargo install (some minutes, once)"
    cargo install s3s-fs --version =0.14.1 --features binary --locked --quiet --root "$directory"
fi

# A directory of Python's packages: `venv NAME PACKAGE`.
venv() {
    python3 -m venv "$directory/$1"
    "$directory/$1/bin/pip" install --quiet --disable-pip-version-check "$2"
}
if [ ! -x "$directory/bin/moto_server" ]; then
    echo "Fetching moto"
    venv moto 'moto[s3,server]==5.2.1'
    ln -sf ../moto/bin/moto_server "$directory/bin/moto_server"
fi
if [ ! -x "$directory/bin/azurite-blob" ]; then
    echo "Fetching azurite"
    npm install --silent --no-audit --no-fund --prefix "$directory/azurite" azurite@3.37.0
    ln -sf ../azurite/node_modules/.bin/azurite-blob "$directory/bin/azurite-blob"
fi
# A server of debug information. Installed, it would run: it is unpacked, with its libraries, and
# started by a script that knows where these are.
if ! command -v debuginfod >/dev/null; then
    echo "Unpacking debuginfod"
    fresh=$(mktemp -d "$directory/fresh.XXXXXX")
    cd "$fresh"
    # Their names are not the same in each release.
    fetch() {
        libraries=$(apt-cache depends debuginfod 2>/dev/null |
            sed -n 's/^ *Depends: \(lib\(microhttpd\|archive\)[^ ]*\)$/\1/p')
        # shellcheck disable=SC2086 # package names hold no spaces
        apt-get download -qq debuginfod $libraries
    }
    with_lists fetch
    for package in "$fresh"/*.deb; do dpkg-deb --extract "$package" "$fresh/tree"; done
    rm -rf "${directory:?}/debuginfod"
    mv "$fresh/tree" "$directory/debuginfod"
    libraries=$(dirname "$(find "$directory/debuginfod" -name 'libarchive.so.13')")
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libraries" \
        "$directory/debuginfod/usr/bin/debuginfod" >"$directory/bin/debuginfod"
    chmod 0755 "$directory/bin/debuginfod"
    cd /
    rm -rf "$fresh"
fi

kubernetes_validate
