/*
 * The floor: what the kernel alone costs. It makes the system calls that a default
 * container needs, on a bundle that it knows, and nothing else: no JSON, no state,
 * no checks, no way to undo what has been done when something fails.
 *
 *   floor run [-p PIDFILE] [-c CGROUP]... ROOTFS COMMAND...
 *   floor exec -t PID [-c CGROUP]... COMMAND...
 *
 * A CGROUP is a directory that is made for the container, one for each hierarchy.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define NAMESPACES (CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET)
#define MAX_CGROUPS 16

static const char *cgroups[MAX_CGROUPS];
static int cgroup_count;
static char *environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", NULL};

static void must(int result, const char *what) {
    if (result < 0)
        err(125, "%s", what);
}

/* Writes one value to a file; a file that is not there belongs to another controller. */
static void put(const char *dir, const char *file, const char *value) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return;
    must(fd, path);
    must(write(fd, value, strlen(value)), path);
    close(fd);
}

/* A new cpuset is empty, and nothing can enter it before it has been given something. */
static void inherit(const char *dir, const char *file) {
    char path[PATH_MAX], value[4096];
    snprintf(path, sizeof path, "%s/../%s", dir, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t length = read(fd, value, sizeof value - 1);
    close(fd);
    if (length > 0) {
        value[length] = 0;
        put(dir, file, value);
    }
}

static void make_cgroups(void) {
    static const char *allowed[] = {
        "c *:* m",     "b *:* m",     "c 1:3 rwm",   "c 1:8 rwm", "c 1:7 rwm",   "c 5:0 rwm",
        "c 1:5 rwm",   "c 1:9 rwm",   "c 5:1 rwm",   "c 136:* rwm", "c 5:2 rwm",
    };
    for (int i = 0; i < cgroup_count; i++) {
        const char *dir = cgroups[i];
        must(mkdir(dir, 0755), dir);
        inherit(dir, "cpuset.cpus");
        inherit(dir, "cpuset.mems");
        if (strstr(dir, "/devices/")) {
            put(dir, "devices.deny", "a");
            for (size_t rule = 0; rule < LENGTH(allowed); rule++)
                put(dir, "devices.allow", allowed[rule]);
        }
    }
}

static void enter_cgroups(pid_t pid) {
    char number[16];
    snprintf(number, sizeof number, "%d", pid);
    for (int i = 0; i < cgroup_count; i++)
        put(cgroups[i], "cgroup.procs", number);
}

static void make_mounts(const char *rootfs) {
    const unsigned long plain = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    must(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL), "make / a slave");
    must(mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL), "bind rootfs");
    must(chdir(rootfs), rootfs);
    must(mount("proc", "proc", "proc", 0, NULL), "proc");
    must(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"), "dev");
    must(mkdir("dev/pts", 0755), "dev/pts");
    must(mkdir("dev/shm", 0755), "dev/shm");
    must(mkdir("dev/mqueue", 0755), "dev/mqueue");
    must(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
               "newinstance,ptmxmode=0666,mode=0620,gid=5"),
         "devpts");
    must(mount("shm", "dev/shm", "tmpfs", plain, "mode=1777,size=65536k"), "shm");
    must(mount("mqueue", "dev/mqueue", "mqueue", plain, NULL), "mqueue");
    must(mount("sysfs", "sys", "sysfs", plain | MS_RDONLY, NULL), "sysfs");
    if (cgroup_count == 1) {
        must(mount("cgroup", "sys/fs/cgroup", "cgroup2", plain | MS_RDONLY, NULL), "cgroup2");
        return;
    }
    must(mount("cgroup", "sys/fs/cgroup", "tmpfs", plain, "mode=755"), "cgroup");
    for (int i = 0; i < cgroup_count; i++) {
        /* /sys/fs/cgroup/CONTROLLER/PARENT/NAME */
        char controller[64], target[128];
        if (sscanf(cgroups[i], "/sys/fs/cgroup/%63[^/]", controller) != 1)
            errx(125, "%s is not below /sys/fs/cgroup", cgroups[i]);
        snprintf(target, sizeof target, "sys/fs/cgroup/%s", controller);
        must(mkdir(target, 0755), target);
        must(mount(cgroups[i], target, NULL, MS_BIND, NULL), target);
        must(mount(NULL, target, NULL, MS_BIND | MS_REMOUNT | plain | MS_RDONLY, NULL), target);
    }
    must(mount(NULL, "sys/fs/cgroup", NULL, MS_BIND | MS_REMOUNT | plain | MS_RDONLY, NULL),
         "read-only cgroup");
}

static void make_devices(void) {
    static const struct {
        const char *path;
        int major, minor;
    } devices[] = {{"dev/null", 1, 3}, {"dev/zero", 1, 5},    {"dev/full", 1, 7},
                   {"dev/tty", 5, 0},  {"dev/random", 1, 8}, {"dev/urandom", 1, 9}};
    static const char *links[][2] = {{"pts/ptmx", "dev/ptmx"},
                                     {"/proc/self/fd", "dev/fd"},
                                     {"/proc/self/fd/0", "dev/stdin"},
                                     {"/proc/self/fd/1", "dev/stdout"},
                                     {"/proc/self/fd/2", "dev/stderr"}};
    umask(0);
    for (size_t i = 0; i < LENGTH(devices); i++)
        must(mknod(devices[i].path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)),
             devices[i].path);
    umask(022);
    for (size_t i = 0; i < LENGTH(links); i++)
        must(symlink(links[i][0], links[i][1]), links[i][1]);
}

