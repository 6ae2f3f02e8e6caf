/*
 * storm N KIB: N processes, each with so much written memory, which crash when fd 0 comes to its
 * end. Prints "ready\n" when all are there, and in the end "ended N M": how many died of SIGSEGV,
 * and for how many of them the kernel had a core dumped.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int n = argc > 1 ? atoi(argv[1]) : 1, ended = 0, dumped = 0, status;
	size_t size = (argc > 2 ? strtoul(argv[2], NULL, 10) : 64) << 10;
	struct rlimit limit;
	getrlimit(RLIMIT_CORE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_CORE, &limit);
	for (int i = 0; i < n; i++) {
		pid_t pid = fork();
		if (pid < 0)
			return perror("fork"), 1;
		if (pid == 0) {
			char *memory = malloc(size), byte;
			memset(memory, 'm', size);
			while (read(0, &byte, 1) > 0)
				;
			*(volatile int *)0 = memory[0];
		}
	}
	puts("ready");
	fflush(stdout);
	while (wait(&status) > 0) {
		ended += WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
		dumped += WIFSIGNALED(status) && WCOREDUMP(status);
	}
	printf("ended %d %d\n", ended, dumped);
	return 0;
}
