/*
 * A program with a bug, as people have them: built with debug information, so that gdb can show
 * where it died.
 *
 *   victim NAME      dies of SIGNAME by doing what the kernel sends it for: abrt bus fpe ill quit
 *                    segv sys trap xcpu xfsz
 *   victim thread    a thread that is not the leader dies of SIGSEGV; prints "TID\n" first
 *   victim pause     prints "ready\n" and waits for somebody to press ^\
 *   victim wait HOW  starts itself with HOW and waits; prints "ended PID STATUS\n" (raw wait
 *                    status). Unlike the oracle's `parent` it changes nothing about the child:
 *                    podman's seccomp filter does not allow that.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __aarch64__
#define ILLEGAL "udf #0"
#define BREAKPOINT "brk #0"
#else
#define ILLEGAL "ud2"
#define BREAKPOINT "int3"
#endif

struct request {
	const char *path;
	int *length;
};

static void must(long result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "victim: %s: %s\n", what, strerror(errno));
		exit(70);
	}
}

__attribute__((noinline)) static void parse_length(struct request *request)
{
	*request->length = 42;
}

__attribute__((noinline)) static void handle_request(const char *path)
{
	struct request request = { path, NULL };
	parse_length(&request);
	puts(request.path);
}

static void bus(void)
{
	int file = open("/tmp/victim.empty", O_RDWR | O_CREAT, 0600);
	must(file, "open");
	unlink("/tmp/victim.empty");
	volatile char *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
	if (page == MAP_FAILED)
		must(-1, "mmap");
	(void)page[0];
}

/* AArch64 divides by zero and goes on. */
static void divide_by_zero(void)
{
	volatile int one = 1, zero = 0;
	zero = one / zero;
#ifdef __aarch64__
	raise(SIGFPE);
#endif
}

static void bad_system_call(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { 4, filter };
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), "seccomp");
	syscall(SYS_getppid);
}

static void file_too_large(void)
{
	/* Large enough for the core, to which the limit applies as well. */
	struct rlimit limit = { 16 << 20, 16 << 20 };
	int file = open("/tmp/victim.large", O_RDWR | O_CREAT, 0600);
	must(file, "open");
	unlink("/tmp/victim.large");
	must(setrlimit(RLIMIT_FSIZE, &limit), "setrlimit");
	/* What Python has started has it ignored. */
	signal(SIGXFSZ, SIG_DFL);
	must(pwrite(file, "x", 1, 16 << 20), "pwrite");
}

static void too_much_time(void)
{
	struct rlimit limit = { 1, 2 };
	must(setrlimit(RLIMIT_CPU, &limit), "setrlimit");
	for (volatile unsigned long turn = 0;; turn++)
		;
}

static void *in_thread(void *argument)
{
	printf("%ld\n", syscall(SYS_gettid));
	fflush(stdout);
	handle_request(argument);
	return NULL;
}

static void wait_for(char *program, char *how)
{
	int status;
	pid_t child = fork();
	must(child, "fork");
	if (child == 0) {
		char *arguments[] = { program, how, NULL };
		must(execv(program, arguments), "execv");
	}
	must(waitpid(child, &status, 0), "waitpid");
	printf("ended %d %d\n", child, status);
	exit(0);
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "segv";
	if (!strcmp(how, "abrt"))
		abort();
	else if (!strcmp(how, "bus"))
		bus();
	else if (!strcmp(how, "fpe"))
		divide_by_zero();
	else if (!strcmp(how, "ill"))
		__asm__ volatile(ILLEGAL);
	else if (!strcmp(how, "quit")) {
		/* A shell that is not interactive starts its commands with SIGQUIT ignored. */
		signal(SIGQUIT, SIG_DFL);
		raise(SIGQUIT);
	}
	else if (!strcmp(how, "segv"))
		handle_request("/index.html");
	else if (!strcmp(how, "sys"))
		bad_system_call();
	else if (!strcmp(how, "trap"))
		__asm__ volatile(BREAKPOINT);
	else if (!strcmp(how, "xcpu"))
		too_much_time();
	else if (!strcmp(how, "xfsz"))
		file_too_large();
	else if (!strcmp(how, "wait") && argc > 2)
		wait_for(argv[0], argv[2]);
	else if (!strcmp(how, "pause")) {
		puts("ready");
		fflush(stdout);
		pause();
	} else if (!strcmp(how, "thread")) {
		pthread_t thread;
		must(-pthread_create(&thread, NULL, in_thread, "/index.html"), "pthread_create");
		pthread_join(thread, NULL);
	}
	fprintf(stderr, "victim: still alive after %s\n", how);
	return 70;
}
