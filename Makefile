# make             builds the commands into bin/
# make run         starts the trial stack: TRIAL_DIR=./run, PORT_OFFSET=0 move its data and its ports
# make test        runs all tests, against real Dovecot, Postfix and Redis
# make test-servers runs the tests that start servers on those of another Debian release: SUITE=trixie, STORE=redis
# make test-pages inspects every page in chromium for faults of accessibility, and uses them by keyboard and without seeing them
# make test-faults fails Redis, its network, its disk and the clock under logins and changes, and prints a table
# make test-dkim   has opendkim and rspamd verify and sign mail around Drawbridge
# make test-openid logs in at a certified OpenID provider, in chromium
# make test-roundcube logs in to Debian's Roundcube and opens the users' page by the plugin: SUITE=trixie
# make test-monitoring runs fail2ban, CrowdSec, logcheck and logwatch on our log, on Debian 12 and 13
# make test-ansible runs the Ansible role on Debian 12 and 13
# make soak        loads a site for SOAK=15m and compares the daemon's size before and after
# make check       format, vet, lint and the race detector: what CI runs beside the tests
# make bench       prints ratios against peers that do nothing, measured in one run; BASE=COMMIT compares with that build,
#                  in turns: ROUNDS=3, ROWS='decision internal/store,Check,7x' for some of it
# make bench-servers prints those of whole actions with the servers of another release, SUITE=trixie
# make fuzz        runs every fuzz target for FUZZTIME=10s
# make packages    builds a .deb and an .rpm into dist/
# make release     builds the packages of a tagged version and their checksums
# make test-packages checks the packages, and installs them on Debian 12 and 13, and by rpm
# make install     installs the commands: PREFIX=/usr/local, DESTDIR for packages
#
# Run and test check versions, install missing Debian packages, and use sudo when they are not run as root.

GO          ?= go
PREFIX      ?= /usr/local
DESTDIR     ?=
TRIAL_DIR   ?=
PORT_OFFSET ?= 0

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# Go asks git too, and does not build where git refuses: in a tree that belongs to another user.
VCS     := $(shell git rev-parse HEAD >/dev/null 2>&1 && echo auto || echo false)
BUILD   := build -buildvcs=$(VCS)
LDFLAGS := -X main.version=$(VERSION)

# Dovecot and Postfix start as root only.
ifneq ($(shell id -u),0)
SUDO := sudo
# sudo takes away PATH and the environment, and tests need some of it.
EXEC := -exec 'sudo env "PATH=$(PATH)" "DRAWBRIDGE_BIN=$(CURDIR)/bin"'
endif

FUZZTIME ?= 10s
TOOL := $(GO) tool -modfile=internal/tools/go.mod

.PHONY: all build go sudo install-deps run test test-servers test-pages test-faults test-monitoring test-dkim test-openid test-roundcube machine-roots test-ansible soak check bench bench-servers fuzz packages test-packages release install clean

all: build

# Go 1.21 and later fetch the version that go.mod wants; earlier ones, such as Debian 12's, do not understand that line.
go:
	@command -v $(GO) >/dev/null || { echo "make: there is no $(GO): install Go 1.26 or later, https://go.dev/doc/install" >&2; exit 1; }
	@case "$$($(GO) version)" in *" go1."[0-9]" "*|*" go1."[0-9].*|*" go1.1"[0-9]*|*" go1.20"*) \
	  echo "make: $$(command -v $(GO)) is $$($(GO) version), which is too old: install Go 1.26 or later, https://go.dev/doc/install" >&2; exit 1;; esac

build: go
	@mkdir -p bin
	$(GO) $(BUILD) -ldflags '$(LDFLAGS)' -o bin/ ./cmd/drawbridged ./cmd/drawbridge
# Small and quick to start: Dovecot runs it at every login.
	CGO_ENABLED=0 $(GO) $(BUILD) -trimpath -buildmode=exe -ldflags '-s -w $(LDFLAGS)' -o bin/ ./cmd/drawbridge-checkpassword

sudo: go
	@test -z '$(SUDO)' || command -v sudo >/dev/null || { echo "make: Dovecot and Postfix start as root only, and there is no sudo: run make as root" >&2; exit 1; }
	@$(SUDO) true

