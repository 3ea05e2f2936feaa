#!/bin/bash
# build_deb.sh [OUTDIR]: build the .deb for Debian 12 and 13 (amd64) in OUTDIR (default: dist/).
#
# The version comes from pyproject.toml. The build uses build/deb, which caches the dependencies by the digest of
# their lock file. It is reproducible: the same tree produces the same bytes. Errors and warnings of lintian fail
# the build.
set -euo pipefail
umask 022
root=$(cd "$(dirname "$0")/.." && pwd)
work=$root/build/deb
python=/usr/bin/python3
pythons='3.11 3.12 3.13'

say() { printf 'deb: %s\n' "$*"; }
fail() { printf 'deb: %s\n' "$@" >&2; exit 1; }

# Run a command, and show its output only if it fails.
quietly() {
	"$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "failed: $*"; }
}

require_tools() {
	command -v dpkg-query >/dev/null || fail 'dpkg-query not found; the .deb must be built on Debian 12 or newer'
	local package missing=()
	for package in dpkg-dev debhelper lintian python3-venv; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
	done
	[ ${#missing[@]} = 0 ] || fail 'required packages are missing; install them:' "  apt-get install ${missing[*]}"
}

# Create a virtual environment with the distribution's Python, pip and the build backend.
builder() {
	local lock=$root/packaging/build-requirements.lock
	cmp -s "$lock" "$work/venv/lock" && return
	rm -rf "$work/venv"
	quietly "$python" -m venv "$work/venv"
	pip install --require-hashes -r "$lock"
	cp "$lock" "$work/venv/lock"
}

pip() { quietly "$work/venv/bin/python" -m pip --disable-pip-version-check "$@"; }

# The locked packages except sdnotify: the daemons use the distribution's python3-systemd instead.
locked() { awk '/^[^ ]/ { keep = !/^sdnotify==/ } keep' "$root/requirements/run.lock"; }

# Set $deps to a directory with the dependencies for all of $pythons. Pure modules are identical for all versions;
# compiled modules are stored side by side, because their names contain the version.
dependencies() {
	deps=$work/deps-$(cat "$root/requirements/run.lock" "$0" | sha256sum | cut -c1-16)
	[ -d "$deps" ] && return
	rm -rf "$work"/deps-* "$work/fetch"
	mkdir -p "$work/fetch"
	locked >"$work/fetch/run.lock"
	local version
	for version in $pythons; do
		say "fetching the dependencies for Python $version"
		pip install --require-hashes --no-deps --no-compile --only-binary :all: --target "$work/fetch/$version" \
			--implementation cp --python-version "$version" --platform manylinux_2_28_x86_64 \
			--platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -r "$work/fetch/run.lock"
		strip_tree "$work/fetch/$version"
		merge "$work/fetch/$version" "$work/fetch/all"
	done
	mv "$work/fetch/all" "$deps"
	rm -rf "$work/fetch"
}

# merge FROM INTO: add the files that INTO lacks; fail if a module differs.
merge() {
	mkdir -p "$2"
	cp -an "$1/." "$2/"
	local differing
	differing=$(diff -rq -x '*.dist-info' "$1" "$2" | grep '^Files' || true)
	[ -z "$differing" ] || fail 'modules differ between Python versions and cannot share one tree:' "$differing"
}

# Remove scripts, tests, stubs and C sources; keep modules and licences.
strip_tree() {
	rm -rf "${1:?}/bin" "$1/example.py"
	find "$1" -depth -type d \( -name __pycache__ -o -name tests -o -name test -o -name _tests \) -exec rm -rf {} +
	find "$1" -type f \( -name '*.pyi' -o -name '*.c' -o -name '*.pyx' -o -name '*.h' -o -name direct_url.json \
		-o -name REQUESTED \) -delete
	find "$1" -type f -exec chmod 644 {} +
	find "$1" -type f -name '*.py' -exec sed -i '1{/^#!/d}' {} +
}

# Create the copy of the source tree that dpkg-buildpackage uses.
source_tree() {
	src=$work/src/llama-orch
	rm -rf "$work/src"
	mkdir -p "$src"
	(cd "$root" && cp -a pyproject.toml README.md LICENSE daemons units man tmpfiles.d packaging "$src")
	find "$src" -depth \( -name __pycache__ -o -name '*.egg-info' \) -exec rm -rf {} +
	sed -i "s/^version = .*/version = \"$version\"/" "$src/pyproject.toml"
	cp -a "$src/packaging/debian" "$src/debian"
	sed -e "s/@VERSION@/$version/" -e "s/@DATE@/$(date -uR -d "@$SOURCE_DATE_EPOCH")/" \
		"$src/debian/changelog.in" >"$src/debian/changelog"
}

# Create the tree below /usr/lib/llama-orch: dependencies and the project's wheel.
program_tree() {
	local site=$work/src/site
	cp -a "$deps" "$site"
	pip wheel --no-deps --no-build-isolation --no-index -w "$work/src/wheel" "$src"
	pip install --no-deps --no-index --no-compile --target "$site" "$work/src/wheel/"*.whl
	rm -rf "$src/build" "$src/daemons/"*.egg-info
	strip_tree "$site"
	"$python" "$src/packaging/vendored.py" "$site" >>"$src/debian/copyright"
}

# -d: do not require build-essential, because nothing is compiled; require_tools checks the other packages.
build() {
	(cd "$src" && quietly dpkg-buildpackage -b -d -us -uc)
	grep -E '^dpkg-gencontrol: warning|dh_.*: warning' "$work/log" || true
	deb=$work/src/llama-orch_${version}_amd64.deb
}

check() {
	say 'running lintian'
	lintian --allow-root --fail-on error,warning --tag-display-limit 0 "$deb" 2>"$work/log" ||
		{ cat "$work/log" >&2; fail 'lintian reported errors or warnings'; }
}

started=$SECONDS
out=${1:-$root/dist}
require_tools
mkdir -p "$work" "$out"
exec 9>"$work/lock"
flock -n 9 || { say "waiting for another build that uses $work"; flock 9; }

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null ||
	stat -c %Y "$root/pyproject.toml")}
export SOURCE_DATE_EPOCH PYTHONDONTWRITEBYTECODE=1

builder
dependencies
say "building llama-orch $version"
source_tree
program_tree
build
check
mv "$deb" "$out/"
say "$out/$(basename "$deb"): $(du -h "$out/$(basename "$deb")" | cut -f1), $((SECONDS - started)) s"
