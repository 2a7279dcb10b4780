.PHONY: testbed testbed-test

testbed: ## a shell in the testbed: systemd, cgroup v2, KVM
	@tools/setup testbed
	@testbed/run -t bash -l

testbed-test: ## every test in every place of the testbed, and only there
	@tools/setup test
	@tools/setup testbed
	@tools/test --full root user bare podman podman-user kvm