install-deps: go
	@contrib/trial/install-deps.sh
	@contrib/trial/fetch-regions.sh

run: sudo install-deps build
	@$(GO) $(BUILD) -o bin/drawbridge-trial ./contrib/trial
	@$(SUDO) bin/drawbridge-trial -bin bin -dir '$(TRIAL_DIR)' -port-offset '$(PORT_OFFSET)'

test: sudo install-deps build
	DRAWBRIDGE_BIN='$(CURDIR)/bin' $(GO) test -count=1 -timeout 30m $(EXEC) ./...

# Another release's servers run in a root of their own, which takes minutes to make and is kept: ROOTS, below /var/cache.
# SUITE is any Debian release that debootstrap knows: trixie (Dovecot 2.4.1), forky (testing). STORE is redis or valkey.
SUITE ?= trixie
STORE ?= redis
ROOTS ?= /var/cache/drawbridge-roots
ROOT  := $(ROOTS)/$(SUITE)$(if $(filter valkey,$(STORE)),-valkey)
# The packages whose tests start servers, with the end-to-end tests last.
SERVERS := internal/credential internal/doctor internal/embedded internal/store/redisstore internal/trialstack internal/e2e

test-servers: sudo install-deps build
	@$(SUDO) contrib/trial/make-root.sh '$(SUITE)' '$(ROOT)' '$(STORE)'
	@set -e; for p in $(SERVERS); do \
	  $(GO) test -c -o "bin/tests/$$(basename $$p).test" "./$$p"; \
	  echo "== $$p on $(SUITE) with $(STORE)"; \
	  $(SUDO) contrib/trial/in-root.sh '$(ROOT)' sh -c "cd $$p && /src/bin/tests/$$(basename $$p).test -test.timeout 30m $(TESTFLAGS)"; \
	done
	$(SUDO) env "PATH=$(PATH)" DRAWBRIDGE_BIN='$(CURDIR)/bin' DRAWBRIDGE_ROOT='$(ROOT)' $(GO) test -count=1 -tags servers -run 'TestSystemUsers|TestOtherSubmissionServers' ./internal/e2e
	$(SUDO) env "PATH=$(PATH)" DRAWBRIDGE_ROOTS='$(ROOT)' $(GO) test -count=1 -tags servers -run TestServersReadEachOther ./internal/embedded

# "make test" inspects some pages.
test-pages: sudo install-deps build
	@EXTRA=zbar-tools contrib/trial/install-deps.sh
	DRAWBRIDGE_BIN='$(CURDIR)/bin' $(GO) test -count=1 -timeout 10m -tags pages -v -run 'TestPages' $(EXEC) ./internal/e2e

# Minutes, beside the faults that "make test" tries.
test-faults: sudo install-deps build
	@command -v ip >/dev/null || $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends iproute2
	DRAWBRIDGE_BIN='$(CURDIR)/bin' $(GO) test -count=1 -timeout 45m -tags faults -v -run 'TestFaults' $(EXEC) ./internal/e2e
	$(GO) test -count=1 -timeout 15m -tags faults -v -run 'TestFaults' $(EXEC) ./internal/store/redisstore # apart: it is measured

# With Debian's opendkim and rspamd, before Drawbridge to verify and behind it to sign; on this machine and in SUITE's root.
test-dkim: sudo build
	@EXTRA='opendkim rspamd' contrib/trial/install-deps.sh
	DRAWBRIDGE_BIN='$(CURDIR)/bin' $(GO) test -count=1 -tags dkim -run 'TestSignatures' $(EXEC) ./internal/e2e
	@$(SUDO) contrib/trial/make-root.sh '$(SUITE)' '$(ROOTS)/$(SUITE)'
	@$(SUDO) contrib/trial/in-root.sh '$(ROOTS)/$(SUITE)' env EXTRA='opendkim rspamd' contrib/trial/install-deps.sh
	$(GO) test -c -tags dkim -o bin/tests/dkim.test ./internal/e2e
	$(SUDO) contrib/trial/in-root.sh '$(ROOTS)/$(SUITE)' sh -c 'cd internal/e2e && /src/bin/tests/dkim.test -test.run TestSignatures'