/* What is not there needs no mask. */
static void hide(void) {
    static const char *masked[] = {"proc/acpi",        "proc/asound",      "proc/kcore",
                                   "proc/keys",        "proc/latency_stats", "proc/timer_list",
                                   "proc/timer_stats", "proc/sched_debug", "sys/firmware",
                                   "proc/scsi"};
    static const char *readonly[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys",
                                     "proc/sysrq-trigger"};
    for (size_t i = 0; i < LENGTH(masked); i++)
        if (mount("dev/null", masked[i], NULL, MS_BIND, NULL) < 0 && errno == ENOTDIR)
            must(mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, "size=0k"), masked[i]);
    for (size_t i = 0; i < LENGTH(readonly); i++)
        if (mount(readonly[i], readonly[i], NULL, MS_BIND | MS_REC, NULL) == 0)
            must(mount(NULL, readonly[i], NULL,
                       MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL),
                 readonly[i]);
}

static void pivot(void) {
    int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    must(old, "/");
    must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(fchdir(old), "old root");
    must(mount(NULL, ".", NULL, MS_REC | MS_SLAVE, NULL), "make the old root a slave");
    must(umount2(".", MNT_DETACH), "unmount the old root");
    must(chdir("/"), "/");
    must(mount(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), "read-only root");
}

static void drop_privileges(void) {
    const int kept[] = {CAP_AUDIT_WRITE, CAP_KILL, CAP_NET_BIND_SERVICE};
    unsigned int set = 0;
    for (size_t i = 0; i < LENGTH(kept); i++)
        set |= 1u << kept[i];
    for (int capability = 0; capability <= CAP_LAST_CAP; capability++)
        if (capability >= 32 || !(set & 1u << capability))
            must(prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "drop capability");
    must(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "keep capabilities");
    must(setgroups(0, NULL), "setgroups");
    must(setresgid(0, 0, 0), "setresgid");
    must(setresuid(0, 0, 0), "setresuid");
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{set, set, 0}, {0, 0, 0}};
    must(syscall(SYS_capset, &header, data), "capset");
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
}

static void execute(char **command) {
    must(syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC), "close_range");
    execve(command[0], command, environment);
    err(127, "%s", command[0]);
}

static int wait_for(pid_t pid) {
    int status;
    must(waitpid(pid, &status, 0), "wait");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run(const char *pid_file, const char *rootfs, char **command) {
    int pidfd, go[2];
    must(pipe2(go, O_CLOEXEC), "pipe");
    make_cgroups();
    struct clone_args args = {.flags = NAMESPACES | CLONE_PIDFD,
                              .pidfd = (unsigned long)&pidfd,
                              .exit_signal = SIGCHLD};
    pid_t pid = syscall(SYS_clone3, &args, sizeof args);
    must(pid, "clone3");
    char byte = 0;
    if (pid == 0) {
        /* Only inside its cgroups can it make them the root of a namespace. */
        must(read(go[0], &byte, 1), "wait for the parent");
        must(unshare(CLONE_NEWCGROUP), "unshare");
        must(setsid(), "setsid");
        must(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL), "keyring");
        make_mounts(rootfs);
        make_devices();
        hide();
        pivot();
        must(sethostname("floor", 5), "hostname");
        drop_privileges();
        execute(command);
    }
    enter_cgroups(pid);
    struct rlimit files = {1024, 1024};
    must(prlimit(pid, RLIMIT_NOFILE, &files, NULL), "prlimit");
    must(write(go[1], &byte, 1), "let the child go");
    if (pid_file) {
        FILE *file = fopen(pid_file, "w");
        if (!file || fprintf(file, "%d", pid) < 0 || fclose(file) != 0)
            err(125, "%s", pid_file);
    }
    int code = wait_for(pid);
    for (int i = 0; i < cgroup_count; i++)
        must(rmdir(cgroups[i]), cgroups[i]);
    return code;
}

static int enter(pid_t target, char **command) {
    int pidfd = syscall(SYS_pidfd_open, target, 0);
    must(pidfd, "pidfd_open");
    enter_cgroups(getpid());
    must(setns(pidfd, NAMESPACES | CLONE_NEWCGROUP), "setns");
    /* The pid namespace is that of children. */
    pid_t pid = fork();
    must(pid, "fork");
    if (pid == 0) {
        must(setsid(), "setsid");
        drop_privileges();
        execute(command);
    }
    return wait_for(pid);
}

int main(int argc, char **argv) {
    const char *pid_file = NULL;
    pid_t target = 0;
    if (argc < 2)
        errx(125, "usage: floor run|exec ...");
    char *verb = argv[1];
    optind = 2;
    for (int option; (option = getopt(argc, argv, "+p:c:t:")) != -1;) {
        if (option == 'p')
            pid_file = optarg;
        else if (option == 't')
            target = atoi(optarg);
        else if (option == 'c' && cgroup_count < MAX_CGROUPS)
            cgroups[cgroup_count++] = optarg;
        else
            errx(125, "wrong option");
    }
    char **rest = argv + optind;
    if (strcmp(verb, "run") == 0 && argc - optind >= 2)
        return run(pid_file, rest[0], rest + 1);
    if (strcmp(verb, "exec") == 0 && target > 0 && argc - optind >= 1)
        return enter(target, rest);
    errx(125, "usage: floor run|exec ...");
}
