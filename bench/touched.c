/* Which functions of a program are used, in the order of their first use.
 *
 *   touched FUNCTIONS USED COMMAND ARGUMENT...
 *
 * FUNCTIONS holds the addresses of all functions in the file of COMMAND, in hexadecimal
 * and ascending. Each gets a breakpoint, which is taken out when it is hit, in COMMAND,
 * in its children, and again after each execution of the same file. The addresses that
 * were hit are appended to USED. The status is that of COMMAND. */
#define _GNU_SOURCE
#include <elf.h>
#include <err.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_FUNCTIONS = 1 << 17, MAX_PIDS = 1 << 22 };
static uint64_t functions[MAX_FUNCTIONS];
static unsigned char first_byte[MAX_FUNCTIONS];
static char used[MAX_FUNCTIONS];
static size_t count;
static uint64_t base_of[MAX_PIDS];
static FILE *result;
static struct stat program;

static int memory_of(pid_t pid) {
	char path[PATH_MAX];
	snprintf(path, sizeof path, "/proc/%d/mem", pid);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) err(2, "%s", path);
	return fd;
}

/* Where the program's file begins in memory; 0 if the process executes another file. */
static uint64_t find_base(pid_t pid) {
	char path[PATH_MAX], line[PATH_MAX + 200];
	struct stat now;
	snprintf(path, sizeof path, "/proc/%d/exe", pid);
	if (stat(path, &now) || now.st_ino != program.st_ino) return 0;
	snprintf(path, sizeof path, "/proc/%d/maps", pid);
	FILE *maps = fopen(path, "r");
	uint64_t base = 0, start, offset, inode;
	while (maps && !base && fgets(line, sizeof line, maps))
		if (sscanf(line, "%lx-%*x %*s %lx %*s %lu", &start, &offset, &inode) == 3
		    && offset == 0 && inode == program.st_ino)
			base = start;
	if (maps) fclose(maps);
	return base;
}

static void plant(pid_t pid) {
	base_of[pid] = find_base(pid);
	if (!base_of[pid]) return;
	int memory = memory_of(pid);
	size_t length = functions[count - 1] - functions[0] + 1;
	unsigned char *text = malloc(length);
	uint64_t start = base_of[pid] + functions[0];
	if (!text || pread(memory, text, length, start) != (ssize_t)length) err(2, "read text");
	for (size_t i = 0; i < count; i++) {
		unsigned char *at = text + (functions[i] - functions[0]);
		first_byte[i] = *at;
		if (!used[i]) *at = 0xcc;
	}
	if (pwrite(memory, text, length, start) != (ssize_t)length) err(2, "write text");
	free(text);
	close(memory);
}

static int compare(const void *a, const void *b) {
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

/* Whether this trap was one of ours. */
static int hit(pid_t pid) {
	struct user_regs_struct registers;
	if (!base_of[pid] || ptrace(PTRACE_GETREGS, pid, 0, &registers)) return 0;
	uint64_t at = registers.rip - 1 - base_of[pid];
	uint64_t *found = bsearch(&at, functions, count, sizeof at, compare);
	if (!found) return 0;
	size_t number = (size_t)(found - functions);
	int memory = memory_of(pid);
	if (pwrite(memory, &first_byte[number], 1, (off_t)registers.rip - 1) != 1) err(2, "restore");
	close(memory);
	registers.rip--;
	ptrace(PTRACE_SETREGS, pid, 0, &registers);
	if (!used[number]) fprintf(result, "%lx\n", at);
	used[number] = 1;
	return 1;
}

int main(int argc, char **argv) {
	if (argc < 4) errx(2, "usage: touched FUNCTIONS USED COMMAND ARGUMENT...");
	FILE *list = fopen(argv[1], "r");
	result = fopen(argv[2], "a");
	if (!list || !result || stat(argv[3], &program)) err(2, "open");
	while (count < MAX_FUNCTIONS && fscanf(list, "%lx", &functions[count]) == 1) count++;
	if (!count) errx(2, "%s: no functions", argv[1]);
	pid_t first = fork();
	if (first == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		execv(argv[3], argv + 3);
		err(2, "%s", argv[3]);
	}
	int status;
	waitpid(first, &status, 0);
	ptrace(PTRACE_SETOPTIONS, first, 0,
	       PTRACE_O_TRACEFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC);
	ptrace(PTRACE_CONT, first, 0, 0);
	for (;;) {
		pid_t pid = waitpid(-1, &status, __WALL);
		if (pid < 0) errx(2, "the program is gone");
		if (pid == first && WIFEXITED(status)) return WEXITSTATUS(status);
		if (pid == first && WIFSIGNALED(status)) return 128 + WTERMSIG(status);
		if (!WIFSTOPPED(status)) continue;
		int signal = WSTOPSIG(status), event = status >> 16;
		unsigned long child = 0;
		if (event == PTRACE_EVENT_EXEC) {
			plant(pid);
		} else if (event) {
			ptrace(PTRACE_GETEVENTMSG, pid, 0, &child);
			base_of[child] = base_of[pid];
		}
		int ours = event || signal == SIGSTOP || (signal == SIGTRAP && hit(pid));
		ptrace(PTRACE_CONT, pid, 0, ours ? 0 : signal);
	}
}
