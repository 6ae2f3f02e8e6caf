# Reads what `cargo test` printed, one log or more. The last line counts all tests; above it stand
# the names of those that failed, as `make test TEST=` takes them, and what did not compile. The
# exit status is 1 if there is one, or if `status`, cargo's own, is not 0.

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
