#!/bin/sh
# All of `make test`, in two rows side by side: `suite.sh [CARGO-OPTION...]`. The first row takes
# the machine, one test after the other: its core_pattern, its containers. The second is whatever
# needs nothing of it. Every part runs, whatever failed before it; the last lines count the tests
# and name what failed. The second row's output comes when it has ended: nobody reads two at once.
set -u
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'trap "" TERM; kill 0; exit 130' INT TERM

# Integration tests that leave the machine alone: none of them takes its lock (support/host.rs).
# One that is named here wrongly waits for that lock, and does no harm.
apart='deploy goroutines small stack_forms variables verify vm'

# `--test NAME` for each.
selected() { for name; do printf ' --test %s' "$name"; done; }
names() { for file; do basename "$file" .rs; done; }
# conformance needs other projects' sources: `make conformance`.
machine=$(names integration/*.rs | grep -vxF -e conformance -e "$(printf '%s\n' $apart)")

part() {
    echo "$*"
    "$@" || echo "$*" >>"$scratch/failed"
}
tests() {
    # A shell starts what it puts in the background with these two ignored; tests send them.
    part env --default-signal=INT,QUIT "$cargo" "$@" --test-threads=1
}

echo "$cargo build, $cargo test --no-run"
"$cargo" build --locked && "$cargo" test --workspace --locked --no-run || exit 1
: >"$scratch/failed"
{
    # tests/static_binary.rs looks at both profiles.
    part "$cargo" build --release --locked
    # shellcheck disable=SC2046,SC2086 # names are words
    tests "$@" test --workspace --locked --no-fail-fast --lib \
        $(selected $(names tests/*.rs) $apart) --
    part "$cargo" test --locked --doc
    part "$cargo" fmt --all --check
    part "$cargo" clippy --workspace --locked --all-targets -- -D warnings
    part env PROFILE=dev fuzz/run.sh 3
} >"$scratch/apart" 2>&1 &
# shellcheck disable=SC2046,SC2086 # names are words
tests "$@" test --workspace --locked --no-fail-fast $(selected $machine) -- 2>&1 |
    tee "$scratch/machine"
echo
echo 'Beside these:'
wait
cat "$scratch/apart"
failed=$(cat "$scratch/failed")
awk -v status="$(test -z "$failed"; echo $?)" -f integration/summary.awk \
    "$scratch/machine" "$scratch/apart"
status=$?
test -z "$failed" || printf 'make test: failed:\n%s\n' "$failed" >&2
exit "$status"
