#!/bin/sh
# CRI-O, crictl and kubelet from checkouts, for `make conformance`:
#
#   kubernetes.sh DIRECTORY CRIO_SRC CRITOOLS_SRC KUBELET_SRC
#
# builds crio, pinns, crictl and kubelet into DIRECTORY, each from its project's sources, which
# vendor what they need; nothing is fetched, and no checkout is changed. An empty argument: not
# that one. KUBELET_SRC is kubernetes itself, or MicroShift, which vendors the kubelet.
# Go is the newest of $GO_DIRECTORY (integration/tools.sh), unless $GO names one.
set -eu
directory=$1 crio=$2 critools=$3 kubelet=$4
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
newest=$(find "${GO_DIRECTORY:-/nonexistent}" -maxdepth 4 -path '*/go/bin/go' 2>/dev/null |
    sort -V | tail -n 1)
go=${GO:-${newest:-go}}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export GOTOOLCHAIN=local GOPROXY=off GOFLAGS='-mod=vendor -trimpath'

# The version of a checkout, as its own build would say it; else the words given.
described() { git -C "$1" describe --tags --always 2>/dev/null || echo "$2"; }

if [ -n "$crio" ]; then
    echo "Building CRI-O from $crio"
    tags='containers_image_openpgp containers_image_ostree_stub exclude_graphdriver_btrfs'
    tags="$tags btrfs_noversion seccomp"
    # The library of the system where the checkout has no copy of SQLite.
    test -f "$crio/vendor/github.com/mattn/go-sqlite3/sqlite3-binding.c" || tags="$tags libsqlite3"
    (cd "$crio" && "$go" build -tags "$tags" -o "$directory/crio" ./cmd/crio)
    # Its Makefile writes beside the sources.
    cp -r "$crio/pinns" "$scratch/pinns"
    make --silent -C "$scratch/pinns"
    install -m 0755 "$scratch/bin/pinns" "$directory/pinns"
fi

if [ -n "$critools" ]; then
    echo "Building crictl from $critools"
    version=-X=sigs.k8s.io/cri-tools/pkg/version.Version=$(described "$critools" unknown)
    (cd "$critools" && CGO_ENABLED=0 "$go" build -ldflags "$version" \
        -o "$directory/crictl" ./cmd/crictl)
fi

if [ -n "$kubelet" ]; then
    echo "Building kubelet from $kubelet"
    base=k8s.io/component-base/version
    main=$kubelet/cmd/kubelet/kubelet.go
    fork=$kubelet/deps/github.com/openshift/kubernetes/cmd/kubelet/kubelet.go
    if [ ! -f "$main" ] && [ -f "$fork" ]; then
        # The fork's main file, in a directory that only the compiler sees, without two imports
        # that are not vendored: logs in JSON, and the metric of the version.
        grep -v -e logs/json/register -e metrics/prometheus/version "$fork" >"$scratch/main.go"
        kubelet=$(cd "$kubelet" && pwd)
        printf '{"Replace": {"%s": "%s"}}' "$kubelet/cmd/kubelet/main.go" "$scratch/main.go" \
            >"$scratch/overlay"
        version=$(sed -n 's/^\tk8s.io\/kubernetes v//p' "$kubelet/go.mod" | head -n 1)
        set -- -overlay "$scratch/overlay"
    else
        version=$(described "$kubelet" v0.0.0 | sed 's/^v//')
        set --
    fi
    minor=${version#*.}
    (cd "$kubelet" && "$go" build "$@" -ldflags "-X=$base.gitVersion=v$version \
        -X=$base.gitMajor=${version%%.*} -X=$base.gitMinor=${minor%%.*}" \
        -o "$directory/kubelet" ./cmd/kubelet)
fi
