#!/bin/sh
# Runs `cargo test` with the given arguments, shows its output, and sums it up (summary.awk).
set -u
log=$(mktemp)
status=$(mktemp)
trap 'rm -f "$log" "$status"' EXIT
# A shell starts what it puts in the background with these two ignored; tests send them.
{ env --default-signal=INT,QUIT "${CARGO:-cargo}" "$@" 2>&1; echo $? >"$status"; } | tee "$log"
awk -v status="$(cat "$status")" -f "$(dirname "$0")/summary.awk" "$log"
