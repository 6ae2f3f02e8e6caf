/*
 * A process of which several identical ones can be made, to crash each under another core_pattern:
 *
 *   template given
 *   template [small-]KIND [ARGUMENT]
 *
 * It makes its memory and then serves two kinds of bytes on fd 0. "c": it makes a child, PID 1 of a
 * PID namespace of its own, with the same memory and the same addresses; when the child has ended
 * its raw wait status (four bytes) is sent to the socket fd 1, which, unlike a write, counts
 * nowhere. "g" is for the child, which waits for it and then dies of SIGSEGV. Nothing that differs
 * from child to child is ever stored where a child could see it, so that their cores are the same
 * in every byte of memory.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#define PAGE ((unsigned long)getpagesize())
#define MIB (1UL << 20)

/* Where pages have 16 KiB these have 32 MiB. */
#define HUGE_PAGE huge_page
static size_t huge_page = 2 * MIB;

static const char *kind, *argument;
static char *large;
static int small;

static void must(int good, const char *what)
{
	if (!good) {
		perror(what);
		exit(71);
	}
}

static int is(const char *name)
{
	return !strcmp(kind, name);
}

static char *map(size_t bytes, int flags, int fd)
{
	char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
	must(at != MAP_FAILED, "mmap");
	return at;
}

static char *anonymous(size_t bytes)
{
	return map(bytes, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
}

/* Contents of which no page is like another. */
static void fill(char *at, size_t bytes)
{
	static uint64_t state = 88172645463325252ull;
	for (size_t done = 0; done < bytes; done += 8) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		memcpy(at + done, &state, 8);
	}
}

static char *full(size_t bytes)
{
	char *at = anonymous(bytes);
	fill(at, bytes);
	return at;
}

/* Pages that are filled, written zeros, only read, and never touched, in turns. */
static void mixed(char *at, size_t bytes)
{
	for (size_t page = 0; page < bytes / PAGE; page++) {
		volatile char *p = at + page * PAGE;
		if (page % 4 == 0)
			fill(at + page * PAGE, PAGE);
		else if (page % 4 == 1)
			*p = 0;
		else if (page % 4 == 2)
			(void)*p;
	}
}

