# pxectl. `make help` lists what there is.

GOLANGCI  := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOTESTSUM := gotest.tools/gotestsum@v1.13.0

VERSION  := $(shell git describe --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 30s

export CGO_ENABLED := 0

toolchain := $(shell packaging/toolchain)
ifneq ($(toolchain),)
export PATH := $(toolchain):$(PATH)
endif

base    := agent-ramdisk/initramfs/base
ramdisk := .cache/ramdisk/amd64
arm64   := .cache/ramdisk/arm64
images  := .cache/images/mini.raw .cache/images/debian-12.raw

# What the parts are made of.
go          = $(filter-out %_test.go,$(wildcard $(addsuffix /*.go,$(1))))
agent      := $(call go,$(filter-out agent-ramdisk/initramfs,$(wildcard agent-ramdisk/*)) agent-ramdisk/cmd/pxagent \
	images inventory $(wildcard internal/*))
initramfs  := $(call go,agent-ramdisk/initramfs agent-ramdisk/modules)
osimage    := $(filter-out %/mini.go,$(call go,lab/osimage lab/osimage/mkimage))
miniosimage := lab/osimage/mini.go $(call go,lab/osimage/miniinit agent-ramdisk/modules)

.DEFAULT_GOAL := help
.PHONY: help deps build ramdisk ramdisk-arm64 images demo quick test race summary test-firmware lint fmt check cover fuzz bench clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install the Debian packages that tests and demo need (root; others are told what is missing)
	@packaging/deps

build: $(base)/amd64.cpio.zst ## build bin/pxectl, static, with the ramdisk's base in it
	go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)" -o bin/pxectl ./cmd/pxectl

$(base)/%.cpio.zst: $(agent) agent-ramdisk/initramfs/mkbase/main.go $(wildcard agent-ramdisk/initramfs/bb/go.*)
	go run ./agent-ramdisk/initramfs/mkbase -arch $* -version $(VERSION) -o $@

ramdisk: $(ramdisk)/manifest.json ## build .cache/ramdisk, the ramdisk on Debian's generic kernel

$(ramdisk)/manifest.json: $(base)/amd64.cpio.zst $(initramfs) | build
	set -e; set -- $$(go run ./lab/osimage/mkimage kernel); bin/pxectl ramdisk build --kernel $$1 --modules $$2 --arch amd64 --out .cache/ramdisk

ramdisk-arm64: $(arm64)/manifest.json build ## build .cache/ramdisk/arm64, on Debian's arm64 kernel; bin/pxectl gets its base too

# By go run: bin/pxectl may have been built before there was this base.
$(arm64)/manifest.json: $(base)/arm64.cpio.zst $(initramfs) lab/osimage/kernel.go
	set -e; set -- $$(go run ./lab/osimage/mkimage -arch arm64 kernel); go run ./cmd/pxectl ramdisk build --kernel $$1 --modules $$2 --arch arm64 --out .cache/ramdisk

images: $(images) ## build .cache/images, the OS images that the virtual rack deploys

.cache/images/%.raw: $(osimage)
	go run ./lab/osimage/mkimage -o $@ $*

.cache/images/mini.raw .cache/images/mini-virtio.raw: $(miniosimage)

demo: deps build ramdisk images ## a virtual rack, deployed before your eyes; KEEP=1 leaves it up
	go run ./lab/demo -pxectl bin/pxectl -ramdisk .cache/ramdisk -image .cache/images/debian-12.raw $(if $(KEEP),-keep)

# A phase of tests keeps what happened in results. One that fails keeps none from running: the summary of all fails then, last.
results := .cache/tests
phase    = go run $(GOTESTSUM) --format pkgname-and-test-fails --hide-summary=all --jsonfile $(results)/$(1).json
summary  = go run ./packaging/testsummary $(patsubst %,$(results)/%.json,$(1))
others   = $$(go list ./... | grep -vE '/lab(/e2e)?$$')

# Many tests wait for a deadline more than they compute, so more of them run at once than there are cores.
quick: | $(results) ## run the tests that need no root, no other program and no minutes, and name those that were left out
	@rm -f $(results)/quick.json
	-at_once=$$((2 * $$(nproc))) && $(call phase,quick) -- -short -p $$at_once -parallel $$at_once ./...
	@$(call summary,quick)

# The end-to-end tests boot machines and measure time, so they run alone and after the rest.
test: deps build ramdisk images | $(results) ## run all tests, also those that need root, other programs and minutes
	@rm -f $(results)/test-*.json
	-PXECTL_TEST=all $(call phase,test-parts) -- -count=1 -p 2 -timeout 20m $(others)
	-PXECTL_TEST=all $(call phase,test-lab) -- -count=1 -p 1 -timeout 60m ./lab ./lab/e2e
	@$(call summary,test-parts test-lab)

race: deps | $(results) ## run the tests with the race detector, which needs a C compiler
	@rm -f $(results)/race.json
	-$(call phase,race) --raw-command -- env CGO_ENABLED=1 go test -json -race -count=1 -p 2 -timeout 30m $(others)
	@$(call summary,race)

summary: # of the last make test and make race together
	@$(call summary,test-parts test-lab race)

$(results):
	@mkdir -p $@

test-firmware: deps ramdisk-arm64 ramdisk .cache/images/mini.raw build ## boot every firmware there is (docs/firmware.md), also arm64 and beside Kea, deploy to every kind of disk: a quarter of an hour
	packaging/deps firmware
	PXECTL_TEST=all PXECTL_FIRMWARE=all go run $(GOTESTSUM) --format standard-verbose -- -count=1 -timeout 60m -run 'TestFirmware|TestROM|TestRules|TestTargets' ./lab/e2e

cover: | $(results) ## run what make quick runs, and say how much of each package's code it reaches
	-go test -short -coverprofile $(results)/cover.out ./...
	go tool cover -func $(results)/cover.out | tail -1

lint: ## formatting, go vet, staticcheck, directions of imports and the other linters of .golangci.yml
	go run $(GOLANGCI) run ./...

fmt: ## format the code as make lint wants it
	go run $(GOLANGCI) fmt

check: lint ## lint, tidy modules, and a build for arm64
	go mod tidy -diff
	cd agent-ramdisk/initramfs/bb && go mod tidy -diff
	GOARCH=arm64 go build ./...

fuzz: ## run every fuzz target for FUZZTIME (30s), one after another
	@grep -oE '^func Fuzz\w+' -r --include='*_test.go' . | sort | while IFS=: read -r file name; do \
		echo "$${file%/*} $${name#func }"; \
		go test -run '^$$' -fuzz "^$${name#func }$$" -fuzztime $(FUZZTIME) "$${file%/*}" || exit 1; \
	done

bench: build ## measure pxectl beside its peers; ROW=NAME for one row, PAGE=docs/performance.md to note it there
	@packaging/deps bench
	go run ./bench -pxectl bin/pxectl $(if $(PAGE),-markdown $(PAGE)) $(ROW)

clean: ## remove all that was built or downloaded
	rm -rf bin .cache $(base)/*.cpio.zst
