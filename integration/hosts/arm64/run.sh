#!/bin/bash
# The tests that know the architecture, on AArch64: `run.sh FLAVOUR...`, as root. `make test-arm64`
# builds them first. Each flavour of Debian's kernel (cloud-arm64,
# arm64-16k) runs in an emulated machine: unit tests, lanes, stacks, the demonstration. A core of
# the machine is then read here, by the program of this architecture.
#
# Writes the results into docs/hosts.md. OCI_COREDUMP_HOSTS: where images are kept. TEST: only the
# tests whose name holds that, and no table.
set -euo pipefail
cd "$(dirname "$0")/../../.."
cache=${OCI_COREDUMP_HOSTS:-/var/cache/oci-coredump-hosts}/arm64
target=${CARGO_TARGET_DIR:-$PWD/target}
built=$target/aarch64-unknown-linux-gnu/debug
here=$(ls -t "$target/$(uname -m)"-*/*/oci-coredump | head -n 1)

integration/hosts/arm64/root.sh "$cache" "$@"
scratch=$(mktemp -d /var/tmp/oci-coredump-arm64.XXXXXX)
trap 'rm -rf "$scratch"' EXIT

# The newest test program of a name; the program itself may have the same.
newest() {
    find "$built/deps" -name "$1-*" -executable -type f -exec grep -l -e '--test-threads' {} + |
        xargs ls -t | head -n 1
}
mkdir -p "$scratch/disk/hosts-test" "$scratch/disk$built/deps" "$scratch/disk$PWD"
git ls-files -z | xargs -0 cp --parents -t "$scratch/disk$PWD"
cp integration/hosts/arm64/inside.sh "$scratch/disk/hosts-test"
echo "$PWD" >"$scratch/disk/hosts-test/repository"
echo "$built/oci-coredump" >"$scratch/disk/hosts-test/binary"
aarch64-linux-gnu-strip -o "$scratch/disk$built/oci-coredump" "$built/oci-coredump"
while read -r name program options; do
    from=$(newest "$program")
    aarch64-linux-gnu-strip -o "$scratch/disk$from" "${from:?no test program $program}"
    printf '%s %s %s\n' "$name" "$from" "$options"
done >"$scratch/disk/hosts-test/tests" <<END
unit-tests oci_coredump ${TEST:-}
lanes lanes --skip a_32_bit_program ${TEST:-}
stacks stack_forms --skip go --skip interpreter --skip other_architecture ${TEST:-}
END
# The core of the machine, by the program of this architecture: functions, lines, signal.
read_here() {
    rm -rf "$scratch/taken"
    mkdir "$scratch/taken"
    tar -C "$scratch/taken" -x -f "$scratch/cores"
    "$here" info --store /nonexistent --core "$scratch/taken/core" \
        --sysroot "$scratch/taken/root" >"$scratch/info"
    cat "$scratch/info"
    for word in AArch64 SIGSEGV parse_length handle_request main victim.c; do
        grep -q "$word" "$scratch/info" || { echo "nothing of $word"; return 1; }
    done
}

tar -C "$scratch/disk" -c -f "$scratch/disk.tar" .

status=0
for flavour; do
    : >"$scratch/said"
    echo "hosts, $flavour: what the tests say is in $scratch/console"
    truncate -s 0 "$scratch/cores"
    truncate -s 64M "$scratch/cores"
    # Emulated; the architected algorithm of pointer authentication would take most of the time.
    timeout 10800 qemu-system-aarch64 -M virt,mte=on -cpu max,pauth-impdef=on \
        -accel tcg,thread=multi -smp 2 -m 8192 -nodefaults -no-user-config -display none \
        -no-reboot -snapshot -kernel "$cache/vmlinuz-$flavour" -initrd "$cache/initrd-$flavour" \
        -append 'console=ttyAMA0 panic=-1 loglevel=4' \
        -drive "file=$cache/disk.img,format=raw,if=virtio" \
        -drive "file=$scratch/disk.tar,format=raw,if=virtio,readonly=on" \
        -drive "file=$scratch/cores,format=raw,if=virtio,snapshot=off" \
        -device virtio-serial-pci -chardev "file,id=said,path=$scratch/said" \
        -device virtserialport,chardev=said,name=said -serial "file:$scratch/console" || true
    tr -d '\r' <"$scratch/said" >"$scratch/results"
    if ! grep -q '^end$' "$scratch/results"; then
        printf 'FAILED\tthe machine did not come to its end\n' >>"$scratch/results"
        tail -n 60 "$scratch/console" >&2
    fi
    what='a core of the machine, read on this one'
    if read_here >"$scratch/read" 2>&1; then
        printf 'ok\t%s\n' "$what" >>"$scratch/results"
    else
        cat "$scratch/read"
        printf 'FAILED\t%s\n' "$what" >>"$scratch/results"
    fi
    cat "$scratch/results"
    [ -n "${TEST:-}" ] ||
        integration/hosts/table.sh "sid, $flavour" "$scratch/results" docs/hosts.md
    echo "hosts, $flavour: $(grep -c '^ok' "$scratch/results") passed," \
        "$(grep -c '^FAILED' "$scratch/results" || :) failed"
    ! grep -q '^FAILED' "$scratch/results" || status=1
done
exit "$status"
