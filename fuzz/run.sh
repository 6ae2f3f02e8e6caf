#!/bin/sh
# Fuzzes one target after the other, all of them if none is named. For each a line of what was done.
#
#   run.sh SECONDS [TARGET...]        each for so many seconds
#   run.sh plateau [TARGET...]        each until the curve is flat: the last half of its run, which is LEAST seconds at least (300) and MOST at most (3600), has
#                                     brought less than one edge in two hundred. Seconds of CPU: on a busy or stopped machine the wall clock says nothing.
#
# What it finds lies in fuzz/artifacts; what is worth keeping goes to fuzz/seeds/TARGET, which the unit tests replay. Inputs that reach something new are kept in
# fuzz/corpus, and a later run begins with them. Words of the formats are in fuzz/dictionaries/TARGET. Needs the stable toolchain and a C++ compiler. With
# SANITIZER=address (which the stable compiler does not offer by itself: RUSTC_BOOTSTRAP) every access to memory is checked as well.
set -eu
cd "$(dirname "$0")"
seconds=$1
shift
[ $# -gt 0 ] || set -- $(sed -n '/^\[\[bin\]\]/{n;s/name = "\(.*\)"/\1/p}' Cargo.toml | grep -v '^any$')
least=${LEAST:-300} most=${MOST:-3600}

# What cargo-fuzz passes too: counters for every edge, compared values told to the fuzzer.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
if [ "${SANITIZER:-}" = address ]; then
    export RUSTC_BOOTSTRAP=1
    coverage="$coverage -Zsanitizer=address"
fi
target=target/${SANITIZER:-plain}
profile=${PROFILE:-release}
# The program's own versions of everything that it uses.
[ Cargo.lock -nt ../Cargo.lock ] || cp ../Cargo.lock Cargo.lock
RUSTFLAGS="$coverage" cargo build --quiet --profile "$profile" --bin any --target-dir "$target"
program=$(ls -t "$target"/*/"$([ "$profile" = dev ] && echo debug || echo "$profile")"/any | head -n 1)

# CPU seconds of a process, all of its threads; nothing when it has ended.
cpu() {
    awk -v tick="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); if ($1 != "Z") print int(($12 + $13) / tick) }' "/proc/$1/stat" 2>/dev/null
}

# Waits for the process whose log this is, and interrupts it at its plateau. Says how it ended, its CPU seconds, and the edges of its last half.
watch() {
    curve=$2.curve end=ended used=0 new=0
    : >"$curve"
    while sleep 5; now=$(cpu "$1"); [ -n "$now" ]; do
        used=$now
        edges=$(awk '/ cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1) } END { print cov + 0 }' "$2")
        echo "$used $edges" >>"$curve"
        new=$(awk -v used="$used" -v edges="$edges" '$1 <= used / 2 { half = $2 } END { print edges - half }' "$curve")
        if [ "$used" -ge "$least" ] && [ $((new * 200)) -lt "$edges" ]; then end=plateau
        elif [ "$used" -ge "$most" ]; then end=maximum
        else continue; fi
        kill -INT "$1" 2>/dev/null
        # Its handler prints, and hangs where it has interrupted an allocation.
        sleep 5
        kill -KILL "$1" 2>/dev/null || :
        break
    done
    echo "$end $used $new"
}

failed=
for name; do
    mkdir -p "corpus/$name" "artifacts/$name"
    log=artifacts/$name.log
    # libFuzzer's time-out goes by the wall clock: a fuzzer that is stopped for a while must not be taken for one that hangs.
    set -- -rss_limit_mb=2048 -timeout="$([ "$seconds" = plateau ] && echo 900 || echo 10)" -max_len=65536 -print_final_stats=1 -artifact_prefix="artifacts/$name/"
    [ ! -e "dictionaries/$name" ] || set -- "$@" -dict="dictionaries/$name"
    [ "$seconds" = plateau ] || set -- "$@" -max_total_time="$seconds"
    FUZZ_TARGET=$name "$program" "$@" "corpus/$name" "seeds/$name" >"$log" 2>&1 &
    ended=
    [ "$seconds" != plateau ] || ended=$(watch $! "$log")
    code=0
    wait $! || code=$?
    # 72: interrupted, 137: killed; by ourselves.
    if [ "$code" -ne 0 ] && { { [ "$code" -ne 72 ] && [ "$code" -ne 137 ]; } || [ "${ended%% *}" = ended ]; }; then
        failed="$failed $name"
        tail -n 40 "$log"
    fi
    awk -v name="$name" -v ended="$ended" '
        /^#[0-9]+.*cov: / {
            for (i = 1; i < NF; i++) { if ($i == "cov:") cov = $(i + 1); if ($i == "ft:") ft = $(i + 1); if ($i == "corp:") corp = $(i + 1) }
            if (cov != edges) { edges = cov; last = substr($1, 2) }
        }
        /number_of_executed_units/ { runs = $2 }
        /Done .* runs in/ { time = $(NF - 1) " s" }
        /^#[0-9]+/ { n = substr($1, 2) + 0; if (n > runs + 0) runs = n }
        END {
            if (split(ended, how, " ") == 3) time = how[2] " s of CPU (" how[3] " edges in their last half): " how[1]
            printf "%-12s %11d executions, last new edge at %11d, %6d edges %6d features, corpus %s, %s\n", name, runs, last, cov, ft, corp, time
        }' "$log"
done
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
