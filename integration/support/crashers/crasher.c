/*
 * A program that dies of a signal, freestanding, so that nothing in its memory depends on a C
 * library's start-up.
 *
 *   crasher [OPTION...] DEATH
 *
 * DEATH            how: null (SIGSEGV), bus (SIGBUS), div (SIGFPE), ud2 (SIGILL), int3 (SIGTRAP),
 *                  abort (SIGABRT),
 *                  a signal number, which it then sends to itself, or exit
 * --wait           when all is set up, write "ready\n" to fd 1 and read a byte from fd 0 before
 *                  dying
 * --threads N      be N threads; the others sleep in futex(2)
 * --in-thread      the thread that was started last dies, not the leader
 * --comm HEX       name of the dying thread, any bytes
 * --unlink PATH, --rmdir PATH    (its own executable, its working directory)
 * --chdir DIR, --chroot DIR    as the program itself, after it was started
 * --dumpable N     prctl(PR_SET_DUMPABLE)
 * --drop-to ID     setgid(2), setgroups(2), setuid(2), as a daemon that was started as root
 * --zeros          some of the pages of the memory pattern are touched, but hold zeros only
 * --odd            more mappings, of every kind that the kernel treats in its own way (see odd()
 *                  below)
 * --leader-exits   with --in-thread: the leader has ended already
 * --fill MIB       so much written memory besides
 * --tail MIB       so much memory besides of which only the first page is touched
 *
 * The memory pattern: 96 pages of anonymous memory, a third written, a third untouched, a third
 * (--zeros) written with zeros, else untouched; 4 pages of its own executable mapped privately, one
 * of them written; 4 shared pages.
 */
#ifndef __x86_64__
#error "this program is written for x86-64"
#endif
#include <linux/futex.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/mman.h>
#include <asm/unistd.h>

#define PAGE 4096
#define O_RDONLY 0

static long call6(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

#define call(number, a, b, c) call6(number, (long)(a), (long)(b), (long)(c), 0, 0, 0)

static void fail(const char *what)
{
	long length = 0;
	while (what[length])
		length++;
	call(__NR_write, 2, "crasher: ", 9);
	call(__NR_write, 2, what, length);
	call(__NR_write, 2, "\n", 1);
	call(__NR_exit_group, 70, 0, 0);
}

static void must(long result, const char *what)
{
	if (result < 0)
		fail(what);
}

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static long number(const char *text)
{
	long value = 0;
	if (!*text)
		fail("a number is empty");
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			fail("not a number");
		value = value * 10 + (*text - '0');
	}
	return value;
}

static int nibble(char digit)
{
	return digit <= '9' ? digit - '0' : (digit | 32) - 'a' + 10;
}

static long map(long length, long flags, long fd)
{
	long address = call6(__NR_mmap, 0, length, PROT_READ | PROT_WRITE, flags, fd, 0);
	must(address, "mmap");
	return address;
}

static long open_file(const char *path)
{
	return call(__NR_open, path, O_RDONLY, 0);
}

static void write_byte(char *at, char value)
{
	*(volatile char *)at = value;
}

/* All of these are in the core or not, with data or as a hole, by a rule of their own in
 * mm/gup.c or fs/coredump.c. */
