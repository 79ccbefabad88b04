#!/bin/sh
# Installs what a make target needs and this machine lacks; says nothing when nothing is missing.
#
#   scripts/setup.sh run|test|bench
#
# System software comes from Debian's packages (apt-get), the web tools from npm. Go modules come by themselves.
set -eu
cd "$(dirname "$0")/.."

# package:file, where the file proves that the package's content is there, wherever it came from.
run_packages="
	xvfb:/usr/bin/Xvfb
	openbox:/usr/bin/openbox
	xterm:/usr/bin/xterm
	mousepad:/usr/bin/mousepad
	fonts-dejavu-core:/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf
	adwaita-icon-theme:/usr/share/icons/Adwaita/index.theme
	ca-certificates:/etc/ssl/certs/ca-certificates.crt
"
# Codecs that internal/video loads when they are there. Penstock runs without them, and so does this script.
libraries=/usr/lib/$(uname -m)-linux-gnu
codec_packages="
	libopenh264-7:$libraries/libopenh264.so.7
	libyuv0:$libraries/libyuv.so.0
	libvpx7:$libraries/libvpx.so.7
	libturbojpeg0:$libraries/libturbojpeg.so.0
"
test_packages="
	ffmpeg:/usr/bin/ffmpeg
	chromium:/usr/bin/chromium
	awscli:/usr/bin/aws
	python3-boto3:/usr/lib/python3/dist-packages/boto3/__init__.py
	xdotool:/usr/bin/xdotool
	xclip:/usr/bin/xclip
	x11-utils:/usr/bin/xdpyinfo
	x11-apps:/usr/bin/xwd
	x11-xserver-utils:/usr/bin/xrandr
	xsettingsd:/usr/bin/dump_xsettings
	tigervnc-standalone-server:/usr/bin/Xtigervnc
	python3-gi:/usr/lib/python3/dist-packages/gi/__init__.py
	gir1.2-gtk-3.0:/usr/share/doc/gir1.2-gtk-3.0/copyright
	xauth:/usr/bin/xauth
	imagemagick:/usr/bin/convert
	x11-xkb-utils:/usr/bin/setxkbmap
	libnss3-tools:/usr/bin/certutil
	iproute2:/sbin/ip
	util-linux:/usr/bin/nsenter
	nftables:/usr/sbin/nft
	dnsmasq-base:/usr/sbin/dnsmasq
	bind9-dnsutils:/usr/bin/dig
	python3-aiosmtpd:/usr/lib/python3/dist-packages/aiosmtpd/__init__.py
	python3-pysaml2:/usr/lib/python3/dist-packages/saml2/__init__.py
	xmlsec1:/usr/bin/xmlsec1
	openssl:/usr/bin/openssl
	e2fsprogs:/sbin/mkfs.ext4
	mount:/bin/mount
	gcc:/usr/bin/gcc
	libc6-dev:/usr/include/stdio.h
	libx11-dev:/usr/include/X11/Xlib.h
	libxkbcommon-dev:/usr/include/xkbcommon/xkbcommon.h
"
bench_packages="
	novnc:/usr/share/novnc/core/rfb.js
	websockify:/usr/bin/websockify
	x11vnc:/usr/bin/x11vnc
	xpra:/usr/share/xpra/www/index.html
	python3-lz4:/usr/lib/python3/dist-packages/lz4/__init__.py
	python3-lzo:/usr/share/doc/python3-lzo/copyright
	python3-brotli:/usr/lib/python3/dist-packages/brotli.py
	python3-pil:/usr/lib/python3/dist-packages/PIL/__init__.py
	python3-numpy:/usr/lib/python3/dist-packages/numpy/__init__.py
	haproxy:/usr/sbin/haproxy
	nginx:/usr/sbin/nginx
	libnginx-mod-stream:/usr/lib/nginx/modules/ngx_stream_module.so
"

case "${1:-}" in
run) packages="$run_packages" ;;
test) packages="$run_packages $test_packages" ;;
bench) packages="$run_packages $test_packages $bench_packages" ;;
*)
	echo "usage: scripts/setup.sh run|test|bench" >&2
	exit 2
	;;
esac

fail() {
	echo "setup: $*" >&2
	exit 1
}

