#!/bin/sh
# Fuzzes one target after the other: `run.sh SECONDS [TARGET...]`, all of them if none is named. For each a line: executions, edges, features, inputs, seconds.
#
# What it finds lies in fuzz/artifacts; what is worth keeping goes to fuzz/seeds/TARGET, which the unit tests replay. Inputs that reach something new are kept in
# fuzz/corpus. Needs the stable toolchain and a C++ compiler. With SANITIZER=address (which the stable compiler does not offer by itself: RUSTC_BOOTSTRAP)
# every access to memory is checked as well.
set -eu
cd "$(dirname "$0")"
seconds=$1
shift
[ $# -gt 0 ] || set -- $(sed -n '/^\[\[bin\]\]/{n;s/name = "\(.*\)"/\1/p}' Cargo.toml | grep -v '^any$')

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

failed=
for name; do
    mkdir -p "corpus/$name" "artifacts/$name"
    log=artifacts/$name.log
    if ! FUZZ_TARGET=$name "$program" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="artifacts/$name/" "corpus/$name" "seeds/$name" >"$log" 2>&1; then
        failed="$failed $name"
        tail -n 40 "$log"
    fi
    awk -v name="$name" '
        /^#[0-9]+.*cov: / { for (i = 1; i < NF; i++) { if ($i == "cov:") cov = $(i + 1); if ($i == "ft:") ft = $(i + 1); if ($i == "corp:") corp = $(i + 1) } }
        /^#[0-9]+\tNEW.*cov: / || /^#[0-9]+\tREDUCE/ { last = $1 }
        /number_of_executed_units/ { runs = $2 }
        /Done .* runs in/ { time = $(NF - 1) }
        END { printf "%-12s %11d executions %6d edges %6d features, corpus %s, %d s, last new input at %s\n", name, runs, cov, ft, corp, time, last }' "$log"
done
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
