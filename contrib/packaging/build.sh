#!/bin/sh
# usage: build.sh [DIR [VERSION]]
#
# Builds the packages of this tree into DIR (dist), for GOARCH. The same commit gives the same bytes.
# "make packages" runs it.
set -eu
cd "$(dirname "$0")/../.."
go=${GO:-go}
export CGO_ENABLED=0 GOOS=linux
ARCH=$($go env GOARCH)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
# A tag gives its version; any other commit one that precedes the version that CHANGELOG.md is at.
tag=$(git describe --tags --exact-match --match 'v[0-9]*' --dirty 2>/dev/null || true)
if [ -n "${2:-}" ]; then
	VERSION=$2
elif [ -n "$tag" ] && [ "$tag" = "${tag%-dirty}" ]; then
	VERSION=${tag#v}
else
	next=$(sed -n 's/^## \([0-9][0-9.]*\).*/\1/p' CHANGELOG.md | head -n 1)
	VERSION=$next~$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).$(git rev-parse --short=8 HEAD)
fi
out=${1:-dist}
export ARCH VERSION SOURCE_DATE_EPOCH
umask 022
p=contrib/packaging root=dist/root doc=dist/root/usr/share/doc/drawbridge
rm -rf dist/tools dist/root dist/etc
mkdir -p "$out" dist/tools dist/etc $root/usr/sbin $root/usr/bin $root/usr/lib/drawbridge $root/usr/lib/systemd/system $root/usr/lib/sysusers.d \
	$root/usr/lib/tmpfiles.d $root/usr/share/drawbridge $root/usr/share/man/man1 $root/usr/share/man/man5 $root/usr/share/man/man8 \
	$root/usr/share/bash-completion/completions $root/usr/share/zsh/vendor-completions $root/usr/share/fish/vendor_completions.d \
	$root/usr/share/lintian/overrides $doc/adr

build() { $go build -buildvcs=false -trimpath -buildmode=exe -ldflags "-s -w -X main.version=$VERSION" "$@"; }
build -o $root/usr/sbin/ ./cmd/drawbridged
build -o $root/usr/bin/ ./cmd/drawbridge
build -o $root/usr/lib/drawbridge/ ./cmd/drawbridge-checkpassword

# Their own documentation, by programs for this machine.
native() { GOARCH=$($go env GOHOSTARCH) $go build -buildvcs=false -o dist/tools/ "$@"; }
native ./cmd/drawbridge
native ./contrib/packaging/manpages
dist/tools/manpages -drawbridge dist/tools/drawbridge -version "$VERSION" -o dist/tools
for page in dist/tools/*.[158]; do
	section=${page##*.}
	gzip -9nc "$page" >"$root/usr/share/man/man$section/${page##*/}.gz"
done
dist/tools/drawbridge completion bash >$root/usr/share/bash-completion/completions/drawbridge
dist/tools/drawbridge completion zsh >$root/usr/share/zsh/vendor-completions/_drawbridge
dist/tools/drawbridge completion fish >$root/usr/share/fish/vendor_completions.d/drawbridge.fish

install -m 0755 $p/create-keys $p/queue $root/usr/lib/drawbridge/
install -m 0644 $p/drawbridge.service $p/drawbridge-queue.socket $p/drawbridge-queue@.service $root/usr/lib/systemd/system/
install -m 0644 $p/sysusers.conf $root/usr/lib/sysusers.d/drawbridge.conf
install -m 0644 $p/tmpfiles.conf $root/usr/lib/tmpfiles.d/drawbridge.conf
install -m 0644 $p/lintian-overrides $root/usr/share/lintian/overrides/drawbridge
install -m 0644 $p/drawbridge.toml dist/etc/drawbridge.toml

# The snippets, with the paths of the package.
paths() {
	sed -e 's,/usr/local/lib/drawbridge/,/usr/lib/drawbridge/,g' \
		-e 's,/etc/dovecot/drawbridge-key.conf.ext,/etc/drawbridge/dovecot-key.conf.ext,g' \
		-e 's,drawbridge-key.conf.ext,dovecot-key.conf.ext,g' \
		-e "s,/etc/dovecot/drawbridge.conf.ext,/etc/drawbridge/dovecot-$2.conf.ext,g" \
		-e "s,/etc/dovecot/drawbridge-policy.conf.ext,/etc/drawbridge/dovecot-policy-$2.conf.ext,g" \
		-e "s,/etc/dovecot/drawbridge-verified.conf.ext,/etc/drawbridge/dovecot-verified-$2.conf.ext,g" \
		-e 's,/etc/dovecot/drawbridge-verified.lua,/usr/share/drawbridge/drawbridge-verified.lua,g' \
		-e 's,/etc/dovecot/drawbridge.lua,/usr/share/drawbridge/drawbridge.lua,g' \
		-e 's,/etc/dovecot/drawbridge.key,/etc/drawbridge/login.key,g' \
		-e 's,private/drawbridge-auth,drawbridge/auth,g' \
		-e 's,private/drawbridge-milter,drawbridge/milter,g' \
		-e 's,private/drawbridge,drawbridge/policy,g' \
		-e 's,/var/spool/postfix/private/auth,/run/dovecot/auth-drawbridge,g' "$1"
}
for version in 2.3 2.4; do
	for kind in '' -policy; do
		paths contrib/dovecot/$version/drawbridge$kind.conf.ext $version >dist/etc/dovecot$kind-$version.conf.ext
		cat $p/dovecot-sockets.conf.ext >>dist/etc/dovecot$kind-$version.conf.ext
	done
	paths contrib/dovecot/$version/drawbridge-verified.conf.ext $version >dist/etc/dovecot-verified-$version.conf.ext
done
paths contrib/dovecot/drawbridge.lua 2.4 >$root/usr/share/drawbridge/drawbridge.lua
paths contrib/dovecot/drawbridge-verified.lua 2.4 >$root/usr/share/drawbridge/drawbridge-verified.lua
paths contrib/postfix/main.cf.drawbridge '' >$root/usr/share/drawbridge/main.cf.drawbridge
paths contrib/postfix/master.cf.drawbridge '' >$root/usr/share/drawbridge/master.cf.drawbridge
paths contrib/postfix/master.cf.drawbridge-outgoing '' >$root/usr/share/drawbridge/master.cf.drawbridge-outgoing
mkdir -p $root/usr/share/drawbridge/roundcube
cp -R contrib/roundcube/drawbridge $root/usr/share/drawbridge/roundcube/
chmod -R u=rwX,go=rX $root/usr/share/drawbridge/roundcube

install -m 0644 README.md contrib/docs/*.md contrib/dovecot/NOTES.md $doc/
install -m 0644 contrib/adr/*.md $doc/adr/
install -m 0644 $p/copyright $doc/copyright
gzip -9nc CHANGELOG.md >$doc/changelog.gz
gzip -9nc >$doc/changelog.Debian.gz <<END
drawbridge ($VERSION-1) unstable; urgency=medium

  * Drawbridge $VERSION: see changelog.gz.

 -- The Drawbridge maintainers <maintainers@drawbridge.example>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END

tool() { GOARCH=$($go env GOHOSTARCH) $go tool -modfile=internal/tools/go.mod "$@"; }
for packager in deb rpm; do
	tool nfpm package --config $p/nfpm.yaml --packager "$packager" --target "$out/"
done
rm -rf dist/tools dist/root dist/etc