command -v go >/dev/null || fail "Go 1.26 or newer is missing: install it from go.dev and put it on PATH"
command -v npm >/dev/null || fail "Node.js 20 or newer with npm is missing: install it and put it on PATH"

missing=""
for entry in $packages; do
	[ -e "${entry#*:}" ] || missing="$missing ${entry%%:*}"
done
optional=""
for entry in $codec_packages; do
	[ -e "${entry#*:}" ] || optional="$optional ${entry%%:*}"
done
if [ -n "$missing" ]; then
	command -v apt-get >/dev/null ||
		fail "this machine has no apt-get; install what your system calls these Debian packages:$missing"
	[ "$(id -u)" = 0 ] || fail "packages are missing; run this once, then repeat:
  sudo apt-get update && sudo apt-get install --no-install-recommends -y$missing"
	echo "setup: installing$missing"
	apt() {
		# Nothing that is installed here is to start as a service.
		DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 "$@"
	}
	# The lists are fetched only when they are absent or do not lead to the packages; their lock has no
	# waiting of its own.
	update() {
		tries=0
		until apt update; do
			tries=$((tries + 1))
			[ "$tries" -lt 20 ] || fail "apt-get update failed $tries times"
			sleep 3
		done
	}
	# shellcheck disable=SC2086 # one word a package
	install() { apt install --no-install-recommends -y $missing; }
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	if ! install >"$log" 2>&1; then
		update >>"$log" 2>&1 && install >>"$log" 2>&1 || {
			cat "$log" >&2
			fail "could not install$missing"
		}
	fi
	for entry in $packages; do
		[ -e "${entry#*:}" ] || fail "package ${entry%%:*} is installed, but ${entry#*:} is not there"
	done
fi

# Where they are not to be had, or not by this user, nothing is lost but speed and video.
if [ -n "$optional" ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
	echo "setup: installing$optional"
	# shellcheck disable=SC2086 # one word a package
	codecs() {
		DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 install --no-install-recommends -y $optional
	}
	{ codecs || { apt-get -q update && codecs; }; } >/dev/null 2>&1 || echo "setup: optional codecs were not installed:$optional"
fi

# Resolvers that only tests ask: unpacked, not installed, so that no service starts and resolv.conf stays as it is.
resolvers="unbound bind9 bind9-libs systemd-resolved libsystemd-shared libevent-2.1-7 libnghttp2-14 libprotobuf-c1 libpython3.11
	libuv1 libfstrm0 liblmdb0 libmaxminddb0 libjson-c5 libjemalloc2 dns-root-data"
if [ "$1" != run ] && [ "$(cat .cache/debian/.unpacked 2>/dev/null)" != "$resolvers" ] && command -v apt-get >/dev/null; then
	echo "setup: unpacking resolvers for the tests"
	rm -rf .cache/debian
	mkdir -p .cache/debian/.packages
	# shellcheck disable=SC2086 # one word a package
	(cd .cache/debian/.packages && { apt-get -q download $resolvers || { apt-get -q update && apt-get -q download $resolvers; }; }) >/dev/null 2>&1 ||
		fail "could not download: $resolvers"
	for package in .cache/debian/.packages/*.deb; do
		dpkg-deb -x "$package" .cache/debian
	done
	rm -rf .cache/debian/.packages
	printf %s "$resolvers" >.cache/debian/.unpacked
fi

# npm packages, again whenever the lock file differs from the one they were installed from.
if [ -f web/package-lock.json ]; then
	stamp=web/node_modules/.penstock-lock
	if ! cmp -s web/package-lock.json "$stamp"; then
		# Packages that already agree with the lock file are left alone.
		if ! (cd web && [ -d node_modules ] && npm ls --all >/dev/null 2>&1); then
			echo "setup: installing npm packages"
			(cd web && npm ci --no-audit --no-fund --loglevel=error)
		fi
		cp web/package-lock.json "$stamp"
	fi
fi

# The AWS SDK for JavaScript, which only the end-to-end tests drive.
js=test/e2e/js
if [ "$1" = test ] && ! cmp -s $js/package-lock.json $js/node_modules/.penstock-lock; then
	echo "setup: installing the AWS SDK for JavaScript"
	(cd $js && npm ci --no-audit --no-fund --loglevel=error)
	cp $js/package-lock.json $js/node_modules/.penstock-lock
fi
