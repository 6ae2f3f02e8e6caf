#!/usr/bin/env bash
# Two containers, two core patterns, one kernel: `demo.sh BINARY`, as root.
# `make demo` builds the binary first.
#
# Installs the product, starts two containers with different annotations, crashes a program in
# each, shows where the cores are and what they say, and restores the host, even after a failure
# or ^C.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=${1:?usage: demo.sh BINARY}
installed=/usr/libexec/oci/hooks.d/oci-coredump
[ "$(id -u)" = 0 ] || { echo "demo.sh: the kernel's core_pattern is set by root only" >&2; exit 1; }
if [ -e "$installed" ]; then
    echo "demo.sh: $installed is installed already: \`sudo make uninstall\` first" >&2
    exit 1
fi

scratch=$(mktemp -d /tmp/demo.XXXXXX)
chmod 755 "$scratch"
sysctls=(core_pattern core_uses_pid core_pipe_limit)
before=$(cd /proc/sys/kernel && head -n 1 "${sysctls[@]}")

bold='' plain=''
[ ! -t 1 ] || bold=$'\033[1m' plain=$'\033[0m'
title() { printf '\n%s\n' "$bold$*$plain"; }

# Prints a command as a person would have typed it, and does it.
exec 3>&1
show() {
    local word
    printf '$' >&3
    for word; do
        case $word in
        *[' ;|']*) printf " '%s'" "$word" >&3 ;;
        *) printf ' %s' "$word" >&3 ;;
        esac
    done
    printf '\n' >&3
    "$@"
}

put_back() {
    set +e
    trap '' INT TERM
    stop_containers >/dev/null 2>&1
    if [ -e "$installed" ]; then
        "$installed" uninstall --purge >/dev/null
        make --silent uninstall >/dev/null
        [ ! -e "$installed" ] || {
            echo "demo.sh: $installed is still there: the lines above say why" >&2
            failed=1
        }
        find /sys/fs/cgroup -depth -type d -path '*/libpod_parent*' -exec rmdir {} + 2>/dev/null
        for directory in "${made[@]}"; do rmdir "$directory" 2>/dev/null; done
    fi
    awk -v below="$scratch/" 'index($2, below) == 1 { print $2 }' /proc/mounts |
        sort -r | xargs -r umount --lazy
    rm -rf "$scratch"
    if [ "$(cd /proc/sys/kernel && head -n 1 "${sysctls[@]}")" = "$before" ]; then
        [ -z "$failed" ] || exit 1
        title "The host is as it was: kernel.core_pattern = $(cat /proc/sys/kernel/core_pattern)"
    else
        echo "demo.sh: the sysctls are not what they were:" >&2
        head -n 1 "${sysctls[@]/#//proc/sys/kernel/}" >&2
        exit 1
    fi
}
failed=
# The directories that `make install` will make, the innermost first.
made=()
for directory in /usr/libexec/oci{/hooks.d,} /usr/share/containers/oci{/hooks.d,} \
    /usr/share/zsh{/vendor-completions,} \
    /usr/share/fish{/vendor_completions.d,} /usr/share/man{/man1,} /usr/lib/systemd{/system,}; do
    [ -d "$directory" ] || made+=("$directory")
done
trap put_back EXIT
trap 'exit 130' INT TERM

# --- containers: by podman with a storage of its own, or by runc where there is no podman

make_image() {
    mkdir -p "$1"/{bin,dev,etc,proc,sys,tmp}
    cp "$(command -v busybox)" "$1/bin/busybox"
    for name in $("$1/bin/busybox" --list); do
        [ "$name" = busybox ] || ln -sf busybox "$1/bin/$name"
    done
    gcc -g -O0 -static -o "$scratch/server" integration/matrix/victim.c
    cp "$scratch/server" "$1/bin/server"
}

configure_podman() {
    # Without systemd podman cannot use it; without CAP_SYS_RESOURCE root cannot raise limits; crun
    # refuses hybrid cgroups.
    local engine='' containers=''
    [ -d /run/systemd/system ] || engine+=$'cgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    [ ! -e /sys/fs/cgroup/unified/cgroup.controllers ] || engine+=$'runtime = "runc"\n'
    local capabilities
    capabilities=$(sed -n 's/^CapEff:\t*//p' /proc/self/status)
    ((0x$capabilities >> 24 & 1)) || containers+=$'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
    cat >"$scratch/containers.conf" <<END
[containers]
netns = "none"
$containers
[engine]
$engine
static_dir = "$scratch/static"
tmp_dir = "$scratch/tmp"
volume_path = "$scratch/volumes"
END
    cat >"$scratch/storage.conf" <<END
[storage]
driver = "overlay"
graphroot = "$scratch/storage"
runroot = "$scratch/run"
END
    export CONTAINERS_CONF=$scratch/containers.conf CONTAINERS_STORAGE_CONF=$scratch/storage.conf
    make_image "$scratch/image"
    tar -C "$scratch/image" -c . | podman import --quiet - busybox >/dev/null
}

