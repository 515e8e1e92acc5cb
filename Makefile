# Everything that is checked, measured and built. `make` lists the targets.
GO      ?= go
export CGO_ENABLED ?= 0
RACE    := CGO_ENABLED=1 $(GO) test -race -shuffle=on
# What runs without a browser, npm or a second broker.
UNIT    := ./topic/... ./transport/... ./broker/... ./bench/... ./cmd/hashplus ./cmd/hashplus/mqttclient/...
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

build: ## the static binary, ./hashplus
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o hashplus ./cmd/hashplus

test: deps format vet unit nopoll cross clients ## all that a change must pass; README's test command

deps: ## what the tests need beside Go: Debian packages, npm modules
	.ci/deps

check: format vet lint unit nopoll cross ## before a commit: with the linters, without real clients

format:
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not formatted: $$out"; exit 1; }

vet:
	$(GO) vet ./...
	$(GO) vet -tags nopoll ./...

GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.5.0
lint: ## golangci-lint, with .golangci.yml
	$(GO) run $(GOLANGCI) run ./...

VULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
VULNDB    ?= https://vuln.go.dev
vulncheck: ## govulncheck; it needs Go's vulnerability database, at VULNDB: that URL, or file:///FOLDER with its data/osv
	@$(GO) run $(VULNCHECK) -db=$(VULNDB) ./... || { echo "vulncheck: a vulnerability, or no database at VULNDB=$(VULNDB). Offline:" >&2; \
		echo "  git clone https://github.com/golang/vulndb DIR, then make vulncheck VULNDB=file:///DIR/data/osv" >&2; exit 1; }

unit: ## all packages, under -race and without it: allocations can only be counted without
	$(GO) test -shuffle=on -timeout 25m $(UNIT)
	$(RACE) -timeout 25m $(UNIT)

# What of the broker's tests has sockets: the others have loops of their own, see sim.
nopoll:
	$(RACE) -tags nopoll -timeout 25m ./transport/... ./broker/conformance/...
	$(RACE) -tags nopoll -run 'Publish_|Subscribe_|Subscription_|Request_|Embed_|Example' -timeout 25m ./broker

cross: ## builds for the other systems
	GOOS=linux GOARCH=arm64 $(GO) build -o /dev/null ./cmd/hashplus
	GOOS=linux GOARCH=arm $(GO) build -o /dev/null ./cmd/hashplus
	GOOS=darwin GOARCH=arm64 $(GO) build -o /dev/null ./cmd/hashplus
	GOOS=windows GOARCH=amd64 $(GO) build -o /dev/null ./cmd/hashplus
	$(GO) build -tags nopoll -o /dev/null ./cmd/hashplus

clients: ## real clients, attacks on every limit and what brought other brokers down, against the built binary
	$(GO) test -count=1 -timeout 25m ./cmd/hashplus/clients/... ./cmd/hashplus/limits ./cmd/hashplus/vulnerabilities ./cmd/hashplus/crash
	$(GO) test -count=1 -timeout 25m ./cmd/hashplus/attacks

attacks: ## attackers beside 500 honest clients, with latencies; writes its table into docs/security.md
	$(GO) test -count=1 -timeout 30m -v ./cmd/hashplus/attacks -long -update

crash: ## 100 times kill -9, and nothing that was acknowledged is lost; then with --sync interval and never
	HASHPLUS_CRASH_ROUNDS=100 $(GO) test -count=1 -timeout 30m -v -tags nightly -run 'TestSIGKILL|TestSlowStore|TestEveryPrefix' ./cmd/hashplus/crash

recovery: ## start-up with 100,000 sessions, subscriptions and retained messages, 1,000,000 queued: 3 s at most; its memory
	$(GO) test -count=1 -timeout 30m -v -tags nightly -run TestLargeState ./cmd/hashplus/crash

memory: ## RSS per idle WebSocket session with a subscription; less than 2,048 bytes, 9,216 with TLS
	$(GO) test -count=1 -timeout 5m -tags nightly -run TestIdleSession ./cmd/hashplus

pgo: ## refreshes cmd/hashplus/default.pgo, the profile that builds are optimised by
	cmd/hashplus/pgo.sh

# What is compared: a commit, the benchmarks, their packages.
BASE  ?= HEAD~1
BENCH ?= .
HOT   ?= ./topic ./transport/... ./broker ./broker/wire
bench-diff: ## micro-benchmarks of the working tree against those of commit BASE, with benchstat
	bench/diff.sh '$(BASE)' '$(BENCH)' $(HOT)

# Peers that cannot be had from a registry are added as
# PEERS="--peer 'name=command {ws} {tcp}'".
PEERS ?=
bench-peers: build ## the suite against mosquitto, mochi and NATS, 20 minutes; writes docs/performance/
	$(GO) run ./bench/hashbench peers --quiet --rounds 3 --duration 2s --warmup 500ms --out docs/performance --elsewhere docs/performance/elsewhere.json --peer 'hashplus=./hashplus serve --ws {ws} --tcp {tcp}' \
		--peer mosquitto --peer mochi --peer nats $(PEERS)

bench-durable: build ## sessions on disk, synced, against mochi and NATS; writes bench-results/durable
	$(GO) run ./bench/hashbench peers --quiet --suite durable --out bench-results/durable --peer 'hashplus=./hashplus serve --ws {ws} --tcp {tcp} --data {data}' \
		--peer mochi --peer nats

bench-data: build ## what --data costs traffic that nobody durable receives, in ten pairs of runs
	$(GO) run ./bench/hashbench peers --quiet --rounds 10 --sweep-rounds 0 --duration 2s --warmup 500ms --out bench-results/data \
		--cases pairs-16,pairs-qos1,fanout-bursts,request --peer 'memory=./hashplus serve --ws {ws} --tcp {tcp}' \
		--peer 'data=./hashplus serve --ws {ws} --tcp {tcp} --data {data}'

# The Eclipse suite and Autobahn come from checkouts that HASHPLUS_PAHO_TESTING
# and HASHPLUS_AUTOBAHN name.
nightly: memory crash recovery fuzz mutate ## the long things
	$(GO) test -count=1 -timeout 60m -tags nightly ./cmd/hashplus/clients
	$(GO) test -count=1 -timeout 30m -tags nightly -run Nightly ./cmd/hashplus/limits
	transport/examples/echo/autobahn.sh

FUZZTIME ?= 10m
fuzz: ## every fuzz target for FUZZTIME
	@set -e; for f in $$(git ls-files '*_test.go' | xargs grep -l '^func Fuzz'); do \
		for t in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' $$f); do \
			echo "$$f $$t"; $(GO) test ./$$(dirname $$f) -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME); done; done

mutate: ## shows for 30 clauses that their tests fail when the rule is switched off
	$(GO) run ./broker/conformance/mutate

.PHONY: help build test deps check format vet lint vulncheck unit nopoll cross clients attacks memory crash recovery nightly pgo bench-diff bench-peers bench-durable bench-data fuzz mutate
