.PHONY: kernel

kernel: ## the microVMs' kernel: bin/vmlinux and bin/bzImage
	@tools/setup kernel
	@kernel/build