static void odd(void)
{
	/* Written, then made inaccessible: dumped all the same. */
	char *closed = (char *)map(8 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	write_byte(closed + PAGE, 'c');
	write_byte(closed + 5 * PAGE, 'c');
	must(call(__NR_mprotect, closed, 8 * PAGE, PROT_NONE), "mprotect");
	/* Excluded by its owner. */
	char *private = (char *)map(8 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	write_byte(private, 'p');
	must(call(__NR_madvise, private, 8 * PAGE, MADV_DONTDUMP), "MADV_DONTDUMP");
	/* Only read: the kernel's shared page of zeros. One page is written, else it would not
	 * be dumped. */
	char *read = (char *)map(64 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	write_byte(read + 9 * PAGE, 'r');
	for (int page = 0; page < 64; page += 2)
		(void)*(volatile char *)(read + page * PAGE);
	/* A hole in the middle makes two mappings of one; another part loses its pages again. */
	char *split = (char *)map(96 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	for (int page = 0; page < 96; page++)
		write_byte(split + page * PAGE + page, 's');
	must(call(__NR_munmap, split + 40 * PAGE, 2 * PAGE, 0), "munmap");
	must(call(__NR_madvise, split + 60 * PAGE, 8 * PAGE, MADV_DONTNEED), "MADV_DONTNEED");
	/* Guard pages: Linux 6.13, not known before. */
	call(__NR_madvise, split + 70 * PAGE, 3 * PAGE, 102);
	/* A file of which most pages were never looked at, one was written; and one that ends in
	 * the mapping's second page. */
	long fd = open_file("/bin/busybox");
	if (fd >= 0) {
		char *file = (char *)call6(__NR_mmap, 0, 200 * PAGE, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE, fd, 3 * PAGE);
		write_byte(file + 100 * PAGE, 'f');
		char *shared = (char *)call6(__NR_mmap, 0, 40 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
		(void)*(volatile char *)(shared + 7 * PAGE);
		call(__NR_close, fd, 0, 0);
	}
	fd = open_file("/etc/passwd");
	if (fd >= 0) {
		char *file = (char *)map(32 * PAGE, MAP_PRIVATE, fd);
		write_byte(file, 'F');
		call(__NR_close, fd, 0, 0);
	}
	/* Files in memory, shared and private, mostly holes. */
	fd = call(__NR_memfd_create, "odd", 0, 0);
	must(fd, "memfd_create");
	must(call(__NR_ftruncate, fd, 64 * PAGE, 0), "ftruncate");
	char *shared = (char *)map(64 * PAGE, MAP_SHARED, fd);
	write_byte(shared + 11 * PAGE, 'm');
	char *copied = (char *)map(64 * PAGE, MAP_PRIVATE, fd);
	write_byte(copied + 13 * PAGE, 'M');
	call(__NR_close, fd, 0, 0);
}

static struct {
	const char *death;
	const char *comm;
	int wait;
} plan;

static int never;

static void remember(int zeros, int odd_ones, long fill, long tail)
{
	if (odd_ones)
		odd();
	char *anonymous = (char *)map(96 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	for (int page = 0; page < 96; page++)
		for (int at = 0; at < PAGE; at++) {
			volatile char *byte = anonymous + page * PAGE + at;
			if (page % 3 == 0)
				*byte = (char)(page * 7 + at * 3 + (at >> 8));
			else if (page % 3 == 1 && zeros)
				*byte = 0;
		}
	/* Not in a chroot without /proc, nor where the executable cannot be read. */
	long fd = call(__NR_open, "/proc/self/exe", O_RDONLY, 0);
	if (fd >= 0) {
		volatile char *file = (char *)map(4 * PAGE, MAP_PRIVATE, fd);
		file[2 * PAGE] = 'W';
		call(__NR_close, fd, 0, 0);
	}
	volatile char *shared = (char *)map(4 * PAGE, MAP_SHARED | MAP_ANONYMOUS, -1);
	shared[PAGE] = 'S';
	if (fill) {
		volatile long *words = (long *)map(fill << 20, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		for (long at = 0; at < fill << 17; at++)
			words[at] = at + 1;
	}
	if (tail) {
		/* A mapping of which nothing was ever touched would not be dumped at all. */
		volatile char *first = (char *)map(tail << 20, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		*first = 'T';
	}
}

__attribute__((noinline)) static void die(void)
{
	const char *how = plan.death;
	if (plan.comm) {
		char name[32] = { 0 };
		for (int at = 0; at < 31 && plan.comm[2 * at]; at++)
			name[at] = (char)(nibble(plan.comm[2 * at]) << 4 | nibble(plan.comm[2 * at + 1]));
		must(call(__NR_prctl, PR_SET_NAME, name, 0), "PR_SET_NAME");
	}
	if (plan.wait) {
		char go;
		must(call(__NR_write, 1, "ready\n", 6), "write");
		if (call(__NR_read, 0, &go, 1) != 1)
			fail("nobody said go");
	}
	if (same(how, "null"))
		*(volatile int *)0 = 1;
	if (same(how, "ud2"))
		__asm__ volatile("ud2");
	if (same(how, "int3"))
		__asm__ volatile("int3");
	if (same(how, "div"))
		__asm__ volatile("xorl %%ecx, %%ecx; cltd; idivl %%ecx" : : "a"(1) : "rcx", "rdx");
	if (same(how, "bus")) {
		long fd = call(__NR_open, "/proc/self/exe", O_RDONLY, 0);
		must(fd, "open /proc/self/exe");
		/* Far beyond the end of the file. */
		char *file = (char *)call6(__NR_mmap, 0, PAGE, PROT_READ, MAP_PRIVATE, fd, 1 << 30);
		(void)*(volatile char *)file;
	}
	if (same(how, "exit"))
		call(__NR_exit_group, 0, 0, 0);
	long pid = call(__NR_getpid, 0, 0, 0), tid = call(__NR_gettid, 0, 0, 0);
	call(__NR_tgkill, pid, tid, same(how, "abort") ? 6 : number(how));
	fail("still alive");
}

__attribute__((noinline, used)) static void thread(void (*job)(void))
{
	job();
	call(__NR_exit, 0, 0, 0);
}

static void sleep_for_ever(void)
{
	for (;;)
		call6(__NR_futex, (long)&never, FUTEX_WAIT_PRIVATE, 0, 0, 0, 0);
}

/* Starts job in a thread on the stack that ends at top. */
static void start(char *top, void (*job)(void))
{
	long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
	long result;
	*(void (**)(void))(top - 16) = job;
	__asm__ volatile("xorl %%edx, %%edx\n\t"
			 "xorl %%r10d, %%r10d\n\t"
			 "xorl %%r8d, %%r8d\n\t"
			 "syscall\n\t"
			 "testq %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xorl %%ebp, %%ebp\n\t"
			 "movq (%%rsp), %%rdi\n\t"
			 "call thread\n"
			 "1:"
			 : "=a"(result)
			 : "a"((long)__NR_clone), "D"(flags), "S"(top - 16)
			 : "rcx", "rdx", "r8", "r10", "r11", "memory");
	must(result, "clone");
}

__attribute__((noinline, used)) static void begin(long *stack)
{
	char **argv = (char **)(stack + 1);
	long threads = 1, in_thread = 0, leader_exits = 0, zeros = 0, odd_ones = 0, fill = 0, tail = 0;
	int at = 1;
	for (; argv[at] && argv[at][0] == '-'; at++) {
		const char *option = argv[at];
		if (same(option, "--wait")) {
			plan.wait = 1;
		} else if (same(option, "--in-thread")) {
			in_thread = 1;
		} else if (same(option, "--leader-exits")) {
			leader_exits = 1;
		} else if (same(option, "--odd")) {
			odd_ones = 1;
		} else if (same(option, "--zeros")) {
			zeros = 1;
		} else if (!argv[++at]) {
			fail("an option without its value, or an unknown one");
		} else if (same(option, "--threads")) {
			threads = number(argv[at]);
		} else if (same(option, "--fill")) {
			fill = number(argv[at]);
		} else if (same(option, "--tail")) {
			tail = number(argv[at]);
		} else if (same(option, "--comm")) {
			plan.comm = argv[at];
		} else if (same(option, "--unlink")) {
			must(call(__NR_unlink, argv[at], 0, 0), "unlink");
		} else if (same(option, "--rmdir")) {
			must(call(__NR_rmdir, argv[at], 0, 0), "rmdir");
		} else if (same(option, "--chdir")) {
			must(call(__NR_chdir, argv[at], 0, 0), "chdir");
		} else if (same(option, "--chroot")) {
			must(call(__NR_chroot, argv[at], 0, 0), "chroot");
		} else if (same(option, "--drop-to")) {
			long id = number(argv[at]);
			must(call(__NR_setgid, id, 0, 0), "setgid");
			must(call(__NR_setgroups, 0, 0, 0), "setgroups");
			must(call(__NR_setuid, id, 0, 0), "setuid");
		} else if (same(option, "--dumpable")) {
			must(call(__NR_prctl, PR_SET_DUMPABLE, number(argv[at]), 0), "PR_SET_DUMPABLE");
		} else {
			fail("unknown option");
		}
	}
	if (!argv[at])
		fail("how shall I die?");
	plan.death = argv[at];
	remember((int)zeros, (int)odd_ones, fill, tail);
	if (threads > 1) {
		char *stacks = (char *)map((threads - 1) * 2 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		for (long started = 1; started < threads; started++)
			start(stacks + started * 2 * PAGE,
			      in_thread && started == threads - 1 ? die : sleep_for_ever);
	}
	if (leader_exits)
		call(__NR_exit, 0, 0, 0);
	if (in_thread)
		sleep_for_ever();
	die();
}

__asm__(".globl _start\n"
	"_start:\n\t"
	"xorl %ebp, %ebp\n\t"
	"movq %rsp, %rdi\n\t"
	"andq $-16, %rsp\n\t"
	"call begin\n\t"
	"ud2\n");
