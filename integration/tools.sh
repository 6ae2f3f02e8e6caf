#!/bin/sh
# Tools of the tests that apt cannot install, or should not: `tools.sh DIRECTORY` puts them in DIRECTORY/bin.
set -eu
directory=$1
mkdir -p "$directory/bin"
PATH=$PATH:$directory/bin:$HOME/.cargo/bin

# Debian has no youki. Built outside of this project: its cargo configuration asks for static programs.
if ! command -v youki >/dev/null; then
    echo "Building youki with cargo install (a few minutes, once)"
    (cd / && cargo install youki --version 0.7.0 --locked --no-default-features --features v1,v2 --root "$directory" --quiet)
fi

# Installing systemd-coredump would make it the machine's core handler at once: it is unpacked instead.
if [ ! -x /usr/lib/systemd/systemd-coredump ] && [ ! -x "$directory/bin/systemd-coredump" ]; then
    echo "Unpacking systemd-coredump"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    cd "$scratch"
    # It fails where the package lists were never fetched, or are older than the archive.
    if ! apt-get download -qq systemd-coredump 2>/dev/null; then
        $([ "$(id -u)" = 0 ] || echo sudo) apt-get update -qq
        apt-get download -qq systemd-coredump
    fi
    dpkg-deb --extract "$scratch"/systemd-coredump_*.deb "$scratch/tree"
    program=$(find "$scratch/tree" -path '*/systemd/systemd-coredump' -type f)
    install -m 0755 "$program" "$directory/bin/systemd-coredump"
fi

# Kubernetes' published schemas, with a validator: no Debian package has them.
if [ ! -d "$directory/python/kubernetes_validate" ]; then
    echo "Fetching kubernetes-validate"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target "$directory/python" kubernetes-validate==1.37.0
fi

# Newer engines than the machine's, unpacked: Go programs run on an older Debian as they are. Installed, they would replace the machine's.
# From the archive that this machine uses already; where that is none of Debian's, the tests of those engines say that they are skipped.
# kubectl too, where the machine has none.
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/$' | head -n 1)
for suite in trixie sid; do
    kubectl=$(command -v kubectl >/dev/null || [ "$suite" != trixie ] || echo kubectl)
    [ -x "$directory/$suite/usr/bin/containerd" ] && [ -x "$directory/$suite/usr/sbin/dockerd" ] && [ -z "$kubectl" ] && continue
    [ -n "$archive" ] || break
    echo "Unpacking containerd and Docker of Debian $suite"
    apt=$(mktemp -d)
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/debs"
    : >"$apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $suite main" >"$apt/sources.list"
    set -- -qq -o Dir::State="$apt" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt" -o Dir::Etc::sourcelist="$apt/sources.list" \
        -o Dir::Etc::sourceparts=/nonexistent -o APT::Sandbox::User=root
    apt-get "$@" update
    (cd "$apt/debs" && apt-get "$@" download containerd docker.io docker-cli $kubectl)
    for package in "$apt"/debs/*.deb; do dpkg-deb --extract "$package" "$directory/$suite"; done
    [ -z "$kubectl" ] || ln -sf "../$suite/usr/bin/kubectl" "$directory/bin/kubectl"
    rm -rf "$apt"
done
