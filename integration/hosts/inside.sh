#!/bin/bash
# In the virtual machine, as root, once a boot. Says on stdout, one line each, fields parted by tabs:
#   host TEXT | ok WHAT | FAILED WHAT WHY | not here WHAT WHY | end PHASE
# Everything else on stdout is for a person.
set -u
here=/run/hosts-test
kept=/root/hosts-test
mkdir -p "$kept"
# shellcheck source=steps.sh
. "$here/steps.sh"

# Runs a step: a function that ends with a status other than 0 at the first thing that is wrong, or
# with 77 where this host cannot do what it needs.
step() {
    local what=$1 said status
    shift
    said=$( (set -eu; "$@") 2>&1 </dev/null)
    status=$?
    if [ "$status" = 0 ]; then
        printf 'ok\t%s\n' "$what"
    elif [ "$status" = 77 ]; then
        printf 'not here\t%s\t%s\n' "$what" "$(printf %s "$said" | tail -n 1 | tr '\t' ' ')"
    else
        printf 'FAILED\t%s\t%s\n' "$what" "$(printf %s "$said" | tail -n 1 | tr '\t' ' ')"
        printf '%s\n' "$said" | tail -n 25
    fi
}

phase=$(cat "$here/phase")
"phase_$phase"
printf 'end\t%s\n' "$phase"
sync
systemctl poweroff --no-block
