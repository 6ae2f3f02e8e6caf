#!/bin/sh
# CRI-O, crictl, kubelet and a control plane from checkouts, for `make conformance`:
#
#   kubernetes.sh DIRECTORY CRIO_SRC CRITOOLS_SRC KUBELET_SRC
#
# builds crio, pinns, crictl, kubelet, kube-apiserver, kube-controller-manager, kube-scheduler and
# etcd into DIRECTORY, each from its project's sources, which vendor what they need; nothing is
# fetched, and no checkout is changed. An empty argument: not that one. KUBELET_SRC is kubernetes
# itself, or MicroShift, which vendors it; both vendor etcd.
# Go is the newest of $GO_DIRECTORY (integration/tools.sh) that is of the version in the checkout's
# go.mod, else the newest, unless $GO names one: what a checkout vendors need not fit a later Go.
set -eu
directory=$1 crio=$2 critools=$3 kubelet=$4
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export GOTOOLCHAIN=local GOPROXY=off GOFLAGS='-mod=vendor -trimpath'

# The Go for the module in a directory.
go_for() {
    minor=$(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' "$1/go.mod")
    toolchains=$(find "${GO_DIRECTORY:-/nonexistent}" -maxdepth 4 -path '*/go/bin/go' 2>/dev/null |
        sort -V)
    fitting=$(echo "$toolchains" | grep -F "/$minor." | tail -n 1)
    newest=$(echo "$toolchains" | tail -n 1)
    echo "${GO:-${fitting:-${newest:-go}}}"
}

# The version of a checkout, as its own build would say it; else the words given.
described() { git -C "$1" describe --tags --always 2>/dev/null || echo "$2"; }

if [ -n "$crio" ]; then
    echo "Building CRI-O from $crio"
    tags='containers_image_openpgp containers_image_ostree_stub exclude_graphdriver_btrfs'
    tags="$tags btrfs_noversion seccomp"
    # The library of the system where the checkout has no copy of SQLite.
    test -f "$crio/vendor/github.com/mattn/go-sqlite3/sqlite3-binding.c" || tags="$tags libsqlite3"
    (cd "$crio" && "$(go_for .)" build -tags "$tags" -o "$directory/crio" ./cmd/crio)
    # Its Makefile writes beside the sources.
    cp -r "$crio/pinns" "$scratch/pinns"
    make --silent -C "$scratch/pinns"
    install -m 0755 "$scratch/bin/pinns" "$directory/pinns"
fi

if [ -n "$critools" ]; then
    echo "Building crictl from $critools"
    version=-X=sigs.k8s.io/cri-tools/pkg/version.Version=$(described "$critools" unknown)
    (cd "$critools" && CGO_ENABLED=0 "$(go_for .)" build -ldflags "$version" \
        -o "$directory/crictl" ./cmd/crictl)
fi

if [ -n "$kubelet" ]; then
    kubelet=$(cd "$kubelet" && pwd)
    base=k8s.io/component-base/version
    fork=$kubelet/deps/github.com/openshift/kubernetes/cmd
    if [ ! -d "$kubelet/cmd/kubelet" ] && [ -d "$fork/kubelet" ]; then
        version=$(sed -n 's/^\tk8s.io\/kubernetes v//p' "$kubelet/go.mod" | head -n 1)
        etcd=$kubelet/etcd
    else
        version=$(described "$kubelet" v0.0.0 | sed 's/^v//')
        fork=
        etcd=$kubelet
    fi
    minor=${version#*.}

    # A main package of one file, in a directory that only the compiler sees: the module, the
    # program's name, the file, and what else the compiler is told.
    overlaid() {
        module=$1 program=$2 file=$3
        shift 3
        printf '{"Replace": {"%s": "%s"}}' "$module/cmd/$program/main.go" "$file" \
            >"$scratch/overlay"
        (cd "$module" && "$(go_for .)" build -overlay "$scratch/overlay" "$@" \
            -o "$directory/$program" "./cmd/$program")
    }

    for program in kubelet kube-apiserver kube-controller-manager kube-scheduler; do
        echo "Building $program from $kubelet"
        flags="-X=$base.gitVersion=v$version -X=$base.gitMajor=${version%%.*}"
        flags="$flags -X=$base.gitMinor=${minor%%.*}"
        if [ -z "$fork" ]; then
            (cd "$kubelet" && "$(go_for .)" build -ldflags "$flags" -o "$directory/$program" \
                "./cmd/$program")
            continue
        fi
        # The fork's main file without two imports that are not vendored: logs in JSON, and the
        # metric of the version.
        cat "$fork/$program/"*.go |
            grep -v -e logs/json/register -e metrics/prometheus/version >"$scratch/main.go"
        overlaid "$kubelet" "$program" "$scratch/main.go" -ldflags "$flags"
    done

    echo "Building etcd from $etcd"
    cat >"$scratch/etcd.go" <<'END'
// etcd by its configuration file: the checkouts vendor the server, and not its command line.
package main

import (
	"log"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

func main() {
	config, err := embed.ConfigFromFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server, err := embed.StartEtcd(config)
	if err != nil {
		log.Fatal(err)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	select {
	case <-end:
	case err := <-server.Err():
		log.Fatal(err)
	}
	server.Close()
}
END
    overlaid "$etcd" etcd "$scratch/etcd.go"
fi