/* A file of five pages and a half. */
static int file(void)
{
	int fd = open(argument, O_RDWR | O_CREAT | O_TRUNC, 0600);
	must(fd >= 0, argument);
	char bytes[5 * PAGE + PAGE / 2];
	fill(bytes, sizeof bytes);
	must(write(fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes, "write");
	return fd;
}

static void files(void)
{
	int fd = file();
	/* Each reaches over the end of the file. The pages beyond cannot be read. */
	char *clean = map(16 * PAGE, MAP_PRIVATE, fd), *changed = map(16 * PAGE, MAP_PRIVATE, fd);
	char *shared = map(16 * PAGE, MAP_SHARED, fd);
	must(mprotect(clean, 16 * PAGE, PROT_READ) == 0, "mprotect");
	changed[PAGE] = 1;
	changed[5 * PAGE + 3000] = 2;
	shared[2 * PAGE] = 3;
	(void)*(volatile char *)(clean + 4 * PAGE);
}

static void shared(void)
{
	mixed(map(32 * PAGE, MAP_SHARED | MAP_ANONYMOUS, -1), 32 * PAGE);
	int fd = memfd_create("lanes", 0);
	must(fd >= 0 && ftruncate(fd, 32 * PAGE) == 0, "memfd_create");
	mixed(map(32 * PAGE, MAP_SHARED, fd), 32 * PAGE);
	map(32 * PAGE, MAP_PRIVATE, fd)[7 * PAGE] = 1;
	int id = shmget(IPC_PRIVATE, 16 * PAGE, 0600);
	char *segment = shmat(id, NULL, 0);
	must(segment != (char *)-1 && shmctl(id, IPC_RMID, NULL) == 0, "shmat");
	mixed(segment, 16 * PAGE);
}

static void size_of_huge_pages(void)
{
	char text[32] = "";
	int fd = open("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", O_RDONLY);
	if (fd >= 0 && read(fd, text, sizeof text - 1) > 0)
		huge_page = strtoul(text, NULL, 10);
	close(fd);
}

static char *huge_aligned(size_t bytes)
{
	char *at = anonymous(bytes + HUGE_PAGE);
	return (char *)(((uintptr_t)at + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
}

static void transparent(void)
{
	char *at = huge_aligned(5 * HUGE_PAGE);
	must(madvise(at, 5 * HUGE_PAGE, MADV_HUGEPAGE) == 0, "MADV_HUGEPAGE");
	fill(at, HUGE_PAGE);
	/* One of which most is zeros, the huge page of zeros, one never touched, and one of
	 * which a piece is unmapped. */
	at[HUGE_PAGE + 5 * PAGE] = 1;
	(void)*(volatile char *)(at + 2 * HUGE_PAGE);
	fill(at + 4 * HUGE_PAGE, HUGE_PAGE);
	must(munmap(at + 4 * HUGE_PAGE + 16 * PAGE, PAGE) == 0, "munmap");
}

static void hugetlb(void)
{
	char *private = map(3 * HUGE_PAGE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
	char *shared = map(2 * HUGE_PAGE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1);
	fill(private, HUGE_PAGE);
	private[HUGE_PAGE + PAGE] = 1;
	shared[HUGE_PAGE - 1] = 1;
}

static void left_out(void)
{
	char *at = full(64 * PAGE);
	must(madvise(at + 8 * PAGE, 8 * PAGE, MADV_DONTDUMP) == 0, "MADV_DONTDUMP");
	must(madvise(at + 40 * PAGE, 24 * PAGE, MADV_DONTDUMP) == 0, "MADV_DONTDUMP");
	must(madvise(at + 48 * PAGE, 4 * PAGE, MADV_DODUMP) == 0, "MADV_DODUMP");
}

static void inaccessible(void)
{
	must(mprotect(full(64 * PAGE) + 8 * PAGE, 16 * PAGE, PROT_NONE) == 0, "mprotect");
	must(mprotect(full(64 * PAGE) + 8 * PAGE, 16 * PAGE, PROT_WRITE) == 0, "mprotect");
	must(mmap(NULL, 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED,
	     "mmap");
	char *at = full(64 * PAGE);
	/* Linux 6.13; elsewhere a page like others. */
	(void)madvise(at + 20 * PAGE, 3 * PAGE, MADV_GUARD_INSTALL);
	at = full(64 * PAGE);
	must(madvise(at + 30 * PAGE, 3 * PAGE, MADV_DONTNEED) == 0, "MADV_DONTNEED");
}

/* Memory with tags, on AArch64: they are in the core behind all memory. */
static void tagged(void)
{
#ifdef __aarch64__
	long mode = PR_TAGGED_ADDR_ENABLE | PR_MTE_TCF_SYNC | 0xfffeUL << PR_MTE_TAG_SHIFT;
	must(prctl(PR_SET_TAGGED_ADDR_CTRL, mode, 0, 0, 0) == 0, "PR_SET_TAGGED_ADDR_CTRL");
	char *at = full(64 * PAGE);
	must(mprotect(at, 64 * PAGE, PROT_READ | PROT_WRITE | PROT_MTE) == 0, "PROT_MTE");
	for (uintptr_t page = 0; page < 64; page += 3)
		__asm__ volatile(".arch armv8.5-a+memtag\n\tstg %0, [%0]"
				 : : "r"((uintptr_t)at + page * PAGE + ((page % 15 + 1) << 56))
				 : "memory");
#endif
}

static void swapped(void)
{
	size_t bytes = small ? 2 * MIB : 8 * MIB;
	char *at = full(bytes);
	mixed(at + bytes / 2, MIB);
	must(madvise(at, bytes, MADV_PAGEOUT) == 0, "MADV_PAGEOUT");
	/* Some of it comes back. */
	for (size_t page = 0; page < 256 && page * PAGE < bytes; page += 4)
		(void)*(volatile char *)(at + page * PAGE);
}

static void segments(void)
{
	size_t count = strtoul(argument, NULL, 10);
	char *at = anonymous(count * PAGE);
	for (size_t page = 0; page < count; page += 2)
		must(mprotect(at + page * PAGE, PAGE, PROT_READ) == 0, "mprotect");
	for (size_t page = 1; page < count; page += 1000)
		at[page * PAGE] = 1;
}

static volatile int running;

static void *sleep_for_ever(void *unused)
{
	running = 1;
	for (;;)
		pause();
	return unused;
}

static void threads(void)
{
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	/* On AArch64 128 KiB. */
	long least = sysconf(_SC_THREAD_STACK_MIN), size = least > 32 << 10 ? least : 32 << 10;
	must(pthread_attr_setstacksize(&attributes, size) == 0, "pthread_attr_setstacksize");
	for (long left = strtol(argument, NULL, 10); left > 1; left--) {
		pthread_t thread;
		must(pthread_create(&thread, &attributes, sleep_for_ever, NULL) == 0, "pthread_create");
		/* The thread that comes first initializes some of the C library (glibc 2.42), and
		 * its stack shows that: it is always the same one. */
		while (!running)
			sched_yield();
	}
}

/* A page that only the process itself could fill, and a dead one cannot. */
static void never_filled(void)
{
	int fd = memfd_create("never", 0), uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	size_t bytes = is("never-first") ? PAGE : 64 * PAGE;
	must(fd >= 0 && ftruncate(fd, bytes) == 0 && uffd >= 0, "userfaultfd");
	char *at = map(bytes, MAP_SHARED, fd);
	fill(at, bytes / 2 & -PAGE);
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .range = { (uintptr_t)at, bytes },
					 .mode = UFFDIO_REGISTER_MODE_MISSING };
	must(ioctl(uffd, UFFDIO_API, &api) == 0 && ioctl(uffd, UFFDIO_REGISTER, &range) == 0,
	     "UFFDIO_REGISTER");
}

static volatile int held;

static void *hold(void *mutex)
{
	pthread_mutex_lock(mutex);
	held++;
	return sleep_for_ever(NULL);
}

/* Threads that die with robust mutexes in their hands, which lie in the midst of the largest
 * piece of memory: the kernel marks them. */
static void robust(void)
{
	pthread_mutexattr_t attributes;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	for (int made = 0; made < 8; made++) {
		pthread_mutex_t *mutex = (void *)(large + (size_t)made * MIB + 17 * PAGE);
		pthread_t thread;
		pthread_mutex_init(mutex, &attributes);
		must(pthread_create(&thread, NULL, hold, mutex) == 0, "pthread_create");
		while (held == made)
			sched_yield();
	}
}

static void nothing(int signal)
{
	(void)signal;
}

/* Memory that a living process shares, and changes all the time once it was sent SIGUSR1. Its ID
 * stands in a file. */
static void changed(void)
{
	size_t bytes = 48 * MIB;
	char *at = map(bytes, MAP_SHARED | MAP_ANONYMOUS, -1);
	fill(at, bytes);
	signal(SIGUSR1, nothing);
	sigset_t usr1, old;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, &old);
	pid_t between = fork();
	if (between == 0 && fork() == 0) {
		int fd = open(argument, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		dprintf(fd, "%d", getpid());
		close(fd);
		sigsuspend(&old);
		for (;;)
			for (size_t page = bytes / PAGE; page > 0; page--)
				at[(page - 1) * PAGE + 100]++;
	}
	if (between == 0)
		_exit(0);
	must(waitpid(between, NULL, 0) == between, "fork");
}

__attribute__((noinline)) static void die(void)
{
	char go;
	syscall(SYS_read, 0, &go, 1);
	*(volatile int *)0 = 1;
}

/* In the child: what a copy of a process does not have, then death. */
__attribute__((noinline, used)) static void child(void)
{
	if (is("threads"))
		threads();
	else if (is("never-filled") || is("never-first"))
		never_filled();
	else if (is("robust"))
		robust();
	else if (is("exec"))
		execl(argument, argument, NULL);
	die();
}

void make_child(char *stack, long flags, void (*run)(void));
/* clone(2) by hand: the child starts on a stack of its own, with nothing in its registers. The
 * parent keeps the child's ID nowhere. */
#ifdef __aarch64__
#define CLEAR(register) "mov " register ", xzr\n\t"
__asm__("make_child:\n\t"
	"mov x9, x0\n\t"
	"mov x10, x2\n\t"
	"mov x0, x1\n\t"
	"mov x1, x9\n\t"
	CLEAR("x2") CLEAR("x3") CLEAR("x4")
	"mov x8, #220\n\t"
	"svc #0\n\t"
	"cbnz x0, 1f\n\t"
	"mov x9, x10\n\t"
	CLEAR("x1") CLEAR("x5") CLEAR("x6") CLEAR("x7") CLEAR("x8") CLEAR("x10") CLEAR("x11")
	CLEAR("x12") CLEAR("x13") CLEAR("x14") CLEAR("x15") CLEAR("x16") CLEAR("x17") CLEAR("x18")
	CLEAR("x19") CLEAR("x20") CLEAR("x21") CLEAR("x22") CLEAR("x23") CLEAR("x24") CLEAR("x25")
	CLEAR("x26") CLEAR("x27") CLEAR("x28") CLEAR("x29")
	"blr x9\n\t"
	"udf #0\n"
	"1:\tret\n");
#else
__asm__("make_child:\n\t"
	"pushq %rbx\n\t"
	"movq %rdx, %rbx\n\t"
	"xchgq %rdi, %rsi\n\t"
	"xorl %edx, %edx\n\t"
	"xorl %r10d, %r10d\n\t"
	"xorl %r8d, %r8d\n\t"
	"movl $56, %eax\n\t"
	"syscall\n\t"
	"testq %rax, %rax\n\t"
	"jnz 1f\n\t"
	"movq %rbx, %rax\n\t"
	"xorl %ebx, %ebx\n\t"
	"xorl %ecx, %ecx\n\t"
	"xorl %ebp, %ebp\n\t"
	"xorl %esi, %esi\n\t"
	"xorl %edi, %edi\n\t"
	"xorl %r9d, %r9d\n\t"
	"xorl %r11d, %r11d\n\t"
	"xorl %r12d, %r12d\n\t"
	"xorl %r13d, %r13d\n\t"
	"xorl %r14d, %r14d\n\t"
	"xorl %r15d, %r15d\n\t"
	"call *%rax\n\t"
	"ud2\n"
	"1:\txorl %eax, %eax\n\t"
	"popq %rbx\n\t"
	"ret\n");
#endif

static char *stack_top(void)
{
	return anonymous(256 << 10) + (256 << 10) - 64;
}

/* Nothing of this page is seen by a child. */
static struct {
	char byte;
	int status, warm;
} *private;
static char *childs_stack, *sharers_stack;

static void leave(void)
{
	syscall(SYS_exit_group, 0);
}

/* A process whose memory the crashing one shares and which lives on. */
__attribute__((used)) static void sharer(void)
{
	make_child(childs_stack, CLONE_VM | CLONE_NEWPID | SIGCHLD, child);
	syscall(SYS_wait4, -1, &private->status, __WALL, NULL);
	/* It dies in the same way, so that whoever waits sees it. Its own core is none of
	 * anybody's business. */
	syscall(SYS_exit_group, WIFSIGNALED(private->status) ? 100 + WTERMSIG(private->status) : 1);
}

/* Whether the kernel gives what a process cannot read to others than its debugger. */
static int is_given(void)
{
	char *page = full(PAGE), byte;
	must(mprotect(page, PAGE, PROT_NONE) == 0, "mprotect");
	return pread(open("/proc/self/mem", O_RDONLY), &byte, 1, (uintptr_t)page) == 1;
}

int main(int argc, char **argv)
{
	must(argc >= 2, "KIND");
	kind = argv[1];
	if (is("given"))
		return !is_given();
	argument = argc > 2 ? argv[2] : "";
	static const struct {
		const char *name;
		void (*make)(void);
	} makers[] = { { "files", files }, { "shared", shared }, { "transparent", transparent },
		       { "hugetlb", hugetlb }, { "left-out", left_out },
		       { "inaccessible", inaccessible }, { "swapped", swapped }, { "tagged", tagged },
		       { "segments", segments }, { "changed", changed } };
	small = !strncmp(kind, "small-", 6);
	if (small)
		kind += 6;
	size_of_huge_pages();
	size_t some = small ? MIB : 4 * MIB;
	mixed(anonymous(some), some);
	large = full(small ? MIB / 2 : 9 * MIB);
	for (size_t at = 0; at < sizeof makers / sizeof *makers; at++)
		if (is(makers[at].name))
			makers[at].make();
	childs_stack = stack_top();
	sharers_stack = stack_top();
	private = (void *)anonymous(PAGE);
	must(madvise(private, PAGE, MADV_WIPEONFORK) == 0, "MADV_WIPEONFORK");
	/* The first round is for the stack: what calls leave there is the same from then on. Its
	 * child ends at once, and nobody is told. */
	for (;; private->warm = 1) {
		if (syscall(SYS_read, private->warm ? 0 : -1, &private->byte, 1) != 1 && private->warm)
			return 0;
		int sharing = is("sharer");
		make_child(sharing ? sharers_stack : childs_stack, CLONE_NEWPID | SIGCHLD,
			   !private->warm ? leave : sharing ? sharer : child);
		syscall(SYS_wait4, -1, &private->status, 0, NULL);
		syscall(SYS_sendto, private->warm ? 1 : -1, &private->status,
			sizeof private->status, 0, NULL, 0);
	}
}
