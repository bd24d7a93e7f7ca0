# Completion of run in zsh. To load it in every shell, put into ~/.zshrc, after compinit:
#   eval "$(run completion zsh)"
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_run_completion() {
    local program=${~words[1]} value about shown
    local -a open open_shown whole whole_shown
    while IFS=$'\t' read -r value about; do
        shown=$value
        [[ -n $about ]] && shown="$value  -- $about"
        # A space at the end marks a word that is complete.
        if [[ $value == *' ' ]]; then
            whole+=("${value% }") whole_shown+=("${shown/$value/${value% }}")
        else
            open+=("$value") open_shown+=("$shown")
        fi
    done < <(COMP_LINE="${(j: :)words[1,CURRENT-1]} $QIPREFIX$PREFIX" \
        "$program" --shell-completion query=zsh 2>/dev/null)
    (( $#open )) && compadd -l -S '' -d open_shown -a open
    (( $#whole )) && compadd -l -d whole_shown -a whole
    return 0
}
compdef _run_completion run
