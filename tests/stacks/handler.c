/* A signal handler that gives up: the stack goes through the frame that the kernel made. */
#include <signal.h>
#include <stdlib.h>

static int *volatile nowhere;

static void give_up(int signal)
{
    (void)signal;
    abort();
}

__attribute__((noinline)) static void fault(void)
{
    *nowhere = 1;
    __asm__ volatile("");
}

int main(void)
{
    signal(SIGSEGV, give_up);
    fault();
    return 0;
}
