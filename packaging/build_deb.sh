#!/bin/bash
# build_deb.sh [OUTDIR]: build the .deb for Debian 12 and 13 in OUTDIR (default: dist/).
#
# ARCH=arm64 builds it for that architecture, on any machine: nothing is compiled. The version comes from
# pyproject.toml. The build is reproducible: the same tree produces the same bytes. Errors and warnings of lintian fail
# the build.
root=$(cd "$(dirname "$0")/.." && pwd)
label=deb
arch=${ARCH:-amd64}
case $arch in
amd64) machine=x86_64 ;;
arm64) machine=aarch64 ;;
*) echo "deb: ARCH=$arch is not supported; use amd64 or arm64" >&2; exit 64 ;;
esac
# shellcheck source-path=SCRIPTDIR
. "$root/packaging/program_tree.sh"
work=$common/deb-$arch
src=$work/llama-orch

# Create the copy of the source tree that dpkg-buildpackage uses.
debian_tree() {
	rm -rf "$work"
	source_tree "$src"
	sed -i "s/^version = .*/version = \"$version\"/" "$src/pyproject.toml"
	cp -a "$src/packaging/debian" "$src/debian"
	sed -e "s/@VERSION@/$version/" -e "s/@DATE@/$(date -uR -d "@$SOURCE_DATE_EPOCH")/" \
		"$src/debian/changelog.in" >"$src/debian/changelog"
	program_tree "$src"
	"$python" "$src/packaging/vendored.py" copyright "$site" >>"$src/debian/copyright"
	ln -s "$site" "$work/site"
}

# -d: do not require build-essential, because nothing is compiled; require_packages checks the other packages.
build() {
	(cd "$src" && PYTHONS=$pythons quietly dpkg-buildpackage -b -d -us -uc "-a$arch")
	grep -E '^dpkg-gencontrol: warning|dh_.*: warning' "$common/log" || true
	deb=$work/llama-orch_${version}_$arch.deb
}

check() {
	say 'running lintian'
	lintian --allow-root --fail-on error,warning --tag-display-limit 0 "$deb" 2>"$common/log" ||
		{ cat "$common/log" >&2; fail 'lintian reported errors or warnings'; }
}

started=$SECONDS
out=${1:-$root/dist}
command -v dpkg-query >/dev/null || fail 'dpkg-query not found; the .deb must be built on Debian 12 or newer'
require_packages dpkg-dev debhelper lintian python3-venv
mkdir -p "$out"
begin
say "building llama-orch $version for $arch"
debian_tree
build
check
mv "$deb" "$out/"
say "$out/$(basename "$deb"): $(du -h "$out/$(basename "$deb")" | cut -f1), $((SECONDS - started)) s"
