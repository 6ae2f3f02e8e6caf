# oci-coredump: build, install, try, test.
#
#   make              one static binary; TARGET=aarch64-unknown-linux-gnu: for that architecture,
#                     by Debian's gcc-aarch64-linux-gnu and `rustup target add`; install, deb and
#                     rpm too
#   make install      DESTDIR and PREFIX as usual; then `oci-coredump install` for the host part,
#                     or just start a container
#   make uninstall
#   make demo         two containers, two core patterns, on this machine, which is restored
#   make ship         oci-coredump-ship, which uploads crashes: docs/upload.md. A workspace of its
#                     own; `make install` installs it where it was built
#   make test-ship    its tests, with servers of object storage on this machine
#   make bench-ship   its speed, and what uploads cost a storm of crashes; as root
#   make test         everything that .ci/run runs; TEST=NAME: only the tests whose name holds NAME.
#                     See docs/testing.md
#   make fuzz         all fuzz targets, each until its curve is flat
#   make sanitize     the unit tests under AddressSanitizer
#   make faults       faults and storms, with the helper killed at every one of its system calls;
#                     as root
#   make conformance RUNC_SRC=... CRUN_SRC=... YOUKI_SRC=... CRIO_SRC=... KUBELET_SRC=...
#                     other projects' tests of hooks, from your checkouts, through this program;
#                     CRI-O and kubelet, built from their sources, with real pods
#   make deb rpm      packages, in target/packages; MAINTAINER='NAME <ADDRESS>' for those to publish
#   make test-hosts   the packages on whole hosts in virtual machines, HOSTS="sid trixie"; as root
#   make test-arm64   the tests that know the architecture, on kernels of AArch64 in a virtual
#                     machine, FLAVOURS="cloud-arm64 arm64-16k"; as root
#   make image        the image of the Kubernetes DaemonSet, with podman; deploy/ has the manifests
#   make kata-guest-hook DESTDIR=ROOTFS
#                     the guest's part for Kata Containers, into the tree of a guest image
#   make bench        the table of goals: ours against the kernel's file mode, as root
#   make bench-scaling   time and memory against size, threads, mappings, containers and
#                     simultaneous crashes: docs/scaling.md, as root
#   make deps         what demo and test need from apt; asks for root only for that

PREFIX ?= /usr
CARGO ?= cargo
INSTALL ?= install

target := $(or $(CARGO_TARGET_DIR),target)
host := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
# .cargo/config.toml names the target, so the binary is in a directory of that name. Without rustc
# (sudo make install): whichever was built for this machine.
built := $(firstword $(wildcard $(target)/$(shell uname -m)-*/release/oci-coredump))
binary := $(or $(if $(TARGET),$(target)/$(TARGET)/release/oci-coredump),\
	$(if $(host),$(target)/$(host)/release/oci-coredump),$(built))

# For another architecture: its tools (.cargo/config.toml has its linker), and what runs its program
# for the man pages.
cross := $(if $(filter-out $(host),$(TARGET)),$(subst -unknown-,-,$(TARGET))-)
for_target := $(if $(TARGET),--target $(TARGET))
runs := $(if $(cross),qemu-$(firstword $(subst -, ,$(TARGET))))

ship_built := $(dir $(binary))oci-coredump-ship
ship := $(DESTDIR)$(PREFIX)/libexec/oci-coredump/oci-coredump-ship
libexec := $(DESTDIR)$(PREFIX)/libexec/oci/hooks.d
bin := $(DESTDIR)$(PREFIX)/bin
share := $(DESTDIR)$(PREFIX)/share
hooks := $(share)/containers/oci/hooks.d
man := $(share)/man/man1
doc := $(share)/doc/oci-coredump
units := $(DESTDIR)$(PREFIX)/lib/systemd/system
sysusers := $(DESTDIR)$(PREFIX)/lib/sysusers.d
guest := $(DESTDIR)/usr/share/oci/hooks
bash := $(share)/bash-completion/completions
zsh := $(share)/zsh/vendor-completions
fish := $(share)/fish/vendor_completions.d

# Tools of the tests that are not packaged, or whose package would change the machine.
tools := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/oci-coredump-test
as_root := $(if $(filter 0,$(shell id -u)),,sudo)

