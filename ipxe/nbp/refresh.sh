#!/bin/sh
# Fetches the network boot programs anew from the Debian package named below, by this machine's own
# apt sources but with a private apt state, and checks them against SHA256SUMS. To move to another
# version: change VERSION, run with "update" as the argument, and look at the difference.
set -eu
PACKAGE=ipxe
VERSION=1.21.1+git20250501.dad20602+dfsg-1
SUITE=trixie
FILES="undionly.kpxe ipxe.pxe snponly.efi ipxe-amd64.efi ipxe-arm64.efi"

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
if [ -z "$mirror" ]; then
	echo "refresh.sh: apt has no Debian mirror in its sources; run 'apt-get update' first" >&2
	exit 1
fi
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
cat > "$work/debian.sources" <<EOF
Types: deb
URIs: $mirror
Suites: $SUITE
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
EOF
apt() {
	apt-get -q -o Dir::Etc::sourcelist="$work/debian.sources" -o Dir::Etc::sourceparts=- \
		-o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root "$@"
}
cd "$work"
apt update
apt download "$PACKAGE=$VERSION"
dpkg-deb -x ./"$PACKAGE"_*.deb x
for f in $FILES; do
	install -m 644 "x/usr/lib/ipxe/$f" "$here/$f"
done
cd "$here"
if [ "${1:-}" = update ]; then
	sha256sum $FILES > SHA256SUMS
fi
sha256sum -c SHA256SUMS
