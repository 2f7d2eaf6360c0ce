# What one does with this repository. `make` or `make help` lists it.

CACHE_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/farol
# Build results stay outside the clone.
export CARGO_TARGET_DIR ?= $(CACHE_DIR)/target
TOOLS := $(CACHE_DIR)/tools
RELEASE := $(CARGO_TARGET_DIR)/release/farol
PREFIX ?= /usr/local

.DEFAULT_GOAL := help
.PHONY: all demo help build run test setup fmt lint doc deny advisories unit api clients bench bench-events bench-kafka bench-resilience dist install clean clean-build \
	start stop status health infrastructure-only with-consumers with-monitoring start-monitoring build-all build-producers \
	build-consumers start-producers stop-producers start-consumers stop-consumers kill-consumer logs-producers \
	logs-consumers monitor-sensors monitor-alerts test-external test-topics

##@ A plant of processes
all: build ## Build, then run Farol, three workers and ten sensors as processes: http://127.0.0.1:5000; Ctrl-C stops all
	@scripts/plant up

demo: build ## Build, then run everything in one process with simulated sensors: http://127.0.0.1:5000
	$(RELEASE) run --demo

start: build ## Start Farol in the background: log with Kafka port, API, dashboard; no workers
infrastructure-only: build ## Start Farol and the sensors
with-consumers: build ## Start Farol, the sensors and the workers
with-monitoring: build ## Start all of it; the dashboard is Farol's own
start-monitoring: build ## Say where the dashboard is; start Farol if need be
start-producers: build ## Start the sensors
stop-producers: ## Stop the sensors
start-consumers: build ## Start the workers, those that are missing
stop-consumers: ## Stop the workers
kill-consumer: ## kill -9 a worker, to watch its partitions move: make kill-consumer CONSUMER=consumer-2
stop: ## Stop everything, in order
status: ## List the processes
health: ## Ask whether all is well
logs-producers: ## Follow what the sensors log
logs-consumers: ## Follow what the workers log
monitor-sensors: ## Follow the readings, from the Kafka port
monitor-alerts: ## Follow alerts, comings, goings and moves, from the Kafka port
test-external: ## See whether the Kafka port answers
test-topics: ## Make a topic, send to it, read it, delete it
clean: ## Stop everything, remove its data and logs
start infrastructure-only with-consumers with-monitoring start-monitoring start-producers stop-producers start-consumers \
stop-consumers kill-consumer stop status health logs-producers logs-consumers monitor-sensors monitor-alerts test-external \
test-topics clean:
	@scripts/plant $@

build-all build-producers build-consumers: build ## Build the one binary that is all of them

##@ Work on the code
help: ## List these targets
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z -]+:.*## / { split($$1, names, " "); printf "  make %-20s %s\n", names[1], $$2 }' $(MAKEFILE_LIST)

build: ## Build the release binary
	cargo build --release --locked --package farol
	@echo "built $(RELEASE)"

run: build ## Build the release binary and run it for real input
	$(RELEASE) run

test: ## Install what is missing, then check and test everything: format, lints, docs, licences, tests, browser, crashes, API
	@CACHE_DIR=$(CACHE_DIR) scripts/test

setup: ## Install what `make test` needs and doesn't find
	@CACHE_DIR=$(CACHE_DIR) scripts/test-setup

fmt: ## Format the code
	cargo fmt --all

lint: ## Check format and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

doc: ## Build the API documentation
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

deny: setup ## Check licences, duplicate and banned dependencies, and where dependencies come from
	$(TOOLS)/bin/cargo-deny --locked check bans licenses sources

advisories: setup ## Check dependencies against the RustSec advisory database (fetches it)
	$(TOOLS)/bin/cargo-deny --locked check advisories

unit: ## Run the Rust tests only, of everything or of one crate: make unit CRATE=farol-log
	cargo test --locked $(if $(CRATE),--package $(CRATE),--workspace)

api: setup ## Try the HTTP API against its own OpenAPI document
	cargo build --locked --package farol
	CACHE_DIR=$(CACHE_DIR) scripts/test-api

clients: setup ## Try every Kafka client: make clients ARGS="--client kcat --verbose"
	cargo build --locked --package farol
	CACHE_DIR=$(CACHE_DIR) scripts/test-clients $(ARGS)

bench: build ## Measure, and print the figures of the README
	scripts/bench

bench-events: ## Measure a hundred handlers in one process, as consumers and on the event bus
	cargo bench -p farol-bus --bench fan_out -- 10

bench-kafka: build ## Measure the Kafka port beside a real Apache Kafka
	CACHE_DIR=$(CACHE_DIR) scripts/clients-setup
	CACHE_DIR=$(CACHE_DIR) scripts/bench-kafka

bench-resilience: ## Measure farol-resilience beside other crates and Python
	scripts/bench-resilience

dist: build ## Put binary, completions, manual pages and licences into dist/
	scripts/dist $(RELEASE) dist

install: dist ## Install from dist/ under PREFIX (/usr/local)
	install -Dm755 dist/bin/farol $(DESTDIR)$(PREFIX)/bin/farol
	install -Dm644 -t $(DESTDIR)$(PREFIX)/share/man/man1 dist/share/man/man1/*.1
	install -Dm644 dist/share/bash-completion/completions/farol $(DESTDIR)$(PREFIX)/share/bash-completion/completions/farol
	install -Dm644 dist/share/zsh/site-functions/_farol $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_farol
	install -Dm644 dist/share/fish/vendor_completions.d/farol.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/farol.fish

clean-build: ## Remove build results
	cargo clean
	rm -rf dist
