#!/bin/sh
# Servers of object storage for the tests of this program, which apt does not have: `tools.sh
# DIRECTORY` puts them in DIRECTORY/bin.
set -eu
directory=$1
mkdir -p "$directory/bin"
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
# Kubernetes' published schemas, as integration/tools.sh.
if [ ! -d "$directory/python/kubernetes_validate" ]; then
    echo "Fetching kubernetes-validate"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
        --target "$directory/python" kubernetes-validate==1.37.0
fi
