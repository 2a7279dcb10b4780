.PHONY: testbed testbed-test

testbed: ## a shell in the testbed: systemd, cgroup v2, KVM
	@tools/setup testbed
	@testbed/run -t bash -l

testbed-test: ## every test in the testbed, in each place
	@tools/setup testbed
	@testbed/test
