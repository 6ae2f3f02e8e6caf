# oci-coredump: build, install, try, test.
#
#   make              one static binary
#   make install      DESTDIR and PREFIX as usual; then `oci-coredump install` for the host part,
#                     or just start a container
#   make uninstall
#   make demo         two containers, two core patterns, on this machine, which is restored
#   make test         everything that .ci/run runs; TEST=NAME: only the tests whose name holds NAME
#   make fuzz         all fuzz targets, each until its curve is flat
#   make sanitize     the unit tests under AddressSanitizer
#   make faults       faults and storms, with the helper killed at every one of its system calls;
#                     as root
#   make conformance RUNC_SRC=... CRUN_SRC=... YOUKI_SRC=...
#                     other projects' tests of hooks, from your checkouts, through this program
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
# (sudo make install): whichever was built.
built := $(firstword $(wildcard $(target)/*/release/oci-coredump))
binary := $(or $(if $(host),$(target)/$(host)/release/oci-coredump),$(built))

libexec := $(DESTDIR)$(PREFIX)/libexec/oci/hooks.d
ship := $(DESTDIR)$(PREFIX)/libexec/oci-coredump/oci-coredump-ship
bin := $(DESTDIR)$(PREFIX)/bin
share := $(DESTDIR)$(PREFIX)/share
hooks := $(share)/containers/oci/hooks.d
man := $(share)/man/man1
units := $(DESTDIR)$(PREFIX)/lib/systemd/system
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
	qemu-system-x86 checkpolicy apparmor cpio

# A runner for the tests that need root: `--config` for cargo, $(1) are further variables.
root_runner = $(if $(as_root),--config \
	"target.'cfg(unix)'.runner = 'sudo env $(if $(1),$(1) )HOME=$(HOME) PATH=$(PATH)'")

.PHONY: build install uninstall kata-guest-hook demo test fuzz faults sanitize miri conformance \
	bench bench-scaling deps demo-deps test-deps clean

build:
	$(CARGO) build --release --locked --workspace

# Not a dependency on `build`: root often has no cargo.
install:
	@test -x "$(binary)" || $(MAKE) build
	$(INSTALL) -d $(libexec) $(bin) $(hooks) $(man) $(bash) $(zsh) $(fish) $(units)
	$(INSTALL) -m 0755 $(binary) $(libexec)/oci-coredump
	ln -sf ../libexec/oci/hooks.d/oci-coredump $(bin)/oci-coredump
	ln -sf ../libexec/oci/hooks.d/oci-coredump $(bin)/oci-coredump-runtime
	ln -sf oci-coredump $(libexec)/oci-coredump-runtime
	sed 's|"/usr/libexec/|"$(PREFIX)/libexec/|' hooks.d/oci-coredump.json \
		>$(hooks)/oci-coredump.json
	sed 's|=/usr/libexec/|=$(PREFIX)/libexec/|' systemd/oci-coredump.service \
		>$(units)/oci-coredump.service
	$(INSTALL) -d $(dir $(ship))
	$(INSTALL) -m 0755 $(dir $(binary))oci-coredump-ship $(ship)
	sed 's|=/usr/libexec/|=$(PREFIX)/libexec/|' systemd/oci-coredump-ship.service \
		>$(units)/oci-coredump-ship.service
	$(binary) man >$(man)/oci-coredump.1
	$(binary) completions bash >$(bash)/oci-coredump
	$(binary) completions zsh >$(zsh)/_oci-coredump
	$(binary) completions fish >$(fish)/oci-coredump.fish

# The host part first (`oci-coredump uninstall`): the kernel must not be left with the path of a
# program that is gone.
uninstall:
	$(if $(DESTDIR),,test ! -x $(libexec)/oci-coredump || $(libexec)/oci-coredump uninstall)
	rm -f $(hooks)/oci-coredump.json $(libexec)/oci-coredump $(bin)/oci-coredump
	rm -f $(man)/oci-coredump.1 $(libexec)/oci-coredump-runtime $(bin)/oci-coredump-runtime
	rm -f $(units)/oci-coredump.service $(units)/oci-coredump-ship.service $(ship)
	rm -f $(bash)/oci-coredump $(zsh)/_oci-coredump $(fish)/oci-coredump.fish
	rmdir --ignore-fail-on-non-empty $(libexec) $(dir $(libexec)) $(dir $(ship)) $(hooks) $(dir $(hooks)) \
		$(fish) $(dir $(fish)) 2>/dev/null || :

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

image: build
	podman build --tag $(or $(IMAGE),localhost/oci-coredump:0.1.0) \
		--file deploy/Containerfile $(dir $(binary))

demo: demo-deps build
	$(as_root) integration/demo.sh $(binary)

# Only the integration tests run as root: they start containers and set the kernel's core_pattern.
test: export PATH := $(PATH):$(tools)/bin
# Every part runs, whatever failed before it; the failed ones are listed at the end.
test: test-deps build
ifdef TEST
	$(CARGO) $(call root_runner,$(if $(CI),CI=$(CI))) \
		test --locked --no-fail-fast --lib --tests -- --test-threads=1 $(TEST)
else
	@failed=; \
	part() { echo "$$*"; "$$@" || failed="$$failed; $$*"; }; \
	part $(CARGO) fmt --check; \
	part $(CARGO) clippy --locked --all-targets -- -D warnings; \
	part $(CARGO) test --locked --doc; \
	part $(CARGO) $(call root_runner,$(if $(CI),CI=$(CI))) \
		test --locked --no-fail-fast --lib --tests -- --test-threads=1; \
	part env PROFILE=dev fuzz/run.sh 3; \
	test -z "$$failed" || { echo "make test: failed:$${failed#;}" >&2; exit 1; }
endif

# Every reader of untrusted input, until half of its time has found next to nothing. Takes an hour
# or more.
fuzz:
	fuzz/run.sh plateau

# `make test` kills at every fifth of the calls.
faults: test-deps
	OCI_COREDUMP_SWEEP=1 $(CARGO) $(call root_runner,OCI_COREDUMP_SWEEP=1) \
		test --locked --test faults -- --test-threads=1 --nocapture

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

# The test programs must have been built, as those projects describe. Needs root, and the machine's
# core_pattern for some seconds.
conformance: export PATH := $(PATH):$(tools)/bin
conformance: sources = RUNC_SRC=$(RUNC_SRC) CRUN_SRC=$(CRUN_SRC) YOUKI_SRC=$(YOUKI_SRC)
conformance: test-deps
	@integration/packages.sh bats jq
	$(sources) $(CARGO) $(call root_runner,$(sources)) \
		test --locked --test conformance -- --test-threads=1 --nocapture

# Ratios to the kernel's own file mode. Run it on a machine that does nothing else.
bench:
	@integration/packages.sh $(demo_packages) runc strace systemd
	@integration/tools.sh $(tools)
	PATH="$$PATH:$(tools)/bin" $(CARGO) bench --locked --bench dump

bench-scaling:
	@integration/packages.sh $(demo_packages)
	$(CARGO) bench --locked --bench scaling

deps: demo-deps test-deps

demo-deps:
	@integration/packages.sh $(demo_packages)

test-deps:
	@integration/packages.sh $(test_packages)
	@integration/tools.sh $(tools)

clean:
	$(CARGO) clean
