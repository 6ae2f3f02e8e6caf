/*
 * Starts a program in a given environment, waits for it, and prints how it ended:
 *
 *   parent [OPTION...] -- PROGRAM [ARGUMENT...]
 *
 * prints "ended PID STATUS\n": the PID as this process sees it, and the raw wait status in decimal.
 * The program gets an empty environment, no address randomization, no huge pages. As PID 1 of a
 * container it also reaps what is left to it.
 *
 * In this process:
 * --sh SCRIPT           first run sh -c SCRIPT, which must succeed
 * --hostname HEX        sethostname, any bytes
 * --hold                after it has printed, wait for the end of file on fd 0
 * --pid N               the program's PID (in this PID namespace) will be N
 * In a process between this one and the program, which stays until the end of file when --hold is
 * given:
 * --user-namespace      become --uid and --gid, then unshare a user namespace in which they are 0
 * --pid-namespace       unshare a PID namespace: the program will be PID 1 there
 * --mount-namespace     unshare a mount namespace
 * --tmpfs DIR           mount a tmpfs there
 * In the program's process, in this order:
 * --umask OCTAL, --core BYTES|unlimited|inherit, --fsize BYTES (the soft limits), --filter MASK
 * (coredump_filter), --cpu N,
 * --chroot DIR, --chdir DIR,
 * --drop CAP (a number, from the bounding set), --groups A,B, --gid N, --uid N, --ambient CAP
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
	const char *script, *hostname, *tmpfs, *umask, *core, *fsize, *cpu, *chroot, *chdir, *groups;
	const char *uid, *gid, *ambient, *pid, *filter;
	const char *drop[8];
	int drops, hold, user_namespace, pid_namespace, mount_namespace;
	char **program;
} plan;

static void fail(const char *what)
{
	fprintf(stderr, "parent: %s: %s\n", what, strerror(errno));
	exit(71);
}

static void must(long result, const char *what)
{
	if (result < 0)
		fail(what);
}

static void parse(char **argv)
{
	static const struct { const char *name; const char **value; } with_value[] = {
		{ "--sh", &plan.script }, { "--hostname", &plan.hostname }, { "--tmpfs", &plan.tmpfs },
		{ "--umask", &plan.umask }, { "--core", &plan.core }, { "--fsize", &plan.fsize },
		{ "--cpu", &plan.cpu },
		{ "--chroot", &plan.chroot }, { "--chdir", &plan.chdir }, { "--groups", &plan.groups },
		{ "--uid", &plan.uid }, { "--gid", &plan.gid }, { "--ambient", &plan.ambient },
		{ "--pid", &plan.pid },
		{ "--filter", &plan.filter },
	};
	for (argv++; *argv && strcmp(*argv, "--"); argv++) {
		if (!strcmp(*argv, "--hold")) {
			plan.hold = 1;
		} else if (!strcmp(*argv, "--user-namespace")) {
			plan.user_namespace = 1;
		} else if (!strcmp(*argv, "--pid-namespace")) {
			plan.pid_namespace = 1;
		} else if (!strcmp(*argv, "--mount-namespace")) {
			plan.mount_namespace = 1;
		} else if (!strcmp(*argv, "--drop") && argv[1] && plan.drops < 8) {
			plan.drop[plan.drops++] = *++argv;
		} else {
			size_t at = 0, count = sizeof with_value / sizeof *with_value;
			while (at < count && strcmp(*argv, with_value[at].name))
				at++;
			if (at == count || !argv[1]) {
				fprintf(stderr, "parent: what is %s?\n", *argv);
				exit(64);
			}
			*with_value[at].value = *++argv;
		}
	}
	if (!*argv || !argv[1]) {
		fprintf(stderr, "parent: -- PROGRAM is missing\n");
		exit(64);
	}
	plan.program = argv + 1;
}

static void run_script(void)
{
	int status;
	pid_t pid = fork();
	must(pid, "fork");
	if (pid == 0) {
		close(0);
		execl("/bin/sh", "sh", "-c", plan.script, (char *)NULL);
		fail("/bin/sh");
	}
	must(waitpid(pid, &status, 0), "waitpid");
	if (status) {
		fprintf(stderr, "parent: the script failed: %#x\n", status);
		exit(72);
	}
}

static void set_hostname(void)
{
	char name[65];
	size_t length = strlen(plan.hostname) / 2;
	for (size_t at = 0; at < length && at < sizeof name; at++)
		sscanf(plan.hostname + 2 * at, "%2hhx", (unsigned char *)&name[at]);
	must(sethostname(name, length), "sethostname");
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	must(fd, path);
	must(write(fd, text, strlen(text)), path);
	close(fd);
}

static void become(void)
{
	if (plan.groups) {
		gid_t list[8];
		size_t count = 0;
		char *copy = strdup(plan.groups);
		for (char *one = strtok(copy, ","); one && count < 8; one = strtok(NULL, ","))
			list[count++] = (gid_t)atoi(one);
		must(setgroups(count, list), "setgroups");
	}
	if (plan.gid)
		must(setresgid(atoi(plan.gid), atoi(plan.gid), atoi(plan.gid)), "setresgid");
	if (plan.uid)
		must(setresuid(atoi(plan.uid), atoi(plan.uid), atoi(plan.uid)), "setresuid");
}

static void unshare_namespaces(void)
{
	char map[64];
	if (plan.user_namespace) {
		become();
		/* Else the files of /proc/self stay root's. */
		must(prctl(PR_SET_DUMPABLE, 1), "PR_SET_DUMPABLE");
		uid_t uid = getuid();
		gid_t gid = getgid();
		must(unshare(CLONE_NEWUSER), "unshare a user namespace");
		write_file("/proc/self/setgroups", "deny");
		snprintf(map, sizeof map, "0 %u 1", uid);
		write_file("/proc/self/uid_map", map);
		snprintf(map, sizeof map, "0 %u 1", gid);
		write_file("/proc/self/gid_map", map);
	}
	if (plan.pid_namespace)
		must(unshare(CLONE_NEWPID), "unshare a PID namespace");
	if (plan.mount_namespace) {
		must(unshare(CLONE_NEWNS), "unshare a mount namespace");
		must(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), "make / private");
	}
	if (plan.tmpfs)
		must(mount("tmpfs", plan.tmpfs, "tmpfs", 0, "mode=1777"), plan.tmpfs);
}

