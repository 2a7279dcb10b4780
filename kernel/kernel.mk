# Included by the top Makefile.

.PHONY: kernel

# bin/vmlinux and bin/bzImage, the kernel of Accord's microVMs.
kernel:
	kernel/build
