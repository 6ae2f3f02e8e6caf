#!/bin/sh
# Fuzzes one target after the other, all of them if none is named. Prints a line for each.
#
#   run.sh SECONDS [TARGET...]   each for so many seconds
#   run.sh plateau [TARGET...]   each until its curve is flat: until the last half of its run has
#                                found less than one new edge in two hundred. A run has LEAST
#                                seconds at least (300) and MOST at most (3600), in seconds of CPU:
#                                on a busy or stopped machine the wall clock says nothing.
#
# Findings are left in fuzz/artifacts; those worth keeping go to fuzz/seeds/TARGET, which the unit
# tests replay. Inputs that reach new code are kept in fuzz/corpus, and a later run begins with
# them. Words of the formats are in fuzz/dictionaries/TARGET. Needs the stable toolchain and a C++
# compiler. With SANITIZER=address every memory access is checked as well; the stable compiler
# offers that only with RUSTC_BOOTSTRAP.
set -eu
cd "$(dirname "$0")"
seconds=$1
shift
if [ $# -eq 0 ]; then
    set -- $(sed -n '/^\[\[bin\]\]/{n;s/name = "\(.*\)"/\1/p}' Cargo.toml | grep -v '^any$')
fi
least=${LEAST:-300} most=${MOST:-3600}

# The flags of cargo-fuzz: counters for every edge, and compared values reported to the fuzzer.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
if [ "${SANITIZER:-}" = address ]; then
    export RUSTC_BOOTSTRAP=1
    coverage="$coverage -Zsanitizer=address"
fi
target=target/${SANITIZER:-plain}
profile=${PROFILE:-release}
# Use the dependency versions of the program itself.
[ Cargo.lock -nt ../Cargo.lock ] || cp ../Cargo.lock Cargo.lock
RUSTFLAGS="$coverage" cargo build --quiet --profile "$profile" --bin any --target-dir "$target"
directory=$([ "$profile" = dev ] && echo debug || echo "$profile")
program=$(ls -t "$target"/*/"$directory"/any | head -n 1)

# CPU seconds of all threads of a process; nothing if it has ended.
cpu() {
    awk -v tick="$(getconf CLK_TCK)" '
        { sub(/.*\) /, ""); if ($1 != "Z") print int(($12 + $13) / tick) }
    ' "/proc/$1/stat" 2>/dev/null
}

# Waits for process $1, whose log is $2, and interrupts it at its plateau. Prints how it ended, its
# CPU seconds, and the edges found in its last half.
watch() {
    curve=$2.curve end=ended used=0 new=0
    : >"$curve"
    while sleep 5; now=$(cpu "$1"); [ -n "$now" ]; do
        used=$now
        edges=$(awk '
            / cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1) }
            END { print cov + 0 }
        ' "$2")
        echo "$used $edges" >>"$curve"
        new=$(awk -v used="$used" -v edges="$edges" '
            $1 <= used / 2 { half = $2 }
            END { print edges - half }
        ' "$curve")
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
    # libFuzzer's time-out uses the wall clock: a fuzzer that is stopped for a while must not be
    # taken for one that hangs.
    timeout=$([ "$seconds" = plateau ] && echo 900 || echo 10)
    set -- -rss_limit_mb=2048 -timeout="$timeout" -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="artifacts/$name/"
    [ ! -e "dictionaries/$name" ] || set -- "$@" -dict="dictionaries/$name"
    [ "$seconds" = plateau ] || set -- "$@" -max_total_time="$seconds"
    FUZZ_TARGET=$name "$program" "$@" "corpus/$name" "seeds/$name" >"$log" 2>&1 &
    ended=
    [ "$seconds" != plateau ] || ended=$(watch $! "$log")
    code=0
    wait $! || code=$?
    # 72: interrupted, 137: killed; both by this script.
    if [ "$code" -ne 0 ] &&
        { { [ "$code" -ne 72 ] && [ "$code" -ne 137 ]; } || [ "${ended%% *}" = ended ]; }; then
        failed="$failed $name"
        tail -n 40 "$log"
    fi
    awk -v name="$name" -v ended="$ended" '
        /^#[0-9]+.*cov: / {
            for (i = 1; i < NF; i++) {
                if ($i == "cov:") cov = $(i + 1)
                if ($i == "ft:") ft = $(i + 1)
                if ($i == "corp:") corp = $(i + 1)
            }
            if (cov != edges) { edges = cov; last = substr($1, 2) }
        }
        /number_of_executed_units/ { runs = $2 }
        /Done .* runs in/ { time = $(NF - 1) " s" }
        /^#[0-9]+/ { n = substr($1, 2) + 0; if (n > runs + 0) runs = n }
        END {
            if (split(ended, how, " ") == 3)
                time = how[2] " s of CPU (" how[3] " edges in their last half): " how[1]
            printf "%-12s %11d executions, last new edge at %11d, ", name, runs, last
            printf "%6d edges %6d features, corpus %s, %s\n", cov, ft, corp, time
        }' "$log"
done
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