static void limit(int which, const char *value)
{
	struct rlimit both;
	must(getrlimit(which, &both), "getrlimit");
	both.rlim_cur = strcmp(value, "unlimited") ? strtoull(value, NULL, 10) : RLIM_INFINITY;
	must(setrlimit(which, &both), "setrlimit");
}

static void keep_ambient(int capability)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { 0 };
	unsigned bit = 1U << (capability % 32);
	data[capability / 32].permitted = bit;
	data[capability / 32].effective = bit;
	data[capability / 32].inheritable = bit;
	must(syscall(SYS_capset, &header, data), "capset");
	must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0), "PR_CAP_AMBIENT_RAISE");
}

static void run_program(void)
{
	char *nothing[] = { NULL };
	if (plan.umask)
		umask((mode_t)strtoul(plan.umask, NULL, 8));
	if (plan.core && strcmp(plan.core, "inherit"))
		limit(RLIMIT_CORE, plan.core);
	if (plan.fsize)
		limit(RLIMIT_FSIZE, plan.fsize);
	if (plan.filter)
		write_file("/proc/self/coredump_filter", plan.filter);
	if (plan.cpu) {
		cpu_set_t cpus;
		CPU_ZERO(&cpus);
		CPU_SET(atoi(plan.cpu), &cpus);
		must(sched_setaffinity(0, sizeof cpus, &cpus), "sched_setaffinity");
	}
	if (plan.chroot)
		must(chroot(plan.chroot), plan.chroot);
	if (plan.chdir)
		must(chdir(plan.chdir), plan.chdir);
	for (int at = 0; at < plan.drops; at++)
		must(prctl(PR_CAPBSET_DROP, atoi(plan.drop[at])), "PR_CAPBSET_DROP");
	if (plan.ambient)
		must(prctl(PR_SET_KEEPCAPS, 1), "PR_SET_KEEPCAPS");
	if (!plan.user_namespace)
		become();
	if (plan.ambient)
		keep_ambient(atoi(plan.ambient));
	must(personality(ADDR_NO_RANDOMIZE), "personality");
	/* Whether there is a huge page to be had differs from run to run, and all of it would be
	 * dumped. */
	must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), "PR_SET_THP_DISABLE");
	execve(plan.program[0], plan.program, nothing);
	fail(plan.program[0]);
}

static void wait_for_end(void)
{
	char byte;
	while (plan.hold && read(0, &byte, 1) > 0)
		;
}

static void supervise(void)
{
	int status;
	unshare_namespaces();
	pid_t pid = fork();
	must(pid, "fork");
	if (pid == 0)
		run_program();
	must(waitpid(pid, &status, 0), "waitpid");
	dprintf(1, "ended %d %d\n", pid, status);
	wait_for_end();
	exit(0);
}

int main(int argc, char **argv)
{
	int status;
	(void)argc;
	parse(argv);
	if (plan.script)
		run_script();
	if (plan.hostname)
		set_hostname();
	/* PIDs are given out in ascending order: use up those before the wanted one. The
	 * supervisor has the last of them. */
	int wanted = plan.pid ? atoi(plan.pid) - 1 : 0;
	pid_t supervisor;
	for (;;) {
		int go[2];
		char byte;
		must(pipe(go), "pipe");
		supervisor = fork();
		must(supervisor, "fork");
		if (supervisor == 0) {
			close(go[1]);
			if (read(go[0], &byte, 1) != 1)
				exit(0);
			close(go[0]);
			supervise();
		}
		close(go[0]);
		if (supervisor >= wanted && write(go[1], "g", 1) == 1) {
			close(go[1]);
			break;
		}
		close(go[1]);
		must(waitpid(supervisor, NULL, 0), "waitpid");
	}
	if (wanted && supervisor != wanted) {
		fprintf(stderr, "parent: PID %d is taken already\n", wanted + 1);
		exit(73);
	}
	/* As PID 1: reap the others too. */
	for (;;) {
		pid_t pid = waitpid(-1, &status, 0);
		if (pid == supervisor)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
		must(pid, "waitpid");
	}
}
