/* Runs a program with real-time priority. */
#define _GNU_SOURCE
#include <sched.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sched_param first = { .sched_priority = 1 };
	if (argc < 2 || sched_setscheduler(0, SCHED_FIFO, &first))
		return 1;
	execv(argv[1], argv + 1);
	return 1;
}
