#!/bin/bash
# The product on a whole host in a virtual machine, from its packages: `run.sh SUITE DEB NEWER_DEB
# RPM SHIP_DEB`, as root. `make test-hosts` builds them first. Three boots of one disk: install and
# use; what came back by itself; removal. The machine has a kernel of its own: nothing of this one
# is changed.
#
# Writes the results into docs/hosts.md. OCI_COREDUMP_HOSTS: where images are kept.
set -euo pipefail
cd "$(dirname "$0")/../.."
suite=$1 deb=$2 newer=$3 rpm=$4 ship=$5
cache=${OCI_COREDUMP_HOSTS:-/var/cache/oci-coredump-hosts}/$suite

integration/hosts/image.sh "$suite" "$cache"
scratch=$(mktemp -d /var/tmp/oci-coredump-hosts.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/disk"
gcc -g -O0 -static -o "$scratch/disk/server" integration/matrix/victim.c
cp integration/hosts/inside.sh integration/hosts/steps.sh integration/support/cri.py "$scratch/disk"
cp "$deb" "$scratch/disk/first.deb"
cp "$newer" "$scratch/disk/second.deb"
cp "$rpm" "$scratch/disk/package.rpm"
cp "$ship" "$scratch/disk/ship.deb"
qemu-img create -q -f qcow2 -F raw -b "$cache/disk.img" "$scratch/disk.qcow2"

: >"$scratch/results"
for phase in use again remove; do
    echo "$phase" >"$scratch/disk/phase"
    tar -C "$scratch/disk" -c -f "$scratch/second.tar" .
    # Emulated, since KVM within a virtual machine is often none: a boot takes a minute, and longer
    # on a busy machine. Once in a while an emulated kernel panics while it patches itself: a boot
    # in which nothing was said is done again.
    for _ in 1 2 3; do
        timeout 2400 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 \
            -nodefaults -no-user-config -display none -no-reboot \
            -kernel "$cache/vmlinuz" -initrd "$cache/initrd" \
            -append "root=/dev/vda rw console=ttyS0 panic=-1 \
systemd.mask=systemd-networkd-wait-online.service" \
            -drive "file=$scratch/disk.qcow2,format=qcow2,if=virtio,cache=unsafe" \
            -drive "file=$scratch/second.tar,format=raw,if=virtio,readonly=on" \
            -serial "file:$scratch/console" -serial "file:$scratch/said" || true
        [ ! -s "$scratch/said" ] || break
    done
    tr -d '\r' <"$scratch/said" | tee -a "$scratch/results"
    # The last line of each boot: what follows would be about another host.
    if ! tr -d '\r' <"$scratch/said" | grep -q "^end$(printf '\t')$phase"; then
        echo "hosts: the boot \"$phase\" of $suite did not come to its end; its console:" >&2
        tail -n 60 "$scratch/console" >&2
        break
    fi
done

integration/hosts/table.sh "$suite" "$scratch/results" docs/hosts.md
passed=$(grep -c "^ok$(printf '\t')" "$scratch/results" || true)
failed=$(grep -c "^FAILED$(printf '\t')" "$scratch/results" || true)
ends=$(grep -c "^end$(printf '\t')" "$scratch/results" || true)
echo "hosts, $suite: $passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$ends" = 3 ]
