#!/bin/bash
# In the machine, as root: says on stdout, one line each, fields parted by tabs:
#   host TEXT | ok WHAT | FAILED WHAT WHY | end
# Everything else is for a person. /hosts-test/tests lists the test programs: their names, and what
# they are to leave out.
set -u -o pipefail
cd "$(cat /hosts-test/repository)" || exit
kept=/hosts-test/kept
mkdir -p "$kept"

step() {
    local what=$1 said=$kept/said.$BASHPID text
    shift
    # Hours pass: whoever waits reads on the console how far it has come.
    if (set -eu; "$@") 2>&1 | tee "$said" >/dev/console; then
        what=$what$(sed -n 's/^test result: ok. \([0-9]* passed\);.*/ (\1)/p' "$said")
        text=$(printf 'ok\t%s\n' "$what"; grep '^SKIPPED: ' "$said" | sort -u)
    else
        text=$(printf 'FAILED\t%s\t%s\n' "$what" "$(tail -n 1 "$said" | tr '\t' ' ')"
            tail -n 100 "$said")
    fi
    # Of two rows: one at a time.
    flock "$kept" printf '%s\n' "$text"
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

tests() {
    local name program options
    while read -r name program options; do
        # shellcheck disable=SC2086 # options are words
        [ "$name" != "$1" ] || step "$name" "$program" --test-threads=1 $options
    done </hosts-test/tests
}

# Two rows side by side: what needs nothing of the machine, and what takes its core_pattern.
{
    tests unit-tests
    tests stacks
} &
step 'the demonstration: podman, the ECI annotation' demo
tests lanes
step 'a core to read on another architecture' core_to_take
wait
printf 'end\n'
