#!/bin/sh
# Puts the results of one host into a document, in place of its earlier ones: `table.sh SUITE RESULTS
# DOCUMENT`.
set -eu
suite=$1 results=$2 document=$3
new=$(mktemp)
trap 'rm -f "$new"' EXIT
awk -v heading="## Debian $suite" '
    /^## / { skip = $0 == heading }
    !skip' "$document" >"$new"
{
    # One empty line between sections.
    sed -e :a -e '/^\n*$/{$d;N;ba' -e '}' "$new"
    echo
    echo "## Debian $suite"
    echo
    awk -F '\t' '$1 == "host" { print $2 }' "$results" | fold -s -w 100 | sed 's/ *$//'
    echo
    echo '| what | result |'
    echo '|---|---|'
    awk -F '\t' 'NF > 1 && /^(ok|FAILED|not here)\t/ { print "| " $2 " | " $1 " |" }' "$results"
} >"$document.new"
mv "$document.new" "$document"