# The provider is zitadel/oidc's, a Go module whose version internal/tools/openid/go.mod has.
test-openid: sudo install-deps build
	cd internal/tools/openid && $(GO) build -o '$(CURDIR)/bin/tests/openid' .
	$(SUDO) env "PATH=$(PATH)" DRAWBRIDGE_BIN='$(CURDIR)/bin' OPENID='$(CURDIR)/bin/tests/openid' $(GO) test -count=1 -timeout 5m -tags openid -v -run 'TestOpenID' ./internal/e2e

# With the Roundcube and PHP of SUITE, in its root, and chromium.
test-roundcube: sudo install-deps build
	@$(SUDO) contrib/trial/make-root.sh '$(SUITE)' '$(ROOTS)/$(SUITE)'
	@$(SUDO) contrib/trial/in-root.sh '$(ROOTS)/$(SUITE)' sh -c 'test -e /usr/share/roundcube/index.php && test -e /usr/bin/php || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends roundcube-core roundcube-sqlite3 php-cli; }'
	$(SUDO) env "PATH=$(PATH)" DRAWBRIDGE_BIN='$(CURDIR)/bin' DRAWBRIDGE_ROOT='$(ROOTS)/$(SUITE)' $(GO) test -count=1 -tags roundcube -run 'TestRoundcube' ./internal/e2e

# With Debian's promtool and fail2ban-regex, then within fail2ban, CrowdSec, logcheck and logwatch on Debian 12 and 13.
test-monitoring: machine-roots
	sh contrib/monitoring/check.sh
	$(call download,fail2ban python3-systemd crowdsec logcheck logwatch rsyslog)
	$(MACHINES) $(GO) test -count=1 -timeout 60m -tags monitoring ./contrib/monitoring

# By Debian's ansible-core, on Debian 12 and 13.
test-ansible: machine-roots
	$(call download,ansible-core python3-apt)
	$(MACHINES) $(GO) test -count=1 -timeout 60m -tags ansible ./contrib/ansible

SOAK ?= 15m

soak: sudo install-deps build
	$(SUDO) env "PATH=$(PATH)" DRAWBRIDGE_BIN='$(CURDIR)/bin' SOAK='$(SOAK)' $(GO) test -count=1 -timeout 0 -tags soak -v -run 'TestSoak' ./internal/e2e

# The packages that share memory between goroutines; the others have no more to say under -race.
RACE := ./internal/gate ./internal/livesessions ./internal/region ./internal/store/... ./internal/adminapi ./internal/listen ./internal/embedded ./policyd ./milter

# The packages with tests that "make test" leaves out.
TAGGED := ./contrib/packaging ./contrib/monitoring ./contrib/ansible ./internal/e2e ./internal/embedded

check: go install-deps
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'make: not formatted: run gofmt -w' >&2; exit 1; }
	$(GO) mod verify
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) vet -tags servers,faults,dkim,openid,roundcube,monitoring,ansible $(TAGGED)
	$(TOOL) golangci-lint run ./...
	$(GO) test -race -count=1 -timeout 20m $(RACE)

# What is measured: rows of drawbridge-bench, checkpassword by "exec", and Go benchmarks as package,pattern,time.
BASE   ?=
ROUNDS ?= 3
ROWS   ?= decision scale policyd change followers million batch logins submissions preview content exec \
  milter,Ratios,20x internal/store,Million|Snapshot|Check,7x internal/store/redisstore,OfMillion,7x internal/mailflow,ThousandRules,1s \
  internal/metrics,Observe,1s internal/admin,Inspection,7x internal/console,Pages,50x
comma  := ,

bench: sudo install-deps build
	@$(call build-bench,.)
