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

unit: ## all packages, under -race and without it: allocations can only be counted without
	$(GO) test -shuffle=on -timeout 10m $(UNIT)
	$(RACE) -timeout 10m $(UNIT)

nopoll:
	$(RACE) -tags nopoll -timeout 10m ./transport/... ./broker/...

cross: ## builds for the other systems
	GOOS=linux GOARCH=arm64 $(GO) build -o /dev/null ./cmd/hashplus
	GOOS=darwin GOARCH=arm64 $(GO) build -o /dev/null ./cmd/hashplus
	GOOS=windows GOARCH=amd64 $(GO) build -o /dev/null ./cmd/hashplus
	$(GO) build -tags nopoll -o /dev/null ./cmd/hashplus

clients: ## real clients, and attacks on every limit, against the built binary
	$(GO) test -count=1 -timeout 10m ./cmd/hashplus/clients/... ./cmd/hashplus/limits

memory: ## RSS per idle WebSocket session with a subscription; less than 2,048 bytes
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
bench-peers: build ## the suite against mosquitto, mochi and NATS; writes docs/performance/
	$(GO) run ./bench/hashbench peers --out docs/performance --peer 'hashplus=./hashplus serve --ws {ws} --tcp {tcp}' \
		--peer mosquitto --peer mochi --peer nats $(PEERS)

# The Eclipse suite and Autobahn come from checkouts that HASHPLUS_PAHO_TESTING
# and HASHPLUS_AUTOBAHN name.
nightly: memory fuzz mutate ## the long things
	$(GO) test -count=1 -timeout 60m -tags nightly ./cmd/hashplus/clients
	transport/examples/echo/autobahn.sh

FUZZTIME ?= 10m
fuzz: ## every fuzz target for FUZZTIME
	@set -e; for f in $$(git ls-files '*_test.go' | xargs grep -l '^func Fuzz'); do \
		for t in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' $$f); do \
			echo "$$f $$t"; $(GO) test ./$$(dirname $$f) -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME); done; done

mutate: ## shows for 30 clauses that their tests fail when the rule is switched off
	$(GO) run ./broker/conformance/mutate

.PHONY: help build test deps check format vet lint unit nopoll cross clients memory nightly pgo bench-diff bench-peers fuzz mutate
