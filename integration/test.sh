#!/bin/sh
# Runs `cargo test` with the given arguments and shows its output. The last line counts all tests
# and names those that failed; the exit status is 1 if there is one.
set -u
log=$(mktemp)
status=$(mktemp)
trap 'rm -f "$log" "$status"' EXIT
# A shell starts what it puts in the background with these two ignored; tests send them.
{ env --default-signal=INT,QUIT "${CARGO:-cargo}" "$@" 2>&1; echo $? >"$status"; } | tee "$log"
awk -v status="$(cat "$status")" '
    # "     Running limits.rs (target/.../deps/limits-e69cce7efaba01a9)"
    / Running .*\/deps\// { sub(/.*\/deps\//, ""); sub(/-[0-9a-f]*\)$/, ""); target = $0 }
    / Doc-tests / { target = "doc" }
    # What a test itself prints may stand between its name and its result.
    /^test result: / { passed += $4; failed += $6; ignored += $8 }
    /^failures:$/ { listed = 1; next }
    listed && /^    [A-Za-z_0-9:]+$/ { names[target "::" $1]; next }
    listed && !/^$/ { listed = 0 }
    /^error: could not compile/ { broken = broken "\n    " $0 }
    END {
        for (name in names) list = list "\n    " name
        printf "\n"
        if (list broken != "") printf "failed:%s%s\n", list, broken
        # A test program that was killed has no result.
        else if (status != 0) printf "cargo ended with status %s\n", status
        if (status == 0 && passed + failed == 0) { print "no test has this name"; status = 1 }
        printf "%d passed, %d failed, %d ignored\n", passed, failed, ignored
        exit status != 0
    }
' "$log"