ifneq ($(BASE),)
	@rm -rf bin/base && mkdir -p bin/base && git archive '$(BASE)^{commit}' | tar -x -C bin/base
	@cd bin/base && $(GO) build -buildvcs=false -o bin/ ./cmd/drawbridged ./cmd/drawbridge && \
	  CGO_ENABLED=0 $(GO) build -buildvcs=false -trimpath -buildmode=exe -ldflags '-s -w' -o bin/ ./cmd/drawbridge-checkpassword
	@$(call build-bench,bin/base)
	@$(GO) build -buildvcs=false -o bin/drawbridge-bench-turns ./contrib/bench/turns
	@$(SUDO) env "PATH=$(PATH)" bin/drawbridge-bench-turns '$(ROUNDS)' bin/base . $(foreach row,$(ROWS),'$(row)')
else
	@set -e; for row in $(foreach row,$(ROWS),'$(row)'); do case $$row in \
	  exec) bin/drawbridge-bench-exec ;; \
	  *,*) p=$${row%%,*} t=$${row##*,} b=$${row#*,}; (cd "$$p" && '$(CURDIR)/bin/tests/'"$${p##*/}".bench -test.run '^$$' -test.bench "$${b%,*}" -test.benchtime "$$t") ;; \
	  *) $(SUDO) env DRAWBRIDGE_BIN='$(CURDIR)/bin' "PATH=$(PATH)" bin/drawbridge-bench "$$row" ;; \
	esac; done
endif

# build-bench builds the benchmarks of a source directory into its bin.
build-bench = cd $(1) && $(GO) build -buildvcs=false -o bin/drawbridge-bench ./contrib/bench && \
  $(GO) build -buildvcs=false -o bin/drawbridge-bench-exec ./contrib/bench/checkpassword/measure && \
  for p in $(sort $(foreach row,$(ROWS),$(if $(findstring $(comma),$(row)),$(firstword $(subst $(comma), ,$(row)))))); do \
    $(GO) test -buildvcs=false -c -o "bin/tests/$$(basename $$p).bench" "./$$p" || exit 1; done

bench-servers: sudo install-deps build
	@$(SUDO) contrib/trial/make-root.sh '$(SUITE)' '$(ROOTS)/$(SUITE)'
	@CGO_ENABLED=0 $(GO) build -o bin/drawbridge-bench ./contrib/bench
	@$(SUDO) contrib/trial/in-root.sh '$(ROOTS)/$(SUITE)' /src/bin/drawbridge-bench logins submissions

fuzz: go install-deps
	@set -e; git grep -lE '^func Fuzz' -- '*_test.go' | while read -r f; do \
	  sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$$f" | while read -r name; do \
	    echo "== $$f $$name"; \
	    $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x "./$$(dirname "$$f")" </dev/null; \
	  done; done

packages: go
	GO='$(GO)' contrib/packaging/build.sh

# The same tree built twice gives the same packages; an older build is upgraded from.
PACKAGES := $(CURDIR)/bin/packages
LINTIAN  := lintian --allow-root --fail-on error,warning

# Debian 12 and 13 that boot in namespaces (internal/machine), and the packages that they install.
machine-roots: sudo install-deps go
	@command -v ip >/dev/null || $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends iproute2
	@for suite in bookworm trixie; do \
	  $(SUDO) contrib/trial/make-root.sh $$suite '$(ROOTS)/'$$suite && \
	  $(SUDO) contrib/trial/in-root.sh '$(ROOTS)/'$$suite sh -c 'test -e /lib/systemd/systemd && test -e /usr/bin/rpm || apt-get install -qq -y --no-install-recommends systemd rpm' || exit 1; \
	done
	rm -rf '$(PACKAGES)'
	GO='$(GO)' contrib/packaging/build.sh '$(PACKAGES)/current'

MACHINES := $(SUDO) env "PATH=$(PATH)" DRAWBRIDGE_PACKAGES='$(PACKAGES)' DRAWBRIDGE_ROOTS='$(ROOTS)'

# Downloads packages into both roots, for machines, which have no network.
download = @for suite in bookworm trixie; do \
	  $(SUDO) contrib/trial/in-root.sh '$(ROOTS)/'$$suite sh -c 'apt-get update -qq && apt-get install -qq -y --no-install-recommends --download-only $(1)' || exit 1; \
	done

