# program_tree.sh: what build_deb.sh and build_rpm.sh share: the tree of Python packages below /usr/lib/llama-orch.
# Sourced by both, with $root (of the repository), $label (of messages) and $machine (x86_64 or aarch64) set. It sets
# $pythons, the versions that the tree supports.
#
# The work directory is build/packages. It caches dependencies and tree by the digest of what they are made of. A build
# holds its lock until it ends.
# shellcheck shell=bash disable=SC2154 # the variables named above
set -euo pipefail
umask 022
common=$root/build/packages
python=/usr/bin/python3
pythons='3.11 3.12 3.13 3.14'
from_source=sdnotify

say() { printf '%s: %s\n' "$label" "$*"; }
fail() { printf "$label: %s\n" "$@" >&2; exit 1; }

# Run a command, and show its output only if it fails.
quietly() {
	"$@" >"$common/log" 2>&1 || { cat "$common/log" >&2; fail "failed: $*"; }
}

# require_packages PACKAGE...: fail with the command that installs what is missing. Elsewhere than on Debian the
# programs are named instead.
require_packages() {
	local package missing=()
	command -v dpkg-query >/dev/null || return 0
	for package in "$@"; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
	done
	[ ${#missing[@]} = 0 ] || fail 'required packages are missing; install them:' "  apt-get install ${missing[*]}"
}

# require_programs PROGRAM...: the same, for distributions with other package names.
require_programs() {
	local program
	for program in "$@"; do
		command -v "$program" >/dev/null || fail "$program not found; install the package that has it"
	done
}

# Wait for other builds of this tree, then set $version and SOURCE_DATE_EPOCH.
begin() {
	mkdir -p "$common"
	exec 9>"$common/lock"
	flock -n 9 || { say "waiting for another build that uses $common"; flock 9; }
	version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")
	SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null ||
		stat -c %Y "$root/pyproject.toml")}
	export SOURCE_DATE_EPOCH PYTHONDONTWRITEBYTECODE=1 TZ=UTC LC_ALL=C.UTF-8
	builder
}

# Create a virtual environment with the distribution's Python, pip and the build backend.
builder() {
	local lock=$root/packaging/build-requirements.lock
	cmp -s "$lock" "$common/venv/lock" && return
	rm -rf "$common/venv"
	quietly "$python" -m venv "$common/venv"
	pip install --require-hashes -r "$lock"
	cp "$lock" "$common/venv/lock"
}

pip() { quietly "$common/venv/bin/python" -m pip --disable-pip-version-check "$@"; }

digest() { sha256sum | cut -c1-16; }

# Set $deps to a directory with the dependencies for all of $pythons. Pure modules serve all versions; compiled modules
# are stored side by side, because their names contain version and machine.
dependencies() {
	local fetch=$common/fetch each compiled='.*'
	deps=$common/deps-$machine-$(cat "$root/requirements/run.lock" "${BASH_SOURCE[0]}" | digest)
	touch -c "$deps"
	[ -d "$deps" ] && return
	! grep -v emscripten "$root/requirements/run.lock" | grep python_ || fail 'these would be in the tree for one version of Python only'
	rm -rf "$fetch"
	mkdir -p "$fetch"
	for each in $pythons; do
		say "fetching the dependencies for Python $each on $machine"
		locked "$compiled" "$from_source" >"$fetch/lock"
		pip install --require-hashes --no-deps --no-compile --only-binary :all: --target "$fetch/$each" \
			--implementation cp --python-version "$each" --platform "manylinux_2_28_$machine" \
			--platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" -r "$fetch/lock"
		compiled=$(compiled_names "$fetch/$each")
		strip_tree "$fetch/$each"
		merge "$fetch/$each" "$fetch/all"
	done
	# published as source only
	locked "$from_source" >"$fetch/lock"
	pip install --require-hashes --no-deps --no-compile --use-pep517 --no-build-isolation --target "$fetch/pure" -r "$fetch/lock"
	strip_tree "$fetch/pure"
	merge "$fetch/pure" "$fetch/all"
	mv "$fetch/all" "$deps"
	rm -rf "$fetch"
}

# locked PATTERN [EXCEPT]: the entries of the lock file whose names match the one and not the other.
locked() {
	awk -v name="^($1)==" -v except="^(${2:-})==" '/^[^ ]/ { keep = $0 ~ name && $0 !~ except } keep' \
		"$root/requirements/run.lock"
}

# compiled_names TREE: a pattern for the names of the packages with compiled modules.
compiled_names() {
	grep -l '^Root-Is-Purelib: false' "$1"/*.dist-info/WHEEL | xargs -n1 dirname | xargs -n1 basename |
		sed 's/-.*//; s/_/-/g' | paste -sd '|'
}

# merge FROM INTO: add the files that INTO lacks; fail if a module differs.
merge() {
	mkdir -p "$2"
	local differing
	differing=$(diff -rq -x '*.dist-info' "$1" "$2" | grep '^Files' || true)
	[ -z "$differing" ] || fail 'modules differ between Python versions and cannot share one tree:' "$differing"
	cp -a --update=none "$1/." "$2/" 2>/dev/null || cp -an "$1/." "$2/"
}

# Remove scripts, tests, stubs and C sources; keep modules and licences.
strip_tree() {
	rm -rf "${1:?}/bin" "$1/example.py"
	find "$1" -depth -type d \( -name __pycache__ -o -name tests -o -name test -o -name _tests \) -exec rm -rf {} +
	find "$1" -type f \( -name '*.pyi' -o -name '*.c' -o -name '*.pyx' -o -name '*.h' -o -name direct_url.json \
		-o -name REQUESTED -o -name INSTALLER \) -delete
	find "$1" -type f -exec chmod 644 {} +
	find "$1" -type f -name '*.py' -exec sed -i '1{/^#!/d}' {} +
}

# source_tree DIRECTORY: copy what packages are built from into a new directory.
source_tree() {
	rm -rf "$1"
	mkdir -p "$1"
	(cd "$root" && cp -a pyproject.toml README.md CHANGELOG.md LICENSE daemons units man tmpfiles.d packaging "$1")
	find "$1" -depth \( -name __pycache__ -o -name '*.egg-info' \) -exec rm -rf {} +
	find "$1" -type d -exec chmod 755 {} + -o -type f -perm /100 -exec chmod 755 {} + -o -type f -exec chmod 644 {} +
}

# program_tree SOURCES: set $site to a directory with the dependencies and the project's wheel.
program_tree() {
	dependencies
	local key
	key=$(cd "$1" && find daemons pyproject.toml README.md LICENSE -type f -print0 | sort -z |
		xargs -0 sha256sum | cat - <(echo "$deps $version") | digest)
	site=$common/site-$machine-$key
	touch -c "$site"
	[ -d "$site" ] && return
	discard_old_trees
	local draft=$common/draft
	rm -rf "$draft"
	mkdir -p "$draft"
	cp -a "$1" "$draft/src"
	cp -a "$deps" "$draft/site"
	pip wheel --no-deps --no-build-isolation --no-index -w "$draft/wheel" "$draft/src"
	pip install --no-deps --no-index --no-compile --target "$draft/site" "$draft/wheel/"*.whl
	strip_tree "$draft/site"
	mv "$draft/site" "$site"
	rm -rf "$draft"
}

# Keep the trees that were used last: two architectures for two packages.
discard_old_trees() {
	local old
	for old in deps site; do
		find "$common" -maxdepth 1 -name "$old-*" -printf '%T@ %p\n' | sort -rn | tail -n +5 | cut -d' ' -f2- |
			xargs -r -d '\n' rm -rf
	done
}
