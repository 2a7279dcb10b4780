# Included by the top Makefile.

.PHONY: testbed testbed-image

# A shell in the machine; it ends with the shell, unless testbed/up started it.
testbed:
	testbed/run -t bash -l

testbed-image:
	testbed/image