test-packages: machine-roots
	$(call download,apparmor strace)
	@command -v lintian >/dev/null && command -v systemd-analyze >/dev/null || \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends lintian systemd
	GO='$(GO)' contrib/packaging/build.sh '$(PACKAGES)/previous' 0.0.1~previous
	GO='$(GO)' contrib/packaging/build.sh '$(PACKAGES)/again'
	diff -r '$(PACKAGES)/current' '$(PACKAGES)/again'
	$(LINTIAN) '$(PACKAGES)'/current/*.deb
	systemd-analyze security --offline=true --threshold=20 --no-pager contrib/packaging/drawbridge.service
	$(MACHINES) $(GO) test -count=1 -timeout 90m -tags servers ./contrib/packaging

release: go
	@git describe --tags --exact-match --match 'v[0-9]*' >/dev/null || { echo 'make: this commit has no tag: see CONTRIBUTING.md' >&2; exit 1; }
	@test -z "$$(git status --porcelain)" || { echo 'make: the tree has changes that are not committed' >&2; exit 1; }
	rm -rf dist
	for arch in amd64 arm64; do GOARCH=$$arch GO='$(GO)' contrib/packaging/build.sh || exit 1; done
	git archive --format=tar.gz --prefix="drawbridge-$$(git describe --tags)/" -o "dist/drawbridge-$$(git describe --tags).tar.gz" HEAD
	cd dist && sha256sum drawbridge* >SHA256SUMS && cat SHA256SUMS

# Not after build: root, who installs, may have no Go.
install:
	@test -x bin/drawbridged || { echo 'make: nothing is built: run "make" first, then "make install" as root' >&2; exit 1; }
	install -d '$(DESTDIR)$(PREFIX)/sbin' '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/lib/drawbridge' '$(DESTDIR)$(PREFIX)/share/doc/drawbridge'
	install -m 0755 bin/drawbridged '$(DESTDIR)$(PREFIX)/sbin/'
	install -m 0755 bin/drawbridge '$(DESTDIR)$(PREFIX)/bin/'
	install -m 0755 bin/drawbridge-checkpassword '$(DESTDIR)$(PREFIX)/lib/drawbridge/'
	install -m 0644 contrib/dovecot/drawbridge.lua '$(DESTDIR)$(PREFIX)/share/doc/drawbridge/'
	install -m 0644 contrib/dovecot/2.4/drawbridge.conf.ext '$(DESTDIR)$(PREFIX)/share/doc/drawbridge/drawbridge-2.4.conf.ext'
	install -m 0644 contrib/dovecot/2.3/drawbridge-policy.conf.ext '$(DESTDIR)$(PREFIX)/share/doc/drawbridge/'
	install -m 0644 contrib/dovecot/2.4/drawbridge-policy.conf.ext '$(DESTDIR)$(PREFIX)/share/doc/drawbridge/drawbridge-policy-2.4.conf.ext'
	install -m 0644 contrib/dovecot/drawbridge-verified.lua '$(DESTDIR)$(PREFIX)/share/doc/drawbridge/'
	install -m 0644 contrib/dovecot/2.4/drawbridge-verified.conf.ext '$(DESTDIR)$(PREFIX)/share/doc/drawbridge/drawbridge-verified-2.4.conf.ext'
	for f in drawbridge drawbridge-verified; do sed 's,/usr/local/lib/,$(PREFIX)/lib/,' contrib/dovecot/2.3/$$f.conf.ext >'$(DESTDIR)$(PREFIX)/share/doc/drawbridge/'$$f.conf.ext; done
	install -m 0644 contrib/postfix/main.cf.drawbridge contrib/postfix/master.cf.drawbridge contrib/postfix/master.cf.drawbridge-outgoing '$(DESTDIR)$(PREFIX)/share/doc/drawbridge/'
	install -d '$(DESTDIR)$(PREFIX)/share/drawbridge/roundcube/drawbridge/localization'
	cd contrib/roundcube/drawbridge && for f in *.* localization/*; do install -m 0644 "$$f" '$(DESTDIR)$(PREFIX)/share/drawbridge/roundcube/drawbridge/'"$$f" || exit 1; done

# What the trial stack keeps in run/ is not a build's to delete.
clean:
	rm -rf bin dist
