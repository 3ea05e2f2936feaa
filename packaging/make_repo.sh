#!/bin/bash
# make_repo.sh apt|dnf [DIST]: make a signed repository, DIST/apt or DIST/dnf, from all packages in DIST (default: dist/).
#
# REPO_KEY is the key to sign with: a fingerprint, key id or address in the GnuPG keyring of the caller. The public key is
# put into the repository. The directory can be served by any web server; README.md says how machines use it.
set -euo pipefail
umask 022
kind=${1:-}
root=$(cd "$(dirname "$0")/.." && pwd)
dist=$(realpath "${2:-$root/dist}")
label="$kind-repo"

say() { printf '%s: %s\n' "$label" "$*"; }
fail() { printf "$label: %s\n" "$@" >&2; exit 1; }

require() {
	local program missing=()
	for program in "$@"; do command -v "$program" >/dev/null || missing+=("$program"); done
	[ ${#missing[@]} = 0 ] || fail "not found: ${missing[*]}" \
		'On Debian: apt-get install apt-utils createrepo-c rpm gnupg'
}

# Set $key to the fingerprint of REPO_KEY.
signing_key() {
	[ -n "${REPO_KEY:-}" ] || fail 'REPO_KEY is not set; it names the key to sign with.' \
		"Keys that can sign: gpg --list-secret-keys. A new one: gpg --quick-generate-key 'NAME <ADDRESS>'"
	key=$(gpg --batch --with-colons --list-secret-keys "$REPO_KEY" 2>/dev/null | awk -F: '/^fpr/ { print $10; exit }')
	[ -n "$key" ] || fail "no secret key for REPO_KEY=$REPO_KEY; see gpg --list-secret-keys"
}

sign() { gpg --batch --yes --local-user "$key" --digest-algo SHA256 "$@"; }

# packages SUFFIX: set $packages to the files, or fail with the target that makes them.
packages() {
	mapfile -t packages < <(find "$dist" -maxdepth 1 -name "llama-orch*.$1" | sort)
	[ ${#packages[@]} -gt 0 ] || fail "no .$1 in $dist; make $1 builds it"
}

apt_repo() {
	require apt-ftparchive gpg
	packages deb
	mkdir -p "$draft/pool"
	cp "${packages[@]}" "$draft/pool/"
	cd "$draft"
	local arch folder
	for arch in amd64 arm64; do
		folder=dists/stable/main/binary-$arch
		mkdir -p "$folder"
		apt-ftparchive --arch "$arch" packages pool >"$folder/Packages"
		gzip -9nk "$folder/Packages"
	done
	apt-ftparchive -o APT::FTPArchive::Release::Origin=llama-orch -o APT::FTPArchive::Release::Label=llama-orch \
		-o APT::FTPArchive::Release::Suite=stable -o APT::FTPArchive::Release::Codename=stable \
		-o APT::FTPArchive::Release::Architectures='amd64 arm64' -o APT::FTPArchive::Release::Components=main \
		release dists/stable >Release
	mv Release dists/stable/
	sign --clearsign --output dists/stable/InRelease dists/stable/Release
	sign --armor --detach-sign --output dists/stable/Release.gpg dists/stable/Release
	gpg --batch --export "$key" >llama-orch.gpg
}

dnf_repo() {
	require createrepo_c rpmsign gpg
	packages rpm
	cp "${packages[@]}" "$draft/"
	cd "$draft"
	quiet rpmsign --define "__gpg $(command -v gpg)" --define "_gpg_name $key" --define '_gpg_digest_algo sha256' --addsign -- *.rpm
	quiet createrepo_c --quiet .
	sign --armor --detach-sign --output repodata/repomd.xml.asc repodata/repomd.xml
	gpg --batch --armor --export "$key" >llama-orch.asc
}

quiet() { "$@" >"$draft.log" 2>&1 || { cat "$draft.log" >&2; fail "failed: $*"; }; }

case $kind in
apt | dnf) ;;
*) echo 'usage: make_repo.sh apt|dnf [DIST]' >&2; exit 64 ;;
esac
signing_key
draft=$(mktemp -d "$dist/.$kind.XXXXXX")
trap 'rm -rf "$draft" "$draft.log"' EXIT
chmod 755 "$draft"
"${kind}_repo"
cd "$dist"
rm -rf "${dist:?}/$kind"
mv "$draft" "$dist/$kind"
say "$dist/$kind: $(printf '%s ' "${packages[@]##*/}")signed by $key"
