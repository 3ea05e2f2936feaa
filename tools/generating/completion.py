"""The bash completion of orchctl, generated from the declarations of its commands."""

from collections.abc import Iterator, Mapping, Sequence

from orchctl.command import COMMON_ARGUMENTS, Argument, CliCommand

Commands = Mapping[str, CliCommand]

SCRIPT = """\
# bash completion for orchctl(1), generated from the declarations of its commands by make generate

# _orchctl_listed FIELD COMMAND...: the values of FIELD in what the command lists
_orchctl_listed() {{
	local field=$1
	shift
	orchctl "$@" --json 2>/dev/null | grep -o "\\"$field\\":\\"[^\\"]*\\"" | cut -d'"' -f4 | sort -u
}}

# _orchctl_options COMMAND: its options
_orchctl_options() {{
	case $1 in
{options}
	'') echo '--version' ;;
	esac
	echo '{common}'
}}

# _orchctl_words COMMAND: subcommands and arguments
_orchctl_words() {{
	case $1 in
	'') echo '{commands} --version --help' ;;
{words}
	esac
}}

# _orchctl_values COMMAND OPTION: values of the option
_orchctl_values() {{
	case "$1 $2" in
{values}
	esac
}}

_orchctl() {{
	local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
	local command='' subcommand='' word words
	local flags=' {flags} '
	for ((word = 1; word < COMP_CWORD; word++)); do
		case ${{COMP_WORDS[word]}} in
		-*) [[ $flags == *" ${{COMP_WORDS[word]}} "* ]] || ((word++)) ;;
		*)
			if [[ ! $command ]]; then
				command=${{COMP_WORDS[word]}}
			elif [[ ! $subcommand ]]; then
				subcommand=${{COMP_WORDS[word]}}
			fi
			;;
		esac
	done
	case $command in
	{nested}) command+=${{subcommand:+ $subcommand}} ;;
	esac
	if [[ $previous == -* && $flags != *" $previous "* ]]; then
		words=$(_orchctl_values "$command" "$previous")
	elif [[ $current == -* ]]; then
		words=$(_orchctl_options "$command")
	else
		words=$(_orchctl_words "$command")
	fi
	if [[ $words == FILES ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
	else
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
	fi
}}
complete -F _orchctl orchctl
"""


def completion_script(commands: Sequence[CliCommand]) -> str:
    """Return the script. A case prints FILES where file names complete."""
    paths = dict(_paths(commands))
    flags = {name for each in _all_arguments(paths) if not each.takes_value for name in each.names}
    return SCRIPT.format(
        options=_cases(
            (path, [f"echo '{' '.join(names)}'"]) for path, command in paths.items() if (names := _options(command))
        ),
        words=_cases((path, _word_lines(command)) for path, command in paths.items()),
        values=_cases(_value_lines(paths)),
        common=" ".join([*(name for each in COMMON_ARGUMENTS for name in each.names), "--help"]),
        commands=" ".join(command.name for command in commands),
        flags=" ".join([*sorted(flags), "--help", "--version", "-h"]),
        nested=" | ".join(command.name for command in commands if command.subcommands),
    )


def _paths(commands: Sequence[CliCommand], parent: str = "") -> Iterator[tuple[str, CliCommand]]:
    """Yield every command with its path, such as `catalog add`."""
    for command in commands:
        path = f"{parent} {command.name}".strip()
        yield path, command
        yield from _paths(command.subcommands, path)


def _all_arguments(paths: Commands) -> Iterator[Argument]:
    yield from COMMON_ARGUMENTS
    for command in paths.values():
        yield from command.arguments


def _options(command: CliCommand) -> list[str]:
    return [name for each in command.arguments if each.is_option for name in each.names if name.startswith("--")]


def _word_lines(command: CliCommand) -> list[str]:
    lines = _echo([each.name for each in command.subcommands])
    return lines + [line for each in command.arguments if not each.is_option for line in _completion_lines(each)]


def _value_lines(paths: Commands) -> Iterator[tuple[str, list[str]]]:
    for path, command in paths.items():
        for each in command.arguments:
            for name in each.names if each.is_option else ():
                yield f"{path} {name}", _completion_lines(each)


def _completion_lines(each: Argument) -> list[str]:
    if choices := each.settings.get("choices"):
        return _echo(choices)
    if each.completion is None:
        return []
    if isinstance(each.completion, str):
        return ["echo FILES"]
    listed = each.completion
    return [*_echo(listed.words), f"_orchctl_listed {listed.field} {listed.command}"]


def _echo(words: Sequence[str]) -> list[str]:
    return [f"echo '{' '.join(words)}'"] if words else []


def _cases(cases: Iterator[tuple[str, list[str]]]) -> str:
    """Format the cases of a `case` statement, with those of the same lines as one."""
    patterns: dict[str, list[str]] = {}
    for pattern, lines in cases:
        if lines:
            patterns.setdefault("; ".join(lines), []).append(f"'{pattern}'" if " " in pattern else pattern)
    return "\n".join(f"\t{' | '.join(names)}) {lines} ;;" for lines, names in patterns.items())
