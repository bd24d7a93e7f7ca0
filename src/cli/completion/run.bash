# Completion of run in bash. To load it in every shell, put into ~/.bashrc:
#   eval "$(run completion bash)"
_run_completion() {
    local line program=${COMP_WORDS[0]/#\~/$HOME}
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("$line")
    done < <(COMP_LINE=${COMP_LINE:0:COMP_POINT} COMP_WORDBREAKS=$COMP_WORDBREAKS \
        "$program" --shell-completion query=bash 2>/dev/null)
}
complete -o nospace -F _run_completion run
