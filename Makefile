# The two commands are `make run` and `make test`; both do all their own set-up.
.PHONY: build run test test-host test-full lint deny real man bench report help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

build: ## the static release binary at bin/accord
	@tools/setup build
	cargo build --release --locked -p accord
	@mkdir -p bin
	@cp -f target/x86_64-unknown-linux-gnu/release/accord bin/.accord.new && mv -f bin/.accord.new bin/accord

run: build ## show the main job: the exit statuses of a container
	@tools/setup run
	@tools/demo

test: ## lint, every test, and in the testbed what this machine skips and a sample
	@tools/setup test
	@tools/setup testbed
	@tools/test

test-host: ## lint, and every test that this machine can run
	@tools/setup test
	@tools/test host

test-full: ## every test in every place
	@tools/setup test
	@tools/setup testbed
	@tools/test --full

lint: ## formatting, clippy, shell scripts
	@tools/setup build
	@tools/lint

deny: ## what the dependencies may be
	@tools/setup test
	@tools/deny

real: build ## a Debian root filesystem, natively, in a microVM, and by podman
	@tools/setup real
	@tools/real

man: build ## the man pages, in target/man
	@mkdir -p target/man
	@bin/accord man target/man
	@ls target/man

bench: build ## accord beside crun, runc and a floor: time, memory, system calls
	@tools/setup bench
	@bench/run
	@bench/order --check

report: build ## the report of a release: docs/conformance.md, report/report.html
	@tools/setup test
	@tools/report

include testbed/testbed.mk kernel/kernel.mk
