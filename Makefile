# What people do with this repository. `make help` lists it.
#
# `dev` and `test` build the debug profile: it is ready in about a minute on a fresh machine, while the release profile
# optimises across all crates and takes several.

SHELL := /bin/bash
.DEFAULT_GOAL := help
# Where rustup puts cargo, and where Debian puts nginx; a shell may not look there.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin
TARGET := $(or $(CARGO_TARGET_DIR),target)

# Installs the Debian packages in the shell variable `missing`, if there are any.
define install
if [ -n "$$missing" ]; then \
	echo "missing:$$missing"; \
	if ! command -v apt-get >/dev/null; then echo "install them, then run make again" >&2; exit 1; fi; \
	as_root=; if [ "$$(id -u)" != 0 ]; then as_root=sudo; fi; \
	$$as_root apt-get update -qq </dev/null; \
	$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing </dev/null; \
fi
endef

.PHONY: help
help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r target what; do \
		printf '  make %-12s %s\n' "$$target" "$$what"; done

.PHONY: cargo
cargo:
	@command -v cargo >/dev/null || { echo "cargo is missing; install Rust from https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler is missing; on Debian: apt-get install -y build-essential" >&2; exit 1; }

.PHONY: dev
dev: cargo ## Simulator, sidecar and a sample app, no WeChat account; ARGS="--upstream http://127.0.0.1:3000" puts your app there
	cargo run --locked --bin wx-sidecar -- dev $(ARGS)

.PHONY: release
release: cargo ## The binary for production, target/release/wx-sidecar, which tells in its metrics which commit it is of
	WX_SIDECAR_REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" cargo build --locked --release --bin wx-sidecar

.PHONY: test
test: cargo test-tools ## All tests; installs Node, Python, Java, Go, PHP, Redis, ZooKeeper and Chromium with apt if they are missing
	rm -rf $(TARGET)/test-output
	cargo test --locked --features otlp --no-fail-fast

# The tests stand real apps behind the sidecar, real SDKs before its outbound side, and real Redis and ZooKeeper servers
# beside it. What the SDK in Go asks for is as old as Debian's Go.
# Prometheus is unpacked and not installed, because Debian's package would start one for the whole machine.
.PHONY: test-tools
test-tools:
	@set -e; missing=; \
	command -v node >/dev/null || missing+=" nodejs"; \
	command -v npm >/dev/null || missing+=" npm"; \
	command -v python3 >/dev/null || missing+=" python3"; \
	python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=" python3-venv"; \
	command -v curl >/dev/null || missing+=" curl"; \
	command -v javac >/dev/null || missing+=" default-jdk-headless"; \
	command -v mvn >/dev/null || missing+=" maven"; \
	command -v go >/dev/null || missing+=" golang-go"; \
	command -v php >/dev/null || missing+=" php-cli"; \
	command -v redis-server >/dev/null || missing+=" redis-server"; \
	command -v redis-sentinel >/dev/null || missing+=" redis-sentinel"; \
	command -v systemd-analyze >/dev/null || missing+=" systemd"; \
	[ -e /usr/share/java/zookeeper.jar ] || missing+=" zookeeper"; \
	command -v chromium >/dev/null || missing+=" chromium"; \
	fc-list :lang=zh 2>/dev/null | grep -q . || missing+=" fonts-wqy-microhei"; \
	$(install)
	@set -e; tools=$(TARGET)/test-tools; \
	if ! command -v prometheus >/dev/null && ! [ -x $$tools/usr/bin/prometheus ]; then \
		command -v apt-get >/dev/null || { echo "prometheus is missing; install it, then run make again" >&2; exit 1; }; \
		as_root=; if [ "$$(id -u)" != 0 ]; then as_root=sudo; fi; \
		$$as_root apt-get update -qq </dev/null; \
		rm -rf $$tools; mkdir -p $$tools; cd $$tools; \
		apt-get download -qq prometheus; \
		dpkg-deb --extract prometheus_*.deb .; \
		rm prometheus_*.deb; \
	fi

.PHONY: monitoring
monitoring: ## Write k8s/monitoring/prometheusrule.yaml anew, after a change of rules.yaml beside it
	@cd k8s/monitoring && { sed '/^spec:/q' prometheusrule.yaml; sed -n '/^groups:/,$$s/^\(.\)/  \1/p;/^$$/p' rules.yaml; } >new.yaml \
		&& mv new.yaml prometheusrule.yaml

