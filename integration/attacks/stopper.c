/*
 * stopper N SOFT [REGISTRY STORE]: N processes crash with this soft RLIMIT_CORE (negative: all that
 * is allowed), one after the other. Behind each, SIGSTOP goes to whatever comes with our user ID
 * and one of the next process IDs: the children of the dispatcher that act as us. Then the crashed
 * process is killed. With a REGISTRY our mount namespace is registered there as a container of
 * ours, whose cores and records go to STORE. Prints "stopped N" in the end, and stays until its
 * standard input ends.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int enroll(const char *registry, const char *store)
{
	char path[4096], index[4096], stat_line[4096];
	struct stat ns;
	FILE *file = fopen("/proc/self/stat", "r");
	if (!file || !fgets(stat_line, sizeof stat_line, file) || stat("/proc/self/ns/mnt", &ns))
		return -1;
	fclose(file);
	char *field = strrchr(stat_line, ')') + 2;
	for (int i = 0; i < 19; i++)
		field = strchr(field, ' ') + 1;
	snprintf(path, sizeof path, "%s/containers/stopper.json", registry);
	file = fopen(path, "w");
	if (!file)
		return -1;
	fprintf(file,
		"{\"names\":{\"container_id\":\"stopper\"},\"init\":{\"pid\":%d,\"start_time\":%lu,"
		"\"mount_ns\":%lu,\"mount_ns_id\":null,\"pid_ns\":null,\"cgroup\":null},"
		"\"pattern\":\"%s/core\",\"append_pid\":true,\"limit\":null,\"soft_limit\":null,"
		"\"place\":{\"location\":\"layer\",\"mount\":null},\"refused\":null,\"store\":\"%s\"}",
		getpid(), strtoul(field, NULL, 10), (unsigned long)ns.st_ino, store, store);
	fclose(file);
	snprintf(index, sizeof index, "%s/index/mnt-%lu", registry, (unsigned long)ns.st_ino);
	return chmod(path, 0600) || link(path, index);
}

int main(int argc, char **argv)
{
	int n = argc > 1 ? atoi(argv[1]) : 1, stopped = 0;
	long soft = argc > 2 ? atol(argv[2]) : 0;
	if (argc > 4 && enroll(argv[3], argv[4]))
		return perror("register"), 1;
	for (int i = 0; i < n; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			struct rlimit limit;
			getrlimit(RLIMIT_CORE, &limit);
			limit.rlim_cur = soft < 0 ? limit.rlim_max : (rlim_t)soft;
			setrlimit(RLIMIT_CORE, &limit);
			raise(SIGSEGV);
			_exit(1);
		}
		int found = 0, status;
		for (double until = now() + 0.1; !found && now() < until;)
			for (int next = 1; next < 40 && !found; next++)
				found = kill(pid + next, SIGSTOP) == 0;
		stopped += found;
		kill(pid, SIGKILL);
		for (double until = now() + 0.05; waitpid(pid, &status, WNOHANG) == 0 && now() < until;)
			usleep(1000);
	}
	printf("stopped %d\n", stopped);
	fflush(stdout);
	char byte;
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}
