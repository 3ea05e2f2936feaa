#!/bin/bash
# build_rpm.sh [OUTDIR]: build the .rpm for Fedora 42 and later and for EL 9 and 10 in OUTDIR (default: dist/).
#
# ARCH=arm64 builds it for that architecture, on any machine: nothing is compiled. The version comes from
# pyproject.toml. The build is reproducible: the same tree produces the same bytes. rpmlint, if it is installed, fails the
# build by what rpmlint.toml does not explain. RELEASE=2 is a second package of the same version. PAYLOAD=w1.zstdio saves
# time in tests.
root=$(cd "$(dirname "$0")/.." && pwd)
label=rpm
release=${RELEASE:-1}
case ${ARCH:=amd64} in
amd64 | x86_64) machine=x86_64 ;;
arm64 | aarch64) machine=aarch64 ;;
*) echo "rpm: ARCH=$ARCH is not supported; use amd64 or arm64" >&2; exit 64 ;;
esac
# shellcheck source-path=SCRIPTDIR
. "$root/packaging/program_tree.sh"
work=$common/rpm-$machine

build() {
	local units newest_first
	rm -rf "$work"
	source_tree "$work/src"
	sed -i "s/^version = .*/version = \"$version\"/" "$work/src/pyproject.toml"
	program_tree "$work/src"
	"$python" "$work/src/packaging/vendored.py" bundled "$site" >"$work/tags"
	units=$(cd "$work/src/units" && grep -lE '^WantedBy=' -- *.* | xargs)
	newest_first=$(echo "$pythons" | tr ' ' '\n' | sort -rV | xargs)
	quietly rpmbuild -bb --target "$machine-linux" "$work/src/packaging/rpm/llama-orch.spec" \
		--define "_topdir $work/top" --define "_rpmdir $work" --define "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" \
		--define "sources $work/src" --define "site $site" --define "pythons $pythons" --define "units $units" \
		--define "newest_first $newest_first" --define "tags $work/tags" --define "released $version" --define "release $release" \
		--define "changed $(date -u -d "@$SOURCE_DATE_EPOCH" '+%a %b %d %Y')" \
		${PAYLOAD:+--define "_binary_payload $PAYLOAD"}
	rpm=$work/llama-orch-$version-$release.$machine.rpm
}

check() {
	command -v rpmlint >/dev/null || { say 'rpmlint is not here, so the package is not checked'; return; }
	say 'running rpmlint'
	rpmlint --strict --config "$root/packaging/rpm/rpmlint.toml" "$rpm" >"$common/log" 2>&1 ||
		{ cat "$common/log" >&2; fail 'rpmlint reported errors or warnings'; }
}

started=$SECONDS
out=${1:-$root/dist}
require_packages rpm python3-venv
require_programs rpmbuild "$python"
mkdir -p "$out"
begin
say "building llama-orch $version for $machine"
build
[ -n "${PAYLOAD:-}" ] || check
mv "$rpm" "$out/"
say "$out/$(basename "$rpm"): $(du -h "$out/$(basename "$rpm")" | cut -f1), $((SECONDS - started)) s"
