/*
 * A 32-bit program, freestanding, that is started by `template exec`: it fills 12 MiB, removes what
 * is random in it, waits for a byte and dies of SIGSEGV. Compiled with -m32, which needs no 32-bit
 * C library for this.
 */
#define AT_RANDOM 25
#define SIZE (12 << 20)

static unsigned memory[SIZE / sizeof(unsigned)];

static int call(int number, int a, int b, int c)
{
	int result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
	return result;
}

__attribute__((noreturn, used)) static void begin(unsigned *stack)
{
	unsigned *word = stack + 1 + stack[0] + 1;
	while (*word++)
		;
	for (; word[0]; word += 2)
		if (word[0] == AT_RANDOM)
			for (int at = 0; at < 16; at++)
				((volatile char *)word[1])[at] = 0;
	unsigned state = 2463534242u;
	for (unsigned at = 0; at < SIZE / sizeof(unsigned); at++) {
		if (at / 1024 % 3 == 2)
			continue;
		state ^= state << 13;
		state ^= state >> 17;
		state ^= state << 5;
		memory[at] = state;
	}
	static char go;
	call(3, 0, (int)&go, 1);
	*(volatile int *)0 = 1;
	__builtin_unreachable();
}

__asm__(".globl _start\n"
	"_start:\n\t"
	"xorl %ebp, %ebp\n\t"
	"movl %esp, %eax\n\t"
	"andl $-16, %esp\n\t"
	"subl $12, %esp\n\t"
	"pushl %eax\n\t"
	"call begin\n\t"
	"ud2\n");
