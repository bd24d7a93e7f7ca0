# Completion of run in fish. To load it in every shell, put into ~/.config/fish/config.fish:
#   run completion fish | source
function __run_completion
    set -l program (commandline -opc)[1]
    set -lx COMP_LINE (commandline -cp)
    $program --shell-completion query=fish 2>/dev/null
end
complete -c run -f -a '(__run_completion)'