.PHONY: ledger
ledger: cargo ## Kill the sidecar 100 times under load and compare what it acknowledged with what the app got; LEDGER_ARGS="--kills 20 --rate 800"
	cargo bench --locked --bench ledger -- $(LEDGER_ARGS)

.PHONY: reload-storm
reload-storm: cargo ## Reload the sidecar 1000 times under a million requests: no failure, no mixture; ARGS="--quick" is shorter
	cargo bench --locked --bench reload_storm -- $(ARGS)

# What cargo-fuzz passes without a sanitizer, which works on any toolchain and needs nothing installed.
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module $(addprefix -Cllvm-args=-sanitizer-coverage-,\
	level=4 inline-8bit-counters pc-table trace-compares)
FUZZ := $(TARGET)/fuzz
FOR ?= 10

.PHONY: fuzz
fuzz: cargo ## Search for bytes that break a property; FOR=60 seconds each, ARGS="request path" these targets only
	@host=$$(rustc -vV | sed -n 's/^host: //p') && \
	RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --locked --release --bins --manifest-path fuzz/Cargo.toml \
		--target "$$host" --target-dir $(FUZZ) && \
	for name in $(or $(ARGS),$(sort $(notdir $(basename $(wildcard fuzz/fuzz_targets/*.rs))))); do \
		mkdir -p $(FUZZ)/corpus/$$name $(FUZZ)/artifacts; \
		if $(FUZZ)/$$host/release/$$name -max_total_time=$(FOR) -max_len=4096 -timeout=60 -print_final_stats=1 \
			-artifact_prefix=$(FUZZ)/artifacts/$$name- $(FUZZ)/corpus/$$name fuzz/corpus/$$name >$(FUZZ)/$$name.log 2>&1; \
		then printf '%-15s %s\n' "$$name" "$$(grep '^Done' $(FUZZ)/$$name.log)"; \
		else tail -n 60 $(FUZZ)/$$name.log; exit 1; fi; \
	done

.PHONY: bench
bench: cargo ## Measure against nginx, HAProxy (installed with apt if missing) and pingora; ARGS="--quick" is shorter
	@set -e; missing=; \
	command -v nginx >/dev/null || missing+=" nginx"; \
	command -v haproxy >/dev/null || missing+=" haproxy"; \
	$(install)
	@command -v valgrind >/dev/null || echo "without valgrind, instructions are not counted"
	@# The bench does without pingora if it cannot be built.
	-cargo build --release --locked --manifest-path benches/pingora/Cargo.toml --target-dir $(TARGET)/pingora
	cargo bench --locked --bench proxy -- $(ARGS)

.PHONY: bench-outbound
bench-outbound: cargo ## Measure the app's calls to WeChat beside direct ones, dead tokens and an outage; ARGS="--quick" is shorter
	cargo bench --locked --bench outbound -- $(ARGS)

.PHONY: bench-identity
bench-identity: cargo ## Measure decryption beside openssl, tokens, and that failures take the same time
	cargo bench --locked --bench identity

.PHONY: bench-push
bench-push: cargo ## Measure message push in memory, with the journal and with Redis, 100,000 messages that wait; ARGS="--quick" is shorter
	cargo bench --locked --bench push -- $(ARGS)

.PHONY: bench-media
bench-media: cargo ## Measure media beside nginx (installed with apt if missing): hits, misses, memory; ARGS="--quick" is shorter
	@set -e; missing=; \
	command -v nginx >/dev/null || missing+=" nginx"; \
	$(install)
	cargo bench --locked --bench media -- $(ARGS)

.PHONY: lint
lint: cargo ## Format, clippy, docs and (if cargo-deny is installed) dependencies; warnings are errors
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --locked --all-targets --features otlp -- -D warnings
	cargo clippy --locked -- -D warnings
	cargo clippy --locked --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	@if command -v cargo-deny >/dev/null; then cargo deny check; else echo "cargo-deny is not installed; make deny installs it"; fi

.PHONY: deny
deny: cargo ## Check dependencies: advisories, licences, bans; builds cargo-deny first if missing, which takes minutes
	command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
	cargo deny check
