# Everything a developer or a CI machine runs. `make` lists the targets.

GO          ?= go
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.1
ERRCHECK    ?= github.com/kisielk/errcheck@v1.20.0

TEST_TIMEOUT ?= 15m
STRESS_TIME  ?= 2m
FUZZ_TIME    ?= 10s
MINUTES      ?= 60
N            ?= 1000000
COVER_FILE   ?= bin/coverage.out

# Compiling prints nothing, and takes minutes where nothing is cached.
building = @echo "== building $(1); quiet until that is done"

.DEFAULT_GOAL := help
.PHONY: help build fmt fmt-check vet lint test stress fuzz messages cover bench bench-peers bench-peers-draw check-peers check-examples check-webrtc test-stores ha soak demo demo-draw demo-restart interop-sipp interop-nat interop-peers ci rename

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## compile every package
	$(GO) build ./...

fmt: ## format the source
	gofmt -w .

fmt-check: ## fail when a file is not gofmt-clean
	@sh scripts/fmt-check.sh

vet: ## go vet
	$(GO) vet ./...
	$(GO) vet -tags interop ./interop/peers

lint: ## staticcheck and errcheck, at pinned versions
	$(call building,staticcheck and errcheck)
	$(GO) run $(STATICCHECK) ./...
	$(GO) run $(ERRCHECK) -exclude scripts/errcheck.exclude ./...

test: ## all tests, with the race detector: the one command to pass
	@GO="$(GO)" sh scripts/need.sh go gcc
	$(call building,every package and its tests with the race detector)
	$(GO) test -race -timeout $(TEST_TIMEOUT) ./...

stress: ## the concurrency stress for STRESS_TIME (2m)
	@GO="$(GO)" sh scripts/need.sh go gcc
	$(call building,the stress test with the race detector)
	$(GO) test -race -count=1 -run Stress -timeout 0 . -args -stress.duration=$(STRESS_TIME)

fuzz: ## every fuzz target for FUZZ_TIME (10s) each
	@GO="$(GO)" sh scripts/fuzz.sh $(FUZZ_TIME)

messages: ## N (1000000) messages of the grammar to a stack, and what it repeats of them: a few minutes
	$(call building,the tests)
	$(GO) test -count=1 -timeout 0 -v -run '^TestGeneratedMessagesComeBackAsTheyWere$$' ./test -args -messages.n=$(N)

cover: ## coverage of all packages by all tests
	$(call building,every package and its tests with coverage)
	@mkdir -p $(dir $(COVER_FILE))
	$(GO) test -timeout $(TEST_TIMEOUT) -coverpkg=./... -coverprofile=$(COVER_FILE) ./...
	$(GO) tool cover -func=$(COVER_FILE) | tail -n 1

bench: ## benchmarks, and whole processes under load: see docs/performance.md and docs/security.md
	@GO="$(GO)" sh scripts/need.sh go sipp
	$(call building,the benchmarks)
	$(GO) test -run '^$$' -bench . -benchmem ./...
	$(GO) run ./bench calls -n 10000
	$(GO) run ./bench calls -n 100000
	$(GO) run ./bench cpu
	$(GO) run ./bench cpu -role client
	$(GO) run ./bench bridge
	$(GO) run ./bench locks
	$(GO) run ./bench floods
	$(GO) test -count 1 -v -run TestAmplification ./test

test-stores: ## the engines of store/, each a module of its own: bolt, a redis-server, a NATS server
	@GO="$(GO)" sh scripts/need.sh go gcc redis-server
	$(call building,bbolt; go-redis; a NATS server and its client; all with the race detector)
	cd store/bolt && $(GO) test -race -timeout $(TEST_TIMEOUT) ./...
	cd store/redis && $(GO) test -race -timeout $(TEST_TIMEOUT) ./...
	cd store/nats && $(GO) test -race -timeout $(TEST_TIMEOUT) ./...

ha: ## kill -9 and a rolling deploy of one of three processes under load, behind Kamailio, calls in Redis (4 minutes)
	@GO="$(GO)" sh scripts/need.sh go kamailio redis-server sipp
	$(call building,interop/ha)
	cd interop/ha && $(GO) build -o ../../bin/ha .
	@bin/ha

soak: ## 200 calls/s with holds and transfers for MINUTES (60): nothing may grow
	@sh scripts/need.sh go
	$(GO) run ./bench soak -minutes $(MINUTES)

bench-peers: ## beside sipgo, its dialogs, diago and a copy loop: figures and drawings in docs/ (15 minutes)
	@sh scripts/need.sh go sipp
	cd bench/peers && $(GO) run . measure -o ../../docs/peers.tsv
	$(MAKE) bench-peers-draw

bench-peers-draw: ## docs/peers-*.svg from the figures in docs/peers.tsv
	cd bench/peers && $(GO) run . draw -i ../../docs/peers.tsv -dir ../../docs

check-peers: ## vet and test bench/peers, a module of its own
	cd bench/peers && $(GO) vet ./... && $(GO) test ./...

check-examples: ## vet and test the examples that are modules of their own: media
	$(call building,examples/media)
	cd examples/media && $(GO) vet ./... && $(GO) test -race -timeout $(TEST_TIMEOUT) ./...

check-webrtc: ## vet and test examples/webrtc, a module of its own: a phone in headless Chromium
	@GO="$(GO)" sh scripts/need.sh go gcc
	@sh scripts/need.sh chromium npm || echo "check-webrtc: WITHOUT A BROWSER: ITS TEST IS SKIPPED" >&2
	$(call building,examples/webrtc)
	cd examples/webrtc && $(GO) vet ./... && $(GO) test -race -timeout $(TEST_TIMEOUT) -v ./...

demo: ## three stacks: a reliable 183, hold, resume, session refresh, transfer, as a ladder
	$(call building,cmd/demo)
	$(GO) run ./cmd/demo

demo-draw: ## docs/demo.svg from a run of the demo
	$(call building,cmd/demo)
	$(GO) run ./cmd/demo -svg docs/demo.svg

demo-restart: ## a call outlives its process: kill -9, started anew with store/bolt, hold, BYE, as a ladder
	$(call building,store/bolt/demo-restart)
	cd store/bolt && $(GO) run ./demo-restart

interop-sipp: ## the library against sipp, as caller and as callee, and programs between two sipps
	@GO="$(GO)" sh scripts/need.sh go sipp
	$(call building,interop/sipp and interop/bridge)
	$(GO) run ./interop/sipp
	$(GO) run ./interop/bridge

interop-nat: ## across routers with network address translation, as root (Linux)
	@GO="$(GO)" sh scripts/need.sh go
	$(call building,interop/nat)
	@GO="$(GO)" sh scripts/nat.sh $(NAT_FLAGS)

interop-peers: ## against programs of others: baresip, linphone, Janus, Kamailio, JsSIP, SIP.js; writes docs/interop.md (Linux)
	@GO="$(GO)" sh scripts/need.sh go
	$(call building,interop/peers)
	@GO="$(GO)" sh scripts/peers.sh $(PEERS_FLAGS)

ci: NAT_FLAGS = -or-skip
ci: PEERS_FLAGS = -or-skip
ci: fmt-check vet lint test check-peers check-examples check-webrtc test-stores interop-sipp interop-nat interop-peers demo demo-restart ## what CI runs

rename: ## give the module its real path: make rename MODULE=example.org/you/dialog
	@GO="$(GO)" sh scripts/rename.sh "$(MODULE)"
