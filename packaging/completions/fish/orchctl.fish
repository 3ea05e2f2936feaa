# fish completion for orchctl(1), which finds the words itself

function __orchctl_complete
    set -l before (commandline -opc)
    set -e before[1]
    set -l current (commandline -ct)
    set -l found (command orchctl __complete $before "$current" 2>/dev/null)
    if test "$found[1]" = :files
        __fish_complete_path "$current"
    else
        printf '%s\n' $found
    end
end

complete -c orchctl -f -a '(__orchctl_complete)'