configure_runc() {
    make_image "$scratch/image"
    echo 'There is no podman here: runc does it, and the commands below are written as podman has them.'
    podman() {
        local verb=$1
        shift
        case $verb in
        run) runc_run "$@" ;;
        exec) runc --root "$scratch/state" exec "$@" ;;
        rm) for name in "${@:4}"; do runc --root "$scratch/state" delete --force "$name"; done ;;
        esac
    }
}

# run --detach --name NAME --annotation KEY=VALUE [--volume HOST:INSIDE] IMAGE COMMAND...
runc_run() {
    local name=$3 key=${5%%=*} value=${5#*=} volume=''
    shift 5
    if [ "$1" = --volume ]; then
        volume=",{\"destination\":\"${2#*:}\",\"type\":\"bind\",\"source\":\"${2%%:*}\",\"options\":[\"rbind\",\"rw\"]}"
        shift 2
    fi
    shift
    local bundle=$scratch/$name words hooks='' stage
    words=$(printf ',"%s"' "$@")
    for stage in createRuntime poststart poststop; do
        hooks+=",\"$stage\":[{\"path\":\"$installed\",\"args\":[\"oci-coredump\",\"hook\",\"$stage\"],\"timeout\":10}]"
    done
    mkdir -p "$bundle"
    cp -a "$scratch/image" "$bundle/rootfs"
    cat >"$bundle/config.json" <<END
{"ociVersion":"1.0.2","root":{"path":"rootfs"},"hostname":"$name","annotations":{"$key":"$value"},
"process":{"user":{"uid":0,"gid":0},"cwd":"/","env":["PATH=/bin"],"args":[${words#,}]},
"hooks":{${hooks#,}},
"mounts":[{"destination":"/proc","type":"proc","source":"proc"},
{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755"]}$volume],
"linux":{"namespaces":[{"type":"pid"},{"type":"network"},{"type":"ipc"},{"type":"uts"},{"type":"mount"}],
"readonlyPaths":["/proc/sys"]}}
END
    runc --root "$scratch/state" run --detach --bundle "$bundle" "$name" </dev/null >/dev/null 2>&1
}

stop_containers() {
    podman rm --force --time 0 shop bank
}

title "Before: kernel.core_pattern = $(cat /proc/sys/kernel/core_pattern)"
if command -v podman >/dev/null; then configure_podman; else configure_runc; fi
show make --silent install binary="$binary"
volume=$scratch/volume
mkdir "$volume"

title 'Two containers on one kernel. One asks in the words of Alibaba ECI, the other in our own, for its volume.'
show podman run --detach --name shop --annotation k8s.aliyun.com/eci-core-pattern=/pod/data/dump/core-eci \
    busybox sleep 1000 >/dev/null
show podman run --detach --name bank --annotation oci-coredump/pattern=/crash/%e-%s.%p \
    --volume "$volume:/crash" busybox sleep 1000 >/dev/null

title 'Each reads its own pattern in its own /proc.'
for name in shop bank; do show podman exec "$name" cat /proc/sys/kernel/core_pattern; done
[ "$(podman exec shop cat /proc/sys/kernel/core_pattern)" = /pod/data/dump/core-eci ] || {
    echo "demo.sh: the container has no pattern of its own. What the hook said of it:" >&2
    { journalctl -t oci-coredump --lines 5 2>/dev/null || dmesg | grep oci-coredump; } |
        tail -n 5 >&2
    exit 1
}
echo "On the host: $(cut -c 1-60 /proc/sys/kernel/core_pattern)..."

title 'A program crashes in each. The cores are where each container asked.'
for name in shop bank; do show podman exec "$name" sh -c 'server; true' 2>&1; done
show podman exec shop ls -l /pod/data/dump
show podman exec bank ls -l /crash

title 'The containers are removed. The cores stay: in the store of the host, and on the volume.'
show podman rm --force --time 0 shop bank >/dev/null
stored=$(find /var/lib/oci-coredump/containers -name 'core-eci.*')
on_volume=$(find "$volume" -name 'server-*')
show ls -l "$stored" "$on_volume"

title 'What the first one tells.'
show gdb --batch -ex backtrace "$scratch/server" "$stored" 2>/dev/null |
    awk '/^(#|Program terminated)/ && !seen[$0]++'
