#!/bin/bash
# In the machine, as root: says on stdout, one line each, fields parted by tabs:
#   host TEXT | ok WHAT | FAILED WHAT WHY | end
# Everything else is for a person. /hosts-test/tests lists the test programs: their names, and what
# they are to leave out.
set -u
cd "$(cat /hosts-test/repository)" || exit
kept=/hosts-test/kept
mkdir -p "$kept"

step() {
    local what=$1 said=$kept/said
    shift
    if (set -eu; "$@") >"$said" 2>&1; then
        what=$what$(sed -n 's/^test result: ok. \([0-9]* passed\);.*/ (\1)/p' "$said")
        printf 'ok\t%s\n' "$what"
    else
        printf 'FAILED\t%s\t%s\n' "$what" "$(tail -n 1 "$said" | tr '\t' ' ')"
        tail -n 100 "$said"
    fi
}

printf 'host\tLinux %s, pages of %s KiB, podman %s, runc %s, crun %s\n' "$(uname -r)" \
    "$(($(getconf PAGESIZE) / 1024))" "$(podman --version | sed 's/.* //')" \
    "$(runc --version | sed -n 's/^runc version //p')" \
    "$(crun --version | sed -n 's/^crun version //p')"

demo() {
    integration/demo.sh "$(cat /hosts-test/binary)" >"$kept/demo" || { cat "$kept/demo"; false; }
    cat "$kept/demo"
    grep -q '^#0.*parse_length' "$kept/demo"
}

# A core for whoever reads it on another architecture.
core_to_take() {
    local before
    before=$(cat /proc/sys/kernel/core_pattern)
    echo "$kept/core" >/proc/sys/kernel/core_pattern
    gcc -g -O1 -o "$kept/victim" integration/matrix/victim.c
    (ulimit -c unlimited; "$kept/victim" segv) || :
    echo "$before" >/proc/sys/kernel/core_pattern
    mkdir -p "$kept/root"
    cp -L --parents -t "$kept/root" /usr/lib/aarch64-linux-gnu/libc.so.6 \
        /usr/lib/ld-linux-aarch64.so.1 "$kept/victim"
    tar -C "$kept" -c core root >/dev/vdc
}

while read -r name program options; do
    # shellcheck disable=SC2086 # options are words
    step "$name" "$program" --test-threads=1 $options
    case $name in unit*) step 'the demonstration: podman, the ECI annotation' demo ;; esac
done </hosts-test/tests
step 'a core to read on another architecture' core_to_take
printf 'end\n'