# runc: on a host with hybrid cgroups podman's own choice, crun, starts nothing.
demo_packages := podman runc busybox-static gdb gcc libc6-dev
test_packages := $(demo_packages) strace g++ golang-go zstd crun conmon systemd bsdutils \
	util-linux binutils tar containerd python3-grpcio python3-pip debian-archive-keyring uidmap \
	qemu-system-x86 checkpolicy apparmor cpio prometheus zsh fish libevent-2.1-7 libsasl2-2 \
	openjdk-17-jdk-headless nodejs python3-jsonschema xz-utils dwz qemu-user gdb-multiarch \
	gcc-aarch64-linux-gnu libc6-dev-arm64-cross catatonit

# The package of the tests that need root, and of the benchmarks.
member := oci-coredump-integration

# A runner for the tests that need root: `--config` for cargo, $(1) are further variables.
root_runner = $(if $(as_root),--config \
	"target.'cfg(unix)'.runner = 'sudo env $(if $(1),$(1) )HOME=$(HOME) PATH=$(PATH)'")

# TEST may begin with the name of a target, as the summary of the tests prints it.
targets := $(basename $(notdir $(wildcard integration/*.rs tests/*.rs)))
target_of_test := $(filter $(firstword $(subst ::, ,$(TEST))),$(targets) oci_coredump)
test_filter := $(patsubst $(target_of_test)::%,%,$(filter-out $(target_of_test),$(TEST)))
selected_tests := $(if $(target_of_test:oci_coredump=),--test $(target_of_test),\
	$(if $(target_of_test),--lib,--lib --tests))
run_tests = CARGO=$(CARGO) integration/test.sh $(call root_runner,$(if $(CI),CI=$(CI))) \
	test --workspace --locked --no-fail-fast $(selected_tests) \
	-- --test-threads=1 $(test_filter)

.PHONY: build install uninstall kata-guest-hook demo test fuzz faults sanitize miri conformance \
	bench bench-scaling deps demo-deps test-deps clean

build:
	$(CARGO) build --release --locked $(for_target)

# Not a dependency on `build`: root often has no cargo.
install:
	@test -x "$(binary)" || $(MAKE) build
	$(INSTALL) -d $(libexec) $(bin) $(hooks) $(man) $(bash) $(zsh) $(fish) $(units) \
		$(doc)
	$(INSTALL) -m 0755 $(binary) $(libexec)/oci-coredump
	ln -sf ../libexec/oci/hooks.d/oci-coredump $(bin)/oci-coredump
	ln -sf ../libexec/oci/hooks.d/oci-coredump $(bin)/oci-coredump-runtime
	ln -sf ../libexec/oci/hooks.d/oci-coredump $(bin)/kubectl-coredump
	ln -sf oci-coredump $(libexec)/oci-coredump-runtime
	sed 's|"/usr/libexec/|"$(PREFIX)/libexec/|' hooks.d/oci-coredump.json \
		>$(hooks)/oci-coredump.json
	for unit in oci-coredump.service oci-coredump-serve.service oci-coredump-serve.socket; do \
		sed 's|=/usr/libexec/|=$(PREFIX)/libexec/|' systemd/$$unit >$(units)/$$unit; done
	$(INSTALL) -m 0644 docs/config.toml $(doc)/config.toml
	if test -x "$(ship_built)"; then $(INSTALL) -D -m 0755 $(ship_built) $(ship) && \
		sed 's|=/usr/libexec/|=$(PREFIX)/libexec/|' systemd/oci-coredump-ship.service \
		>$(units)/oci-coredump-ship.service && \
		$(INSTALL) -D -m 0644 -t $(sysusers) systemd/oci-coredump-ship.conf; fi
	$(runs) $(binary) man --all $(man)
	$(runs) $(binary) completions bash >$(bash)/oci-coredump
	$(runs) $(binary) completions zsh >$(zsh)/_oci-coredump
	$(runs) $(binary) completions fish >$(fish)/oci-coredump.fish

# The host part first (`oci-coredump uninstall`): the kernel must not be left with the path of a
# program that is gone.
uninstall:
	$(if $(DESTDIR),,test ! -x $(libexec)/oci-coredump || $(libexec)/oci-coredump uninstall)
	rm -f $(hooks)/oci-coredump.json $(libexec)/oci-coredump $(bin)/oci-coredump
	rm -f $(man)/oci-coredump.1 $(man)/oci-coredump-*.1 $(libexec)/oci-coredump-runtime $(bin)/oci-coredump-runtime
	rm -f $(bin)/kubectl-coredump
	rm -f $(units)/oci-coredump.service $(units)/oci-coredump-serve.* $(doc)/config.toml
	rm -f $(units)/oci-coredump-ship.service $(sysusers)/oci-coredump-ship.conf $(ship)
	rm -f $(bash)/oci-coredump $(zsh)/_oci-coredump $(fish)/oci-coredump.fish
	for dir in $(libexec) $(dir $(libexec)) $(hooks) $(dir $(hooks)) $(dir $(ship)) $(fish) \
		$(dir $(fish)) $(doc); do \
		rmdir --ignore-fail-on-non-empty $$dir 2>/dev/null || :; done

# A workspace of its own, with a lock file of its own; the programs are beside each other, as the
# tests need them.
in_ship := --manifest-path ship/Cargo.toml --target-dir $(target) --locked
.PHONY: ship test-ship bench-ship
ship:
	$(CARGO) build --release $(in_ship)

# npm comes with others' packages of Node, beside which Debian's cannot be installed.
ship_packages := gcc libc6-dev gdb python3-venv python3-pip chromium tinyproxy faketime strace \
	iproute2 util-linux python3-seccomp systemd $(if $(shell command -v npm),,npm)
test-ship bench-ship: export PATH := $(PATH):$(tools)/bin
test-ship:
	@integration/packages.sh $(ship_packages)
	@ship/tools.sh $(tools)
	$(CARGO) build --locked
	$(CARGO) fmt --manifest-path ship/Cargo.toml --check
	$(CARGO) clippy $(in_ship) --all-targets -- -D warnings
	CI=1 $(CARGO) test $(in_ship)

# Speed against the servers' own client, and a storm of crashes with and without uploads, which
# needs root.
bench-ship: build ship
	@integration/packages.sh $(ship_packages) awscli $(demo_packages)
	@ship/tools.sh $(tools)
	$(CARGO) test --release $(in_ship) --test speed -- --ignored --nocapture
	$(CARGO) $(call root_runner) bench --package $(member) --locked --bench uploads

# kata-agent runs regular files only, no symbolic links, and calls each with the name of its
# directory: so this is one file under three names.
kata-guest-hook:
	@test -n "$(DESTDIR)" || { \
		echo "kata-guest-hook: set DESTDIR=ROOTFS, the tree of the guest image;" \
			"this must not be installed on the host itself" >&2; \
		exit 2; \
	}
	@test -x "$(binary)" || $(MAKE) build
	$(INSTALL) -d $(foreach stage,prestart poststart poststop,$(guest)/$(stage)) \
		$(DESTDIR)/etc/oci-coredump
	$(INSTALL) -m 0755 $(binary) $(guest)/prestart/oci-coredump
	ln -f $(guest)/prestart/oci-coredump $(guest)/poststart/oci-coredump
	ln -f $(guest)/prestart/oci-coredump $(guest)/poststop/oci-coredump
	$(INSTALL) -m 0644 hooks.d/kata/config.toml $(DESTDIR)/etc/oci-coredump/config.toml

image: build ship
	rm -rf $(target)/image
	$(INSTALL) -D -t $(target)/image $(binary) $(ship_built)
	podman build --tag $(or $(IMAGE),localhost/oci-coredump:0.1.0) \
		--file deploy/Containerfile $(target)/image

# Pinned, and installed outside of this project: its cargo configuration asks for static programs.
cargo_deb := 3.6.0
cargo_generate_rpm := 0.21.1
packaging = cd / && for tool in cargo-deb=$(cargo_deb) cargo-generate-rpm=$(cargo_generate_rpm); do \
	test "$$($(tools)/bin/$${tool%=*} $${tool%=*} --version 2>/dev/null | sed 's/.* //')" = "$${tool\#*=}" || \
	$(CARGO) install "$${tool%=*}" --version "=$${tool\#*=}" --locked --quiet --root $(tools) || exit; \
	done
version := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
stage := target/stage
packages := target/packages
documents := README.md $(addprefix docs/,annotations.md attacks.md commands.md \
	configuration.md cost.md design.md engines.md kubernetes.md limitations.md metrics.md \
	no-core.md packages.md records.md rootless.md stack.md upload.md)

# All files of the packages. RELEASE: of the package, for the same version of the program.
RELEASE ?= 1
.PHONY: stage stage-ship deb rpm deb-ship rpm-ship test-hosts
stage: build
	@$(if $(cross),integration/packages.sh qemu-user gcc-aarch64-linux-gnu)
	@$(packaging)
	rm -rf $(stage)
	$(MAKE) --silent install DESTDIR=$(stage) PREFIX=/usr binary=$(binary) ship_built=
	$(cross)strip --strip-unneeded $(stage)/usr/libexec/oci/hooks.d/oci-coredump
	$(INSTALL) -D -m 0644 deploy/packages/tmpfiles.conf $(stage)/usr/lib/tmpfiles.d/oci-coredump.conf
	$(INSTALL) -D -m 0644 -t $(stage)/usr/share/doc/oci-coredump $(documents)
	gzip -9nc CHANGELOG.md >$(stage)/usr/share/doc/oci-coredump/changelog.gz
	for name in oci-coredump-runtime kubectl-coredump; do \
		echo '.so man1/oci-coredump.1' >$(stage)/usr/share/man/man1/$$name.1; done
	sed 's/@VERSION@/$(version)-$(RELEASE)/' deploy/packages/deb/changelog >$(stage)/changelog
	mkdir -p $(packages)

deb: stage
	$(tools)/bin/cargo-deb deb $(for_target) --no-build --no-strip --locked --deb-revision $(RELEASE) \
		$(if $(MAINTAINER),--maintainer '$(MAINTAINER)') --output $(packages)/

rpm: stage
	$(tools)/bin/cargo-generate-rpm generate-rpm $(for_target) --output $(packages)/ \
		--set-metadata 'release = "$(RELEASE)"'

# The program that uploads, in a package of its own.
stage_ship := target/stage-ship
stage-ship: ship
	@$(packaging)
	rm -rf $(stage_ship)
	$(INSTALL) -D -t $(stage_ship)/usr/libexec/oci-coredump $(ship_built)
	strip --strip-unneeded $(stage_ship)/usr/libexec/oci-coredump/oci-coredump-ship
	$(INSTALL) -D -m 0644 -t $(stage_ship)/usr/lib/systemd/system \
		systemd/oci-coredump-ship.service
	$(INSTALL) -D -m 0644 -t $(stage_ship)/usr/lib/sysusers.d systemd/oci-coredump-ship.conf
	$(INSTALL) -D -m 0644 -t $(stage_ship)/usr/share/doc/oci-coredump-ship docs/upload.md
	gzip -9nc CHANGELOG.md >$(stage_ship)/usr/share/doc/oci-coredump-ship/changelog.gz
	sed 's/@VERSION@/$(version)-$(RELEASE)/; s/^oci-coredump /oci-coredump-ship /' \
		deploy/packages/deb/changelog >$(stage_ship)/changelog
	mkdir -p $(packages)

deb-ship: stage-ship
	$(tools)/bin/cargo-deb deb --manifest-path ship/Cargo.toml --no-build --no-strip --locked \
		--deb-revision $(RELEASE) $(if $(MAINTAINER),--maintainer '$(MAINTAINER)') \
		--output $(packages)/

rpm-ship: stage-ship
	$(tools)/bin/cargo-generate-rpm generate-rpm --package ship --output $(packages)/ \
		--set-metadata 'release = "$(RELEASE)"'

# Each host with a package, one newer, and one for rpm; lintian says nothing that is not in
# deploy/packages/deb/lintian-overrides.
HOSTS ?= sid
host_packages := mmdebstrap qemu-system-x86 qemu-utils e2fsprogs lintian debian-archive-keyring gcc \
	libc6-dev
test-hosts:
	@integration/packages.sh $(host_packages)
	rm -rf $(packages)
	$(MAKE) deb rpm deb-ship rpm-ship
	$(MAKE) -o build deb RELEASE=2
	lintian --fail-on error,warning --tag-display-limit 0 $(packages)/*-1_*.deb
	failed=; for host in $(HOSTS); do $(as_root) integration/hosts/run.sh $$host \
		$(packages)/oci-coredump_*-1_*.deb $(packages)/oci-coredump_*-2_*.deb \
		$(packages)/oci-coredump-[0-9]*.rpm $(packages)/oci-coredump-ship_*.deb || failed=1; done; \
	test -z "$$failed"

# Built here, run there. A program and its tests of the profile of the tests, but optimized: the
# machine is emulated.
FLAVOURS ?= cloud-arm64 arm64-16k
arm64 := aarch64-unknown-linux-gnu
arm64_packages := mmdebstrap qemu-system-arm e2fsprogs kmod cpio xz-utils debian-archive-keyring \
	gcc-aarch64-linux-gnu libc6-dev-arm64-cross
for_arm64 := --locked --target $(arm64) $(foreach package,oci-coredump $(member),\
	--config profile.dev.package.$(package).opt-level=1)
.PHONY: test-arm64
test-arm64:
	@integration/packages.sh $(arm64_packages)
	$(CARGO) build --locked
	$(CARGO) build $(for_arm64)
	$(CARGO) test $(for_arm64) --no-run --lib
	$(CARGO) test $(for_arm64) --no-run --package $(member) --test lanes --test stack_forms
	$(as_root) env TEST='$(TEST)' integration/hosts/arm64/run.sh $(FLAVOURS)

demo: demo-deps build
	$(as_root) integration/demo.sh $(binary)

# Only the tests run as root: they start containers and set the kernel's core_pattern.
test: export PATH := $(PATH):$(tools)/bin
test: test-deps
ifdef TEST
	$(CARGO) build --locked
	@$(run_tests)
else
	@CARGO=$(CARGO) integration/suite.sh $(call root_runner,$(if $(CI),CI=$(CI)))
endif

# Every reader of untrusted input, until half of its time has found next to nothing. Takes an hour
# or more.
fuzz:
	fuzz/run.sh plateau

# `make test` kills at every fifth of the calls.
faults: test-deps
	$(CARGO) build --locked
	OCI_COREDUMP_SWEEP=1 $(CARGO) $(call root_runner,OCI_COREDUMP_SWEEP=1) \
		test --package $(member) --locked --test faults -- --test-threads=1 --nocapture

# The unit tests with every memory access checked, except those that enter the sandbox: it bounds
# the address space, of which AddressSanitizer needs terabytes.
sanitize:
	ASAN_OPTIONS=detect_leaks=0 RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address \
		$(CARGO) test --locked --lib --target-dir $(target)/sanitize -- \
		--skip sandbox --skip plain

# The unit tests that make no system call unknown to Miri. Needs a nightly toolchain with the
# components miri and rust-src.
miri:
	MIRIFLAGS=-Zmiri-disable-isolation \
		$(CARGO) +nightly miri test --locked --lib --target-dir $(target)/miri -- \
		sys::proc sys::cgroup::tests::where sys::limit dump::copy::early_release \
		dump::copy::spans dump::copy::head dump::copy::regions::tests::files \
		dump::crash::arguments dump::policy::plan

# The test programs must have been built, as those projects describe; CRI-O, crictl, kubelet and the
# control plane are built here. Needs root, and the machine's core_pattern for minutes.
kubernetes := $(abspath $(target))/kubernetes
kubernetes_packages := make gcc libc6-dev pkg-config libseccomp-dev libsqlite3-dev \
	containernetworking-plugins openssl iproute2 gdb
conformance: export PATH := $(PATH):$(tools)/bin
conformance: sources = $(foreach name,RUNC CRUN YOUKI CRIO CRITOOLS KUBELET,\
	$(name)_SRC=$($(name)_SRC)) KUBERNETES_BUILT=$(kubernetes)
conformance: test-deps
	@integration/packages.sh bats jq
	@$(if $(CRIO_SRC),integration/packages.sh $(kubernetes_packages))
	@GO_DIRECTORY=$(tools)/go integration/kubernetes.sh $(kubernetes) \
		'$(CRIO_SRC)' '$(CRITOOLS_SRC)' '$(KUBELET_SRC)'
	ln -sf $(tools)/client/helm $(tools)/client/kubectl $(kubernetes)
	$(CARGO) build --locked
	$(if $(KUBELET_SRC),$(CARGO) build $(in_ship))
	$(sources) $(CARGO) $(call root_runner,$(sources)) \
		test --package $(member) --locked --test conformance -- --test-threads=1 --nocapture \
		$(TEST)

# Ratios to the kernel's own file mode. Run it on a machine that does nothing else.
bench:
	@integration/packages.sh $(demo_packages) runc strace systemd
	@integration/tools.sh $(tools)
	$(CARGO) build --release --locked
	PATH="$$PATH:$(tools)/bin" $(CARGO) bench --package $(member) --locked --bench dump

bench-scaling:
	@integration/packages.sh $(demo_packages)
	$(CARGO) build --release --locked
	$(CARGO) bench --package $(member) --locked --bench scaling

deps: demo-deps test-deps

demo-deps:
	@integration/packages.sh $(demo_packages)

test-deps:
	@integration/packages.sh $(test_packages)
	@integration/tools.sh $(tools)

clean:
	$(CARGO) clean
