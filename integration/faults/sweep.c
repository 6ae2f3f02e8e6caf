/*
 * sweep WHO N REPORT PROGRAM ARGUMENTS...: runs the program, and kills its process WHO (0 itself, 1
 * the first that it starts, ...) with SIGKILL when that one is about to make its N-th system call,
 * threads counted together. The call is not made, and all others go on. With N = 0 nobody is
 * killed.
 *
 * When all have ended the file REPORT appears: "killed NUMBER" with the call's number or "whole",
 * then how many calls each process made.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST 64

static pid_t process[MOST];
static long calls[MOST];
static int processes;

/* Which process a thread belongs to; a new one if it is not known yet. */
static int whose(pid_t thread)
{
	char path[64], line[256];
	pid_t id = thread;
	snprintf(path, sizeof path, "/proc/%d/status", thread);
	FILE *status = fopen(path, "r");
	while (status && fgets(line, sizeof line, status))
		if (sscanf(line, "Tgid: %d", &id) == 1)
			break;
	if (status)
		fclose(status);
	for (int i = 0; i < processes; i++)
		if (process[i] == id)
			return i;
	if (processes == MOST)
		exit(3);
	process[processes] = id;
	return processes++;
}

int main(int argc, char **argv)
{
	char temporary[4096];
	if (argc < 5)
		return 2;
	int who = atoi(argv[1]), status, started = 0;
	long n = atol(argv[2]), killed = -1;
	pid_t child = fork(), thread;
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		execv(argv[4], argv + 4);
		_exit(127);
	}
	/* The kernel waits until nobody has its pipe any more. */
	for (int fd = 0; fd < 64; fd++)
		close(fd);
	waitpid(child, &status, 0);
	ptrace(PTRACE_SETOPTIONS, child, 0,
	       PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
		       PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
	whose(child);
	ptrace(PTRACE_SYSCALL, child, 0, 0);
	while ((thread = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR) {
		int signal = 0;
		if (thread <= 0 || !WIFSTOPPED(status))
			continue;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			struct __ptrace_syscall_info info;
			long got = ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info);
			if (got > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY && started) {
				int it = whose(thread);
				if (++calls[it] == n && it == who && killed < 0) {
					killed = info.entry.nr;
					kill(process[it], SIGKILL);
				}
			}
		} else if (status >> 16 == PTRACE_EVENT_EXEC) {
			started = 1;
		} else if (status >> 16 == 0 && WSTOPSIG(status) != SIGSTOP) {
			signal = WSTOPSIG(status);
		}
		/* In the order in which they are started: the parent goes on only after this. */
		unsigned long new;
		int event = status >> 16;
		if (started && (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_CLONE) &&
		    ptrace(PTRACE_GETEVENTMSG, thread, 0, &new) == 0)
			whose(new);
		if (started)
			whose(thread);
		ptrace(PTRACE_SYSCALL, thread, 0, signal);
	}
	snprintf(temporary, sizeof temporary, "%s.new", argv[3]);
	FILE *report = fopen(temporary, "w");
	if (killed >= 0)
		fprintf(report, "killed %ld", killed);
	else
		fprintf(report, "whole");
	for (int i = 0; i < processes; i++)
		fprintf(report, " %ld", calls[i]);
	fprintf(report, "\n");
	fclose(report);
	return rename(temporary, argv[3]);
}
