# Completion of oci-coredump for bash: the program itself answers.
_oci_coredump() {
    local -a words=()
    local i word
    # "container=web" is three words for bash, and one for the program.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((i > 0)) && [[ $word == '=' || ${COMP_WORDS[i - 1]} == '=' ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
        fi
    done
    word=${words[${#words[@]} - 1]}
    mapfile -t COMPREPLY < <(
        _CLAP_IFS=$'\n' _CLAP_COMPLETE_INDEX=$((${#words[@]} - 1)) \
            OCI_COREDUMP_COMPLETE=bash oci-coredump -- "${words[@]}" 2>/dev/null
    )
    if [[ $word == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%%=*}="}")
    fi
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o bashdefault -o nosort -F _oci_coredump oci-coredump
