# Penstock. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
GO_BUILD := CGO_ENABLED=0 go build -buildvcs=false -trimpath

LINT := .cache/tools/golangci-lint
VULN := .cache/tools/govulncheck
TESTSUM := .cache/tools/testsum

web_sources := $(shell find web -name node_modules -prune -o -name dist -prune -o -type f -print 2>/dev/null)
web_built := .cache/web.stamp

# Skips that no set-up can avoid: helpers that a test runs again as another user, a kernel that asks no privilege for low ports,
# and Terraform, which Debian does not have.
SKIPS := a part of Test|ordinary users may bind|terraform is missing|AWS provider .* is missing

FUZZTIME ?= 20s
ARGS ?=

##@ Use

.PHONY: run
run: setup build ## install what is missing, build, run `penstock dev $(ARGS)`
	exec bin/penstock dev $(ARGS)

.PHONY: build
build: $(web_built) ## build viewer, portal and bin/penstock
	$(GO_BUILD) -ldflags '$(LDFLAGS)' -o bin/penstock ./cmd/penstock

.PHONY: setup setup-test setup-bench
setup:
	@scripts/setup.sh run
setup-test:
	@scripts/setup.sh test
setup-bench:
	@scripts/setup.sh bench

##@ While working

.PHONY: unit
unit: $(web_built) $(TESTSUM) ## unit and wire tests, no root, no network, under a minute
	env -u PENSTOCK_E2E go test -json ./... | $(TESTSUM)
	cd web && npm test --silent

.PHONY: fmt
fmt: $(LINT) ## format Go, TypeScript and JSON
	$(LINT) fmt
	cd web && npx biome check --write .

.PHONY: generate
generate: ## write generated files: API shapes, go:generate, the list of dependencies
	go generate ./...
	go run -C tools ./apigen
	scripts/deps.sh > cmd/penstock/deps.txt.new
	mv cmd/penstock/deps.txt.new cmd/penstock/deps.txt

##@ Before a commit

.PHONY: check
check: lint web-check generated race ## format, lint, generated files current, unit tests with the race detector

.PHONY: lint
lint: $(LINT) $(web_built)
	@scripts/rings.sh
	$(LINT) run ./...
	cd tools && ../$(LINT) run ./...

.PHONY: web-check
web-check: setup
	cd web && npx biome ci --colors=off --max-diagnostics=50 .
	cd web && npm run --silent typecheck

.PHONY: generated
generated: $(web_built)
	go run -C tools ./apigen -check
	@go mod tidy -diff >/dev/null || { echo "go.mod is not tidy: run go mod tidy" >&2; exit 1; }
	@diff -u cmd/penstock/deps.txt <(scripts/deps.sh) || { \
		echo "the binary's dependencies changed: review them, then make generate" >&2; exit 1; }

.PHONY: race
race: $(web_built) $(TESTSUM)
	env -u PENSTOCK_E2E go test -race -vet=off -json ./... | $(TESTSUM)
	go test -C tools -vet=off ./...

.PHONY: test
test: setup-test ## install what is missing, then every check and suite, nothing skipped; what CI runs
	$(MAKE) lint web-check generated
	$(MAKE) e2e PENSTOCK_TEST_STRICT=1

.PHONY: e2e
e2e: setup-test build $(TESTSUM) ## whole system, race detector: every Go and web test with real processes, browser, AWS clients
	go test -C tools -vet=off ./...
	PENSTOCK_E2E=1 scripts/gotest.sh | $(TESTSUM) $(if $(PENSTOCK_TEST_STRICT),-strict) -allow '$(SKIPS)'
	cd web && npm test --silent
	cd web && npx vitest run --config e2e/vitest.config.ts

.PHONY: fuzz
fuzz: ## run every fuzz test for FUZZTIME (20s)
	@scripts/fuzz.sh $(FUZZTIME)

.PHONY: vuln
vuln: $(VULN) ## look for known vulnerabilities (needs the online database)
	$(VULN) ./...

.PHONY: bench
bench: setup-bench build ## measure, or only ARGS=streaming, api, network or links; writes docs/benchmarks.md (--profile FOLDER: traces)
	scripts/bench.sh $(ARGS)

##@ Other

.PHONY: clean
clean: ## remove what was built
	rm -rf bin .cache/web.stamp
	find internal/webui/dist -mindepth 1 -not -name .keep -delete 2>/dev/null || true

.PHONY: help
help: ## this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# The development tools, as pinned in tools/go.mod; the cached programs follow it.
$(LINT) $(VULN): tools/go.mod tools/go.sum
	@mkdir -p $(@D)
	@echo "building $(@F), once per version"
	@go build -C tools -buildvcs=false -trimpath -ldflags '-s -w' -o ../$@ \
		$$(awk '/$(@F)$$/ && !/require/ { print $$NF; exit }' tools/go.mod)

$(TESTSUM): tools/testsum/main.go
	@mkdir -p $(@D)
	@go build -C tools -buildvcs=false -o ../$@ ./testsum

# Viewer and portal, embedded from internal/webui/dist.
$(web_built): $(web_sources)
	@mkdir -p $(@D)
	@scripts/setup.sh run
	cd web && npm run --silent build
	@touch $@
