# What both tools.sh need: sourced by them, with $directory set.
# shellcheck shell=sh disable=SC2154 # $directory is theirs

# Runs what needs apt's package lists; again after an update where these were never fetched, or are
# older than the archive.
with_lists() {
    "$@" 2>/dev/null && return
    $([ "$(id -u)" = 0 ] || echo sudo) apt-get update -qq
    "$@"
}

# Kubernetes' published schemas, with a validator: no Debian package has them.
kubernetes_validate() {
    [ ! -d "$directory/python/kubernetes_validate" ] || return 0
    echo "Fetching kubernetes-validate"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
        --target "$directory/python" kubernetes-validate==1.37.0
}
